//! Responses of any server: a client finds the same ends, however the bytes are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealed_http::codec::{Asked, DecodeError, Limits, ResponseDecoder, ResponseEvent};

/// The status, whether the connection is kept, and the body of each response; the last may be
/// incomplete.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    responses: Vec<(u16, bool, Vec<u8>)>,
    ended: usize,
    interim: usize,
    end: Option<Result<bool, DecodeError>>,
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let asked = [Asked::Other, Asked::Head, Asked::Connect][usize::from(*first) % 3];
    let tight = Limits { head_bytes_max: 80, headers_max: 4, body_bytes_max: 16, ..Limits::default() };
    for limits in [Limits::default(), tight] {
        let whole = decode([bytes], asked, &limits);
        assert_eq!(decode(bytes.chunks(1), asked, &limits), whole, "a byte at a time");
        assert_eq!(decode(bytes.chunks(usize::from(*first) % 7 + 2), asked, &limits), whole, "in pieces");
        for (status, _, body) in &whole.responses {
            assert!((100..=999).contains(status));
            assert!(body.len() as u64 <= limits.body_bytes_max);
            assert!(body.is_empty() || asked != Asked::Head && ![204, 304].contains(status));
        }
    }
});

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, asked: Asked, limits: &Limits) -> Outcome {
    let (mut decoder, mut outcome) = (ResponseDecoder::new(), Outcome::default());
    let mut kept = Vec::new();
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            let (taken, event) = match decoder.decode(&kept, asked, limits) {
                Ok(found) => found,
                Err(error) => {
                    assert_eq!(decoder.end(), Err(DecodeError::Poisoned), "it goes on behind an error");
                    outcome.end = Some(Err(error));
                    return outcome;
                }
            };
            assert!(taken <= kept.len(), "more is taken than there is");
            let goes_on = match event {
                ResponseEvent::Incomplete | ResponseEvent::Switched => false,
                ResponseEvent::Interim(_) => {
                    outcome.interim += 1;
                    true
                }
                ResponseEvent::Head(head) => {
                    outcome.responses.push((head.status(), head.keep_alive(), Vec::new()));
                    true
                }
                ResponseEvent::Data(data) => {
                    assert!(!data.is_empty(), "nothing is no data");
                    outcome.responses.last_mut().expect("data belong to a response").2.extend_from_slice(data);
                    true
                }
                ResponseEvent::End => {
                    outcome.ended += 1;
                    assert_eq!(outcome.ended, outcome.responses.len(), "what ends has begun");
                    true
                }
            };
            kept.drain(..taken);
            if !goes_on {
                break;
            }
        }
    }
    outcome.end = Some(decoder.end());
    outcome
}
