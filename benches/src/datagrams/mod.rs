//! Small servers that send each UDP datagram back to its sender, from one socket, on loops of
//! several kinds; and their clients. Each server prints its address, and serves until it is killed.

mod bare;
mod client;
mod sealed;
mod tokio;

pub use client::Clients;

/// The servers, that of this project first.
pub const SERVERS: [&str; 3] = ["sealed", "bare mio", "tokio"];

/// Length of the buffer that each server receives into, which no datagram exceeds.
const BUFFER_BYTES: usize = 65_536;

pub(crate) fn serve(server: &str) {
    match server {
        "sealed" => sealed::serve(),
        "bare mio" => bare::serve(),
        "tokio" => tokio::serve(),
        _ => unreachable!("one of those"),
    }
}
