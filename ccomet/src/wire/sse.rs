//! Server-Sent Events, as the HTML standard reads them.

use std::io::Write;

use bytes::Bytes;

use super::json;
use crate::position::{Spot, write_position};

/// How long a browser waits before it comes back, if the server does not say otherwise, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// How the events of a stream lie in its HTTP body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// In chunks, as HTTP/1.1 has it.
    Chunked,
    /// As they are, until the connection closes: HTTP/1.0.
    Plain,
}

/// An event with an id. `data` is one line, as JSON is.
pub(crate) fn write_event(
    framing: Framing,
    kind: Option<&str>,
    spots: impl IntoIterator<Item = Spot>,
    data: &[u8],
    out: &mut Vec<u8>,
) {
    debug_assert!(!data.contains(&b'\n') && !data.contains(&b'\r'));
    framed(framing, out, |out| {
        out.extend_from_slice(b"id: ");
        write_position(spots, out);
        write_rest(kind, data, out);
    });
}

/// The same around an item that others get too: what stands before it, the item itself, and what stands after.
pub(crate) fn event_around(framing: Framing, spots: impl IntoIterator<Item = Spot>, item: &Bytes) -> [Bytes; 3] {
    let mut head = b"id: ".to_vec();
    write_position(spots, &mut head);
    head.extend_from_slice(b"\ndata: ");
    match framing {
        Framing::Plain => [head.into(), item.clone(), Bytes::from_static(b"\n\n")],
        Framing::Chunked => {
            let mut chunk = format!("{:x}\r\n", head.len() + item.len() + 2).into_bytes();
            chunk.append(&mut head);
            [chunk.into(), item.clone(), Bytes::from_static(b"\n\n\r\n")]
        }
    }
}

/// The event that says that a channel was closed. It has no id: there is nothing to resume.
pub(crate) fn write_closing(framing: Framing, item: &[u8], out: &mut Vec<u8>) {
    framed(framing, out, |out| {
        out.extend_from_slice(b"event: close\ndata: ");
        out.extend_from_slice(item);
        out.extend_from_slice(b"\n\n");
    });
}

/// The event that says that the reader's token ends soon.
pub(crate) fn write_token_warning(framing: Framing, expires_in_s: u64, out: &mut Vec<u8>) {
    let mut data = br#"{"type":"token","expires_in_s":"#.to_vec();
    json::write_number(expires_in_s, &mut data);
    data.push(b'}');
    framed(framing, out, |out| {
        out.extend_from_slice(b"event: token\ndata: ");
        out.extend_from_slice(&data);
        out.extend_from_slice(b"\n\n");
    });
}

/// The first event of a stream: where it starts, so that a client that loses it at once can resume all the same.
pub(crate) fn write_hello(
    framing: Framing,
    heartbeat_ms: u64,
    spots: Option<impl IntoIterator<Item = Spot>>,
    out: &mut Vec<u8>,
) {
    let mut data = br#"{"type":"hello","heartbeat_ms":"#.to_vec();
    json::write_number(heartbeat_ms, &mut data);
    data.push(b'}');
    framed(framing, out, |out| {
        write_retry(RETRY_MS, out);
        if let Some(spots) = spots {
            out.extend_from_slice(b"id: ");
            write_position(spots, out);
            out.push(b'\n');
        }
        out.extend_from_slice(b"event: hello\ndata: ");
        out.extend_from_slice(&data);
        out.extend_from_slice(b"\n\n");
    });
}

/// The last event of a server that goes down: when to come back.
pub(crate) fn write_bye(framing: Framing, retry_ms: u64, out: &mut Vec<u8>) {
    let mut data = br#"{"type":"bye","retry_ms":"#.to_vec();
    json::write_number(retry_ms, &mut data);
    data.push(b'}');
    framed(framing, out, |out| {
        write_retry(retry_ms, out);
        out.extend_from_slice(b"event: bye\ndata: ");
        out.extend_from_slice(&data);
        out.extend_from_slice(b"\n\n");
    });
}

/// A sign of life that a script can hear, if it listens for it, and a proxy must pass on.
pub(crate) fn heartbeat(framing: Framing) -> &'static [u8] {
    match framing {
        Framing::Chunked => b"19\r\nevent: heartbeat\ndata: \n\n\r\n",
        Framing::Plain => b"event: heartbeat\ndata: \n\n",
    }
}

fn write_retry(retry_ms: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"retry: ");
    json::write_number(retry_ms, out);
    out.push(b'\n');
}

fn write_rest(kind: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
    if let Some(kind) = kind {
        out.extend_from_slice(b"\nevent: ");
        out.extend_from_slice(kind.as_bytes());
    }
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

/// Lets `write` append the event, and puts its length around it where the framing wants it.
fn framed(framing: Framing, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    if framing == Framing::Plain {
        return write(out);
    }
    let mut event = Vec::with_capacity(256);
    write(&mut event);
    // Writing to memory does not fail.
    let _ = write!(out, "{:x}\r\n", event.len());
    out.append(&mut event);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Epoch;

    const SPOT: Spot = Spot { epoch: Epoch(1), next: 2 };

    #[test]
    fn events_are_framed_by_their_length() {
        let mut plain = Vec::new();
        write_event(Framing::Plain, Some("gap"), [SPOT], b"{}", &mut plain);
        assert_eq!(plain, b"id: 0000000000001-0000000002\nevent: gap\ndata: {}\n\n");
        let mut chunked = Vec::new();
        write_event(Framing::Chunked, Some("gap"), [SPOT], b"{}", &mut chunked);
        let expected = [format!("{:x}\r\n", plain.len()).as_bytes(), &plain, b"\r\n"].concat();
        assert_eq!(chunked, expected);
        let beat = heartbeat(Framing::Chunked);
        assert_eq!(beat, [b"19\r\n", heartbeat(Framing::Plain), b"\r\n"].concat());
        assert_eq!(heartbeat(Framing::Plain).len(), 0x19);
    }
}
