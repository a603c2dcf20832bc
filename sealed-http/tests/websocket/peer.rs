//! tungstenite's own connection as another reader of a client's frames, and the rules on which it
//! and this crate have to agree.

#![allow(unreachable_pub)] // it is a part of test programs

use std::io::{self, Read, Write};

use sealed_http::websocket::{CONTROL_BYTES_MAX, CloseCode, Event, Limits, Violation};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::shared::Outcome;

/// A stream of bytes to read, with nothing behind them yet; written bytes are lost.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(into) }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the events that tungstenite reads from the bytes, and whether it refuses some of the
/// bytes.
fn read(bytes: &[u8], limits: &Limits) -> (Vec<Event>, bool) {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.frame_bytes_max));
    let (mut context, mut wire) = (WebSocketContext::new(Role::Server, Some(config)), Wire(bytes));
    let mut events = Vec::new();
    loop {
        events.push(match context.read(&mut wire) {
            Ok(Message::Text(text)) => Event::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Event::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Event::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Event::Pong(bytes.to_vec()),
            Ok(Message::Close(close)) => {
                let code = close.as_ref().and_then(|close| CloseCode::new(close.code.into()));
                Event::Close { code, reason: close.map(|close| close.reason.to_string()).unwrap_or_default() }
            }
            Ok(Message::Frame(_)) => unreachable!("it is not read"),
            Err(Error::ConnectionClosed) => return (events, false),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (events, false),
            Err(_) => return (events, true),
        });
    }
}

/// Asserts that tungstenite accepts what this crate accepts, with the same meaning, and refuses
/// what this crate refuses, or does not look at it before it is complete. It differs in these
/// rules: lengths need not be in their shortest form, fragments have no limit, frames of all kinds
/// have the same limit, and a close with a bad code is reported as a close.
pub fn check(bytes: &[u8], limits: &Limits, ours: &Outcome) {
    assert!(limits.frame_bytes_max >= CONTROL_BYTES_MAX, "it has to let control frames through");
    let (theirs, refuses) = read(bytes, limits);
    let Some(violation) = ours.violation else {
        assert_eq!((&theirs, refuses), (&ours.events, false));
        return;
    };
    assert_eq!(theirs.get(..ours.events.len()), Some(&ours.events[..]), "before {violation:?}");
    match (violation, &theirs[ours.events.len()..]) {
        (Violation::Length | Violation::TooManyFragments, _) | (_, []) | (Violation::Close, [Event::Close { .. }]) => {}
        (_, more) => panic!("{violation:?} is taken for {more:?}"),
    }
}
