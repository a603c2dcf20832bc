//! Pieces of bodies that a handler keeps after the call.

use sealed::{Bytes, Config, ConnectionId};
use sealed_http::server::{Intake, Piece};
use sealed_http::{Handler, Http, RequestHead, Response, Settings};
use testing::sim::Served;

const BODY_BYTES: usize = 640_000;

#[derive(Default)]
struct Keeper {
    kept: Vec<Bytes>,
    /// Number of bytes that were copied.
    copied: usize,
}

impl Handler for Keeper {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn intake(&mut self, _: &mut Http<'_, Self>, _: ConnectionId, _: &RequestHead<'_>) -> Intake {
        Intake::Stream
    }

    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {
        let Piece::Data(data) = piece else { return http.respond(id, &Response::new(200).body("kept")) };
        let bytes = http.share(data);
        if bytes.as_ptr() != data.as_ptr() {
            self.copied += data.len();
        }
        self.kept.push(bytes);
    }
}

/// Sends a body in these parts after this framing. Asserts that it arrives, and returns how many of
/// its bytes were copied.
fn copied(framing: &str, parts: &[Vec<u8>], body: &[u8]) -> usize {
    let site = Served::new(1, Config::default(), Settings::default(), Keeper::default());
    let mut peer = site.connect();
    peer.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"));
    for part in parts {
        peer.send(part);
    }
    peer.expect("\r\n\r\nkept");
    site.act(|keeper, _| {
        assert!(keeper.kept.concat() == body);
        keeper.copied
    })
}

#[test]
fn large_pieces_are_not_copied() {
    let body: Vec<u8> = (0..BODY_BYTES).map(|n| (n % 251) as u8).collect();
    let length = format!("Content-Length: {BODY_BYTES}");
    let at_once = copied(&length, std::slice::from_ref(&body), &body);
    assert!(at_once < BODY_BYTES / 4, "{at_once} bytes are copied");
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    let chunked = |bytes| body.chunks(bytes).map(chunk).chain([b"0\r\n\r\n".to_vec()]).collect::<Vec<_>>();
    let large = copied("Transfer-Encoding: chunked", &chunked(200_000), &body);
    assert!(large < BODY_BYTES / 2, "{large} bytes are copied");
    let small = copied("Transfer-Encoding: chunked", &chunked(3_000), &body);
    assert_eq!(small, BODY_BYTES, "a chunk would keep a buffer that is much larger");
}
