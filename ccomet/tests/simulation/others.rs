//! Clients that read patterns of channels.

use std::collections::HashMap;

use sealed::sim::{Peer, Random};
use serde_json::Value;
use testing::http::EventQueue;

use crate::http::{Answer, Http};
use crate::oracle::{Cursor, Oracle, Spot, spots};
use crate::world::Place;

/// A reader of all channels at once, by a pattern.
pub struct Gatherer {
    label: String,
    is_stream: bool,
    http: Option<Http>,
    events: EventQueue,
    cursor: Cursor,
    position: Option<String>,
    /// The position in each channel, since the last gap.
    channels: HashMap<String, Spot>,
    live: bool,
    last_event: String,
    /// Messages expire so soon that a slow reader gets no gap for some: the server skips them like
    /// those whose time to live is over.
    may_skip: bool,
}

impl Gatherer {
    pub fn new(number: usize, may_skip: bool, random: &mut Random) -> Self {
        let is_stream = random.chance(0.5);
        Self {
            label: format!("gatherer {number} ({})", if is_stream { "stream" } else { "poll" }),
            is_stream,
            http: None,
            events: EventQueue::default(),
            cursor: Cursor::default(),
            position: None,
            channels: HashMap::new(),
            live: false,
            last_event: String::new(),
            may_skip,
        }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(oracle);
        let Some(http) = &mut self.http else {
            if random.chance(0.5) {
                self.http = Some(place.visit());
                self.subscribe();
            }
            return;
        };
        if http.waits() {
            match random.below(60) {
                0 => self.leave(random),
                1 => http.peer.stall(),
                2..=6 => http.peer.unstall(),
                _ => {}
            }
        } else {
            if random.chance(0.3) {
                self.http = Some(place.visit());
            }
            self.subscribe();
        }
    }

    pub fn calm_down(&mut self) {
        if let Some(http) = &mut self.http {
            http.calm_down();
        }
    }

    fn leave(&mut self, random: &mut Random) {
        if let Some(mut http) = self.http.take()
            && random.chance(0.5)
        {
            http.peer.vanish();
        }
        self.lost();
    }

    /// Keeps only the position of the pattern, and forgets the positions in its channels.
    fn lost(&mut self) {
        self.http = None;
        self.live = false;
        self.events = EventQueue::default();
        self.cursor = Cursor(self.position.as_deref().map(|position| spots(position)[0]));
        self.channels.clear();
    }

    fn subscribe(&mut self) {
        let Some(http) = &mut self.http else { return };
        let start = self.position.as_ref().map_or("oldest", |position| position);
        let accept = if self.is_stream { "Accept: text/event-stream\r\n" } else { "" };
        http.get(&format!("/channels/*?after={start}&wait=20"), accept);
    }

    pub fn hear(&mut self, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Stream => {}
                Answer::Data(bytes) => {
                    self.events.push(&bytes);
                    while let Some(event) = self.events.pop() {
                        self.last_event.clone_from(&event.event);
                        let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                        match event.event.as_str() {
                            "heartbeat" | "bye" => {}
                            "hello" => self.live = true,
                            _ => self.item(&data, oracle),
                        }
                        if !event.last_event_id.is_empty() {
                            self.note_position(&event.last_event_id);
                        }
                    }
                }
                Answer::StreamEnd => {
                    assert_eq!(self.last_event, "bye", "{}: a pattern is never closed", self.label);
                    self.lost();
                }
                Answer::Over => self.lost(),
                Answer::Whole { status: 200, body } => {
                    let reply: Value = serde_json::from_slice(&body).expect("JSON");
                    for item in reply["items"].as_array().expect("items") {
                        self.item(item, oracle);
                    }
                    self.note_position(reply["position"].as_str().expect("a position"));
                }
                Answer::Whole { status, body } => {
                    let text = String::from_utf8_lossy(&body);
                    assert!(matches!(status, 503 | 507 | 408), "{}: {status} {text}", self.label);
                }
            }
        }
    }

    fn note_position(&mut self, position: &str) {
        let spot = spots(position)[0];
        if let Some(held) = self.cursor.0.filter(|held| self.may_skip && held.epoch == spot.epoch) {
            assert!(spot >= held, "{}: a position goes on: {held:?}, {spot:?}", self.label);
            self.cursor.0 = Some(spot);
        }
        self.cursor.check(&self.label, spot);
        self.position = Some(position.to_owned());
    }

    fn item(&mut self, item: &Value, oracle: &mut Oracle) {
        let channel = item["channel"].as_str().unwrap_or_else(|| panic!("{}: {item}", self.label));
        let spot = spots(item["position"].as_str().expect("a position"))[0];
        if item["type"] == "gap" {
            assert_eq!(channel, "*", "{}: a gap is the pattern's: {item}", self.label);
            let missed = item["missed"].as_u64();
            if let (Some(held), Some(missed)) =
                (self.cursor.0.filter(|held| self.may_skip && held.epoch == spot.epoch), missed)
            {
                // A skipped message that had expired is not missing.
                let next = spot.next.saturating_sub(missed);
                assert!(next >= held.next, "{}: a gap that goes back: {held:?}, {spot:?}", self.label);
                self.cursor.0 = Some(Spot { next, ..held });
            }
            self.cursor.gap(&self.label, missed, spot);
            self.channels.clear();
            return;
        }
        assert_eq!(item["type"], "message", "{}: {item}", self.label);
        if let Some(held) = &mut self.cursor.0 {
            held.next += 1;
        }
        oracle.saw(channel, spot, item["data"].as_str().expect("text"));
        if let Some(before) = self.channels.insert(channel.to_owned(), spot) {
            let next = Spot { next: before.next + 1, ..before };
            let begins_anew = spot.epoch > before.epoch && (spot.next == 1 || oracle.restarts_numbers);
            let is_ahead = self.may_skip && spot > next;
            assert!(
                spot == next || begins_anew || is_ahead,
                "{}: {before:?} and then {spot:?} of {channel}",
                self.label
            );
        }
    }

    /// Asserts that a reader of a stream has this message, if no message of another epoch can have
    /// replaced it.
    pub fn check_has(&self, channel: &str, spot: Spot) {
        if self.live {
            assert!(self.channels.get(channel) >= Some(&spot), "{}: {channel} is delivered at once", self.label);
        }
    }

    pub fn into_peer(self) -> Option<Peer> {
        self.http.map(|http| http.peer)
    }
}
