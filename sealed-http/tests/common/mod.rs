//! Tools that the tests share: bytes fed in pieces, decoded requests as text, and a handler that
//! sends requests.

#![allow(dead_code, unreachable_pub)] // each test program uses a part of it

pub mod asker;
pub mod calling;
pub mod cases;

use cases::Table;
use sealed_http::codec::{DecodeError, Event, Limits, RequestDecoder};

/// The result of decoding some bytes: the requests as text, and the error that ended them.
///
/// A request reads `POST /path?query 1.1 keep continue [body]`; an incomplete request ends with
/// `...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub requests: String,
    /// The number of complete requests.
    pub whole: usize,
    pub error: Option<DecodeError>,
}

/// A row of a table: a name, the reason for the result, the bytes as Latin-1, and the expected
/// result.
pub type Case = (&'static str, &'static str, &'static str, Result<&'static str, DecodeError>);

/// Asserts the result of every case of a table: fed whole, a byte at a time, and split in two at
/// every position.
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

/// Feeds bytes whole, a byte at a time, and split in two at every position. Asserts that the result
/// is always the same, and returns it.
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

/// Feeds bytes as a connection would: unused bytes stay in front of the next ones.
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

/// Returns the bytes of a text whose characters are all below 256.
pub fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("a character below 256")).collect()
}

/// Asserts that nothing is decoded after an error: neither the rest of the input, nor valid input.
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
    /// Records an event. Returns whether there may be more.
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
