use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use sealed_http::client::{EventStream, StreamEvent};
use serde_json::Value;

use super::Client;
use crate::PATIENCE;

/// An event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type.
    pub kind: String,
    /// The last id of the stream.
    pub id: String,
    /// Its data.
    pub data: String,
    /// The time to wait before reconnecting, in milliseconds, as the stream last set it.
    pub retry: Option<u64>,
}

impl Event {
    /// Returns the data as JSON. Panics if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the text that was published. Panics if the event is not a message, or has no text.
    pub fn message(&self) -> String {
        assert_eq!(self.kind, "message", "{self:?}");
        self.json()["data"].as_str().expect("text").to_owned()
    }
}

/// The events of a stream, decoded from its bytes. The default is the beginning of a stream.
#[derive(Debug)]
pub struct EventQueue {
    stream: EventStream,
    events: VecDeque<StreamEvent>,
}

impl Default for EventQueue {
    fn default() -> Self {
        Self { stream: EventStream::new(1 << 20), events: VecDeque::new() }
    }
}

impl EventQueue {
    /// Adds bytes that have arrived. Panics if an event is longer than 1 MiB.
    pub fn push(&mut self, bytes: &[u8]) {
        self.stream.read(bytes, |event| self.events.push_back(event)).expect("events are short");
    }

    /// Takes the next event, if there is one.
    pub fn pop(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }
}

/// A stream of events on a connection.
#[derive(Debug)]
pub struct Events<S = TcpStream> {
    /// The connection, for inspection.
    pub client: Client<S>,
    queue: EventQueue,
}

impl<S: Read + Write> Events<S> {
    /// Reads events from a connection on which the head of the response has been read.
    pub fn of(client: Client<S>) -> Self {
        Self { client, queue: EventQueue::default() }
    }

    /// Waits for the next event other than a heartbeat. Panics at the end of the stream.
    #[allow(clippy::should_implement_trait)] // the end of a stream is rarely expected
    pub fn next(&mut self) -> Event {
        self.try_next().expect("the stream goes on")
    }

    /// Waits for the next event other than a heartbeat. Returns `None` at the end of the stream.
    /// Panics if nothing but heartbeats comes for [`PATIENCE`].
    pub fn try_next(&mut self) -> Option<Event> {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "nothing but heartbeats");
            let Some(StreamEvent { event: kind, data, last_event_id: id, .. }) = self.queue.pop() else {
                self.queue.push(self.client.chunk()?.as_bytes());
                continue;
            };
            let retry = self.queue.stream.retry().map(|retry| retry.as_millis() as u64);
            if kind != "heartbeat" {
                return Some(Event { kind, id, data, retry });
            }
        }
    }
}
