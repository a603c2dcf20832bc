//! A server on a simulated network, where a client may have any address, and hours take no time.

use std::net::{IpAddr, SocketAddr};

use ccomet::{Claims, Config, Key, Pattern, Secret, Server, Simulated, make_token};
use sealed::sim::{Peer, Simulation};
use testing::http::{Reply, UPGRADE, request};

pub const ANN: &str = "192.0.2.1";
pub const BOB: &str = "192.0.2.2";
pub const LOOPBACK: &str = "127.0.0.1";
/// The address of the proxy, if the test has one.
pub const PROXY: &str = "10.0.0.1";

/// A server, its configuration, and its network.
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

    /// Starts a server that `prepare` changes before it runs.
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

    /// Sends a request on a new connection, without waiting for the answer.
    pub fn begin(&self, from: &str, method: &str, target: &str, fields: &str) -> Peer {
        let mut peer = self.connect(from);
        peer.send(request(method, target, fields, ""));
        peer
    }

    /// Sends a request on a connection, and returns what is answered at once.
    pub fn exchange(&self, peer: &mut Peer, method: &str, target: &str, fields: &str, body: &str) -> Reply {
        testing::sim::ask(&self.sim, peer, method, target, fields, body)
    }

    /// Returns the text that arrives at once.
    pub fn received(&self, peer: &mut Peer) -> String {
        self.sim.settle();
        String::from_utf8_lossy(&peer.take()).into_owned()
    }

    /// Returns what has arrived of the answer to a GET.
    pub fn reply(&self, peer: &mut Peer) -> Reply {
        self.sim.settle();
        Reply::decode("GET", &peer.take())
    }

    pub fn delete(&self, channel: &str) {
        let reply = self.exchange(&mut self.admin(), "DELETE", &format!("/channels/{channel}"), "", "");
        assert_eq!(reply.status, 204, "{reply}");
    }

    /// Opens a WebSocket on a connection, and reads the hello.
    pub fn open(&self, mut peer: Peer, target: &str, fields: &str) -> Peer {
        let opened = self.exchange(&mut peer, "GET", target, &format!("{UPGRADE}{fields}"), "");
        assert!(opened.is(101, "hello"), "{opened}");
        peer
    }

    pub fn now_s(&self) -> u64 {
        self.sim.unix_time().as_secs()
    }

    /// Returns claims to read and to publish to the channels of a pattern, for so many seconds from
    /// now on.
    pub fn claims_for(&self, pattern: &str, seconds: u64) -> Claims {
        let (iat, mine) = (self.now_s(), patterns(&[pattern]));
        Claims { iat, exp: iat + seconds, subscribe: mine.clone(), publish: mine, ..Claims::default() }
    }

    /// Returns a token, signed with the key `main`.
    pub fn sign(&self, claims: &Claims) -> String {
        make_token(&self.config.auth, "main", None, claims).expect("a token")
    }
}

/// Returns a key of this name, with a secret of its own.
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

/// Returns the header field for a token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

pub fn is_fine(reply: &Reply) -> bool {
    reply.status == 200
}

/// Returns whether a rule denies a client.
pub fn is_barred(reply: &Reply) -> bool {
    reply.is(403, "\"forbidden\"")
}

/// Returns whether a reply is a refusal by rate, with `Retry-After`.
pub fn is_over(reply: &Reply) -> bool {
    reply.is(429, "too_many_requests") && reply.header("retry-after").is_some()
}
