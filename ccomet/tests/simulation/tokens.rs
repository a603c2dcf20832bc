//! Clients that need tokens: some have the right one, some a wrong one, some one that expires soon
//! and is renewed.

use std::time::Duration;

use ccomet::{Claims, Config, Pattern, Rule, Who, make_token};
use sealed::sim::{Peer, Random};
use serde_json::{Value, json};
use testing::http::{EventQueue, UPGRADE};

use crate::frames::{Frame, Frames};
use crate::http::{Answer, Http};
use crate::oracle::{Cursor, Oracle, spots};
use crate::world::Place;

/// Channels that each require a token of their own.
pub const CLOSED: [&str; 2] = ["vip.a", "vip.b"];

/// A channel that is closed to all clients of the front.
pub const INNER: &str = "inner";

/// How long after its token's expiry a stream may get messages, with clocks that jump and loops
/// that stall.
const LATENESS: Duration = Duration::from_secs(25);

/// Sets the configuration for tokens.
pub fn configure(config: &mut Config, random: &mut Random) {
    let rule = |channels: &str, who: Who| Rule {
        subscribe: who,
        publish: who,
        ..Rule::new(Pattern::new(channels).expect("a pattern"))
    };
    let mut closed = rule("vip.*", Who::Token);
    closed.messages_max = *random.pick(&[None, Some(3)]).expect("one");
    config.rules = vec![closed, rule(INNER, Who::Admin)];
    config.auth.warning_s = *random.pick(&[30, 1]).expect("one");
}

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quality {
    Right,
    /// It opens the other channel.
    Other,
    Expired,
    Forged,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Stream,
    Poll,
    Socket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Read(Quality),
    Publish(Quality),
    Inner,
    /// A publication on its WebSocket.
    Say {
        elsewhere: bool,
    },
    Renew(Quality),
}

/// A client that needs a token.
pub struct Holder {
    label: String,
    /// The index of its channel.
    mine: usize,
    way: Way,
    http: Option<Http>,
    pending: Option<(Asked, String)>,
    /// The time when its token expires, by the calendar.
    expires: Duration,
    /// The time when the token expires that it has shown last.
    shown: Duration,
    /// The time when it sent a message last.
    sent_at: Duration,
    is_open: bool,
    events: EventQueue,
    frames: Frames,
    cursor: Cursor,
    position: Option<String>,
    sent: u64,
    ended: bool,
}

impl Holder {
    pub fn new(number: usize, random: &mut Random) -> Self {
        let way = *random.pick(&[Way::Stream, Way::Poll, Way::Socket, Way::Socket]).expect("one");
        Self {
            label: format!("holder{number}-{way:?}"),
            mine: random.below(CLOSED.len()),
            way,
            http: None,
            pending: None,
            expires: Duration::ZERO,
            shown: Duration::ZERO,
            sent_at: Duration::ZERO,
            is_open: false,
            events: EventQueue::default(),
            frames: Frames::default(),
            cursor: Cursor::default(),
            position: None,
            sent: 0,
            ended: false,
        }
    }

    pub fn act(&mut self, place: &Place, config: &Config, random: &mut Random, oracle: &mut Oracle) {
        self.hear(place, oracle);
        let Some(http) = &mut self.http else {
            if random.chance(0.5) {
                self.http = Some(place.visit());
                self.ask(place, config, random, oracle);
            }
            return;
        };
        if random.chance(0.02) {
            if random.chance(0.5) {
                http.peer.vanish();
            }
            self.lost();
        } else if self.pending.is_some() {
        } else if self.is_open {
            if self.way == Way::Socket && random.chance(0.3) {
                self.say(place, config, random, oracle);
            }
        } else if !http.waits() {
            self.ask(place, config, random, oracle);
        }
    }

    /// Returns a token of that kind for its channel, and the time when the token expires.
    fn token(&self, quality: Quality, place: &Place, config: &Config, random: &mut Random) -> (String, Duration) {
        let now = place.sim.unix_time();
        let seconds = now.as_secs();
        let exp = if quality == Quality::Expired { seconds - 1 } else { seconds + 1 + random.below(30) as u64 };
        let index = if quality == Quality::Other { 1 - self.mine } else { self.mine };
        let scope = vec![Pattern::new(CLOSED[index]).expect("a pattern")];
        let claims = Claims { iat: seconds, exp, subscribe: scope.clone(), publish: scope, ..Claims::default() };
        let mut token = make_token(&config.auth, "main", None, &claims).expect("a token");
        match quality {
            Quality::Forged => {
                let last = token.len() - 5;
                let letter = if token.as_bytes()[last] == b'A' { "B" } else { "A" };
                token.replace_range(last..=last, letter);
            }
            Quality::None => token.clear(),
            _ => {}
        }
        (token, Duration::from_secs(exp))
    }

    fn payload(&mut self, channel: &str, is_right: bool, oracle: &mut Oracle) -> String {
        self.sent += 1;
        let payload = format!("{channel}-{}-{}", self.label, self.sent);
        if !is_right {
            oracle.forbid(&payload);
        }
        payload
    }

    fn ask(&mut self, place: &Place, config: &Config, random: &mut Random, oracle: &mut Oracle) {
        let quality = match random.below(10) {
            0 => Quality::Other,
            1 => Quality::Expired,
            2 => Quality::Forged,
            3 => Quality::None,
            _ => Quality::Right,
        };
        let (token, exp) = self.token(quality, place, config, random);
        self.shown = exp;
        let field = match token.as_str() {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let channel = CLOSED[self.mine];
        let asked = match random.below(5) {
            0 => Asked::Publish(quality),
            1 if random.chance(0.3) => Asked::Inner,
            _ => Asked::Read(quality),
        };
        let after = self.position.as_deref().unwrap_or("oldest").to_owned();
        let mut payload = String::new();
        let request = match asked {
            Asked::Publish(_) => {
                payload = self.payload(channel, quality == Quality::Right, oracle);
                let Some(http) = &mut self.http else { return };
                http.cuts.post(&format!("/channels/{channel}"), &field, &payload)
            }
            Asked::Inner => format!("GET /channels/{INNER}?after=oldest&wait=0 HTTP/1.1\r\nHost: sim\r\n{field}\r\n"),
            _ => {
                let (wait, more) = match self.way {
                    Way::Stream => ("", "Accept: text/event-stream\r\n"),
                    Way::Poll => ("&wait=5", ""),
                    Way::Socket => ("", UPGRADE),
                };
                format!("GET /channels/{channel}?after={after}{wait} HTTP/1.1\r\nHost: sim\r\n{field}{more}\r\n")
            }
        };
        self.pending = Some((asked, payload));
        if let Some(http) = &mut self.http {
            http.ask(request);
        }
    }

    /// Sends a message or another token on its WebSocket.
    fn say(&mut self, place: &Place, config: &Config, random: &mut Random, oracle: &mut Oracle) {
        let (asked, message) = if random.chance(0.5) {
            let elsewhere = random.chance(0.2);
            let channel = CLOSED[if elsewhere { 1 - self.mine } else { self.mine }];
            let payload = self.payload(channel, !elsewhere, oracle);
            let message = json!({"type": "publish", "channel": channel, "data": payload});
            ((Asked::Say { elsewhere }, payload), message)
        } else {
            let quality = match random.below(8) {
                0 => Quality::Other,
                1 => Quality::Expired,
                2 => Quality::Forged,
                _ => Quality::Right,
            };
            let (token, exp) = self.token(quality, place, config, random);
            self.shown = exp;
            ((Asked::Renew(quality), String::new()), json!({"type": "token", "token": token}))
        };
        self.pending = Some(asked);
        self.sent_at = place.sim.unix_time();
        if let Some(http) = &mut self.http {
            http.say(&message.to_string());
        }
    }

    fn lost(&mut self) {
        (self.http, self.pending, self.is_open, self.ended) = (None, None, false, false);
        self.frames.clear();
        self.events = EventQueue::default();
        self.cursor = Cursor(self.position.as_deref().map(|position| spots(position)[0]));
    }

    pub fn hear(&mut self, place: &Place, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over => self.lost(),
                Answer::Stream => {
                    let asked = self.pending.take();
                    self.is_granted(asked.map(|(asked, _)| asked));
                    (self.is_open, self.expires) = (true, self.shown);
                }
                Answer::Data(bytes) if self.way == Way::Socket => {
                    self.frames.push(&bytes);
                    while let Some(frame) = self.frames.next(&mut self.http) {
                        self.frame(frame, place, oracle);
                    }
                }
                Answer::Data(bytes) => self.events(&bytes, oracle),
                Answer::StreamEnd => {
                    assert!(self.ended, "{}: a stream says why it ends", self.label);
                    self.lost();
                }
                Answer::Whole { status, body } => self.whole(status, &body, place, oracle),
            }
        }
    }

    /// Asserts that a request that succeeded was allowed.
    fn is_granted(&self, asked: Option<Asked>) {
        let is_right = match asked {
            Some(Asked::Read(quality) | Asked::Publish(quality) | Asked::Renew(quality)) => quality == Quality::Right,
            Some(Asked::Say { elsewhere }) => !elsewhere && self.sent_at < self.expires + LATENESS,
            Some(Asked::Inner) | None => false,
        };
        assert!(is_right, "{}: its token does not allow {asked:?}", self.label);
    }

    /// Asserts that the status of a refusal is right for the request.
    fn is_refused(&self, asked: Asked, status: u64, place: &Place) {
        // The token may have expired when the request arrived.
        let now = place.sim.unix_time();
        let is_late = now >= self.shown.min(self.expires) || now >= self.shown;
        let expected = match asked {
            Asked::Inner => status == 403 || status == 401,
            Asked::Read(Quality::Other) | Asked::Publish(Quality::Other) | Asked::Renew(Quality::Other) => {
                status == 403 || status == 401 && is_late
            }
            Asked::Say { elsewhere } => elsewhere && status == 403 || status == 401 && is_late,
            Asked::Read(Quality::Right) | Asked::Publish(Quality::Right) | Asked::Renew(Quality::Right) => {
                status == 401 && is_late
            }
            // Without a token, the rule refuses.
            Asked::Read(Quality::None) | Asked::Publish(Quality::None) => status == 403,
            Asked::Read(_) | Asked::Publish(_) | Asked::Renew(_) => status == 401,
        };
        assert!(expected || matches!(status, 503 | 507 | 408), "{}: {asked:?} is answered {status}", self.label);
    }

    fn whole(&mut self, status: u16, body: &[u8], place: &Place, oracle: &mut Oracle) {
        let text = String::from_utf8_lossy(body);
        let Some((asked, payload)) = self.pending.take() else { return assert_eq!(status, 408, "{text}") };
        if status != 200 {
            return self.is_refused(asked, status.into(), place);
        }
        self.is_granted(Some(asked));
        let reply: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {text}"));
        let position = reply["position"].as_str().expect("a position");
        if let Asked::Publish(_) = asked {
            return oracle.accepted(CLOSED[self.mine], spots(position)[0], &payload);
        }
        for item in reply["items"].as_array().expect("items") {
            self.item(item, oracle);
        }
        self.note_position(position);
    }

    fn note_position(&mut self, position: &str) {
        if !position.is_empty() {
            self.cursor.check(&self.label, spots(position)[0]);
            self.position = Some(position.to_owned());
        }
    }

    fn events(&mut self, bytes: &[u8], oracle: &mut Oracle) {
        self.events.push(bytes);
        while let Some(event) = self.events.pop() {
            let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
            match event.event.as_str() {
                "bye" | "close" => self.ended = true,
                "heartbeat" | "hello" | "token" => {}
                _ => self.item(&data, oracle),
            }
            self.note_position(&event.last_event_id);
        }
    }

    fn frame(&mut self, frame: Frame, place: &Place, oracle: &mut Oracle) {
        match frame {
            Frame::Reply(reply) => {
                for item in reply["items"].as_array().expect("items") {
                    match item["type"].as_str() {
                        Some("published") => {
                            let (asked, payload) = self.pending.take().expect("something was said");
                            self.is_granted(Some(asked));
                            let spot = spots(item["position"].as_str().expect("a position"))[0];
                            oracle.accepted(item["channel"].as_str().expect("a channel"), spot, &payload);
                        }
                        Some("renewed") => {
                            let asked = self.pending.take().map(|(asked, _)| asked);
                            self.is_granted(asked);
                            self.expires = self.shown;
                        }
                        Some("error") => {
                            let status = item["status"].as_u64().expect("a status");
                            match self.pending.take() {
                                Some((asked, _)) => self.is_refused(asked, status, place),
                                // There is no room for the subscription.
                                None => assert!(matches!(status, 503 | 507), "{}: {item}", self.label),
                            }
                        }
                        Some("hello" | "bye" | "close" | "token") => {}
                        _ => self.item(item, oracle),
                    }
                }
                if let Some(position) = reply["position"].as_str() {
                    self.note_position(position);
                }
            }
            Frame::Close => self.is_open = false,
        }
    }

    fn item(&mut self, item: &Value, oracle: &mut Oracle) {
        let channel = item["channel"].as_str().unwrap_or_else(|| panic!("{}: {item}", self.label));
        assert_eq!(channel, CLOSED[self.mine], "{}: its token does not open that: {item}", self.label);
        match item["type"].as_str() {
            Some("message") => {
                let spot = spots(item["position"].as_str().expect("a position"))[0];
                self.cursor.message(&self.label, spot);
                oracle.saw(channel, spot, item["data"].as_str().expect("text"));
                if self.is_open {
                    let time = Duration::from_millis(item["time"].as_u64().expect("a time"));
                    assert!(time < self.expires + LATENESS, "{}: its time is over: {item}", self.label);
                }
            }
            Some("gap") => {
                let spot = spots(item["position"].as_str().expect("a position"))[0];
                self.cursor.gap(&self.label, item["missed"].as_u64(), spot);
            }
            Some("close") => self.ended = true,
            _ => panic!("{}: {item}", self.label),
        }
    }

    pub fn into_peer(self) -> Option<Peer> {
        self.http.map(|http| http.peer)
    }
}
