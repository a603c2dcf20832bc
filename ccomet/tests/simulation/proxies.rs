//! Clients whose addresses count: each connects itself, or through a proxy that names it.

use std::net::IpAddr;
use std::time::Duration;

use ccomet::{Config, ForwardedBy};
use sealed::sim::{Peer, Random};
use serde_json::{Value, json};
use testing::http::UPGRADE;

use crate::accounts::{Accounts, Asked, Charge, Made};
use crate::backends::ASKED;
use crate::frames::{Frame, Frames};
use crate::hops::{Hops, Version, announcement, own_announcement};
use crate::http::{Answer, Http};
use crate::oracle::{Oracle, spots};
use crate::world::Place;

pub const PROXIES: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2))];

/// Addresses of clients; those of one IPv6 network count as one.
const CLIENTS: [&str; 6] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1", "2001:db8:0:1::1"];

/// Denied addresses.
const BARRED: [&str; 2] = ["192.0.2.66", "2001:db8:66::1"];

/// Longer than a body that is not counted.
const LONG_BYTES: usize = 17_000;

/// How proxies name clients.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // each is a thing of its own
pub struct Proxying {
    by: ForwardedBy,
    /// `false` if all clients connect themselves.
    has_proxies: bool,
    /// Only proxies connect, and name the client by the PROXY protocol.
    by_protocol: bool,
    /// Some addresses are denied.
    has_rules: bool,
    /// Messages may be so long that their bodies are counted.
    has_long: bool,
}

impl Proxying {
    /// Draws the proxies, and sets the configuration for them.
    pub fn draw(config: &mut Config, random: &mut Random) -> Self {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect();
        let by = *random.pick(&[ForwardedBy::XForwardedFor, ForwardedBy::Forwarded]).expect("one");
        let has_proxies = random.chance(0.7);
        let by_protocol = has_proxies && random.chance(0.3);
        let (front, limits) = (&mut config.front, &mut config.limits);
        if has_proxies {
            front.trusted_proxies = networks(&["10.0.0.0/8"]);
        }
        (front.forwarded_by, front.proxy_protocol) = (by, by_protocol);
        let has_rules = random.chance(0.8);
        if has_rules {
            front.deny = networks(&["192.0.2.66/32", "2001:db8:66::/48"]);
        }
        if has_rules && random.chance(0.3) {
            front.allow = networks(&["127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
        }
        limits.subscribes_per_address_minute = *random.pick(&[3, 12, 12_000]).expect("one");
        limits.publishes_per_address_minute = *random.pick(&[2, 10, 6_000]).expect("one");
        limits.connections_per_address_max = *random.pick(&[2, 8, 2_000]).expect("one");
        // A member creates its room, and the channel of the room's presence.
        let least = 2 * config.loops.map_or(1, std::num::NonZeroUsize::get);
        limits.channels_per_client_max = *random.pick(&[5_000, 12, least]).expect("one");
        limits.patterns_per_client_max = *random.pick(&[20, 2]).expect("one");
        limits.body_bytes_per_address_max = *random.pick(&[4 << 20, 30_000]).expect("one");
        limits.body_bytes_max = *random.pick(&[64 << 20, 50_000]).expect("one");
        config.hooks.questions_per_address_max = *random.pick(&[200, 1]).expect("one");
        limits.addresses_max = *random.pick(&[100_000, 100_000, 4]).expect("one");
        let has_long = limits.message_bytes_max > LONG_BYTES;
        Self { by, has_proxies, by_protocol, has_rules, has_long }
    }

    /// Returns the bytes before the first request of a client whose address does not count.
    pub fn preface(&self, random: &mut Random) -> Vec<u8> {
        let version = any_version(random);
        let loopback = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        if self.by_protocol { announcement(version, loopback, random) } else { Vec::new() }
    }

    pub fn visitors(&self, random: &mut Random) -> Vec<Visitor> {
        (0..2 + random.below(5)).map(|number| Visitor::new(number, self, random)).collect()
    }
}

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through a proxy that keeps one connection for all its clients.
    Shared,
    /// Through a proxy that opens a connection for each client, and announces the client first.
    Announced,
    /// Itself, though it claims another address.
    Direct,
    /// Itself, where only proxies may connect, with an announcement as proxies send it.
    Impostor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Poll,
    /// A poll of a pattern that no other client uses.
    Follow,
    Publish,
    Socket,
    OnSocket,
}

/// The kinds of requests; a kind that is repeated here is more frequent.
const KINDS: [Kind; 7] =
    [Kind::Poll, Kind::Poll, Kind::Publish, Kind::Publish, Kind::Publish, Kind::Socket, Kind::Follow];

#[derive(Debug)]
struct Pending {
    kind: Kind,
    channel: String,
    payload: String,
    since: Duration,
}

/// A client, or all clients of a proxy.
#[allow(clippy::struct_excessive_bools)] // each is a thing of its own
pub struct Visitor {
    label: String,
    way: Way,
    by: ForwardedBy,
    by_protocol: bool,
    has_rules: bool,
    has_long: bool,
    http: Option<Http>,
    /// The proxy that connects.
    proxy: IpAddr,
    /// Another proxy, between the connecting one and the client.
    between: Option<IpAddr>,
    client: IpAddr,
    /// The proxies do not send its address in a readable form: it counts with all such clients of
    /// the proxy.
    is_unreadable: bool,
    is_barred: bool,
    pending: Option<Pending>,
    /// The connection is a WebSocket, on which the client sends nothing before that time.
    silent_until: Option<Duration>,
    frames: Frames,
    sent: u64,
    /// Channels exist as long as the server.
    is_lasting: bool,
}

impl Visitor {
    fn new(number: usize, proxying: &Proxying, random: &mut Random) -> Self {
        let way = match *random.pick(&[Way::Shared, Way::Shared, Way::Direct]).expect("one") {
            Way::Direct if proxying.by_protocol && random.chance(0.2) => Way::Impostor,
            Way::Direct if proxying.by_protocol => Way::Announced,
            _ if !proxying.has_proxies => Way::Direct,
            way => way,
        };
        Self {
            label: format!("visitor {number} ({way:?})"),
            way,
            by: proxying.by,
            by_protocol: proxying.by_protocol,
            has_rules: proxying.has_rules,
            has_long: proxying.has_long,
            http: None,
            proxy: PROXIES[0],
            between: None,
            client: PROXIES[0],
            is_unreadable: false,
            is_barred: false,
            pending: None,
            silent_until: None,
            frames: Frames::default(),
            sent: 0,
            is_lasting: false,
        }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle, accounts: &mut Accounts) {
        self.is_lasting = place.lasting;
        self.hear(oracle, accounts);
        let now = place.sim.now();
        let Some(http) = &mut self.http else {
            if random.chance(0.5) {
                self.connect(place, random, accounts);
            }
            return;
        };
        match self.silent_until {
            _ if random.chance(0.01) => {
                if random.chance(0.5) {
                    http.peer.vanish();
                }
                self.lost();
            }
            Some(time) if self.pending.is_none() && time <= now => self.say(place, random, oracle, accounts),
            None if self.pending.is_none() && !http.waits() && random.chance(0.6) => {
                self.ask(place, random, oracle, accounts);
            }
            _ => {}
        }
    }

    fn pick_client(&mut self, random: &mut Random) {
        self.between = random.pick(&PROXIES).copied().filter(|_| random.chance(0.2));
        self.is_unreadable = self.way == Way::Shared && random.chance(0.15);
        if self.is_unreadable {
            self.client = self.between.unwrap_or(self.proxy);
            // Any such address could be a denied one.
            self.is_barred = self.has_rules;
            return;
        }
        let is_listed = random.chance(0.2);
        self.is_barred = self.way == Way::Impostor || is_listed && self.has_rules;
        let texts = if is_listed { &BARRED[..] } else { &CLIENTS[..] };
        self.client = random.pick(texts).expect("one").parse().expect("an address");
    }

    fn connect(&mut self, place: &Place, random: &mut Random, accounts: &mut Accounts) {
        self.proxy = *random.pick(&PROXIES).expect("one");
        self.pick_client(random);
        let is_direct = matches!(self.way, Way::Direct | Way::Impostor);
        let peer = place.sim.connect_from(if is_direct { self.client } else { self.proxy }, place.front);
        let mut http = place.over(peer);
        let version = any_version(random);
        match self.way {
            Way::Announced | Way::Impostor => http.send(announcement(version, self.client, random)),
            Way::Shared if self.by_protocol => http.send(own_announcement(version, random)),
            _ => {}
        }
        if self.way != Way::Shared {
            accounts.opens(self.client);
        }
        self.http = Some(http);
    }

    fn ask(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle, accounts: &mut Accounts) {
        if self.way == Way::Shared {
            self.pick_client(random);
        }
        let kind = *random.pick(&KINDS).expect("one");
        let channel = self.pick_channel(kind, place, random);
        let mut payload = self.payload(&channel, oracle);
        let is_long = self.has_long && kind == Kind::Publish && random.chance(0.2);
        if is_long {
            payload.push_str(&"z".repeat(LONG_BYTES));
            accounts.asks(self.client, Charge::LongBody, place.sim.now());
        }
        let mut request = match kind {
            Kind::Publish => {
                format!("POST /channels/{channel} HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n", payload.len())
            }
            Kind::Socket => format!("GET /channels/{channel} HTTP/1.1\r\nHost: sim\r\n{UPGRADE}"),
            _ => format!("GET /channels/{channel}?wait={} HTTP/1.1\r\nHost: sim\r\n", random.below(3)),
        }
        .into_bytes();
        request.extend(self.named(random));
        request.extend(b"\r\n");
        if kind == Kind::Publish {
            request.extend(payload.as_bytes());
        }
        let since = place.sim.now();
        accounts.asks(self.client, charge(kind), since);
        accounts.names(self.client, made(kind), &channel);
        if channel == ASKED[0] {
            accounts.asks(self.client, Charge::Question, since);
        }
        if self.way == Way::Shared {
            accounts.opens(self.client);
        }
        self.pending = Some(Pending { kind, channel, payload, since });
        if let Some(http) = &mut self.http {
            http.ask(request);
        }
    }

    /// Returns a channel of all clients, or one that no other client uses.
    fn pick_channel(&self, kind: Kind, place: &Place, random: &mut Random) -> String {
        let own = format!("own.{}.{}", self.client.to_string().replace(':', "-"), random.below(8));
        match kind {
            Kind::Follow => own + ".*",
            _ if random.chance(0.3) => own,
            Kind::Publish if place.has_hooks && random.chance(0.3) => ASKED[0].to_owned(),
            _ => random.pick(&place.channels).expect("a channel").clone(),
        }
    }

    /// Returns the payload of a new message. Nobody may ever read a message of a denied client.
    fn payload(&mut self, channel: &str, oracle: &mut Oracle) -> String {
        self.sent += 1;
        let payload = format!("{channel}-{}-{}", self.label.replace(' ', "-"), self.sent);
        if self.is_barred {
            oracle.forbid(&payload);
        }
        payload
    }

    /// Returns the header field that names the client of the request.
    fn named(&self, random: &mut Random) -> Vec<u8> {
        let (client, between) = match self.way {
            Way::Shared => ((!self.is_unreadable).then_some(self.client), self.between),
            // The client claims to be a proxy.
            _ => (CLIENTS[0].parse().ok(), None),
        };
        Hops { client, between }.field(self.by, random)
    }

    /// Publishes on a WebSocket.
    fn say(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle, accounts: &mut Accounts) {
        let channel = random.pick(&place.channels).expect("a channel").clone();
        let payload = self.payload(&channel, oracle);
        let message = json!({"type": "publish", "channel": channel, "data": payload}).to_string();
        let since = place.sim.now();
        accounts.asks(self.client, Charge::Publish, since);
        accounts.names(self.client, Made::Channel, &channel);
        self.pending = Some(Pending { kind: Kind::OnSocket, channel, payload, since });
        // Mostly longer than the server remembers an unused address.
        let longest = *random.pick(&[1, 5, 20]).expect("one");
        self.silent_until = Some(since + random.time(Duration::from_secs(longest)));
        if let Some(http) = &mut self.http {
            http.say(&message);
        }
    }

    fn lost(&mut self) {
        self.http = None;
        self.pending = None;
        self.silent_until = None;
        self.frames.clear();
    }

    pub fn hear(&mut self, oracle: &mut Oracle, accounts: &mut Accounts) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over => self.lost(),
                Answer::Stream => {
                    self.is_let_in();
                    self.silent_until = Some(Duration::ZERO);
                    self.settle(accounts, None);
                }
                Answer::Data(bytes) => {
                    self.frames.push(&bytes);
                    while let Some(frame) = self.frames.next(&mut self.http) {
                        self.frame(frame, oracle, accounts);
                    }
                }
                Answer::Whole { status, body } => self.whole(status, &body, oracle, accounts),
                Answer::StreamEnd => panic!("{}: there is no such end", self.label),
            }
        }
    }

    fn is_let_in(&self) {
        assert!(!self.is_barred, "{}: {} may not come in, and does", self.label, self.client);
    }

    fn whole(&mut self, status: u16, body: &[u8], oracle: &mut Oracle, accounts: &mut Accounts) {
        let text = String::from_utf8_lossy(body);
        assert_ne!(self.way, Way::Impostor, "{}: it is cut off without an answer: {text}", self.label);
        match status {
            200 => {
                self.is_let_in();
                let reply: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {text}"));
                let items = reply["items"].as_array();
                items.into_iter().flatten().for_each(|item| message(item, oracle));
                if let Some(Pending { kind: Kind::Publish, channel, payload, .. }) = &self.pending {
                    let spot = spots(reply["position"].as_str().expect("a position"))[0];
                    oracle.accepted(channel, spot, payload);
                }
                self.settle(accounts, None);
            }
            429 => self.settle(accounts, Some(&text)),
            403 => {
                assert!(self.is_barred, "{}: {} is refused, and may come in: {text}", self.label, self.client);
                self.pending = None;
            }
            503 | 507 => self.unavailable(accounts, &text),
            408 => self.pending = None,
            _ => panic!("{}: {status} {text}", self.label),
        }
    }

    /// Accounts for the answer to a request: a refusal with 429, if there is a text.
    fn settle(&mut self, accounts: &mut Accounts, refused: Option<&str>) {
        let Some(pending) = self.pending.take() else { return };
        // A server that was restarted meanwhile has lost its accounts.
        if pending.since < accounts.since {
            return;
        }
        match refused {
            None => accounts.given(&self.asked(&pending), self.is_lasting),
            Some(text) => accounts.refused(&self.asked(&pending), pending.since, text),
        }
    }

    fn asked<'a>(&'a self, pending: &'a Pending) -> Asked<'a> {
        let Pending { kind, channel, .. } = pending;
        Asked { what: &self.label, client: self.client, charge: charge(*kind), made: made(*kind), channel }
    }

    /// Accounts for an answer with 503.
    fn unavailable(&mut self, accounts: &Accounts, text: &str) {
        if let Some(pending) = self.pending.take() {
            accounts.unavailable(&self.asked(&pending), text);
        }
    }

    fn frame(&mut self, frame: Frame, oracle: &mut Oracle, accounts: &mut Accounts) {
        match frame {
            Frame::Reply(reply) => {
                for item in reply["items"].as_array().expect("items") {
                    self.item(item, oracle, accounts);
                }
            }
            Frame::Close => {}
        }
    }

    fn item(&mut self, item: &Value, oracle: &mut Oracle, accounts: &mut Accounts) {
        match item["type"].as_str() {
            Some("message") => message(item, oracle),
            Some("published") => {
                let Some(Pending { channel, payload, .. }) = &self.pending else { panic!("{}: {item}", self.label) };
                oracle.accepted(channel, spots(item["position"].as_str().expect("a position"))[0], payload);
                self.settle(accounts, None);
            }
            Some("error") if item["status"] == 429 => self.settle(accounts, Some(&item.to_string())),
            Some("error") => {
                assert!([503, 507].contains(&item["status"].as_u64().unwrap_or(0)), "{}: {item}", self.label);
                self.unavailable(accounts, &item.to_string());
            }
            Some("hello" | "gap" | "close" | "bye") => {}
            _ => panic!("{}: {item}", self.label),
        }
    }

    /// Accounts for requests in transit when the server is restarted: they may reach the new one.
    pub fn carry_over(&self, accounts: &mut Accounts) {
        if self.http.is_none() {
            return;
        }
        if self.way != Way::Shared || self.pending.is_some() {
            accounts.opens(self.client);
        }
        if let Some(Pending { kind, since, channel, payload }) = &self.pending {
            if payload.len() > LONG_BYTES {
                accounts.asks(self.client, Charge::LongBody, *since);
            }
            accounts.asks(self.client, charge(*kind), *since);
            accounts.names(self.client, made(*kind), channel);
        }
    }

    pub fn into_peer(self) -> Option<Peer> {
        self.http.map(|http| http.peer)
    }
}

fn any_version(random: &mut Random) -> Version {
    *random.pick(&[Version::Line, Version::Binary]).expect("one")
}

fn made(kind: Kind) -> Made {
    if kind == Kind::Follow { Made::Pattern } else { Made::Channel }
}

fn charge(kind: Kind) -> Charge {
    match kind {
        Kind::Poll | Kind::Follow | Kind::Socket => Charge::Subscribe,
        Kind::Publish | Kind::OnSocket => Charge::Publish,
    }
}

fn message(item: &Value, oracle: &mut Oracle) {
    if item["type"] == "message" {
        let spot = spots(item["position"].as_str().expect("a position"))[0];
        oracle.saw(item["channel"].as_str().expect("a channel"), spot, item["data"].as_str().expect("text"));
    }
}
