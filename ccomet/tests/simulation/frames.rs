//! Frames of WebSockets, as a client reads and writes them.

use serde_json::Value;
use testing::http::frame;

use crate::cuts::PING;
use crate::http::Http;

/// A message of the server.
#[derive(Debug)]
pub enum Frame {
    Reply(Value),
    Close,
}

/// The frames in the bytes from the server.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes the next complete reply or close, if there is one. Answers pings, and compares pongs
    /// with the client's own pings.
    pub fn next(&mut self, http: &mut Option<Http>) -> Option<Frame> {
        loop {
            let (kind, payload) = self.take()?;
            match kind {
                0x81 => return Some(Frame::Reply(serde_json::from_slice(&payload).expect("JSON"))),
                0x88 => return Some(Frame::Close),
                0x89 => {
                    if let Some(http) = http {
                        http.send(frame(0x8a, &payload));
                    }
                }
                0x8a => assert_eq!(payload, PING),
                _ => panic!("a frame that nobody sends: {kind:x}"),
            }
        }
    }

    /// Takes a complete frame, if there is one: its first byte and its payload.
    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let (kind, short) = (*self.0.first()?, *self.0.get(1)?);
        let (from, length) = match short {
            126 => (4, usize::from(u16::from_be_bytes([*self.0.get(2)?, *self.0.get(3)?]))),
            127 => panic!("a frame of more than 64 KiB"),
            _ => (2, usize::from(short)),
        };
        let payload = self.0.get(from..from + length)?.to_vec();
        self.0.drain(..from + length);
        Some((kind, payload))
    }
}
