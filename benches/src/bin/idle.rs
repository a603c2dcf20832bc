//! The growth of a server's memory per idle subscriber, read from outside.
//!
//! `cargo run --release -p benches --bin idle -- [SUBSCRIBERS] [channels]` starts a server in a
//! process of its own, and subscribes that many clients (10,000) by Server-Sent Events to one
//! channel, or, with `channels`, each to a channel of its own. It prints `VmRSS` before and after.

use std::net::TcpStream;

use benches::server::{Kind, Process, become_server_if_asked, settled};
use testing::http::subscribe;

fn main() {
    become_server_if_asked();
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let own_channels = std::env::args().nth(2).is_some_and(|text| text == "channels");
    let server = Process::start(Kind::Ccomet);
    // Memory that the server needs once, however many subscribers there are: pages of the program,
    // the channel.
    let empty = server.rss_kib();
    drop((0..100).map(|_| subscribe(server.address, "news")).collect::<Vec<_>>());
    let warm = settled(&server);
    let streams: Vec<TcpStream> = (0..count)
        .map(|n| subscribe(server.address, if own_channels { format!("c{n}") } else { "news".to_owned() }.as_str()))
        .collect();
    let full = settled(&server);
    println!("empty server           {empty:>8} KiB");
    println!("after a first hundred  {warm:>8} KiB");
    println!("{count} subscribers      {full:>8} KiB");
    println!("for each               {:>8} bytes", (full - warm) * 1_024 / count);
    drop(streams);
    println!("after they left        {:>8} KiB", settled(&server));
}
