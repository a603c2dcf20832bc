//! What the tests share: bytes fed in pieces, and what was decoded put in words; a handler that asks.

#![allow(dead_code, unreachable_pub)] // each test program uses a part

pub mod asker;
pub mod cases;

use cases::Table;
use sealed_http::codec::{DecodeError, Event, Limits, RequestDecoder};

/// What became of some bytes: requests in words, and the error that ended them.
///
/// A request reads `POST /path?query 1.1 keep continue [body]`; one that is not whole ends with `...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub requests: String,
    /// How many of them are whole.
    pub whole: usize,
    pub error: Option<DecodeError>,
}

/// A table's row: a name, why it must be so, the bytes as Latin-1, and what is expected of them.
pub type Case = (&'static str, &'static str, &'static str, Result<&'static str, DecodeError>);

/// Feeds every case whole, a byte at a time, and split in two everywhere.
pub fn check(table: &Table) {
    let mut names: Vec<_> = table.cases.iter().map(|case| case.0).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), table.cases.len(), "{}: two cases have the same name", table.name);
    for (name, why, input, expected) in table.cases {
        let name = &format!("{}: {name}", table.name);
        let outcome = decode_every_way(&latin1(input), &table.limits, name);
        match expected {
            Ok(requests) => assert_eq!((outcome.requests.as_str(), outcome.error), (*requests, None), "{name}: {why}"),
            Err(error) => assert_eq!(outcome.error, Some(*error), "{name}: {why}; decoded: {}", outcome.requests),
        }
    }
}

/// Feeds bytes whole, a byte at a time, and split in two everywhere: what comes out must always be the same.
pub fn decode_every_way(input: &[u8], limits: &Limits, name: &str) -> Outcome {
    let whole = decode_pieces(&[input], limits);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode_pieces(&bytes, limits), whole, "{name}: a byte at a time");
    for at in 1..input.len() {
        let (first, second) = input.split_at(at);
        assert_eq!(decode_pieces(&[first, second], limits), whole, "{name}: split at {at}");
    }
    whole
}

/// Feeds bytes as a connection would: what is not used stays in front of what comes next.
pub fn decode_pieces(pieces: &[&[u8]], limits: &Limits) -> Outcome {
    let mut decoder = RequestDecoder::new();
    let mut kept = Vec::new();
    let mut words = Words::default();
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            let (used, more) = match decoder.decode(&kept, limits) {
                Ok((used, event)) => (used, words.note(&event)),
                Err(error) => {
                    assert_poisoned(&mut decoder, &kept);
                    return words.finish(Some(error));
                }
            };
            kept.drain(..used);
            if !more {
                break;
            }
        }
    }
    assert!(!decoder.is_idle() || kept.is_empty(), "bytes were left while nothing was seen");
    words.finish(None)
}

/// Bytes written as characters below 256.
pub fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("a character below 256")).collect()
}

/// After an error nothing is decoded: not what is left, and not what is valid.
fn assert_poisoned(decoder: &mut RequestDecoder, left: &[u8]) {
    let roomy = Limits {
        request_line_bytes_max: 1 << 20,
        head_bytes_max: 1 << 20,
        body_bytes_max: 1 << 20,
        ..Limits::default()
    };
    for input in [left, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\r\n", b"0\r\n\r\n", b""] {
        assert_eq!(decoder.decode(input, &roomy).err(), Some(DecodeError::Poisoned));
        assert!(!decoder.is_idle());
    }
}

#[derive(Default)]
struct Words {
    text: String,
    body: Vec<u8>,
    in_request: bool,
    whole: usize,
}

impl Words {
    /// Returns whether there may be more.
    fn note(&mut self, event: &Event<'_>) -> bool {
        match event {
            Event::Incomplete => return false,
            Event::Head(head) => {
                assert!(!self.in_request, "a head within a request");
                self.in_request = true;
                let separator = if self.text.is_empty() { "" } else { " + " };
                let query = head.query().map(|query| format!("?{query}")).unwrap_or_default();
                let keep = if head.keep_alive() { "keep" } else { "close" };
                let goes_on = if head.expects_continue() { " continue" } else { "" };
                let (method, path, minor) = (head.method_name(), head.path(), head.version_minor());
                self.text.extend([separator, &format!("{method} {path}{query} 1.{minor} {keep}{goes_on}")]);
            }
            Event::Data(data) => {
                assert!(self.in_request && !data.is_empty());
                self.body.extend_from_slice(data);
            }
            Event::End => {
                assert!(std::mem::take(&mut self.in_request), "an end without a head");
                self.note_body();
                self.whole += 1;
            }
        }
        true
    }

    fn note_body(&mut self) {
        if !self.body.is_empty() {
            let body = std::mem::take(&mut self.body);
            self.text.extend([" [", &String::from_utf8_lossy(&body).escape_debug().to_string(), "]"]);
        }
    }

    fn finish(mut self, error: Option<DecodeError>) -> Outcome {
        self.note_body();
        let requests = self.text + if self.in_request { " ..." } else { "" };
        Outcome { requests, whole: self.whole, error }
    }
}
