//! Small servers that do the same on loops of several kinds. Each prints its address, and serves until it is killed.

mod bare;
mod calloop;
mod polling;
mod sealed;
mod tokio;

use std::os::fd::AsFd;

/// The servers, this project's first.
pub const SERVERS: [&str; 5] = ["sealed", "bare mio", "polling", "calloop", "tokio"];

/// What a server does with what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It is sent back.
    Echo,
    /// It is counted and thrown away; every [`BULK`] bytes are answered with one.
    Discard,
    /// Each byte asks for [`MESSAGES`] messages, and each of those is a write of its own.
    Tell,
}

/// Bytes of a bulk.
pub const BULK: usize = 16 * 1024 * 1024;
/// How many messages are asked for with one byte.
pub const MESSAGES: usize = 100;
/// One of them.
pub const MESSAGE: &[u8; 32] = b"0123456789abcdef0123456789abcde\n";

/// Bytes that each server reads at most at a time.
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

/// Lets the kernel hold as many connections for a server as it does for `sealed`: one that it drops comes back a second
/// later, and that second would be measured.
pub(crate) fn hold_as_many(listener: impl AsFd) {
    let backlog = ::sealed::Config::default().backlog;
    rustix::net::listen(listener, backlog).expect("listening");
}

/// Counts what is thrown away of one connection.
#[derive(Debug, Default)]
struct Discarded(usize);

impl Discarded {
    /// Adds what was read, and tells how many bulks are full by it.
    fn add(&mut self, count: usize) -> usize {
        self.0 += count;
        let full = self.0 / BULK;
        self.0 %= BULK;
        full
    }
}
