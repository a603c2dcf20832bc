//! Small servers that do the same work on loops of several kinds. Each prints its address, and
//! serves until it is killed.

mod bare;
mod calloop;
mod polling;
mod sealed;
mod tokio;

use std::os::fd::AsFd;

/// The servers, that of this project first.
pub const SERVERS: [&str; 5] = ["sealed", "bare mio", "polling", "calloop", "tokio"];

/// How a server treats its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It sends the input back.
    Echo,
    /// It counts and discards the input, and answers every [`BULK`] bytes with one byte.
    Discard,
    /// It answers each byte with [`MESSAGES`] messages, each of which is a write of its own.
    Tell,
}

/// Bytes of a bulk.
pub const BULK: usize = 16 * 1024 * 1024;
/// The number of messages for one byte.
pub const MESSAGES: usize = 100;
/// One of the messages.
pub const MESSAGE: &[u8; 32] = b"0123456789abcdef0123456789abcde\n";

/// Maximum number of bytes that each server reads at a time.
const BUFFER_BYTES: usize = 64 * 1024;

pub(crate) fn serve(server: &str, part: &str) {
    let parts = [Part::Echo, Part::Discard, Part::Tell];
    let part = parts.into_iter().find(|known| format!("{known:?}") == part).expect("a part");
    match server {
        "sealed" => sealed::serve(part),
        "bare mio" => bare::serve(part),
        "polling" => polling::serve(part),
        "calloop" => calloop::serve(part),
        "tokio" => tokio::serve(part),
        _ => unreachable!("one of those"),
    }
}

/// Sets the backlog of a server to that of `sealed`: a connection that the kernel drops is tried
/// again a second later, and that second would be measured.
pub(crate) fn hold_as_many(listener: impl AsFd) {
    let backlog = ::sealed::Config::default().backlog;
    rustix::net::listen(listener, backlog).expect("listening");
}

/// The number of discarded bytes of one connection.
#[derive(Debug, Default)]
struct Discarded(usize);

impl Discarded {
    /// Adds the number of bytes read, and returns the number of bulks that they complete.
    fn add(&mut self, count: usize) -> usize {
        self.0 += count;
        let full = self.0 / BULK;
        self.0 %= BULK;
        full
    }
}
