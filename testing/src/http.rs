//! HTTP/1.1 from the side of a client. The decoder of `sealed_http` decodes the responses; a
//! response that is malformed, or ends too early, makes the call panic.

mod client;
mod events;
mod reply;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub use client::Client;
pub use events::{Event, EventQueue, Events};
pub use reply::{Part, Reply, Responses};

use crate::PATIENCE;

/// The header fields of a request for a WebSocket.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Returns a request with a `Host`, unless `fields` begin with one, and with a `Content-Length` if
/// it is a `POST` or has a body. Each of the fields ends with CRLF.
pub fn request(method: &str, target: &str, fields: &str, body: &str) -> String {
    let has_body = method == "POST" || !body.is_empty();
    head(method, target, fields, has_body.then_some(body.len())) + body
}

/// Returns the head of a request, with a `Content-Length` if it has a body.
fn head(method: &str, target: &str, fields: &str, body_len: Option<usize>) -> String {
    let length = body_len.map_or_else(String::new, |length| format!("Content-Length: {length}\r\n"));
    let host = if fields.starts_with("Host: ") { "" } else { "Host: localhost\r\n" };
    format!("{method} {target} HTTP/1.1\r\n{host}{length}{fields}\r\n")
}

/// Returns a frame of a WebSocket client, with this first byte and a mask of zeros. The payload
/// must be shorter than 64 KiB.
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = match payload.len() {
        length @ ..126 => vec![0x80 | length as u8],
        length => [&[0x80 | 0x7e], &u16::try_from(length).expect("a short payload").to_be_bytes()[..]].concat(),
    };
    [&[first], &length[..], &[0; 4], payload].concat()
}

/// Connects with Nagle's algorithm disabled. A read gives up after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Subscribes to a channel by Server-Sent Events, and reads the beginning of the stream, not a byte
/// more. Stores nothing besides the connection, because there may be many.
pub fn subscribe(address: SocketAddr, channel: &str) -> TcpStream {
    let mut stream = connect(address);
    let asked = request("GET", &format!("/channels/{channel}"), "Accept: text/event-stream\r\n", "");
    stream.write_all(asked.as_bytes()).expect("sent");
    // Up to the end of the chunk with the hello event, and no further.
    let mut seen = Vec::new();
    while !seen.ends_with(b"\n\n\r\n") {
        let mut bytes = [0; 64];
        let wanted = if seen.len() < 250 { 64.min(250 - seen.len()) } else { 1 };
        let count = stream.read(&mut bytes[..wanted]).expect("a stream");
        assert!(count > 0, "closed: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&bytes[..count]);
    }
    stream
}
