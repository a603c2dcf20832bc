//! Joins and leaves that wait to be reported to the back end: in order, in batches, and again after
//! a failure.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::json;
use crate::core::message::{ChannelName, Movement};
use crate::core::time::UnixMillis;

/// The maximum number of joins and leaves in one request.
const BATCH_MAX: usize = 100;

/// The maximum number of attempts to report one batch.
const ATTEMPTS_MAX: u32 = 5;

/// A join or leave.
#[derive(Debug)]
struct Moved {
    channel: ChannelName,
    id: Arc<str>,
    movement: Movement,
    time: UnixMillis,
}

/// The outcome of an attempt to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The back end has received the report.
    Received,
    /// The attempt has failed; the next one follows after this number of seconds.
    Retry(u64),
    /// All attempts have failed; this number of joins and leaves was given up.
    GivenUp(usize),
}

/// Joins and leaves that wait to be reported.
#[derive(Debug)]
pub(crate) struct Movements {
    max: usize,
    waiting: VecDeque<Moved>,
    /// The number of those in transit, from the front of the queue.
    reporting: usize,
    attempts: u32,
    dropped: u64,
}

impl Movements {
    /// Changes the most joins and leaves that wait. Those that wait stay.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub(crate) fn new(max: usize) -> Self {
        Self { max, waiting: VecDeque::new(), reporting: 0, attempts: 0, dropped: 0 }
    }

    /// Adds a join or leave. Returns whether there was room.
    pub(crate) fn push(&mut self, channel: ChannelName, id: Arc<str>, movement: Movement, time: UnixMillis) -> bool {
        if self.waiting.len() >= self.max {
            self.dropped += 1;
            return false;
        }
        self.waiting.push_back(Moved { channel, id, movement, time });
        true
    }

    /// Returns the next report as JSON, unless one is in transit.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        if self.reporting > 0 || self.waiting.is_empty() {
            return None;
        }
        self.reporting = self.waiting.len().min(BATCH_MAX);
        let mut out = br#"{"type":"presence","dropped":"#.to_vec();
        json::write_number(self.dropped, &mut out);
        out.extend_from_slice(br#","events":["#);
        for (index, moved) in self.waiting.iter().take(self.reporting).enumerate() {
            let kind = if moved.movement == Movement::Join { "join" } else { "leave" };
            out.extend_from_slice(if index > 0 { br#",{"type":"#.as_slice() } else { br#"{"type":"# });
            json::write_string(kind, &mut out);
            out.extend_from_slice(br#","channel":"#);
            json::write_string(moved.channel.as_str(), &mut out);
            out.extend_from_slice(br#","id":"#);
            json::write_string(&moved.id, &mut out);
            out.extend_from_slice(br#","time":"#);
            json::write_number(moved.time.as_millis(), &mut out);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        Some(out.into())
    }

    /// Ends the attempt in transit.
    pub(crate) fn end_report(&mut self, is_received: bool) -> Report {
        let count = std::mem::take(&mut self.reporting);
        if is_received {
            self.attempts = 0;
            self.waiting.drain(..count);
            return Report::Received;
        }
        self.attempts += 1;
        if self.attempts < ATTEMPTS_MAX {
            return Report::Retry(1 << (self.attempts - 1));
        }
        self.attempts = 0;
        self.waiting.drain(..count);
        self.dropped += count as u64;
        Report::GivenUp(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(movements: &mut Movements, id: &str) -> bool {
        movements.push(ChannelName::new("room").expect("a name"), id.into(), Movement::Join, UnixMillis::from_millis(5))
    }

    #[test]
    fn reports_are_sent_in_order_and_repeated_after_a_failure() {
        let mut movements = Movements::new(150);
        assert!((0..150).all(|n| push(&mut movements, &n.to_string())) && !push(&mut movements, "one too many"));
        let first: serde_json::Value = serde_json::from_slice(&movements.next().expect("some")).expect("JSON");
        assert_eq!((first["events"].as_array().map(Vec::len), &first["dropped"]), (Some(100), &1.into()));
        assert_eq!(movements.next(), None, "one at a time");
        assert_eq!(movements.end_report(false), Report::Retry(1));
        let again: serde_json::Value = serde_json::from_slice(&movements.next().expect("some")).expect("JSON");
        assert_eq!(again, first);
        assert_eq!(movements.end_report(true), Report::Received);
        let rest: serde_json::Value = serde_json::from_slice(&movements.next().expect("some")).expect("JSON");
        assert_eq!(rest["events"][0]["id"], "100");
        let outcomes: Vec<Report> = (0..5)
            .map(|_| {
                let _ = movements.next();
                movements.end_report(false)
            })
            .collect();
        assert_eq!(
            outcomes,
            [Report::Retry(1), Report::Retry(2), Report::Retry(4), Report::Retry(8), Report::GivenUp(50)]
        );
        assert_eq!(movements.next(), None);
    }
}
