//! The PROXY protocol: which connections may use it, and that rules and limits apply to the address
//! that it names. On the simulated network, where a client may have any address.

mod common;

use std::time::Duration;

use ccomet::Config;
use common::Reply;
use common::stage::{ANN, BOB, LOOPBACK, PROXY, Stage, is_barred, is_fine, is_over, networks};
use sealed::sim::Peer;

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

impl Stage {
    fn of(change: impl FnOnce(&mut Config)) -> Self {
        Self::new(|config| {
            config.front.trusted_proxies = networks(&["10.0.0.0/8"]);
            config.front.proxy_protocol = true;
            change(config);
        })
    }

    /// Connects to the front, and sends these bytes first.
    fn connect_with(&self, from: &str, header: &[u8]) -> Peer {
        let mut peer = self.connect(from);
        peer.send(header);
        peer
    }

    fn ask_on(&self, peer: &mut Peer, method: &str, headers: &str) -> Reply {
        self.exchange(peer, method, "/channels/a?wait=0", headers, "")
    }

    /// Sends a request for this client on a new connection of the proxy, and returns the reply.
    fn ask(&self, client: &str, method: &str, headers: &str) -> Reply {
        self.ask_on(&mut self.connect_with(PROXY, line(client).as_bytes()), method, headers)
    }
}

fn line(client: &str) -> String {
    let (family, site) = if client.contains(':') { ("TCP6", "2001:db8:ffff::1") } else { ("TCP4", "198.51.100.1") };
    format!("PROXY {family} {client} {site} 4711 443\r\n")
}

/// Returns a header of version 2.
fn binary(client: &str) -> Vec<u8> {
    let ip: std::net::Ipv4Addr = client.parse().expect("an address");
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &ip.octets()[..], &[198, 51, 100, 1, 0x12, 0x67, 1, 0xbb]].concat()
}

#[test]
fn rules_and_limits_apply_to_the_address_that_the_proxy_names() {
    let stage = Stage::of(|config| {
        config.front.deny = networks(&["192.0.2.2/32"]);
        config.limits.publishes_per_address_minute = 2;
    });
    for header in [line(BOB).into_bytes(), binary(BOB)] {
        assert!(is_barred(&stage.ask_on(&mut stage.connect_with(PROXY, &header), "POST", "")));
    }
    assert!(is_barred(&stage.ask("::ffff:192.0.2.2", "POST", "")), "the same address, written as one of IPv6");
    let mut peers = [line(ANN).into_bytes(), binary(ANN)].map(|header| stage.connect_with(PROXY, &header));
    let answers = peers.each_mut().map(|peer| stage.ask_on(peer, "POST", ""));
    assert!(answers.iter().all(is_fine), "{answers:?}");
    for peer in &mut peers {
        assert!(is_over(&stage.ask_on(peer, "POST", "")), "both are one client");
    }
    assert!(is_fine(&stage.ask("192.0.2.3", "POST", "")));
    // One /64 of IPv6 is one client.
    let answers: Vec<Reply> = (1..=3).map(|n| stage.ask(&format!("2001:db8::{n}"), "POST", "")).collect();
    assert!(is_fine(&answers[0]) && is_fine(&answers[1]) && is_over(&answers[2]), "{answers:?}");
}

#[test]
fn connections_are_counted_by_the_named_address() {
    let stage = Stage::of(|config| config.limits.connections_per_address_max = 2);
    let mut peers: Vec<Peer> = (0..5).map(|_| stage.connect_with(PROXY, line(ANN).as_bytes())).collect();
    stage.sim.run_for(Duration::from_secs(1));
    assert_eq!(peers.iter().filter(|peer| peer.is_over()).count(), 2, "a flood is cut off");
    let answers: Vec<Reply> =
        peers.iter_mut().filter(|peer| !peer.is_over()).map(|peer| stage.ask_on(peer, "GET", "")).collect();
    assert_eq!(answers.iter().filter(|answer| is_fine(answer)).count(), 2, "{answers:?}");
    assert!(is_fine(&stage.ask(BOB, "GET", "")));
    drop(peers);
    stage.sim.run_for(Duration::from_secs(1));
    assert!(is_fine(&stage.ask(ANN, "GET", "")), "closed connections are not counted");
}

#[test]
fn only_trusted_proxies_connect_and_only_with_a_valid_header() {
    let stage = Stage::of(|config| config.front.allow = networks(&["192.0.2.0/24"]));
    let request = b"POST /channels/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let with_header = |header: &[u8]| [header, request].concat();
    for (what, from, bytes) in [
        ("from elsewhere", "203.0.113.9", with_header(line(ANN).as_bytes())),
        ("from an allowed client", ANN, with_header(line(ANN).as_bytes())),
        ("from loopback", LOOPBACK, with_header(&binary(ANN))),
        ("without a header", PROXY, with_header(b"")),
        ("a wrong one", PROXY, with_header(b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n")),
        ("one that is too long", PROXY, with_header(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff")),
    ] {
        let mut peer = stage.connect_with(from, &bytes);
        stage.sim.run_for(Duration::from_millis(500));
        assert!(peer.is_over() && peer.take().is_empty(), "{what}");
    }
    assert!(is_fine(&stage.ask(ANN, "POST", "")));
    // A connection without a complete header is kept no longer than one without a complete request.
    let mut silent = stage.connect_with(PROXY, b"PROXY TCP4 192.0.2.1");
    let start = stage.sim.now();
    assert!(stage.sim.run_until(Duration::from_secs(60), || silent.is_over()));
    assert_eq!(stage.sim.now().saturating_sub(start).as_secs(), Config::default().times.request_s);
    assert!(silent.take().is_empty());
    stage.sim.run_for(Duration::from_secs(30));
    assert_eq!(stage.server.holdings().connections, 0);
}

#[test]
fn a_connection_of_the_proxy_itself_has_its_own_address() {
    let stage = Stage::of(|config| {
        config.front.deny = networks(&["192.0.2.2/32"]);
        config.limits.publishes_per_address_minute = 1;
    });
    for header in [LOCAL, UNKNOWN] {
        let mut peer = stage.connect_with(PROXY, header);
        // As without the header: the proxy is not limited, and names clients by header field.
        assert!(is_fine(&stage.ask_on(&mut peer, "POST", "")) && is_fine(&stage.ask_on(&mut peer, "POST", "")));
        assert!(is_barred(&stage.ask_on(&mut peer, "POST", &format!("X-Forwarded-For: {BOB}\r\n"))));
    }
}

#[test]
fn header_fields_are_used_from_trusted_addresses_only() {
    let stage = Stage::of(|config| config.front.deny = networks(&["192.0.2.2/32"]));
    let names = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    // A load balancer in front of a trusted proxy, and one in front of a client.
    assert!(is_barred(&stage.ask("10.0.0.2", "POST", &names(BOB))));
    assert!(is_fine(&stage.ask(ANN, "POST", &names(BOB))));
    assert!(is_barred(&stage.ask(BOB, "POST", &names(ANN))));
}

#[test]
fn the_admin_listener_has_a_setting_of_its_own() {
    let stage = Stage::of(|config| {
        config.front.proxy_protocol = false;
        config.admin.proxy_protocol = true;
        config.admin.allow = networks(&["192.0.2.1/32"]);
    });
    let connect = |from: &str, header: &[u8]| {
        let mut peer = stage.connect_to(from, stage.server.admin());
        peer.send(header);
        peer
    };
    assert!(is_fine(&stage.ask_on(&mut connect(PROXY, line(ANN).as_bytes()), "POST", "")));
    assert!(is_barred(&stage.ask_on(&mut connect(PROXY, line(BOB).as_bytes()), "POST", "")));
    // The proxy itself is not allowed, whatever header field it sends.
    let fields = format!("X-Forwarded-For: {ANN}\r\n");
    assert!(is_barred(&stage.ask_on(&mut connect(PROXY, LOCAL), "POST", &fields)));
    let mut direct = connect(ANN, line(ANN).as_bytes());
    stage.sim.run_for(Duration::from_millis(500));
    assert!(direct.is_over() && direct.take().is_empty());
    assert!(is_fine(&stage.ask_on(&mut stage.connect_with(ANN, b""), "POST", "")), "the front has it not");
}
