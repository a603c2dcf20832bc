//! Frames the events of a stream in its HTTP body. The framing is cached with each message, so that
//! many readers share the bytes.

use std::io::Write;

use sealed_http::websocket::{Kind, encode_header};

/// How the events of a stream lie in its HTTP body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Framing {
    /// In chunks, as HTTP/1.1 has it.
    Chunked,
    /// As they are, until the connection closes: HTTP/1.0.
    Plain,
    /// In messages of a WebSocket.
    Message,
}

impl Framing {
    /// Lets `write` append an event, and puts its length around it if the framing needs it.
    pub(crate) fn around(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self == Self::Plain {
            return write(out);
        }
        let mut event = Vec::with_capacity(256);
        write(&mut event);
        // A chunk without bytes would end the body, and a message without any says nothing.
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

    /// Returns what stands before and after an event that consists of `before`, so many bytes of
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
