//! Clients that subscribe at the same moment to a channel that does not exist yet: one that may
//! create no more channels, and one that resumes. Only the first is refused.

use std::net::{IpAddr, Ipv4Addr};

use ccomet::{Claims, Config, Pattern, make_token};
use sealed::sim::{Peer, Random};
use serde_json::Value;

use crate::http::{Answer, Http};
use crate::world::Place;

/// The address of the client that has made all channels that it may make.
const GREEDY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200));

/// A position of an earlier life of the server.
const OLD: &str = "0000000000001-0000000002";

const LATECOMERS_MAX: usize = 8;
const STREAMS_MAX: usize = 100;

/// Sets the limit of channels of one client so low that a client soon reaches it, and all other
/// limits high enough. A member creates its room and the channel of its joins and leaves.
pub fn configure(config: &mut Config) {
    let limits = &mut config.limits;
    limits.channels_per_client_max = 2 * config.loops.map_or(1, std::num::NonZeroUsize::get);
    (limits.connections_max, limits.subscribers_max, limits.channels_max) = (1_000, 1_000, 100_000);
}

/// Those who come to new channels.
pub struct Crowd {
    config: Config,
    /// Streams of the client that may make no more.
    streams: Vec<Peer>,
    latecomers: Vec<Latecomer>,
    count: usize,
}

/// A client that resumes in a channel that it alone may make.
struct Latecomer {
    channel: String,
    id: String,
    http: Http,
    text: String,
    is_over: bool,
}

impl Crowd {
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone(), streams: Vec::new(), latecomers: Vec::new(), count: 0 }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random) {
        self.hear();
        for _ in 0..4 {
            let channel = format!("filled.{}", random.below(40));
            self.begin_stream(place, &channel, "");
        }
        for _ in 0..random.below(4) {
            self.come(place, random);
        }
    }

    /// All come to a new channel.
    fn come(&mut self, place: &Place, random: &mut Random) {
        self.count += 1;
        let channel = format!("fresh.{}", self.count);
        let before = random.below(4);
        for _ in 0..before {
            self.begin_stream(place, &channel, &format!("after={OLD}"));
        }
        let latecomer = Latecomer::new(channel.clone(), self.count, place, &self.config);
        self.latecomers.push(latecomer);
        for _ in before..3 {
            self.begin_stream(place, &channel, "");
        }
        if self.latecomers.len() > LATECOMERS_MAX {
            let mut gone = self.latecomers.remove(random.below(LATECOMERS_MAX));
            if random.chance(0.5) {
                gone.http.peer.vanish();
            }
        }
    }

    fn begin_stream(&mut self, place: &Place, channel: &str, start: &str) {
        let mut peer = place.sim.connect_from(GREEDY, place.front);
        peer.discard();
        peer.send(format!("GET /channels/{channel}?transport=sse&{start} HTTP/1.1\r\nHost: sim\r\n\r\n"));
        self.streams.push(peer);
        if self.streams.len() > STREAMS_MAX {
            self.streams.remove(0);
        }
    }

    pub fn hear(&mut self) {
        self.latecomers.iter_mut().for_each(Latecomer::hear);
    }

    pub fn calm_down(&mut self) {
        self.streams.clear();
        self.latecomers.iter_mut().for_each(|latecomer| latecomer.http.calm_down());
    }

    /// All is quiet: those that have come have begun to read, and are known to be there.
    pub fn check(&mut self, place: &Place) {
        self.hear();
        for latecomer in self.latecomers.iter().filter(|latecomer| !latecomer.is_over) {
            let Latecomer { channel, id, text, .. } = latecomer;
            assert!(text.contains("\"gap\""), "{id} begins to read {channel}: {text:?}");
            let mut http = place.visit_admin();
            http.get(&format!("/channels/{channel}/presence"), "");
            place.sim.settle();
            let Some(Answer::Whole { status: 200, body }) = http.next() else { panic!("a calm server answers") };
            let who: Value = serde_json::from_slice(&body).expect("JSON");
            let mut members = who["members"].as_array().expect("members").iter();
            assert!(members.any(|member| member["id"] == **id), "{id} is in {channel}: {who}");
        }
    }

    pub fn into_peers(self) -> impl Iterator<Item = Peer> {
        self.streams.into_iter().chain(self.latecomers.into_iter().map(|latecomer| latecomer.http.peer))
    }
}

impl Latecomer {
    fn new(channel: String, number: usize, place: &Place, config: &Config) -> Self {
        let (id, iat) = (format!("late{number}"), place.sim.unix_time().as_secs());
        // Whatever the clocks do, its time is not over.
        let claims = Claims {
            sub: Some(id.clone()),
            iat,
            exp: iat + 100_000_000,
            subscribe: vec![Pattern::new(&channel).expect("a pattern")],
            ..Claims::default()
        };
        let token = make_token(&config.auth, "main", None, &claims).expect("a token");
        let mut http = place.visit();
        http.get(&format!("/channels/{channel}?transport=lines&after={OLD}&token={token}"), "");
        Self { channel, id, http, text: String::new(), is_over: false }
    }

    fn hear(&mut self) {
        while let Some(answer) = self.http.next() {
            match answer {
                Answer::Stream => {}
                Answer::Data(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Answer::StreamEnd | Answer::Over | Answer::Whole { status: 503 | 507 | 408, .. } => self.is_over = true,
                Answer::Whole { status, body } => {
                    panic!("{}: {status} {}", self.id, String::from_utf8_lossy(&body));
                }
            }
        }
    }
}
