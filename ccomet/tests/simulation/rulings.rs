//! Channels with limits of their own, by rules; and clients that try to exceed them, by name and by
//! pattern.

use std::time::Duration;

use ccomet::{Config, Pattern, Rule};
use sealed::sim::{Peer, Random};
use serde_json::{Value, json};
use testing::http::{EventQueue, UPGRADE};

use crate::frames::{Frame, Frames};
use crate::http::{Answer, Http};
use crate::oracle::{Oracle, spots};
use crate::world::Place;

/// A channel with short messages.
const SMALL: &str = "ruled.small";
/// A channel whose messages are kept for a short time.
const BRIEF: &str = "ruled.brief";
/// A channel with few readers.
pub const FEW: &str = "ruled.few";
/// The names and patterns to which a limit on readers applies.
pub const LIMITED: [&str; 3] = [FEW, "ruled.f*", "ruled.*"];
/// A channel without a rule.
const PLAIN: &str = "ruled.plain";

const CHANNELS: [&str; 4] = [SMALL, BRIEF, FEW, PLAIN];

/// Patterns that a reader may subscribe to.
const PATTERNS: [&str; 3] = ["ruled.*", "ruled.b*", "*"];

/// The additional time until an expired message is dropped: the server sweeps channels each second,
/// and loops stall.
const ALLOWANCE: Duration = Duration::from_secs(5);

/// The limits of a world.
#[derive(Debug, Clone)]
pub struct Ruling {
    bytes_max: usize,
    age_max: Duration,
    pub readers_max: usize,
    /// Clients without a token may use patterns.
    has_patterns: bool,
}

impl Ruling {
    /// Draws the limits, and sets the configuration for them.
    pub fn draw(config: &mut Config, random: &mut Random) -> Self {
        let has_patterns = config.rules.is_empty();
        let bytes_max = *random.pick(&[40, 300]).expect("one");
        let age_max_s = *random.pick(&[1, 4]).expect("one");
        let readers_max = *random.pick(&[1, 2]).expect("one");
        let mut rule = |name: &str| {
            let wide = format!("{name}*");
            let channels = Pattern::new(if random.chance(0.5) { name } else { &wide }).expect("a pattern");
            let messages_max = random.pick(&[None, None, Some(5)]).copied().flatten();
            Rule { messages_max, ..Rule::new(channels) }
        };
        let mut rules = vec![
            Rule { message_bytes_max: Some(bytes_max), ..rule(SMALL) },
            Rule { age_max_s: Some(age_max_s), ..rule(BRIEF) },
            Rule { subscribers_max: Some(readers_max), ..rule(FEW) },
        ];
        // The first of several matching rules applies.
        let last = Rule { message_bytes_max: Some(1), ..rule(SMALL) };
        random.shuffle(&mut rules);
        rules.push(last);
        config.rules.extend(rules);
        Self { bytes_max, age_max: Duration::from_secs(age_max_s), readers_max, has_patterns }
    }

    pub fn rebels(&self, random: &mut Random) -> Vec<Rebel> {
        (0..2 + random.below(5)).map(|number| Rebel::new(number, self)).collect()
    }

    /// Passes the longest message of each channel to the oracle.
    pub fn tell(&self, oracle: &mut Oracle) {
        oracle.limit_messages(SMALL, self.bytes_max);
    }
}

/// How a message is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Post,
    /// With others, in one request.
    Many,
    /// To all channels of a pattern.
    Pattern,
    Jsonp,
    Classic,
    /// By icomet's API, on the admin listener.
    Push,
    OnSocket,
    /// As bytes, on a WebSocket that reads the channel.
    Bytes,
}

#[derive(Debug, Clone)]
enum Doing {
    Publish {
        how: How,
        channel: &'static str,
        payload: String,
    },
    /// Since this time.
    Poll(Duration),
    Stream(String),
    Socket,
}

/// A client that tries what a rule does not allow, and its state.
pub struct Rebel {
    label: String,
    ruling: Ruling,
    http: Option<Http>,
    /// The connection is to the admin listener.
    is_inside: bool,
    doing: Option<Doing>,
    /// The channel that its WebSocket reads.
    socket: Option<&'static str>,
    is_heard: bool,
    /// The channel that its stream reads, once the stream is open.
    stream: Option<String>,
    events: EventQueue,
    frames: Frames,
    sent: u64,
}

impl Rebel {
    fn new(number: usize, ruling: &Ruling) -> Self {
        Self {
            label: format!("rebel{number}"),
            ruling: ruling.clone(),
            http: None,
            is_inside: false,
            doing: None,
            socket: None,
            is_heard: false,
            stream: None,
            events: EventQueue::default(),
            frames: Frames::default(),
            sent: 0,
        }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(place, oracle);
        let Some(http) = &mut self.http else {
            if random.chance(0.5) {
                self.is_inside = random.chance(0.2);
                self.http = Some(if self.is_inside { place.visit_admin() } else { place.visit() });
            }
            return;
        };
        if random.chance(0.03) {
            if random.chance(0.5) {
                http.peer.vanish();
            }
            self.lost();
        } else if self.doing.is_none() && self.socket.is_some() {
            let how = if random.chance(0.5) { How::OnSocket } else { How::Bytes };
            self.publish(how, random);
        } else if self.doing.is_none() && self.stream.is_none() && !http.waits() && random.chance(0.7) {
            self.ask(place, random);
        }
    }

    fn ask(&mut self, place: &Place, random: &mut Random) {
        use How::{Classic, Jsonp, Many, Pattern, Post, Push};
        if self.is_inside {
            let how = *random.pick(&[Post, Many, Push, Push]).expect("one");
            return self.publish(how, random);
        }
        let target = match random.below(3) {
            0 if self.ruling.has_patterns => *random.pick(&PATTERNS).expect("one"),
            _ => *random.pick(&CHANNELS).expect("one"),
        };
        let Some(http) = &mut self.http else { return };
        match random.below(10) {
            0..=2 => {
                let wait = random.below(2);
                http.get(&format!("/channels/{target}?after=oldest&wait={wait}"), "");
                self.doing = Some(Doing::Poll(place.sim.unix_time()));
            }
            3 | 4 => {
                let few = *random.pick(&LIMITED).expect("one");
                let target = if self.ruling.has_patterns { few } else { FEW };
                http.get(&format!("/channels/{target}"), "Accept: text/event-stream\r\n");
                self.doing = Some(Doing::Stream(target.to_owned()));
            }
            5 => {
                let channel = *random.pick(&CHANNELS).expect("one");
                http.get(&format!("/channels/{channel}"), UPGRADE);
                (self.doing, self.socket) = (Some(Doing::Socket), Some(channel));
            }
            _ => {
                let how = *random.pick(&[Post, Post, Many, Pattern, Jsonp, Classic]).expect("one");
                self.publish(how, random);
            }
        }
    }

    fn publish(&mut self, how: How, random: &mut Random) {
        let Some(http) = &mut self.http else { return };
        let channel = match how {
            How::Bytes => self.socket.expect("a WebSocket"),
            _ => *random.pick(&[SMALL, SMALL, BRIEF, FEW, PLAIN]).expect("one"),
        };
        self.sent += 1;
        let begins = if how == How::Pattern { "*" } else { channel };
        let mut payload = format!("{begins}-{}-{}-", self.label, self.sent);
        let limit = self.ruling.bytes_max;
        let length = *random.pick(&[limit - 1, limit, limit + 1, 2 * limit]).expect("one");
        payload.push_str(&"z".repeat(length.saturating_sub(payload.len())));
        let fields = json!({"type": "publish", "channel": channel, "data": payload});
        match how {
            How::Post => {
                let request = http.cuts.post(&format!("/channels/{channel}"), "", &payload);
                http.ask(request);
            }
            How::Many => {
                let message = json!({"channel": channel, "data": payload});
                let other = json!({"channel": PLAIN, "data": format!("{PLAIN}-{payload}")});
                let request = http.cuts.post("/messages", "", &json!({"messages": [other, message]}).to_string());
                http.ask(request);
            }
            How::Pattern => {
                let message = json!({"channel": "ruled.*", "data": payload});
                let request = http.cuts.post("/messages", "", &json!({"messages": [message]}).to_string());
                http.ask(request);
            }
            How::Jsonp => http.get(&format!("/channels/{channel}?publish={payload}&callback=cb"), ""),
            How::Classic => {
                http.get(&format!("/publish?channel={channel}&sname=x&msg={payload}&callback=cb"), "");
            }
            How::Push => http.get(&format!("/push?cname={channel}&content={payload}"), ""),
            How::OnSocket => http.say(&fields.to_string()),
            How::Bytes => http.send(testing::http::frame(0x82, &payload)),
        }
        self.doing = Some(Doing::Publish { how, channel, payload });
    }

    fn lost(&mut self) {
        (self.http, self.doing, self.socket, self.stream) = (None, None, None, None);
        self.is_heard = false;
        self.frames.clear();
        self.events = EventQueue::default();
    }

    pub fn hear(&mut self, place: &Place, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over | Answer::StreamEnd => self.lost(),
                Answer::Stream => {
                    if let Some(Doing::Stream(target)) = self.doing.take() {
                        self.stream = Some(target);
                    }
                }
                Answer::Data(bytes) if self.socket.is_some() => {
                    self.frames.push(&bytes);
                    while let Some(frame) = self.frames.next(&mut self.http) {
                        self.frame(frame, oracle);
                    }
                }
                Answer::Data(bytes) => {
                    self.events.push(&bytes);
                    while let Some(event) = self.events.pop() {
                        if matches!(event.event.as_str(), "bye" | "close") {
                            self.stream = None;
                        }
                        let item = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                        saw(&item, oracle);
                    }
                }
                Answer::Whole { status, body } => self.whole(status, &body, place, oracle),
            }
        }
    }

    fn whole(&mut self, status: u16, body: &[u8], place: &Place, oracle: &mut Oracle) {
        let text = String::from_utf8_lossy(body);
        self.socket = None;
        match self.doing.take() {
            None => assert_eq!(status, 408, "{}: {text}", self.label),
            Some(Doing::Publish { how, channel, payload }) => {
                self.published(how, channel, &payload, status, &text);
                if status == 200 && how == How::Post {
                    let reply: Value = serde_json::from_slice(body).expect("JSON");
                    oracle.accepted(channel, spots(reply["position"].as_str().expect("a position"))[0], &payload);
                }
            }
            Some(Doing::Poll(since)) if status == 200 => {
                let reply: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {text}"));
                for item in reply["items"].as_array().expect("items") {
                    saw(item, oracle);
                    self.check_age(item, since, place);
                }
            }
            Some(doing) => assert!(matches!(status, 503 | 507 | 408), "{}: {doing:?}: {status} {text}", self.label),
        }
    }

    /// Asserts that a message had not expired at the time of the request.
    fn check_age(&self, item: &Value, since: Duration, place: &Place) {
        if item["type"] == "message" && item["channel"] == BRIEF {
            let time = Duration::from_millis(item["time"].as_u64().expect("a time"));
            let age = since.saturating_sub(time);
            let most = self.ruling.age_max + ALLOWANCE + place.lateness;
            assert!(age <= most, "{}: it was {age:?} old: {item}", self.label);
        }
    }

    /// Checks the answer to a publication: the server accepts no message that is too long by the
    /// rule, and refuses no other as too long.
    fn published(&self, how: How, channel: &str, payload: &str, status: u16, text: &str) {
        let is_long = channel == SMALL && payload.len() > self.ruling.bytes_max && how != How::Pattern;
        let refused = matches!(status, 413) || text.contains("message_too_large");
        let accepted = match how {
            How::Classic => status == 200 && text.contains("publish"),
            How::Jsonp => status == 200 && text.contains("position"),
            _ => status == 200,
        };
        assert!(!(accepted && is_long), "{}: {how:?} in {channel} is too long: {text}", self.label);
        assert!(!refused || is_long, "{}: {how:?} in {channel} is not too long: {payload}: {text}", self.label);
        let is_known = accepted
            || refused
            || matches!(status, 503 | 507 | 408)
            || (status, how) == (429, How::Push)
            || (text.contains("\"status\":503") || text.contains("\"status\":507"));
        assert!(is_known, "{}: {how:?} is answered {status} {text}", self.label);
    }

    fn frame(&mut self, frame: Frame, oracle: &mut Oracle) {
        match frame {
            Frame::Reply(reply) => {
                for item in reply["items"].as_array().expect("items") {
                    saw(item, oracle);
                    self.item(item);
                }
            }
            Frame::Close => {}
        }
    }

    fn item(&mut self, item: &Value) {
        let (status, text) = match item["type"].as_str() {
            Some("hello") => return self.is_heard = true,
            Some("published") => (200, String::new()),
            Some("error") => (item["status"].as_u64().expect("a status") as u16, item.to_string()),
            _ => return,
        };
        match self.doing.take() {
            Some(Doing::Publish { how, channel, payload }) => self.published(how, channel, &payload, status, &text),
            // There is no room for the subscription.
            _ => assert!(matches!(status, 503 | 507), "{}: {item}", self.label),
        }
    }

    /// Returns the channel that it reads without an end.
    pub fn reads(&self) -> Option<&str> {
        self.stream.as_deref().or(self.socket.filter(|_| self.is_heard))
    }

    pub fn into_peer(self) -> Option<Peer> {
        self.http.map(|http| http.peer)
    }
}

fn saw(item: &Value, oracle: &mut Oracle) {
    if item["type"] == "message" {
        let spot = spots(item["position"].as_str().expect("a position"))[0];
        oracle.saw(item["channel"].as_str().expect("a channel"), spot, item["data"].as_str().expect("text"));
    }
}
