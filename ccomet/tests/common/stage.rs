//! A server on a simulated network, where a client may have any address, and hours take no time.

use std::net::{IpAddr, SocketAddr};

use ccomet::{Claims, Config, Key, Pattern, Secret, Server, Simulated, make_token};
use sealed::sim::{Peer, Simulation};
use testing::http::{Reply, UPGRADE, request};

pub const ANN: &str = "192.0.2.1";
pub const BOB: &str = "192.0.2.2";
pub const LOOPBACK: &str = "127.0.0.1";
/// Of a proxy, where the test has one.
pub const PROXY: &str = "10.0.0.1";

/// The server, its configuration, and its network.
pub struct Stage {
    pub sim: Simulation,
    pub server: Simulated,
    pub config: Config,
}

impl Stage {
    /// Starts a server of one loop.
    pub fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::with(1, 1, change)
    }

    /// Starts a server with so many loops, on a network with this seed.
    pub fn with(seed: u64, loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::prepared(seed, loops, change, |_| {})
    }

    /// Does the same with a server that is prepared for it.
    pub fn prepared(
        seed: u64,
        loops: usize,
        change: impl FnOnce(&mut Config),
        prepare: impl FnOnce(&mut Server),
    ) -> Self {
        let sim = Simulation::new(seed);
        let mut config = Config { loops: loops.try_into().ok(), ..Config::default() };
        change(&mut config);
        let server = Simulated::start_with(&sim, config.clone(), prepare).expect("it starts");
        Self { sim, server, config }
    }

    /// Connects to the front from an address.
    pub fn connect(&self, from: &str) -> Peer {
        self.connect_to(from, self.server.front())
    }

    /// Connects to either listener from an address.
    pub fn connect_to(&self, from: &str, listener: SocketAddr) -> Peer {
        self.sim.connect_from(from.parse::<IpAddr>().expect("an address"), listener)
    }

    /// Connects to the admin listener.
    pub fn admin(&self) -> Peer {
        self.sim.connect(self.server.admin())
    }

    /// Asks on a connection of its own, and waits for nothing.
    pub fn begin(&self, from: &str, method: &str, target: &str, fields: &str) -> Peer {
        let mut peer = self.connect(from);
        peer.send(request(method, target, fields, ""));
        peer
    }

    /// What is answered at once on a connection.
    pub fn exchange(&self, peer: &mut Peer, method: &str, target: &str, fields: &str, body: &str) -> Reply {
        testing::sim::ask(&self.sim, peer, method, target, fields, body)
    }

    /// What comes at once, whatever it is.
    pub fn received(&self, peer: &mut Peer) -> String {
        self.sim.settle();
        String::from_utf8_lossy(&peer.take()).into_owned()
    }

    /// What has come of the answer to a GET.
    pub fn reply(&self, peer: &mut Peer) -> Reply {
        self.sim.settle();
        Reply::decode("GET", &peer.take())
    }

    pub fn delete(&self, channel: &str) {
        let reply = self.exchange(&mut self.admin(), "DELETE", &format!("/channels/{channel}"), "", "");
        assert_eq!(reply.status, 204, "{reply}");
    }

    /// Opens a WebSocket on a connection, and hears the hello.
    pub fn open(&self, mut peer: Peer, target: &str, fields: &str) -> Peer {
        let opened = self.exchange(&mut peer, "GET", target, &format!("{UPGRADE}{fields}"), "");
        assert!(opened.is(101, "hello"), "{opened}");
        peer
    }

    pub fn now_s(&self) -> u64 {
        self.sim.unix_time().as_secs()
    }

    /// Claims for so many seconds from now on, to read and to publish to the channels of a pattern.
    pub fn claims_for(&self, pattern: &str, seconds: u64) -> Claims {
        let (iat, mine) = (self.now_s(), patterns(&[pattern]));
        Claims { iat, exp: iat + seconds, subscribe: mine.clone(), publish: mine, ..Claims::default() }
    }

    /// A token of the key `main`.
    pub fn sign(&self, claims: &Claims) -> String {
        make_token(&self.config.auth, "main", None, claims).expect("a token")
    }
}

/// A key of this name, with a secret of its own.
pub fn key(id: &str) -> Key {
    let secret = Some(Secret::new(format!("a secret long enough, for key {id}")));
    Key { id: id.to_owned(), secret, ..Key::default() }
}

pub fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text).expect("a pattern")).collect()
}

pub fn networks(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

/// The header field that brings a token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

pub fn is_fine(reply: &Reply) -> bool {
    reply.status == 200
}

/// Whether a rule keeps a client out.
pub fn is_barred(reply: &Reply) -> bool {
    reply.is(403, "\"forbidden\"")
}

/// Whether a reply says that the client asks for too much, and when to come back.
pub fn is_over(reply: &Reply) -> bool {
    reply.is(429, "too_many_requests") && reply.header("retry-after").is_some()
}
