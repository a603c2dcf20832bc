//! A client's frames: the result does not depend on how the bytes are split, and is the same for
//! another reader. Messages that are sent can be read.
#![no_main]

#[path = "../../sealed-http/tests/websocket/peer.rs"]
mod peer;
#[path = "../../sealed-http/tests/websocket/shared.rs"]
mod shared;

use libfuzzer_sys::fuzz_target;
use sealed_http::websocket::{Codec, Event, Kind, Limits};
use shared::decode_pieces;

const TIGHT: Limits = Limits { message_bytes_max: 150, frame_bytes_max: 125, fragments_max: 3 };

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let size = usize::from(*first) % 7 + 2;
    // Masks of zeros change nothing, so that payloads are the bytes of the input.
    let bare = unmasked(bytes);
    for bytes in [bytes, &bare] {
        for limits in [TIGHT, Limits::default()] {
            let roles: [(fn() -> Codec, usize); 2] = [(Codec::server, 0), (|| Codec::client(|| [1, 2, 3, 4]), 4)];
            for (codec, mask_bytes) in roles {
                let whole = decode_pieces(codec(), [bytes], &limits);
                assert_eq!(decode_pieces(codec(), bytes.chunks(1), &limits), whole, "a byte at a time");
                assert_eq!(decode_pieces(codec(), bytes.chunks(size), &limits), whole, "in pieces");
                for event in &whole.events {
                    let length = match event {
                        Event::Text(text) => text.len(),
                        Event::Binary(bytes) => bytes.len(),
                        _ => 0,
                    };
                    assert!(length <= limits.message_bytes_max);
                }
                // The answer to a ping or a close is at most as long as the frame itself, except
                // for the mask of a client's answer.
                let masks = mask_bytes * (whole.events.len() + 1);
                assert!(whole.answers.len() <= bytes.len() + 131 + masks);
            }
            let whole = decode_pieces(Codec::server(), [bytes], &limits);
            peer::check(bytes, &limits, &whole);
        }
    }
    // The input as data: a message that is sent can be read.
    let (mut sent, mask) = (Vec::new(), [*first, 7, 0, 255]);
    Codec::client(move || mask).encode(Kind::Binary, bytes, &mut sent);
    let read = decode_pieces(Codec::server(), sent.chunks(size), &Limits::default());
    assert_eq!(read.events, [Event::Binary(bytes.to_vec())]);
});

/// Returns the same frames with masks of zeros, as far as the bytes are frames.
fn unmasked(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let [first, second, behind @ ..] = rest {
        let length = usize::from(second & 0x7f).min(125).min(behind.len());
        out.extend([*first, 0x80 | length as u8, 0, 0, 0, 0]);
        out.extend(&behind[..length]);
        rest = &behind[length..];
    }
    out
}
