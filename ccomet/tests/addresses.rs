//! Rules and limits by address, and attempts to evade them. They run on the simulated network,
//! where a client may have any address.

mod common;

use std::time::Duration;

use ccomet::ForwardedBy;
use common::Reply;
use common::stage::{ANN, BOB, LOOPBACK, PROXY, Stage, is_barred, is_fine, is_over, networks};
use sealed::sim::Peer;

impl Stage {
    /// Sends a request from an address on a new connection, and returns the reply.
    fn ask(&self, from: &str, method: &str, headers: &str) -> Reply {
        self.ask_on(&mut self.connect(from), method, headers)
    }

    fn ask_on(&self, peer: &mut Peer, method: &str, headers: &str) -> Reply {
        self.exchange(peer, method, "/channels/a?wait=0", headers, "")
    }

    fn assert_over(answer: &Reply) {
        assert!(is_over(answer), "{answer}");
        let retry_s: u64 = answer.header("retry-after").expect("when to come back").parse().expect("seconds");
        assert!((1..=60).contains(&retry_s), "{answer}");
    }
}

#[test]
fn deny_overrides_allow() {
    let stage = Stage::new(|config| {
        config.front.allow = networks(&["192.0.2.0/24"]);
        config.front.deny = networks(&["192.0.2.2/32"]);
        config.admin.deny = networks(&["192.0.2.0/24"]);
    });
    assert!(is_fine(&stage.ask(ANN, "POST", "")));
    assert!(is_barred(&stage.ask(BOB, "POST", "")));
    assert!(is_barred(&stage.ask("198.51.100.1", "POST", "")));
    let mut admin = stage.connect_to(ANN, stage.server.admin());
    assert!(is_barred(&stage.ask_on(&mut admin, "POST", "")));
}

#[test]
fn a_trusted_proxy_names_the_client_of_each_request() {
    for (by, name) in [(ForwardedBy::XForwardedFor, "X-Forwarded-For: "), (ForwardedBy::Forwarded, "Forwarded: for=")] {
        let stage = Stage::new(|config| {
            config.front.deny = networks(&["192.0.2.2/32"]);
            config.front.trusted_proxies = networks(&["10.0.0.0/8"]);
            config.front.forwarded_by = by;
        });
        let mut proxy = stage.connect(PROXY);
        for _ in 0..2 {
            assert!(is_fine(&stage.ask_on(&mut proxy, "POST", &format!("{name}{ANN}\r\n"))), "{name}");
            // The connection stays open: other clients send requests through it, too.
            assert!(is_barred(&stage.ask_on(&mut proxy, "POST", &format!("{name}{BOB}\r\n"))), "{name}");
        }
    }
}

#[test]
fn an_untrusted_client_cannot_name_another_address() {
    let stage = Stage::new(|config| {
        config.front.allow = networks(&["192.0.2.1/32", "10.0.0.0/8"]);
        config.front.trusted_proxies = networks(&["10.0.0.0/8"]);
        config.limits.publishes_per_address_minute = 2;
    });
    // A client outside names an allowed address.
    for headers in ["X-Forwarded-For: 192.0.2.1\r\n", "Forwarded: for=192.0.2.1\r\n"] {
        assert!(is_barred(&stage.ask(BOB, "POST", headers)), "{headers}");
        // The proxy adds the client's real address.
        let added = format!("{headers}X-Forwarded-For: {BOB}\r\n");
        assert!(is_barred(&stage.ask(PROXY, "POST", &added)), "{headers}");
    }
    // A client inside does not become another client by a new name for each request.
    let answers: Vec<Reply> =
        (1..=3).map(|n| stage.ask(ANN, "POST", &format!("X-Forwarded-For: 192.0.2.1, 10.0.0.{n}\r\n"))).collect();
    assert!(is_fine(&answers[0]) && is_fine(&answers[1]));
    Stage::assert_over(&answers[2]);
}

#[test]
fn a_flood_of_publishes_from_one_address_is_stopped_and_others_are_served() {
    let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 10);
    let mut peer = stage.connect(ANN);
    let answers: Vec<Reply> = (0..30).map(|_| stage.ask_on(&mut peer, "POST", "")).collect();
    assert_eq!(answers.iter().filter(|answer| is_fine(answer)).count(), 10);
    Stage::assert_over(&answers[29]);
    Stage::assert_over(&stage.ask(ANN, "POST", ""));
    assert!(is_fine(&stage.ask(BOB, "POST", "")) && is_fine(&stage.ask(LOOPBACK, "POST", "")));
    assert!(is_fine(&stage.ask(ANN, "GET", "")), "reading is counted apart");
    stage.sim.run_for(Duration::from_secs(60));
    assert!(is_fine(&stage.ask(ANN, "POST", "")), "a minute later all is forgotten");
}

#[test]
fn a_flood_of_subscribes_from_one_network_is_stopped_and_others_are_served() {
    let stage = Stage::new(|config| config.limits.subscribes_per_address_minute = 10);
    // Each request comes from another address of one /64.
    let answers: Vec<Reply> = (1..=30).map(|n| stage.ask(&format!("2001:db8::{n}"), "GET", "")).collect();
    assert_eq!(answers.iter().filter(|answer| is_fine(answer)).count(), 10);
    Stage::assert_over(&answers[29]);
    assert!(is_fine(&stage.ask("2001:db8:0:1::1", "GET", "")) && is_fine(&stage.ask(ANN, "GET", "")));
    // A script tag is limited, too, though it cannot see a status.
    let mut peer = stage.connect("2001:db8::1");
    let answer = stage.exchange(&mut peer, "GET", "/channels/a?callback=f", "", "");
    assert!(answer.contains("f({\"type\":\"error\",\"status\":429,") && answer.contains("\"retry_ms\":"), "{answer}");
}

#[test]
fn a_flood_of_connections_from_one_address_is_stopped_and_others_are_served() {
    const MAX: usize = 10;
    let stage = Stage::new(|config| config.limits.connections_per_address_max = MAX as u32);
    let mut peers: Vec<Peer> = (0..3 * MAX).map(|_| stage.connect(ANN)).collect();
    stage.sim.run_for(Duration::from_secs(1));
    // The server holds twice as many connections as the limit allows, to refuse those beyond it
    // with a reply; it has closed the rest.
    assert_eq!(stage.server.holdings().connections, 2 * MAX - 1);
    assert!(is_fine(&stage.ask(BOB, "GET", "")));
    let (mut served, mut refused) = (0, 0);
    for peer in &mut peers {
        if peer.is_over() {
            continue;
        }
        let answer = stage.ask_on(peer, "GET", "");
        if is_fine(&answer) {
            served += 1;
        } else {
            Stage::assert_over(&answer);
            assert!(answer.contains("Connection: close\r\n"), "{answer}");
            refused += 1;
        }
    }
    assert_eq!((served, refused), (MAX, MAX - 1));
    // The refused connections are closed, at the latest some time after a client that does not hang
    // up.
    stage.sim.run_for(Duration::from_secs(10));
    // There is room as soon as one of the served connections is closed.
    Stage::assert_over(&stage.ask(ANN, "GET", ""));
    drop(peers);
    stage.sim.run_for(Duration::from_secs(1));
    assert!(is_fine(&stage.ask(ANN, "GET", "")));
}

#[test]
fn clients_of_a_proxy_are_counted_separately_and_the_proxy_is_not() {
    let stage = Stage::new(|config| {
        config.front.trusted_proxies = networks(&["10.0.0.0/8"]);
        config.limits.publishes_per_address_minute = 2;
        config.limits.connections_per_address_max = 1;
    });
    let mut proxy = stage.connect(PROXY);
    for _ in 0..5 {
        assert!(is_fine(&stage.ask_on(&mut proxy, "POST", "")));
        assert!(is_fine(&stage.ask(PROXY, "POST", "")));
    }
    let mut ask = |client: &str| stage.ask_on(&mut proxy, "POST", &format!("X-Forwarded-For: {client}\r\n"));
    assert!(is_fine(&ask(ANN)) && is_fine(&ask(ANN)));
    Stage::assert_over(&ask(ANN));
    assert!(is_fine(&ask(BOB)));
}
