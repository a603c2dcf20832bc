//! How a client's bytes arrive: whole or in pieces, with bodies in chunks and messages in frames.

use std::collections::VecDeque;

use sealed::sim::{Peer, Random};
use testing::http::frame;

/// The most bytes that are cut byte by byte: the rest comes whole.
const BYTES_MAX: usize = 400;

/// The payload of pings between the frames of a message.
pub const PING: &[u8] = b"between";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Whole,
    /// Cut somewhere, and sent as soon as possible.
    Pieces,
    /// Cut somewhere, and sent one after the other as time passes.
    Slowly,
    /// Byte by byte.
    Bytes,
}

/// The sending side of a connection.
#[derive(Debug)]
pub struct Cuts {
    how: How,
    random: Random,
    /// Bytes that are still to be sent.
    pieces: VecDeque<Vec<u8>>,
}

impl Cuts {
    /// Creates a sender that cuts with this probability.
    pub fn new(chance: f64, random: &mut Random) -> Self {
        let hows = [How::Pieces, How::Pieces, How::Slowly, How::Bytes];
        let how = if random.chance(chance) { *random.pick(&hows).expect("one") } else { How::Whole };
        Self { how, random: Random::new(random.bits()), pieces: VecDeque::new() }
    }

    /// Stops holding pieces back: a client that sends a piece at a time may need longer for a pong
    /// than a message may take.
    pub fn hurry(&mut self) {
        if self.how == How::Slowly {
            self.how = How::Pieces;
        }
    }

    /// Sends bytes, or keeps pieces for [later](Self::go_on).
    pub fn send(&mut self, peer: &mut Peer, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = match self.how {
                How::Bytes if bytes.len() - rest.len() < BYTES_MAX => 1,
                How::Whole | How::Bytes => rest.len(),
                How::Pieces | How::Slowly => 1 + self.random.below(rest.len().min(200)),
            };
            let (piece, behind) = rest.split_at(length);
            self.pieces.push_back(piece.to_vec());
            rest = behind;
        }
        // Bytes that are sent before the connection is established arrive together.
        if self.how == How::Whole {
            self.pieces.drain(..).for_each(|piece| peer.send(piece));
        }
    }

    /// Sends the pieces that are due by now.
    pub fn go_on(&mut self, peer: &mut Peer) {
        if !peer.is_connected() {
            return;
        }
        let count = if self.how == How::Slowly { 1 } else { self.pieces.len() };
        self.pieces.drain(..count.min(self.pieces.len())).for_each(|piece| peer.send(piece));
    }

    /// Returns a text message, in one frame or in several, with pings between.
    pub fn message(&mut self, text: &str) -> Vec<u8> {
        let text = text.as_bytes();
        if self.how == How::Whole || self.random.chance(0.3) {
            return frame(0x81, text);
        }
        let (mut frames, mut rest, mut kind) = (Vec::new(), text, 0x01);
        while self.random.chance(0.7) {
            let (part, behind) = rest.split_at(self.random.below(rest.len() + 1));
            frames.extend(frame(kind, part));
            if self.random.chance(0.2) {
                frames.extend(frame(0x89, PING));
            }
            (rest, kind) = (behind, 0x00);
        }
        frames.extend(frame(0x80 | kind, rest));
        frames
    }

    /// Returns a POST of known length or in chunks. Each of the fields ends with CRLF.
    pub fn post(&mut self, target: &str, fields: &str, body: &str) -> String {
        let head = format!("POST {target} HTTP/1.1\r\nHost: sim\r\n{fields}");
        if self.how == How::Whole || self.random.chance(0.5) {
            return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
        let chunks = self.chunks(body);
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}")
    }

    /// Returns a body in chunks, with optional extensions and trailers.
    pub fn chunks(&mut self, body: &str) -> String {
        let (mut chunks, mut rest) = (String::new(), body);
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(1 + self.random.below(rest.len()));
            let extension = if self.random.chance(0.2) { ";name=\"value\"" } else { "" };
            let length = part.len();
            let length = if self.random.chance(0.2) { format!("0{length:X}") } else { format!("{length:x}") };
            for piece in [&length, extension, "\r\n", part, "\r\n"] {
                chunks.push_str(piece);
            }
            rest = behind;
        }
        let trailer = if self.random.chance(0.2) { "X-Trailer: value\r\n" } else { "" };
        chunks + "0\r\n" + trailer + "\r\n"
    }
}
