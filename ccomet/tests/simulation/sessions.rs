//! Pages that read by several subscriptions on one WebSocket, and add and remove some meanwhile.

use std::collections::HashSet;

use ccomet::Config;
use sealed::sim::{Peer, Random};
use serde_json::{Value, json};
use testing::http::UPGRADE;

use crate::frames::{Frame, Frames};
use crate::http::{Answer, Http};
use crate::oracle::{Cursor, Oracle, Spot, spots};
use crate::world::Place;

/// The most subscriptions of a page at a time.
pub const SUBSCRIPTIONS_MAX: usize = 4;

/// The state of a subscription on the current connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Asked,
    Live,
}

/// A subscription, which outlasts connections, and resumes from its position on the next one.
struct Subscription {
    label: String,
    reference: i64,
    channels: Vec<String>,
    cursors: Vec<Cursor>,
    position: Option<String>,
    is_from_oldest: bool,
    phase: Phase,
}

impl Subscription {
    fn new(page: usize, reference: i64, place: &Place, random: &mut Random) -> Self {
        let count = 1 + random.below(place.channels.len().min(3));
        let mut channels: Vec<_> = (0..count).map(|_| random.pick(&place.channels).expect("one").clone()).collect();
        channels.sort();
        channels.dedup();
        Self {
            label: format!("subscription {reference} of session {page} ({})", channels.join(",")),
            reference,
            cursors: vec![Cursor::default(); channels.len()],
            channels,
            position: None,
            is_from_oldest: random.chance(0.5),
            phase: Phase::Idle,
        }
    }

    fn command(&self) -> String {
        let mut command = json!({"type": "subscribe", "ref": self.reference, "channels": self.channels});
        match &self.position {
            Some(position) => command["after"] = position.as_str().into(),
            None if self.is_from_oldest => command["after"] = "oldest".into(),
            None => {}
        }
        command.to_string()
    }

    /// Ends the subscription on this connection, and keeps only its position.
    fn end(&mut self) {
        self.phase = Phase::Idle;
        let known = self.position.as_deref().map(spots);
        for (index, cursor) in self.cursors.iter_mut().enumerate() {
            *cursor = Cursor(known.as_ref().map(|known| known[index]));
        }
    }

    fn reply(&mut self, reply: &Value, oracle: &mut Oracle) {
        assert_ne!(self.phase, Phase::Idle, "{}: it did not ask: {reply}", self.label);
        let mut is_over = false;
        for item in reply["items"].as_array().expect("items") {
            is_over |= item["type"] == "close";
            self.item(item, oracle);
        }
        if let Some(position) = reply["position"].as_str().filter(|position| !position.is_empty()) {
            for (cursor, spot) in self.cursors.iter_mut().zip(spots(position)) {
                cursor.check(&self.label, spot);
            }
            self.position = Some(position.to_owned());
        }
        if is_over {
            self.end();
        }
    }

    fn item(&mut self, item: &Value, oracle: &mut Oracle) {
        if item["type"] == "subscribed" {
            assert_eq!(self.phase, Phase::Asked, "{}: begun twice", self.label);
            self.phase = Phase::Live;
            return;
        }
        let channel = item["channel"].as_str().unwrap_or_else(|| panic!("{}: {item}", self.label));
        let index = self.channels.iter().position(|held| held == channel).expect("one of its channels");
        let spot = || -> Spot { spots(item["position"].as_str().expect("a position"))[0] };
        match item["type"].as_str() {
            Some("message") => {
                assert_eq!(self.phase, Phase::Live, "{}: nothing comes before it has begun", self.label);
                self.cursors[index].message(&self.label, spot());
                oracle.saw(channel, spot(), item["data"].as_str().expect("text"));
            }
            Some("gap") => self.cursors[index].gap(&self.label, item["missed"].as_u64(), spot()),
            Some("close") => {}
            _ => panic!("{}: {item}", self.label),
        }
    }
}

/// A page with one WebSocket.
pub struct Session {
    number: usize,
    http: Option<Http>,
    frames: Frames,
    is_open: bool,
    subscriptions: Vec<Subscription>,
    /// The references of removed subscriptions, until the server confirms that it sends nothing
    /// more for them.
    leaving: HashSet<i64>,
    subscriptions_max: usize,
}

impl Session {
    /// Draws the pages, and the number of subscriptions that they may have.
    pub fn draw(config: &mut Config, random: &mut Random) -> Vec<Self> {
        let subscriptions_max = *random.pick(&[100, 2]).expect("one");
        config.limits.subscriptions_per_connection_max = subscriptions_max;
        let new = |number| Self {
            number,
            http: None,
            frames: Frames::default(),
            is_open: false,
            subscriptions: Vec::new(),
            leaving: HashSet::new(),
            subscriptions_max,
        };
        (0..random.below(4)).map(new).collect()
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(oracle);
        if self.subscriptions.len() < SUBSCRIPTIONS_MAX && random.chance(0.1) {
            let is_free =
                |one: &i64| !self.leaving.contains(one) && self.subscriptions.iter().all(|held| held.reference != *one);
            let reference = (0..=i64::MAX).find(is_free).expect("one");
            self.subscriptions.push(Subscription::new(self.number, reference, place, random));
        }
        let Some(http) = &mut self.http else {
            if random.chance(0.5) {
                let mut http = place.visit();
                http.get("/channels", UPGRADE);
                self.http = Some(http);
            }
            return;
        };
        match random.below(60) {
            0 => self.leave(random),
            1 => http.peer.stall(),
            2..=6 => http.peer.unstall(),
            7 | 8 => self.remove(random),
            _ if !http.waits() && !self.is_open => self.lost(),
            _ if self.is_open => self.subscribe(random),
            _ => {}
        }
    }

    pub fn calm_down(&mut self) {
        if let Some(http) = &mut self.http {
            http.calm_down();
        }
    }

    fn subscribe(&mut self, random: &mut Random) {
        let Some(http) = &mut self.http else { return };
        for subscription in &mut self.subscriptions {
            if subscription.phase == Phase::Idle && random.chance(0.5) {
                subscription.phase = Phase::Asked;
                http.say(&subscription.command());
            }
        }
    }

    fn remove(&mut self, random: &mut Random) {
        if self.subscriptions.is_empty() {
            return;
        }
        let Subscription { reference, phase, .. } = self.subscriptions.remove(random.below(self.subscriptions.len()));
        if let (Some(http), true) = (&mut self.http, self.is_open && phase != Phase::Idle) {
            http.say(&json!({"type": "unsubscribe", "ref": reference}).to_string());
            self.leaving.insert(reference);
        }
    }

    fn leave(&mut self, random: &mut Random) {
        if let Some(mut http) = self.http.take() {
            match random.below(3) {
                0 => http.peer.vanish(),
                1 => http.peer.reset(),
                _ => {}
            }
        }
        self.lost();
    }

    fn lost(&mut self) {
        self.http = None;
        self.is_open = false;
        self.frames.clear();
        self.leaving.clear();
        self.subscriptions.iter_mut().for_each(Subscription::end);
    }

    pub fn hear(&mut self, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over => self.lost(),
                Answer::Stream => self.is_open = true,
                Answer::Data(bytes) => {
                    self.frames.push(&bytes);
                    while let Some(frame) = self.frames.next(&mut self.http) {
                        self.frame(frame, oracle);
                    }
                }
                Answer::Whole { status, body } => {
                    let text = String::from_utf8_lossy(&body);
                    assert!(matches!(status, 503 | 507 | 408), "session {}: {status} {text}", self.number);
                }
                Answer::StreamEnd => panic!("session {}: there is no such end", self.number),
            }
        }
    }

    fn frame(&mut self, frame: Frame, oracle: &mut Oracle) {
        match frame {
            Frame::Reply(reply) => self.reply(&reply, oracle),
            Frame::Close => self.subscriptions.iter_mut().for_each(Subscription::end),
        }
    }

    fn reply(&mut self, reply: &Value, oracle: &mut Oracle) {
        if let Some(reference) = reply["ref"].as_i64() {
            match self.subscriptions.iter_mut().find(|held| held.reference == reference) {
                Some(subscription) => subscription.reply(reply, oracle),
                None => assert!(self.leaving.contains(&reference), "session {}: for nobody: {reply}", self.number),
            }
            return;
        }
        for item in reply["items"].as_array().expect("items") {
            let reference = item["ref"].as_i64();
            match (item["type"].as_str(), reference) {
                (Some("hello" | "bye"), None) => {}
                (Some("error"), None) => assert!(
                    [503, 507].contains(&item["status"].as_u64().unwrap_or(0)),
                    "session {}: {item}",
                    self.number
                ),
                (Some("unsubscribed"), Some(reference)) => {
                    assert!(self.leaving.remove(&reference), "session {}: it did not ask: {item}", self.number);
                }
                (Some("error"), Some(reference)) => self.error(reference, item),
                _ => panic!("session {}: {item}", self.number),
            }
        }
    }

    fn error(&mut self, reference: i64, item: &Value) {
        let code = item["code"].as_str().expect("a code");
        let label = format!("subscription {reference} of session {}: {item}", self.number);
        if self.leaving.contains(&reference) {
            // The subscription had ended already, or was refused meanwhile.
            if code == "unknown_ref" {
                self.leaving.remove(&reference);
            }
            return;
        }
        let others = self.subscriptions.iter().filter(|held| held.phase != Phase::Idle).count() - 1;
        let is_due = match code {
            "too_many_subscriptions" => others + self.leaving.len() >= self.subscriptions_max,
            _ => [503, 507].contains(&item["status"].as_u64().unwrap_or(0)),
        };
        assert!(is_due, "{label}");
        let subscription = self.subscriptions.iter_mut().find(|held| held.reference == reference).expect("one of them");
        assert_ne!(subscription.phase, Phase::Idle, "{label}");
        subscription.end();
    }

    fn live(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.iter().filter(|held| held.phase == Phase::Live)
    }

    /// Returns how many subscriptions it reads now.
    pub fn live_count(&self) -> usize {
        self.live().count()
    }

    /// Asserts that each of its subscriptions to a channel has this message.
    pub fn check_has(&self, channel: &str, spot: Spot) {
        for subscription in self.live() {
            if let Some(index) = subscription.channels.iter().position(|held| held == channel) {
                let has = subscription.cursors[index].0;
                assert!(has >= Some(spot), "{}: {channel} is delivered at once", subscription.label);
            }
        }
    }

    /// Asserts that it has every message, once nothing happens any more.
    pub fn check_head(&self, heads: &[(String, Spot)]) {
        for subscription in self.live() {
            for (channel, cursor) in subscription.channels.iter().zip(&subscription.cursors) {
                let Some((_, head)) = heads.iter().find(|(held, _)| held == channel) else { continue };
                assert_eq!(cursor.0, Some(*head), "{}: it has everything of {channel}", subscription.label);
            }
        }
    }

    pub fn into_peer(self) -> Option<Peer> {
        self.http.map(|http| http.peer)
    }
}
