//! The service of the guide, which readers copy.

include!("../src/guide/tally.rs");

use sealed::Config;
use sealed::sim::{Peer, Simulation};

/// Sends `input` in one piece to a new server. Returns the answer up to the end of the connection,
/// and another client.
fn answer(input: &str) -> (String, Peer) {
    let sim = Simulation::new(1);
    let mut event_loop = sim.event_loop(Config::default(), Tally::default()).expect("a loop");
    let address = event_loop.listen("10.0.0.1:7777").expect("it is free").address;
    sim.start(event_loop);
    let mut peer = sim.connect(&address);
    peer.send(input);
    (String::from_utf8(peer.expect_end()).expect("text"), sim.connect(&address))
}

#[test]
fn lines_behind_quit_are_ignored() {
    let (answer, mut other) = answer("vote tea\nquit\nvote coffee\n");
    assert_eq!(answer, "counted\n");
    other.send("watch\n");
    assert_eq!(other.expect("\n\n"), b"tea 1\n\n");
}

#[test]
fn a_line_that_is_too_long_is_refused_with_or_without_its_end() {
    let long = format!("vote {}", "x".repeat(1_000));
    for line in [&format!("{long}\nwatch\n"), &long] {
        assert_eq!(answer(line).0, "that line is too long\n");
    }
}
