//! A server, its clients, and the back end that it asks.

use std::time::Duration;

use ccomet::{Anonymous, Claims, Config, Key, Pattern, Secret, Simulated, make_token};
use sealed::Address;
use sealed::sim::{Peer, PeerListener, Simulation};
use serde_json::Value;
use testing::http::UPGRADE;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Stage {
    pub(crate) sim: Simulation,
    pub(crate) server: Simulated,
    config: Config,
    pub(crate) backend: PeerListener,
}

impl Stage {
    pub(crate) fn new(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        let sim = Simulation::new(1);
        let backend = sim.listen("10.0.0.9:80".parse::<Address>().expect("an address")).expect("it is free");
        let mut config = Config { loops: loops.try_into().ok(), ..Config::default() };
        config.admin.hosts = vec!["x".to_owned()];
        "http://10.0.0.9/comet?x=1".clone_into(&mut config.hooks.url);
        (config.hooks.subscribe, config.hooks.publish) = (true, true);
        config.hooks.secret = Some(Secret::new("shared"));
        config.front.origins = vec!["https://listed.example".to_owned()];
        change(&mut config);
        let server = Simulated::start(&sim, config.clone()).expect("it starts");
        Self { sim, server, config, backend }
    }

    pub(crate) fn client(&self, request: &str) -> Peer {
        let mut peer = self.sim.connect(self.server.front());
        peer.send(request);
        peer
    }

    /// Connects a client from an address that is not loopback, so that limits by address apply.
    pub(crate) fn client_from(&self, from: [u8; 4], request: &str) -> Peer {
        let mut peer = self.sim.connect_from(from.into(), self.server.front());
        peer.send(request);
        peer
    }

    /// Returns a token of `ann` for a channel, for so many seconds.
    pub(crate) fn token(&self, channel: &str, seconds: u64) -> String {
        let iat = self.sim.unix_time().as_secs();
        let channels = vec![Pattern::new(channel).expect("a pattern")];
        let (subscribe, publish) = (channels.clone(), channels);
        let sub = Some("ann".to_owned());
        let claims = Claims { sub, iat, exp: iat + seconds, subscribe, publish, ..Claims::default() };
        make_token(&self.config.auth, "main", None, &claims).expect("a token")
    }

    /// Accepts the server's connection to the back end, if there is one.
    pub(crate) fn accept(&self) -> Option<Peer> {
        let mut accepted = None;
        self.sim.run_until(SECOND, || {
            accepted = accepted.take().or_else(|| self.backend.accept());
            accepted.is_some()
        });
        accepted
    }

    pub(crate) fn backend(&self) -> Backend {
        Backend(self.accept().expect("the back end is asked"))
    }

    pub(crate) fn wait(&self, seconds: u32) {
        self.sim.run_for(SECOND * seconds);
    }
}

/// The back end's side of a connection.
pub(crate) struct Backend(pub(crate) Peer);

impl Backend {
    /// Returns the next question, head and body.
    pub(crate) fn next_question(&mut self) -> (String, Value) {
        let head = String::from_utf8(self.0.expect("\r\n\r\n")).expect("text");
        let body = self.0.expect("}");
        let mut text = String::from_utf8(body).expect("text");
        while serde_json::from_str::<Value>(&text).is_err() {
            text.push_str(&String::from_utf8(self.0.expect("}")).expect("text"));
        }
        (head, serde_json::from_str(&text).expect("JSON"))
    }

    pub(crate) fn answer(&mut self, status: u16, fields: &str, body: &str) {
        let length = body.len();
        self.0.send(format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n{body}"));
    }

    /// Answers the next question, and returns it.
    pub(crate) fn answer_next(&mut self, status: u16, body: &str) -> Value {
        let (_, question) = self.next_question();
        self.answer(status, "", body);
        question
    }
}

/// Requires tokens for everything.
pub(crate) fn need_tokens(config: &mut Config) {
    let secret = Secret::new("a secret that is long enough for it");
    config.auth.keys = vec![Key { id: "main".to_owned(), secret: Some(secret), ..Key::default() }];
    config.auth.anonymous = Some(Anonymous::default());
}

/// Returns a GET of a page of the server's own.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nReferer: http://x/page\r\nCookie: session=7\r\n\r\n")
}

pub(crate) fn post(target: &str, body: &str) -> String {
    testing::http::request("POST", target, "Host: x\r\n", body)
}

/// Returns a request for a WebSocket by a page of the server's own.
pub(crate) fn upgrade(target: &str) -> String {
    get(target).replace("\r\n\r\n", &format!("\r\n{UPGRADE}\r\n"))
}

/// Returns a text message as a client sends it, masked with zeros.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    testing::http::frame(0x81, text)
}
