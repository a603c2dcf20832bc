//! Frames that are generated from seeds and spoilt, read by this crate and by tungstenite's own
//! connection.

mod websocket {
    pub(crate) mod peer;
    pub(crate) mod shared;
}

use sealed_http::websocket::{Codec, Limits};
use websocket::peer;
use websocket::shared::*;

const SEEDS: u64 = 20_000;

/// Parts of payloads: text, characters cut in two, and bytes that are no text.
const PARTS: [&[u8]; 9] =
    [b"", b"a", "é".as_bytes(), b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"\xed\xa0\x80", &[b'x'; 126]];

/// A small generator (SplitMix64): a seed gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

fn frames(random: &mut Random) -> Vec<u8> {
    let (mut bytes, mut is_open) = (Vec::new(), false);
    for _ in 0..=random.below(6) {
        let mut payload: Vec<u8> =
            (0..random.below(4)).flat_map(|_| PARTS[random.below(PARTS.len())]).copied().collect();
        let is_final = random.one_in(2);
        let first = match random.below(8) {
            0 => FIN | PING,
            1 => FIN | PONG,
            2 if random.one_in(3) => {
                let code = [1000, 1001, 1005, 3000, 999][random.below(5)];
                payload.splice(..0, u16::to_be_bytes(code));
                FIN | CLOSE
            }
            // Mostly a frame that may come next.
            _ => {
                let continues = is_open != random.one_in(20);
                is_open = !is_final;
                let kind = if continues { CONTINUATION } else { 1 + random.below(2) as u8 };
                kind | if is_final { FIN } else { 0 }
            }
        };
        bytes.extend(if random.one_in(50) { plain(first, &payload) } else { frame(first, &payload) });
    }
    if random.one_in(4) {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    if random.one_in(4) {
        bytes.truncate(random.below(bytes.len()));
    }
    bytes
}

#[test]
fn accepted_frames_mean_the_same_to_another_reader() {
    let limits = Limits { message_bytes_max: 700, frame_bytes_max: 400, fragments_max: u32::MAX };
    let (mut accepted, mut messages) = (0, 0);
    for seed in 0..SEEDS {
        let bytes = frames(&mut Random(seed));
        let ours = decode_pieces(Codec::server(), [&bytes[..]], &limits);
        assert_eq!(decode_pieces(Codec::server(), bytes.chunks(3), &limits), ours, "seed {seed}, in pieces");
        println!("seed {seed}: {:?}", words(&ours));
        peer::check(&bytes, &limits, &ours);
        accepted += u64::from(ours.violation.is_none());
        messages += ours.events.len() as u64;
    }
    assert!(accepted > SEEDS / 4 && messages > SEEDS / 2, "{accepted} of {SEEDS}, {messages} messages");
}
