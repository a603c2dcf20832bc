//! Frames of WebSockets, as a client reads and writes them.

use testing::http::frame;

/// A frame that the server sent.
#[derive(Debug)]
pub enum Frame {
    Text(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close,
}

/// Frames of the server, as they come out of its bytes.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes a frame, if one is there whole.
    pub fn next(&mut self) -> Option<Frame> {
        let (kind, short) = (*self.0.first()?, *self.0.get(1)?);
        let (from, length) = match short {
            126 => (4, usize::from(u16::from_be_bytes([*self.0.get(2)?, *self.0.get(3)?]))),
            127 => panic!("a frame of more than 64 KiB"),
            _ => (2, usize::from(short)),
        };
        let payload = self.0.get(from..from + length)?.to_vec();
        self.0.drain(..from + length);
        match kind {
            0x81 => Some(Frame::Text(payload)),
            0x89 => Some(Frame::Ping(payload)),
            0x8a => Some(Frame::Pong(payload)),
            0x88 => Some(Frame::Close),
            _ => panic!("a frame that nobody sends: {kind:x}"),
        }
    }
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    frame(0x8a, payload)
}
