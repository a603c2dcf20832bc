//! The PROXY protocol: who is believed, and that the address it names is the one that counts. On the simulated network, where a
//! client may have any address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ccomet::{Config, Simulated};
use sealed::sim::{Peer, Simulation};

const ANN: &str = "192.0.2.1";
const BOB: &str = "192.0.2.2";
const PROXY: &str = "10.0.0.1";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

struct Stage {
    sim: Simulation,
    server: Simulated,
}

impl Stage {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let sim = Simulation::new(1);
        let mut config = Config::default();
        config.admin.hosts = vec!["x".to_owned()];
        config.front.trusted_proxies = networks(&["10.0.0.0/8"]);
        config.front.proxy_protocol = true;
        change(&mut config);
        let server = Simulated::start(&sim, config).expect("it starts");
        Self { sim, server }
    }

    fn connect_to(&self, from: &str, door: SocketAddr, header: &[u8]) -> Peer {
        let mut peer = self.sim.connect_from(from.parse::<IpAddr>().expect("an address"), door);
        peer.send(header);
        peer
    }

    /// Connects to the front, and begins with these bytes.
    fn connect(&self, from: &str, header: &[u8]) -> Peer {
        self.connect_to(from, self.server.front(), header)
    }

    fn ask_on(&self, peer: &mut Peer, method: &str, headers: &str) -> String {
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        peer.send(format!("{method} /channels/a?wait=0 HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n"));
        self.sim.run_for(Duration::from_millis(100));
        String::from_utf8(peer.take()).expect("text")
    }

    /// What is answered on a connection of its own by the proxy, for this client.
    fn ask(&self, client: &str, method: &str, headers: &str) -> String {
        self.ask_on(&mut self.connect(PROXY, line(client).as_bytes()), method, headers)
    }
}

fn networks(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

fn line(client: &str) -> String {
    let (family, site) = if client.contains(':') { ("TCP6", "2001:db8:ffff::1") } else { ("TCP4", "198.51.100.1") };
    format!("PROXY {family} {client} {site} 4711 443\r\n")
}

/// The same in version 2.
fn binary(client: &str) -> Vec<u8> {
    let ip: std::net::Ipv4Addr = client.parse().expect("an address");
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &ip.octets()[..], &[198, 51, 100, 1, 0x12, 0x67, 1, 0xbb]].concat()
}

fn is_fine(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

fn is_barred(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 403 ") && answer.contains("\"forbidden\"")
}

fn is_over(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: ")
}

#[test]
fn the_address_that_a_proxy_says_is_the_one_for_rules_and_limits() {
    let stage = Stage::new(|config| {
        config.front.deny = networks(&["192.0.2.2/32"]);
        config.limits.publishes_per_address_minute = 2;
    });
    for header in [line(BOB).into_bytes(), binary(BOB)] {
        assert!(is_barred(&stage.ask_on(&mut stage.connect(PROXY, &header), "POST", "")));
    }
    assert!(is_barred(&stage.ask("::ffff:192.0.2.2", "POST", "")), "the same address, written as one of IPv6");
    let mut peers = [line(ANN).into_bytes(), binary(ANN)].map(|header| stage.connect(PROXY, &header));
    let answers = peers.each_mut().map(|peer| stage.ask_on(peer, "POST", ""));
    assert!(answers.iter().all(|answer| is_fine(answer)), "{answers:?}");
    for peer in &mut peers {
        assert!(is_over(&stage.ask_on(peer, "POST", "")), "both are one client");
    }
    assert!(is_fine(&stage.ask("192.0.2.3", "POST", "")));
    // Of IPv6, one /64 is one client.
    let answers: Vec<String> = (1..=3).map(|n| stage.ask(&format!("2001:db8::{n}"), "POST", "")).collect();
    assert!(is_fine(&answers[0]) && is_fine(&answers[1]) && is_over(&answers[2]), "{answers:?}");
}

#[test]
fn connections_are_counted_by_the_address_that_is_said() {
    let stage = Stage::new(|config| config.limits.connections_per_address_max = 2);
    let mut peers: Vec<Peer> = (0..5).map(|_| stage.connect(PROXY, line(ANN).as_bytes())).collect();
    stage.sim.run_for(Duration::from_secs(1));
    assert_eq!(peers.iter().filter(|peer| peer.is_over()).count(), 2, "a flood is cut off");
    let answers: Vec<String> =
        peers.iter_mut().filter(|peer| !peer.is_over()).map(|peer| stage.ask_on(peer, "GET", "")).collect();
    assert_eq!(answers.iter().filter(|answer| is_fine(answer)).count(), 2, "{answers:?}");
    assert!(is_fine(&stage.ask(BOB, "GET", "")));
    drop(peers);
    stage.sim.run_for(Duration::from_secs(1));
    assert!(is_fine(&stage.ask(ANN, "GET", "")), "who left is not counted any more");
}

#[test]
fn nobody_else_connects_and_nothing_else_is_taken() {
    let stage = Stage::new(|config| config.front.allow = networks(&["192.0.2.0/24"]));
    let request = b"POST /channels/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let say = |header: &[u8]| [header, request].concat();
    for (what, from, said) in [
        ("from elsewhere", "203.0.113.9", say(line(ANN).as_bytes())),
        ("from one who is allowed", ANN, say(line(ANN).as_bytes())),
        ("from loopback", "127.0.0.1", say(&binary(ANN))),
        ("without a header", PROXY, say(b"")),
        ("a wrong one", PROXY, say(b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n")),
        ("one that is too long", PROXY, say(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff")),
    ] {
        let mut peer = stage.connect(from, &said);
        stage.sim.run_for(Duration::from_millis(500));
        assert!(peer.is_over() && peer.take().is_empty(), "{what}");
    }
    assert!(is_fine(&stage.ask(ANN, "POST", "")));
    // Who says nothing is waited for no longer than for a request.
    let mut silent = stage.connect(PROXY, b"PROXY TCP4 192.0.2.1");
    let start = stage.sim.now();
    assert!(stage.sim.run_until(Duration::from_secs(60), || silent.is_over()));
    assert_eq!(stage.sim.now().saturating_sub(start).as_secs(), Config::default().times.request_s);
    assert!(silent.take().is_empty());
    stage.sim.run_for(Duration::from_secs(30));
    assert_eq!(stage.server.holdings().connections, 0);
}

#[test]
fn one_that_is_the_proxys_own_has_its_own_address() {
    let stage = Stage::new(|config| {
        config.front.deny = networks(&["192.0.2.2/32"]);
        config.limits.publishes_per_address_minute = 1;
    });
    for header in [LOCAL, UNKNOWN] {
        let mut peer = stage.connect(PROXY, header);
        // As without the header: it is not limited, and asks for others by header field.
        assert!(is_fine(&stage.ask_on(&mut peer, "POST", "")) && is_fine(&stage.ask_on(&mut peer, "POST", "")));
        assert!(is_barred(&stage.ask_on(&mut peer, "POST", &format!("X-Forwarded-For: {BOB}\r\n"))));
    }
}

#[test]
fn header_fields_are_believed_of_a_trusted_address_only() {
    let stage = Stage::new(|config| config.front.deny = networks(&["192.0.2.2/32"]));
    let names = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    // A load balancer in front of a proxy of ours, and one in front of a client.
    assert!(is_barred(&stage.ask("10.0.0.2", "POST", &names(BOB))));
    assert!(is_fine(&stage.ask(ANN, "POST", &names(BOB))));
    assert!(is_barred(&stage.ask(BOB, "POST", &names(ANN))));
}

#[test]
fn the_admin_listener_has_it_apart() {
    let stage = Stage::new(|config| {
        config.front.proxy_protocol = false;
        config.admin.proxy_protocol = true;
        config.admin.allow = networks(&["192.0.2.1/32"]);
    });
    let door = stage.server.admin();
    assert!(is_fine(&stage.ask_on(&mut stage.connect_to(PROXY, door, line(ANN).as_bytes()), "POST", "")));
    assert!(is_barred(&stage.ask_on(&mut stage.connect_to(PROXY, door, line(BOB).as_bytes()), "POST", "")));
    // The proxy itself is not allowed, whatever it says in a header field.
    let fields = format!("X-Forwarded-For: {ANN}\r\n");
    assert!(is_barred(&stage.ask_on(&mut stage.connect_to(PROXY, door, LOCAL), "POST", &fields)));
    let mut direct = stage.connect_to(ANN, door, line(ANN).as_bytes());
    stage.sim.run_for(Duration::from_millis(500));
    assert!(direct.is_over() && direct.take().is_empty());
    assert!(is_fine(&stage.ask_on(&mut stage.connect(ANN, b""), "POST", "")), "the front has it not");
}
