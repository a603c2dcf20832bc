//! UDP on loopback: a server with one socket that sends each datagram back, on `sealed`, compared
//! with a bare mio loop and tokio, each in a process of its own.
//!
//! `cargo bench -p benches --bench datagrams` prints tables of all cases, measured in alternating
//! rounds: how many exchanges there are in a second, and the processor time that each costs the
//! server, which other programs on the machine disturb less.

#![allow(clippy::cast_precision_loss)] // counts far below 2^52

use benches::datagrams::{Clients, SERVERS};
use benches::server::{Process, become_server_if_asked, pin_client};
use benches::table::{Better, Table, in_turn, is_short};

/// Clients, bytes of a datagram, and exchanges of each client. Each client has one datagram under
/// way; the buffer of the server's socket holds those of 50 clients.
const CASES: [(usize, usize, usize); 4] = [(1, 64, 50_000), (1, 1_200, 50_000), (50, 64, 4_000), (50, 1_200, 4_000)];

fn main() {
    become_server_if_asked();
    pin_client();
    let (rounds, shrunk) = if is_short() { (1, 100) } else { (9, 1) };
    let servers = SERVERS.map(Process::start_datagrams);
    let mut rates = Table::new("datagrams", "a second", Better::More, &SERVERS);
    let mut costs =
        Table::new("datagrams-cpu", "µs of the server's processor time for a datagram", Better::Less, &SERVERS);
    for (clients, size, times) in CASES {
        let times = times / shrunk;
        let medians = in_turn(SERVERS.len(), rounds, |server| {
            let server = &servers[server];
            let mut all = Clients::new(server.address, clients);
            all.exchange(size, times.div_ceil(10)); // not measured
            let before = server.processor_time();
            let time = all.exchange(size, times);
            let used = server.processor_time().saturating_sub(before);
            let count = (clients * times) as f64;
            Some(vec![count / time.as_secs_f64(), used.as_secs_f64() * 1e6 / count])
        });
        let figures = |figure: usize| medians.iter().map(|of_server| Some(of_server[figure])).collect::<Vec<_>>();
        rates.row(&format!("round trips, {clients} x {size} B"), &figures(0));
        costs.row(&format!("{clients} x {size} B"), &figures(1));
    }
    rates.finish();
    costs.finish();
}
