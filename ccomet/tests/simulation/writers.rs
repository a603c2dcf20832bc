//! Clients that publish, delete, and send invalid requests.

use std::time::Duration;

use sealed::sim::Random;
use serde_json::{Value, json};

use crate::http::{Answer, Http};
use crate::oracle::{Oracle, spots};
use crate::world::Place;

/// A publisher: it publishes one message after the other, each only once.
pub struct Publisher {
    number: usize,
    http: Option<Http>,
    sent: u64,
    pending: Option<Pending>,
    /// A keyed publication with unknown outcome. The publisher sends it again, to the same
    /// listener, because each listener has keys of its own.
    unsure: Option<Pending>,
    by_front: bool,
    bulk: usize,
    /// Repeats keyed publications that were refused for now.
    pub retries_refused: bool,
}

struct Pending {
    channel: String,
    payload: String,
    kind: Kind,
    upheaval: u32,
    since: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Post,
    ChunkedPost,
    Jsonp,
    Classic,
    /// With a key, and repeated until it is answered.
    Keyed,
}

impl Publisher {
    pub fn new(number: usize, random: &mut Random) -> Self {
        let bulk = [0, 50, 3_000][random.below(3)];
        Self { number, http: None, sent: 0, pending: None, unsure: None, by_front: true, bulk, retries_refused: false }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(oracle);
        match &mut self.http {
            None => {
                let by_front = random.chance(0.5);
                if self.unsure.is_none() {
                    self.by_front = by_front;
                }
                self.http = Some(if self.by_front { place.visit() } else { place.visit_admin() });
            }
            Some(http) if !http.waits() => {
                if random.chance(0.6) {
                    self.publish(place, random, oracle);
                }
            }
            // Some publishers hang up right after a request.
            Some(_) if random.chance(0.02) => self.lost(),
            Some(_) => {}
        }
    }

    fn publish(&mut self, place: &Place, random: &mut Random, oracle: &Oracle) {
        let Some(http) = &mut self.http else { return };
        // If the request reaches the next server, which does not know the keys of the previous one,
        // it is another message.
        if self.unsure.is_some() && !http.peer.is_connected() {
            return;
        }
        let channel = random.pick(&place.channels).expect("a channel").clone();
        self.sent += 1;
        let filler = "z".repeat(random.below(self.bulk + 1));
        let payload = format!("{channel}-{}-{}-{filler}", self.number, self.sent);
        let kinds = [Kind::Post, Kind::Post, Kind::ChunkedPost, Kind::Jsonp, Kind::Classic, Kind::Keyed];
        let kind = *random.pick(&kinds).expect("one");
        let kind = if kind == Kind::Keyed && !place.lasting { Kind::Post } else { kind };
        let fresh =
            Pending { upheaval: oracle.upheaval(&channel), since: place.sim.unix_time(), channel, payload, kind };
        // A publication without an answer may have been kept: only a key prevents a second copy. A
        // key is known for five minutes.
        let again = self.unsure.take().filter(|unsure| {
            unsure.upheaval == oracle.upheaval(&unsure.channel)
                && place.sim.unix_time().saturating_sub(unsure.since) < Duration::from_secs(200)
        });
        let pending = again.unwrap_or(fresh);
        let Pending { channel, payload, kind, .. } = &pending;
        match kind {
            Kind::Post => {
                let request = http.cuts.post(&format!("/channels/{channel}"), "", payload);
                http.ask(request);
            }
            Kind::Keyed => {
                let key = format!("Idempotency-Key: {}\r\n", &payload[..payload.len().min(40)]);
                let request = http.cuts.post(&format!("/channels/{channel}"), &key, payload);
                http.ask(request);
            }
            Kind::ChunkedPost => {
                let chunks = http.cuts.chunks(payload);
                http.ask(format!(
                    "POST /channels/{channel} HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
                ));
            }
            Kind::Jsonp => http.get(&format!("/channels/{channel}?publish={payload}&callback=cb"), ""),
            // The private listener has no classic calls.
            Kind::Classic => {
                http.get(&format!("/publish?channel={channel}&sname=p{}&msg={payload}&callback=cb", self.number), "");
            }
        }
        self.pending = Some(pending);
    }

    /// Handles the loss of the connection: the outcome of a pending publication is unknown.
    fn lost(&mut self) {
        self.http = None;
        self.unsure = self.pending.take().filter(|pending| pending.kind == Kind::Keyed);
    }

    pub fn hear(&mut self, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over => self.lost(),
                Answer::Whole { status, body } => {
                    let text = String::from_utf8_lossy(&body).into_owned();
                    if matches!(status, 503 | 507) && self.retries_refused {
                        // It may be kept, and so it is repeated if it has a key.
                        self.unsure = self.pending.take().filter(|pending| pending.kind == Kind::Keyed);
                        continue;
                    }
                    let Some(Pending { channel, payload, kind, upheaval, .. }) = self.pending.take() else {
                        assert_eq!(status, 408, "{text}");
                        continue;
                    };
                    match (status, kind) {
                        (200, Kind::Classic) if text.contains("publish") => {
                            oracle.accepted_somewhere(&channel, upheaval, &payload);
                        }
                        (200, Kind::Classic | Kind::Jsonp)
                            if (text.contains("\"status\":503") || text.contains("\"status\":507")) => {}
                        (200, Kind::Post | Kind::ChunkedPost | Kind::Jsonp | Kind::Keyed) => {
                            let json = text.trim_start_matches("/**/cb(").trim_end().trim_end_matches(");");
                            let reply: Value =
                                serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {text}"));
                            let spot = spots(reply["position"].as_str().expect("a position"))[0];
                            oracle.accepted(&channel, spot, &payload);
                            oracle.accepted_somewhere(&channel, upheaval, &payload);
                        }
                        (404, Kind::Classic) | (503 | 507 | 408, _) => {}
                        _ => panic!("{kind:?} is answered {status} {text}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn into_peer(self) -> Option<sealed::sim::Peer> {
        self.http.map(|http| http.peer)
    }
}

/// An administrator that deletes a channel now and then.
#[derive(Default)]
pub struct Admin {
    http: Option<Http>,
    pending: Option<String>,
}

impl Admin {
    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(oracle);
        match &mut self.http {
            None => self.http = Some(place.visit_admin()),
            Some(http) if !http.waits() && random.chance(place.deletes) => {
                let channel = random.pick(&place.channels).expect("a channel");
                http.ask(format!("DELETE /channels/{channel} HTTP/1.1\r\nHost: sim\r\n\r\n"));
                oracle.upheaval_of(channel);
                self.pending = Some(channel.clone());
            }
            Some(_) => {}
        }
    }

    pub fn hear(&mut self, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            if let Some(channel) = self.pending.take() {
                oracle.upheaval_of(&channel);
            }
            match answer {
                Answer::Over => self.http = None,
                Answer::Whole { status, .. } => assert!(matches!(status, 204 | 404 | 408 | 503 | 507), "{status}"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Returns whether a channel may disappear at any moment.
    pub fn is_deleting(&self) -> bool {
        self.pending.is_some()
    }

    pub fn into_peer(self) -> Option<sealed::sim::Peer> {
        self.http.map(|http| http.peer)
    }
}

/// A client that sends invalid or incomplete requests.
#[derive(Default)]
pub struct Nuisance {
    http: Option<Http>,
}

impl Nuisance {
    pub fn act(&mut self, place: &Place, random: &mut Random) {
        match &mut self.http {
            None => {
                if random.chance(0.2) {
                    self.http = Some(place.visit());
                }
            }
            Some(http) if !http.waits() => {
                let channel = random.pick(&place.channels).expect("a channel");
                let requests = [
                    "GET / HTTP/9.9\r\n\r\n".to_owned(),
                    "\0\u{1}\u{2}".to_owned(),
                    format!("GET /channels/{channel}?after=nonsense HTTP/1.1\r\nHost: sim\r\n\r\n"),
                    format!("GET /channels/{channel}?after=0000000000001-0000000009 HTTP/1.1\r\nHost: sim\r\n\r\n"),
                    format!("POST /channels/{channel} HTTP/1.1\r\nHost: sim\r\nContent-Length: 50\r\n\r\nhalf"),
                    format!("GET /channels/{channel},{channel} HTTP/1.1\r\nHost: sim\r\n\r\n"),
                    format!("HEAD /channels/{channel} HTTP/1.1\r\nHost: sim\r\n\r\n"),
                    "GET /chat.html HTTP/1.1\r\nHost: sim\r\n\r\n".to_owned(),
                    format!("OPTIONS /channels/{channel} HTTP/1.1\r\nHost: sim\r\nOrigin: null\r\n\r\n"),
                ];
                let request = random.pick(&requests).expect("one");
                // The reply to a HEAD request looks as if it had a body.
                let closes = request.starts_with("HEAD");
                http.ask(request);
                if closes {
                    http.peer.finish();
                    self.http = None;
                }
            }
            Some(http) => {
                while let Some(answer) = http.next() {
                    if matches!(answer, Answer::Over) {
                        self.http = None;
                        return;
                    }
                }
                if random.chance(0.05) {
                    self.http = None;
                }
            }
        }
    }

    pub fn into_peer(self) -> Option<sealed::sim::Peer> {
        self.http.map(|http| http.peer)
    }
}

/// A client that publishes through the admin listener, in channels that not all clients may read.
pub struct Insider {
    channels: Vec<&'static str>,
    http: Option<Http>,
    pending: Option<(&'static str, String)>,
    sent: u64,
}

impl Insider {
    pub fn new(channels: Vec<&'static str>) -> Self {
        Self { channels, http: None, pending: None, sent: 0 }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(oracle);
        let Some(channel) = random.pick(&self.channels).copied() else { return };
        let http = self.http.get_or_insert_with(|| place.visit_admin());
        if self.pending.is_none() && !http.waits() && random.chance(0.5) {
            self.sent += 1;
            let payload = format!("{channel}-inside-{}", self.sent);
            let request = http.cuts.post(&format!("/channels/{channel}"), "", &payload);
            http.ask(request);
            self.pending = Some((channel, payload));
        }
    }

    pub fn hear(&mut self, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            let pending = self.pending.take();
            match (answer, pending) {
                (Answer::Over, _) => self.http = None,
                (Answer::Whole { status: 200, body }, Some((channel, payload))) => {
                    let reply: Value = serde_json::from_slice(&body).expect("JSON");
                    oracle.accepted(channel, spots(reply["position"].as_str().expect("a position"))[0], &payload);
                }
                (Answer::Whole { status, .. }, _) => assert!(matches!(status, 408 | 503 | 507), "{status}"),
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    pub fn into_peer(self) -> Option<sealed::sim::Peer> {
        self.http.map(|http| http.peer)
    }
}

/// A client that publishes in many channels at a time: first in each by its name, then in all
/// existing channels.
#[derive(Default)]
pub struct Broadcaster {
    http: Option<Http>,
    made: usize,
    sent: u64,
}

impl Broadcaster {
    const CHANNELS: usize = 400;

    pub fn act(&mut self, place: &Place, random: &mut Random) {
        self.hear();
        let http = self.http.get_or_insert_with(|| place.visit_admin());
        if http.waits() || !random.chance(0.2) || self.sent >= 60 {
            return;
        }
        let count = if self.made < Self::CHANNELS { 50 } else { 20 };
        let mut message = |number: usize| {
            if self.made < Self::CHANNELS {
                return json!({"channel": format!("wide.{}", self.made + number), "data": "*-begin"});
            }
            self.sent += 1;
            json!({"channel": "*", "data": format!("*-{}", self.sent)})
        };
        let body = json!({"messages": (0..count).map(&mut message).collect::<Vec<_>>()}).to_string();
        self.made += count;
        let request = http.cuts.post("/messages", "", &body);
        http.ask(request);
    }

    pub fn hear(&mut self) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over => self.http = None,
                Answer::Whole { status, body } => {
                    let text = String::from_utf8_lossy(&body);
                    assert!(matches!(status, 200 | 408 | 503 | 507), "{status} {text}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn into_peer(self) -> Option<sealed::sim::Peer> {
        self.http.map(|http| http.peer)
    }
}
