//! A site's back end, in several moods, and clients whose requests it decides about.

use std::time::Duration;

use ccomet::{Config, Pattern, WhenDown};
use sealed::Address;
use sealed::sim::{Faults, Peer, PeerListener, Random, Simulation};
use serde_json::{Value, json};
use testing::http::UPGRADE;

use crate::frames::{Frame, Frames};
use crate::http::{Answer, Http};
use crate::meter;
use crate::oracle::{Oracle, spots};
use crate::world::Place;

/// Channels that the back end always allows, never allows, and allows at random.
pub const ASKED: [&str; 3] = ["asked.yes", "asked.no", "asked.maybe"];
const YES: &str = ASKED[0];
const NO: &str = ASKED[1];

/// The behaviour of a world's back end.
#[derive(Debug, Clone)]
pub struct Hooking {
    when_down: WhenDown,
    /// The probability that it misbehaves.
    trouble: f64,
    /// The network works, and the clients cause all failures.
    by_clients: bool,
}

impl Hooking {
    /// Draws the behaviour, and sets the configuration for it.
    pub fn draw(config: &mut Config, random: &mut Random) -> Self {
        let when_down = *random.pick(&[WhenDown::Refuse, WhenDown::Refuse, WhenDown::Allow]).expect("one");
        let trouble = *random.pick(&[0.0, 0.2, 0.8]).expect("one");
        let by_clients = random.chance(0.3);
        let hooks = &mut config.hooks;
        "http://10.0.0.9/comet".clone_into(&mut hooks.url);
        (hooks.subscribe, hooks.publish, hooks.presence) = (true, true, random.chance(0.5));
        hooks.channels = vec![Pattern::new("asked.*").expect("a pattern")];
        hooks.when_down = when_down;
        hooks.timeout_ms = if by_clients { 5_000 } else { *random.pick(&[300, 5_000]).expect("one") };
        hooks.connections_max = *random.pick(&[16, 1]).expect("one");
        hooks.questions_max = *random.pick(&[1_000, 2]).expect("one");
        hooks.answers_bytes_max = *random.pick(&[1 << 20, 400]).expect("one");
        Self { when_down, trouble, by_clients }
    }

    /// Adjusts what may go wrong in such a world.
    pub fn soften(&self, faults: &mut Faults, restarts: &mut f64) {
        if self.by_clients {
            // While a server shuts down, the back end does not answer.
            *restarts = 0.0;
            *faults = Faults { interleave: faults.interleave, short_read: faults.short_read, ..Faults::default() };
        }
    }

    /// Returns whether the server may allow what the back end never allows, since it could not ask
    /// the back end.
    fn is_lax(&self) -> bool {
        self.when_down == WhenDown::Allow && !self.by_clients
    }

    pub fn backend(&self, sim: &Simulation) -> Backend {
        let host = sim.listen("10.0.0.9:80".parse::<Address>().expect("an address")).expect("it is free");
        Backend { hooking: self.clone(), host, lines: Vec::new() }
    }

    pub fn suitors(&self, random: &mut Random) -> Vec<Suitor> {
        (0..=random.below(5)).map(|number| Suitor::new(number, self)).collect()
    }
}

/// The back end.
pub struct Backend {
    hooking: Hooking,
    host: PeerListener,
    lines: Vec<Line>,
}

/// A connection of the server to the back end.
struct Line {
    peer: Peer,
    buffer: Vec<u8>,
    /// The answer that the back end will send, and when.
    due: Option<(Duration, String)>,
    /// The back end sends nothing more.
    is_mute: bool,
    /// The connection ends with a reset.
    is_reset: bool,
}

impl Backend {
    /// Makes the back end answer correctly from now on.
    pub fn calm_down(&mut self) {
        self.hooking.trouble = 0.0;
        self.lines.retain(|line| !line.is_mute);
    }

    /// Closes the connections.
    pub fn hang_up(&mut self) {
        self.lines.clear();
    }

    /// Lets time pass, in steps in which the back end answers.
    pub fn run_for(&mut self, place: &Place, time: Duration, random: &mut Random) {
        let end = place.sim.now() + time;
        while place.sim.now() < end {
            let step = Duration::from_millis(*random.pick(&[5, 20, 100]).expect("one"));
            meter::run_for(&place.sim, step.min(end.saturating_sub(place.sim.now())));
            self.act(place, random);
        }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random) {
        while let Some(peer) = self.host.accept() {
            self.lines.push(Line { peer, buffer: Vec::new(), due: None, is_mute: false, is_reset: false });
        }
        let now = place.sim.now();
        for mut line in std::mem::take(&mut self.lines) {
            line.buffer.append(&mut line.peer.take());
            if let Some((_, message)) = line.due.take_if(|(at, _)| *at <= now) {
                line.peer.send(message);
            }
            let is_kept = line.due.is_some() || line.is_mute || self.hear(&mut line, now, random);
            if line.is_reset {
                line.peer.reset();
            } else if is_kept && !line.peer.is_over() {
                self.lines.push(line);
            }
        }
    }

    /// Takes a complete question, if there is one. Returns whether the connection is kept.
    fn hear(&self, line: &mut Line, now: Duration, random: &mut Random) -> bool {
        let Some(head) = line.buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return true };
        let text = String::from_utf8_lossy(&line.buffer[..head]).to_lowercase();
        let length = text.split("content-length:").nth(1).expect("a length").lines().next().expect("a line");
        let end = head + 4 + length.trim().parse::<usize>().expect("a number");
        if line.buffer.len() < end {
            return true;
        }
        let question: Value = serde_json::from_slice(&line.buffer[head + 4..end]).expect("JSON");
        line.buffer.drain(..end);
        let answer = self.answer(&question, random);
        if random.chance(self.hooking.trouble) && !self.hooking.by_clients {
            return misbehave(line, answer, now, random);
        }
        let delay = Duration::from_millis(random.below(40) as u64);
        line.due = Some((now + delay, answer));
        true
    }

    fn answer(&self, question: &Value, random: &mut Random) -> String {
        let mut names: Vec<&str> = Vec::new();
        names.extend(question["channels"].as_array().into_iter().flatten().filter_map(Value::as_str));
        let messages = question["messages"].as_array().into_iter().flatten();
        let of_messages = messages.flat_map(|message| message["channels"].as_array().into_iter().flatten());
        names.extend(of_messages.filter_map(Value::as_str));
        assert!(!names.is_empty(), "a question about something: {question}");
        let kept = if random.chance(0.2) { "Cache-Control: max-age=3\r\n" } else { "" };
        let is_refused = names.contains(&NO);
        let is_unsure = names.iter().any(|name| *name != YES && *name != NO && *name != "*");
        if is_unsure && self.hooking.by_clients && random.chance(self.hooking.trouble) {
            let status = random.pick(&[400, 413, 431]).expect("one");
            return format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        }
        if is_refused || is_unsure && random.chance(0.5) {
            return if random.chance(0.5) {
                format!("HTTP/1.1 403 X\r\n{kept}Content-Length: 0\r\n\r\n")
            } else {
                format!("HTTP/1.1 200 X\r\n{kept}Content-Length: 15\r\n\r\n{{\"allow\":false}}")
            };
        }
        format!("HTTP/1.1 204 X\r\n{kept}\r\n")
    }
}

/// Misbehaves in a random way. Returns whether the connection is kept.
fn misbehave(line: &mut Line, answer: String, now: Duration, random: &mut Random) -> bool {
    let status = |status: u16| format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
    let soon = now + Duration::from_millis(10);
    match random.below(8) {
        0 => line.is_mute = true,
        1 => {
            line.is_reset = random.chance(0.5);
            return false;
        }
        2 => line.due = Some((now + random.time(Duration::from_secs(8)), answer)),
        3 => line.due = Some((soon, status(500))),
        // A 404 is a refusal.
        4 if !answer.starts_with("HTTP/1.1 204") => line.due = Some((soon, status(404))),
        5 => line.due = Some((soon, "HTTP/1.1 200 X\r\nContent-Length: x\r\n\r\n".to_owned())),
        6 => line.due = Some((soon, "HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{}".to_owned())),
        _ => {
            // Half an answer, and then nothing.
            line.peer.send("HTTP/1.1 200 X\r\nContent-Len");
            line.is_mute = true;
        }
    }
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Poll,
    History,
    Publish,
    PublishMany,
    Socket,
    OnSocket,
    ClassicPublish,
    ClassicPoll,
    Icomet,
}

#[derive(Debug)]
struct Pending {
    action: Action,
    channel: &'static str,
    payload: String,
}

/// A client whose requests need an answer of the back end.
pub struct Suitor {
    label: String,
    is_lax: bool,
    http: Option<Http>,
    pending: Option<Pending>,
    /// The channel that its WebSocket reads.
    socket: Option<&'static str>,
    frames: Frames,
    /// What has arrived of an answer without a length.
    body_so_far: Vec<u8>,
    sent: u64,
}

impl Suitor {
    fn new(number: usize, hooking: &Hooking) -> Self {
        Self {
            label: format!("suitor{number}"),
            is_lax: hooking.is_lax(),
            http: None,
            pending: None,
            socket: None,
            frames: Frames::default(),
            body_so_far: Vec::new(),
            sent: 0,
        }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(oracle);
        let Some(http) = &mut self.http else {
            if random.chance(0.5) {
                self.http = Some(place.visit());
            }
            return;
        };
        if random.chance(0.02) {
            if random.chance(0.5) {
                http.peer.vanish();
            }
            self.lost();
        } else if self.pending.is_none() && self.socket.is_some() {
            self.say(random, oracle);
        } else if self.pending.is_none() && !http.waits() {
            self.ask(random, oracle);
        }
    }

    fn prepare(&mut self, action: Action, random: &mut Random, oracle: &mut Oracle) -> (&'static str, String) {
        let channel = *random.pick(&ASKED).expect("one");
        self.sent += 1;
        let payload = format!("{channel}-{}-{}", self.label, self.sent);
        if channel == NO && !self.is_lax {
            oracle.forbid(&payload);
        }
        self.pending = Some(Pending { action, channel, payload: payload.clone() });
        (channel, payload)
    }

    fn ask(&mut self, random: &mut Random, oracle: &mut Oracle) {
        use Action::{ClassicPoll, ClassicPublish, History, Icomet, Poll, Publish, PublishMany, Socket};
        let actions = [Poll, Poll, History, Publish, Publish, PublishMany, Socket, ClassicPublish, ClassicPoll, Icomet];
        let action = *random.pick(&actions).expect("one");
        let (channel, payload) = self.prepare(action, random, oracle);
        let Some(http) = &mut self.http else { return };
        let mut post = |path: &str, body: &str| http.cuts.post(path, "", body);
        let get = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n");
        let request = match action {
            Publish | Action::OnSocket => post(&format!("/channels/{channel}"), &payload),
            PublishMany => {
                let message = json!({"channel": channel, "data": payload});
                let fine = json!({"channel": YES, "data": format!("{YES}-{payload}")});
                // A refused message makes the server refuse the others, too.
                if channel == NO && !self.is_lax {
                    oracle.forbid(&format!("{YES}-{payload}"));
                }
                post("/messages", &json!({"messages": [fine, message]}).to_string())
            }
            Poll => get(&format!("/channels/{channel}?after=oldest&wait=0"), ""),
            History => get(&format!("/channels/{channel}/history"), ""),
            Socket => get(&format!("/channels/{channel}"), UPGRADE),
            ClassicPublish => get(&format!("/publish?channel={channel}&sname=x&msg={payload}&callback=cb"), ""),
            ClassicPoll => get(&format!("/subscribe?channel={channel}&sname={}&seqid=0&callback=cb", self.label), ""),
            Icomet => get(&format!("/poll?cname={channel}&seq=0"), ""),
        };
        http.ask(request);
    }

    fn say(&mut self, random: &mut Random, oracle: &mut Oracle) {
        let (channel, payload) = self.prepare(Action::OnSocket, random, oracle);
        let message = json!({"type": "publish", "channel": channel, "data": payload}).to_string();
        if let Some(http) = &mut self.http {
            http.say(&message);
        }
    }

    fn lost(&mut self) {
        (self.http, self.pending, self.socket) = (None, None, None);
        self.frames.clear();
        self.body_so_far.clear();
    }

    pub fn hear(&mut self, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over => self.lost(),
                Answer::Stream if self.pending.as_ref().is_some_and(|pending| pending.action == Action::Socket) => {
                    let channel = self.pending.take().map(|pending| pending.channel);
                    self.may(channel, "a WebSocket");
                    self.socket = channel;
                }
                Answer::Data(bytes) if self.socket.is_some() => {
                    self.frames.push(&bytes);
                    while let Some(frame) = self.frames.next(&mut self.http) {
                        self.frame(frame, oracle);
                    }
                }
                // An answer of icomet has no length.
                Answer::Stream if self.pending.as_ref().is_some_and(|pending| pending.action == Action::Icomet) => {}
                Answer::Data(bytes) => self.body_so_far.extend(bytes),
                Answer::StreamEnd => {
                    let body = std::mem::take(&mut self.body_so_far);
                    self.whole(200, &body, oracle);
                }
                Answer::Whole { status, body } => self.whole(status, &body, oracle),
                other @ Answer::Stream => panic!("{}: {other:?} to {:?}", self.label, self.pending),
            }
        }
    }

    /// Asserts that the back end may have allowed a request about a channel.
    fn may(&self, channel: Option<&str>, what: &str) {
        assert!(self.is_lax || channel != Some(NO), "{}: the back end never allows that: {what}", self.label);
    }

    fn whole(&mut self, status: u16, body: &[u8], oracle: &mut Oracle) {
        let text = String::from_utf8_lossy(body);
        // The server answers a request that it cannot read with 408, without a question.
        let Some(pending) = self.pending.take() else { return assert_eq!(status, 408, "{}: {text}", self.label) };
        let channel = pending.channel;
        let is_refused = text.contains("hook_refused");
        assert!(!is_refused || channel != YES, "{}: the back end never refuses that: {pending:?}", self.label);
        match (status, pending.action) {
            (403, _) => assert!(is_refused, "{}: {status} {text}", self.label),
            (503 | 507 | 408 | 429, _) | (404, Action::History) => {}
            (200, Action::ClassicPublish | Action::ClassicPoll | Action::Icomet) => {
                let is_problem = is_refused
                    || (text.contains("\"status\":503") || text.contains("\"status\":507"))
                    || text.contains("hook_unavailable");
                if !is_problem && !text.contains("\"429\"") {
                    self.may(Some(channel), &text);
                }
            }
            (200, action) => {
                self.may(Some(channel), &text);
                let reply: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {text}"));
                let items = reply["items"].as_array();
                items.into_iter().flatten().for_each(|item| self.item(item, oracle));
                if action == Action::Publish {
                    let spot = spots(reply["position"].as_str().expect("a position"))[0];
                    oracle.accepted(channel, spot, &pending.payload);
                }
            }
            _ => panic!("{}: {status} {text} to {pending:?}", self.label),
        }
    }

    fn frame(&mut self, frame: Frame, oracle: &mut Oracle) {
        match frame {
            Frame::Reply(reply) => {
                for item in reply["items"].as_array().expect("items") {
                    self.item(item, oracle);
                }
            }
            Frame::Close => {}
        }
    }

    fn item(&mut self, item: &Value, oracle: &mut Oracle) {
        match item["type"].as_str() {
            Some("message") => {
                let channel = item["channel"].as_str().expect("a channel");
                self.may(Some(channel), "a message");
                let spot = spots(item["position"].as_str().expect("a position"))[0];
                oracle.saw(channel, spot, item["data"].as_str().expect("text"));
            }
            Some("published") => {
                let Pending { channel, payload, .. } = self.pending.take().expect("something was published");
                self.may(Some(channel), "to publish");
                oracle.accepted(channel, spots(item["position"].as_str().expect("a position"))[0], &payload);
            }
            Some("error") => {
                let is_refused = item["status"] == 403;
                let message = self.pending.take().map(|pending| pending.channel);
                let is_due = is_refused && message.is_some_and(|channel| channel != YES);
                assert!(
                    is_due || [503, 507].contains(&item["status"].as_u64().unwrap_or(0)),
                    "{}: {item} to {message:?}",
                    self.label
                );
            }
            Some("hello" | "gap" | "close" | "bye") => {}
            _ => panic!("{}: {item}", self.label),
        }
    }

    /// Asserts that each request is answered, once nothing happens any more.
    pub fn check_answered(&self) {
        assert!(self.pending.is_none(), "{}: never answered: {:?}", self.label, self.pending);
    }

    pub fn into_peer(self) -> Option<Peer> {
        self.http.map(|http| http.peer)
    }
}
