//! Frames the events of a stream in its HTTP body. The framing is cached with each message, so that
//! many readers share the bytes.

use std::io::Write;

use sealed_http::websocket::{Kind, encode_header};

/// The framing of events in the HTTP body of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Framing {
    /// Chunks of HTTP/1.1.
    Chunked,
    /// No framing; the body ends when the connection closes: HTTP/1.0.
    Plain,
    /// Messages of a WebSocket.
    Message,
}

impl Framing {
    /// Appends the event that `write` appends, with the length around it that the framing may need.
    pub(crate) fn around(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self == Self::Plain {
            return write(out);
        }
        let mut event = Vec::with_capacity(256);
        write(&mut event);
        // An empty chunk would end the body, and an empty message would have no meaning.
        if event.is_empty() {
            return;
        }
        if self == Self::Message {
            encode_header(out, Kind::Text, event.len());
            return out.append(&mut event);
        }
        // Writing to memory does not fail.
        let _ = write!(out, "{:x}\r\n", event.len());
        out.append(&mut event);
        out.extend_from_slice(b"\r\n");
    }

    /// Returns the bytes before and after an event that consists of `before`, `length` bytes of
    /// another piece, and `after`.
    pub(crate) fn split(self, mut before: Vec<u8>, length: usize, after: &[u8]) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Plain => (before, after.to_vec()),
            Self::Message => {
                let mut frame = Vec::with_capacity(before.len() + 10);
                encode_header(&mut frame, Kind::Text, before.len() + length + after.len());
                frame.append(&mut before);
                (frame, after.to_vec())
            }
            Self::Chunked => {
                let mut chunk = format!("{:x}\r\n", before.len() + length + after.len()).into_bytes();
                chunk.append(&mut before);
                (chunk, [after, b"\r\n"].concat())
            }
        }
    }
}
