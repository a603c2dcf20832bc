//! Tools that the tests of WebSocket share: frames written by hand, and the results of decoding as
//! text.

#![allow(dead_code, unreachable_pub)] // each test program uses a part of it

use sealed_http::websocket::{CloseCode, Codec, Event, Limits, Violation};

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Returns a client's frame: its first byte, unchanged, and its payload, masked.
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let (payload, mask) = (payload.as_ref(), [0x37, 0xfa, 0x21, 0x3d]);
    let mut bytes = header(first, 0x80, payload.len());
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Returns a server's frame.
pub fn plain(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [&header(first, 0, payload.len()), payload].concat()
}

fn header(first: u8, masked: u8, length: usize) -> Vec<u8> {
    match length {
        0..126 => vec![first, masked | length as u8],
        126..65_536 => [&[first, masked | 0x7e], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[first, masked | 0x7f], &(length as u64).to_be_bytes()[..]].concat(),
    }
}

pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
}

/// The result of decoding some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub events: Vec<Event>,
    pub answers: Vec<u8>,
    pub violation: Option<Violation>,
}

/// Decodes bytes whole, a byte at a time, and split in two at every position. Asserts that the
/// result is the same, and returns it.
pub fn decode(bytes: &[u8], limits: &Limits) -> Outcome {
    let whole = decode_pieces(Codec::server(), [bytes], limits);
    assert_eq!(decode_pieces(Codec::server(), bytes.chunks(1), limits), whole, "a byte at a time");
    // Long input is split only near its ends.
    for at in (1..bytes.len()).filter(|at| *at < 200 || *at + 200 > bytes.len()) {
        assert_eq!(decode_pieces(Codec::server(), [&bytes[..at], &bytes[at..]], limits), whole, "split at {at}");
    }
    whole
}

/// Decodes pieces as a connection would: unused bytes stay in front of the next ones.
pub fn decode_pieces<'a>(mut codec: Codec, pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut outcome = Outcome { events: Vec::new(), answers: Vec::new(), violation: None };
    let mut kept = Vec::new();
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            match codec.decode(&kept, limits, &mut outcome.answers) {
                Ok((used, event)) => {
                    kept.drain(..used);
                    if event == Event::Incomplete {
                        break;
                    }
                    outcome.events.push(event);
                }
                Err(violation) => {
                    assert_eq!(outcome.violation.replace(violation), None, "one violation");
                    kept.clear();
                }
            }
        }
        assert!(kept.len() <= 130, "{} bytes are held back", kept.len());
    }
    outcome
}

/// Returns the outcome as text: the events, the violation, and the answers behind a slash.
pub fn words(outcome: &Outcome) -> String {
    let text = |bytes: &[u8]| match bytes.len() {
        0..40 => String::from_utf8_lossy(bytes).escape_debug().to_string(),
        length => format!("{length} bytes"),
    };
    let mut words: Vec<_> = outcome
        .events
        .iter()
        .map(|event| match event {
            Event::Text(held) => format!("text {}", text(held.as_bytes())),
            Event::Binary(held) => format!("binary {}", text(held)),
            Event::Ping(held) => format!("ping {}", text(held)),
            Event::Pong(held) => format!("pong {}", text(held)),
            Event::Close { code, reason } => {
                format!("close {} {}", code.map_or(0, CloseCode::number), text(reason.as_bytes()))
            }
            Event::Incomplete => unreachable!("it is not kept"),
        })
        .collect();
    words.extend(outcome.violation.map(|violation| format!("{violation:?}")));
    let joined = |frames: Vec<String>| frames.iter().map(|word| word.trim_end()).collect::<Vec<_>>().join(", ");
    format!("{} / {}", joined(words), joined(server_frames(&outcome.answers))).trim().to_owned()
}

/// Returns a server's frames as text. They must be complete and unmasked.
pub fn server_frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert!(first & 0x70 == 0 && second & 0x80 == 0, "no reserved bits, no mask");
        let (length, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().expect("eight")) as usize, &rest[8..]),
            short => (usize::from(*short), rest),
        };
        let (payload, behind) = rest.split_at(length);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        frames.push(match first {
            0x81 => format!("text {}", text(payload)),
            0x82 => format!("binary {}", text(payload)),
            0x89 => format!("ping {}", text(payload)),
            0x8a => format!("pong {}", text(payload)),
            0x88 if payload.is_empty() => "close".to_owned(),
            0x88 => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
            other => panic!("a frame that begins with {other:#x}"),
        });
        bytes = behind;
    }
    assert!(bytes.is_empty(), "half a frame");
    frames
}
