//! Frames, one case per row: what they mean, or the violation and the close code. Sections are
//! those of RFC 6455, and groups those of the Autobahn test suite.
//!
//! Each case is fed whole, a byte at a time, and split in two at every position.

mod websocket {
    pub(crate) mod shared;
}

use sealed_http::websocket::{
    CloseCode, Codec, Event, Kind, Limits, Violation, binary_frame, close_frame, encode_header, ping_frame, text_frame,
};
use websocket::shared::*;

/// Bytes that follow a close or an error, and must be ignored.
const BEHIND: &[u8] = b"\x89\x80\x37\xfa\x21\x3d";

fn check(name: &str, frames: &[Vec<u8>], expected: &str) {
    check_within(&Limits::default(), name, frames, expected);
}

fn check_within(limits: &Limits, name: &str, frames: &[Vec<u8>], expected: &str) {
    let bytes = frames.concat();
    assert_eq!(words(&decode(&bytes, limits)), expected, "{name}");
    if expected.contains("close ") {
        let outcome = decode(&[&bytes, BEHIND].concat(), limits);
        assert_eq!(words(&outcome), expected, "{name}: nothing is read or sent behind it");
    }
}

#[test]
fn lengths_are_read_in_each_of_their_three_forms() {
    for length in [0, 1, 124, 125, 126, 127, 128, 65_535, 65_536, 300_000] {
        let text = "*".repeat(length);
        let bytes = vec![0xfe; length];
        let outcome = decode(&[frame(FIN | TEXT, &text), frame(FIN | BINARY, &bytes)].concat(), &Limits::default());
        assert_eq!(outcome.events, [Event::Text(text.clone()), Event::Binary(bytes.clone())], "{length}");
        assert!(outcome.answers.is_empty() && outcome.violation.is_none());
        assert_eq!(text_frame(&text), plain(FIN | TEXT, &text));
        assert_eq!(binary_frame(&bytes), plain(FIN | BINARY, &bytes));
        let mut header = Vec::new();
        encode_header(&mut header, Kind::Text, length);
        assert_eq!([&header, text.as_bytes()].concat(), text_frame(&text), "a header alone");
    }
}

#[test]
fn lengths_in_longer_forms_are_refused() {
    // 5.2.
    let long = |second: u8, length: &[u8]| [&[FIN | BINARY, 0x80 | second], length, &[0; 4], &[0; 125][..]].concat();
    check("16 bits for 125", &[long(126, &[0, 125])], "Length / close 1002");
    check("64 bits for 125", &[long(127, &[0, 0, 0, 0, 0, 0, 0, 125])], "Length / close 1002");
    check("64 bits for 65,535", &[long(127, &[0, 0, 0, 0, 0, 0, 0xff, 0xff])], "Length / close 1002");
    check("the highest bit", &[long(127, &[0x80, 0, 0, 0, 0, 1, 0, 0])], "Length / close 1002");
    check(
        "all that can be",
        &[long(127, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
        "FrameTooBig / close 1009",
    );
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    // 5.5.2, 5.5.3.
    let longest = "p".repeat(125);
    check("empty", &[frame(FIN | PING, "")], "ping / pong");
    check("with a payload", &[frame(FIN | PING, "hi")], "ping hi / pong hi");
    check("not text", &[frame(FIN | PING, b"\xff\xfe")], "ping \u{fffd}\u{fffd} / pong \u{fffd}\u{fffd}");
    check("as long as can be", &[frame(FIN | PING, &longest)], &format!("ping 125 bytes / pong {longest}"));
    check("longer", &[frame(FIN | PING, "p".repeat(126))], "LongControl / close 1002");
    check("two", &[frame(FIN | PING, "1"), frame(FIN | PING, "2")], "ping 1, ping 2 / pong 1, pong 2");
    check("a pong of its own", &[frame(FIN | PONG, "hi")], "pong hi /");
    check("both", &[frame(FIN | PONG, "a"), frame(FIN | PING, "b")], "pong a, ping b / pong b");
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    // 5.2.
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        for op_code in [TEXT, BINARY, CLOSE, PING, PONG] {
            check("alone", &[frame(FIN | bits | op_code, "")], "ReservedBit / close 1002");
        }
        let frames = [frame(FIN | TEXT, "a"), frame(FIN | bits | TEXT, "b"), frame(FIN | PING, "")];
        check("behind a message", &frames, "text a, ReservedBit / close 1002");
        check("in a fragment", &[frame(TEXT, "a"), frame(FIN | bits, "b")], "ReservedBit / close 1002");
    }
    for op_code in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check("alone", &[frame(FIN | op_code, "")], "ReservedOpcode / close 1002");
        check("with a payload", &[frame(FIN | op_code, "hi")], "ReservedOpcode / close 1002");
        check(
            "behind a message",
            &[frame(FIN | TEXT, "a"), frame(FIN | op_code, "")],
            "text a, ReservedOpcode / close 1002",
        );
    }
}

#[test]
fn only_frames_of_clients_are_masked() {
    // 5.1.
    for op_code in [TEXT, BINARY, CLOSE, PING, PONG] {
        check("unmasked", &[plain(FIN | op_code, "")], "Unmasked / close 1002");
    }
    check("behind a message", &[frame(FIN | TEXT, "a"), plain(FIN | TEXT, "b")], "text a, Unmasked / close 1002");
    let client = || Codec::client(|| [9, 8, 7, 6]);
    let limits = Limits::default();
    let outcome = decode_pieces(client(), [&plain(FIN | TEXT, "hi")[..], &plain(FIN | PING, "abcde")], &limits);
    assert_eq!(outcome.events, [Event::Text("hi".to_owned()), Event::Ping(b"abcde".to_vec())]);
    let masked = [b'a' ^ 9, b'b' ^ 8, b'c' ^ 7, b'd' ^ 6, b'e' ^ 9];
    assert_eq!(outcome.answers, [&[0x8a, 0x85, 9, 8, 7, 6], &masked[..]].concat());
    let outcome = decode_pieces(client(), [&frame(FIN | TEXT, "hi")[..]], &limits);
    assert_eq!(outcome.violation, Some(Violation::Masked));
    assert_eq!(outcome.answers[..6], [0x88, 0x80 | (outcome.answers.len() - 6) as u8, 9, 8, 7, 6]);
}

#[test]
fn fragments_are_joined_and_control_frames_may_come_between() {
    // 5.4.
    check("two", &[frame(TEXT, "hel"), frame(FIN, "lo")], "text hello /");
    check("bytes", &[frame(BINARY, "hel"), frame(0, "l"), frame(FIN, "o")], "binary hello /");
    check("empty ones", &[frame(TEXT, ""), frame(0, ""), frame(FIN, "")], "text /");
    check("some empty", &[frame(TEXT, ""), frame(0, "hi"), frame(FIN, "")], "text hi /");
    check(
        "a ping between",
        &[frame(TEXT, "hel"), frame(FIN | PING, "p"), frame(FIN, "lo")],
        "ping p, text hello / pong p",
    );
    let two = [frame(TEXT, "a"), frame(FIN | PONG, "p"), frame(0, "b"), frame(FIN | PING, "q"), frame(FIN, "c")];
    check("between each", &two, "pong p, ping q, text abc / pong q");
    check("a close between", &[frame(TEXT, "hel"), close(1000, "")], "close 1000 / close 1000");
    check("a ping in fragments", &[frame(PING, "a"), frame(FIN, "b")], "FragmentedControl / close 1002");
    check("a pong in fragments", &[frame(PONG, "a")], "FragmentedControl / close 1002");
    check("a close in fragments", &[frame(CLOSE, "")], "FragmentedControl / close 1002");
    check("nothing to continue", &[frame(FIN, "a")], "NothingToContinue / close 1002");
    check("nor to begin to", &[frame(0, "a")], "NothingToContinue / close 1002");
    check("nothing any more", &[frame(FIN | TEXT, "a"), frame(FIN, "b")], "text a, NothingToContinue / close 1002");
    check("a message within", &[frame(TEXT, "a"), frame(FIN | TEXT, "b")], "MessageWithinMessage / close 1002");
    check("of another kind", &[frame(TEXT, "a"), frame(BINARY, "b")], "MessageWithinMessage / close 1002");
    check("one after the other", &[frame(TEXT, "a"), frame(FIN, "b"), frame(FIN | BINARY, "c")], "text ab, binary c /");
}

#[test]
fn text_is_refused_as_soon_as_it_is_not_utf_8() {
    // 8.1.
    for text in [
        "κόσμε",
        "\0",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{feff}",
        "\u{fffe}",
    ] {
        let event = [Event::Text(text.to_owned())];
        assert_eq!(decode(&frame(FIN | TEXT, text), &Limits::default()).events, event, "{text:?}");
        for at in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            let fragments = [frame(TEXT, first), frame(FIN | PONG, ""), frame(0, ""), frame(FIN, second)].concat();
            assert_eq!(decode(&fragments, &Limits::default()).events[1..], event, "{text:?} in fragments");
        }
    }
    let bad: [&[u8]; 22] = [
        b"\x80",
        b"\xbf",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xe0\x9f\xbf",
        b"\xf0\x80\x80\xaf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xc3\xc3",
        b"\xc3a",
        b"\xe2\x82a",
        b"\xf0\x9f\x98a",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ];
    for bytes in bad {
        check("whole", &[frame(FIN | TEXT, bytes)], "Text / close 1007");
        let end = [bytes, b"end"].concat();
        for at in 0..bytes.len() {
            let (first, second) = end.split_at(at);
            check("in fragments", &[frame(TEXT, first), frame(0, ""), frame(FIN, second)], "Text / close 1007");
        }
        // The decoder waits neither for the rest of the frame nor for the other fragments of the
        // message.
        let begun = frame(TEXT, [bytes, &b"."[..], &[b'.'; 50]].concat());
        check("at once", &[begun[..begun.len() - 50].to_vec()], "Text / close 1007");
        let bytes_are_fine = decode(&frame(FIN | BINARY, bytes), &Limits::default());
        assert_eq!(bytes_are_fine.events, [Event::Binary(bytes.to_vec())]);
    }
    for cut in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98", b"fine \xe2"] {
        check("cut off", &[frame(FIN | TEXT, cut)], "Text / close 1007");
        check("cut off in fragments", &[frame(TEXT, cut), frame(FIN, "")], "Text / close 1007");
        check("it may go on", &[frame(TEXT, cut)], "/");
    }
}

#[test]
fn closes_are_answered_once_and_only_with_codes_that_may_be_sent() {
    // 5.5.1, 7.4.
    check("without a code", &[frame(FIN | CLOSE, "")], "close 0 / close");
    check("one byte", &[frame(FIN | CLOSE, "x")], "Close / close 1002");
    check("with a reason", &[close(1000, "bye")], "close 1000 bye / close 1000");
    check("the longest reason", &[close(1000, "x".repeat(123))], "close 1000 123 bytes / close 1000");
    check("a longer one", &[close(1000, "x".repeat(124))], "LongControl / close 1002");
    check("not text", &[close(1000, b"\xce\xba\xed\xa0\x80")], "Text / close 1007");
    check("twice", &[close(1000, ""), close(1001, "")], "close 1000 / close 1000");
    check("behind a message", &[frame(FIN | TEXT, "a"), close(1001, "")], "text a, close 1001 / close 1001");
    let may_be = |code: u16| matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999);
    for code in (0..=1_100).chain([1_999, 2_000, 2_999, 3_000, 3_999, 4_000, 4_999, 5_000, 65_535]) {
        let expected =
            if may_be(code) { format!("close {code} / close {code}") } else { "Close / close 1002".to_owned() };
        let outcome = decode_pieces(Codec::server(), [&close(code, "")[..]], &Limits::default());
        assert_eq!(words(&outcome), expected);
        assert_eq!(CloseCode::new(code).map(CloseCode::number), may_be(code).then_some(code));
    }
}

#[test]
fn a_closed_side_sends_nothing_more_but_reads_until_the_answer() {
    // 5.5.1, 7.1.
    let (mut codec, mut out, limits) = (Codec::server(), Vec::new(), Limits::default());
    assert!(codec.is_open() && codec.encode(Kind::Text, b"hi", &mut out));
    assert!(codec.close(CloseCode::GOING_AWAY, "soon", &mut out));
    assert!(!codec.is_open());
    assert!(!codec.close(CloseCode::NORMAL, "", &mut out), "once");
    assert!(!codec.encode(Kind::Text, b"more", &mut out) && !codec.encode(Kind::Ping, b"", &mut out));
    assert_eq!(server_frames(&out), ["text hi", "close 1001"]);
    let coming = [frame(FIN | TEXT, "late"), frame(FIN | PING, "p"), close(1001, ""), frame(FIN | TEXT, "x")].concat();
    let outcome = decode_pieces(codec, [&coming[..]], &limits);
    assert_eq!(words(&outcome), "text late, ping p, close 1001 /", "neither ping nor close is answered any more");
    let mut codec = Codec::server();
    codec.close(CloseCode::NORMAL, "", &mut Vec::new());
    let outcome = decode_pieces(codec, [&frame(FIN | 3, "")[..]], &limits);
    assert_eq!(words(&outcome), "ReservedOpcode /", "nor is an error answered");
    let mut codec = Codec::server();
    codec.decode(&close(1000, ""), &limits, &mut Vec::new()).expect("a close");
    assert!(!codec.is_open() && !codec.close(CloseCode::NORMAL, "", &mut out), "theirs was answered");
}

#[test]
fn limits_are_exact_and_hold_before_the_payload_comes() {
    let limits = Limits { message_bytes_max: 10, frame_bytes_max: 6, fragments_max: 3 };
    let check = |name: &str, frames: &[Vec<u8>], expected: &str| check_within(&limits, name, frames, expected);
    let header = |length: u8| vec![FIN | BINARY, 0x80 | length, 0, 0, 0, 0];
    check("a frame", &[frame(FIN | TEXT, "123456")], "text 123456 /");
    check("a longer one", &[header(7)], "FrameTooBig / close 1009");
    check("a message", &[frame(TEXT, "12345"), frame(FIN, "67890")], "text 1234567890 /");
    check(
        "a longer one",
        &[frame(TEXT, "12345"), frame(0, "678"), [FIN, 0x83, 0, 0, 0, 0].to_vec()],
        "MessageTooBig / close 1009",
    );
    check("fragments", &[frame(TEXT, "a"), frame(0, "b"), frame(FIN, "c")], "text abc /");
    check("one more", &[frame(TEXT, ""), frame(0, ""), frame(0, ""), frame(FIN, "")], "TooManyFragments / close 1009");
    check(
        "each message its own",
        &[frame(TEXT, "123456"), frame(FIN, "78"), frame(FIN | TEXT, "123456")],
        "text 12345678, text 123456 /",
    );
    check(
        "control frames are none",
        &[frame(TEXT, "a"), frame(FIN | PING, "1234567"), frame(0, ""), frame(FIN, "")],
        "ping 1234567, text a / pong 1234567",
    );
}

#[test]
fn the_reason_of_a_close_fits_and_is_text() {
    for reason in [String::new(), "x".repeat(123), "x".repeat(124), "é".repeat(100), format!("{}😀", "x".repeat(121))]
    {
        let frame = close_frame(CloseCode::POLICY, &reason);
        let sent = std::str::from_utf8(&frame[4..]).expect("text");
        assert!(frame[..2] == [0x88, frame.len() as u8 - 2] && frame[2..4] == 1008_u16.to_be_bytes());
        assert!(reason.starts_with(sent) && sent.len() <= 123 && (sent.len() > 119 || sent == reason), "{sent}");
    }
    assert_eq!(ping_frame(b"abc"), plain(FIN | PING, "abc"));
    assert!(std::panic::catch_unwind(|| ping_frame(&[0; 126])).is_err(), "as documented");
    for violation in [Violation::Text, Violation::MessageTooBig, Violation::Unmasked] {
        assert!(violation.to_string().len() < 124, "it is sent as the reason");
    }
}

#[test]
fn each_side_reads_what_the_other_sends() {
    let mut count = 0_u32;
    let masks = move || {
        count = count.wrapping_add(0x1234_5677);
        count.to_be_bytes()
    };
    let (mut client, mut server, limits) = (Codec::client(masks), Codec::server(), Limits::default());
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for length in [0, 3, 125, 126, 70_000] {
        let text = "é".repeat(length);
        client.encode(Kind::Text, text.as_bytes(), &mut up);
        client.encode(Kind::Binary, &vec![0xff; length], &mut up);
        client.encode(Kind::Ping, &vec![1; length.min(125)], &mut up);
        let outcome = decode_pieces(Codec::server(), up.chunks(1_000), &limits);
        assert_eq!(
            outcome.events,
            [Event::Text(text), Event::Binary(vec![0xff; length]), Event::Ping(vec![1; length.min(125)])]
        );
        assert_eq!(outcome.violation, None);
        let (used, event) = client.decode(&outcome.answers, &limits, &mut down).expect("a pong");
        assert_eq!((used, event), (outcome.answers.len(), Event::Pong(vec![1; length.min(125)])));
        up.clear();
    }
    assert!(!server.is_receiving() && server.announced_len() == 0);
    let begun = frame(TEXT, "a");
    assert!(server.decode(&begun, &limits, &mut down).is_ok() && server.is_receiving());
    assert_eq!(server.announced_len(), 1);
    let mut more = frame(0, "0123456789");
    let rest = more.split_off(more.len() - 7);
    assert!(server.decode(&more, &limits, &mut down).is_ok());
    assert_eq!(server.announced_len(), 11, "what is still to come counts");
    assert!(server.decode(&rest, &limits, &mut down).is_ok());
    client.close(CloseCode::NORMAL, "bye", &mut up);
    assert!(
        server
            .decode(&up, &limits, &mut down)
            .is_ok_and(|(_, event)| event == Event::Close { code: Some(CloseCode::NORMAL), reason: "bye".to_owned() })
    );
    assert!(!server.is_receiving(), "what was half-received is gone");
    assert!(client.decode(&down, &limits, &mut up).is_ok_and(|(_, event)| matches!(event, Event::Close { .. })));
}
