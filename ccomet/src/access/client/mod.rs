//! Admission and rate limits by address.
//!
//! A client's address is that of its connection (127.0.0.1 on a Unix socket) or, if the listener
//! uses the PROXY protocol, the address that a trusted proxy sends before the first request. If
//! that is a trusted proxy's address in turn, the header field of each request names the client's
//! address (`forwarded.rs`).

mod forwarded;
mod networks;
mod throttle;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use ipnet::IpNet;
use sealed::{ConnectionId, fault};
use sealed_http::RequestHead;

use crate::access::Cost;
use crate::config::{Config, ForwardedBy};
use crate::core::owner::Owner;
use crate::core::problem::Problem;
use crate::core::time::LoopTime;
use crate::protocols::call::Door;

pub(crate) use networks::NetworkRules;
pub(crate) use throttle::Charge;
use throttle::{ClientKey, Crowd, Throttle};

pub(crate) use forwarded::Named;

/// The time in seconds after which an address with too many connections should retry. The actual
/// time is unknown.
const CONNECTIONS_RETRY_S: u32 = 5;

/// The address that clients of Unix sockets count as.
const OF_UNIX_SOCKETS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Tracks the clients of one loop by their addresses.
#[derive(Debug)]
pub(crate) struct ClientTracker {
    front: NetworkRules,
    admin: NetworkRules,
    trusted: Vec<IpNet>,
    by: ForwardedBy,
    /// The listeners to which only trusted proxies connect, which name the client before the first
    /// request.
    proxied: Proxied,
    throttle: Throttle,
    /// Bytes of the bodies that limited clients are sending, and their limit.
    body_bytes: u64,
    body_bytes_max: u64,
    /// The connections that need a look-up for each request: trusted proxies, and clients that are
    /// not on loopback.
    visitors: HashMap<ConnectionId, Visitor>,
}

/// The listeners that have the PROXY protocol.
#[derive(Debug, Clone, Copy)]
struct Proxied {
    front: bool,
    admin: bool,
}

#[derive(Debug)]
enum Visitor {
    /// A proxy that has not named the client of its connection yet.
    Announcing(IpAddr),
    /// A proxy that may name the client of each request, and the client of the current request, if
    /// it is counted.
    Proxy { ip: IpAddr, held: Option<ClientKey> },
    /// A client that is limited. Its connection is counted if there was room for its address; a
    /// connection beyond the limit gets one answer.
    Counted { key: ClientKey, crowd: Option<Crowd> },
}

/// The treatment of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// It may send requests.
    Open,
    /// Its requests are refused.
    Barred,
    /// A trusted proxy names the client first.
    ByProxy,
    /// It is closed: it belongs to a flood, to which answers would cost more.
    Shut,
    /// It is closed: only trusted proxies may connect to a listener with the PROXY protocol.
    Unannounced,
}

/// The client of a request, if it is limited. The value may be kept after the client has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asking(Option<ClientKey>);

impl Asking {
    /// Returns the client, with a token of that subject, as the owner of the channels that it
    /// creates.
    pub(crate) fn owner(self, subject: Option<&str>) -> Owner {
        Owner::new(if fault!("owners-counted-together") { self.0.map(|_| ClientKey::NOBODY) } else { self.0 }, subject)
    }

    /// Returns whether the limits by address apply to it.
    pub(crate) fn is_limited(self) -> bool {
        self.0.is_some()
    }
}

impl ClientTracker {
    pub(crate) fn new(config: &Config, loops: usize) -> Self {
        let (front, admin) = (&config.front, &config.admin);
        Self {
            front: NetworkRules::new(&front.allow, &front.deny),
            admin: NetworkRules::new(&admin.allow, &admin.deny),
            trusted: front.trusted_proxies.clone(),
            by: front.forwarded_by,
            proxied: Proxied { front: front.proxy_protocol, admin: admin.proxy_protocol },
            throttle: Throttle::new(&config.limits, loops),
            body_bytes: 0,
            body_bytes_max: config.limits.body_bytes_max.div_ceil(loops) as u64,
            visitors: HashMap::new(),
        }
    }

    /// Changes the rules and limits. Connections keep the decision that was made when they came;
    /// the rules apply to each request that a trusted proxy forwards.
    pub(crate) fn set_config(&mut self, config: &Config, loops: usize) {
        let mut changed = Self::new(config, loops);
        self.throttle.set_limits(&config.limits, loops);
        std::mem::swap(&mut self.throttle, &mut changed.throttle);
        changed.visitors = std::mem::take(&mut self.visitors);
        changed.body_bytes = self.body_bytes;
        *self = changed;
    }

    /// Registers a new connection; without an address, that of a client of a Unix socket.
    pub(crate) fn accepted(&mut self, id: ConnectionId, door: Door, ip: Option<IpAddr>, now: LoopTime) -> Entrance {
        if ip.is_none() && fault!("unix-client-barred") {
            return Entrance::Barred;
        }
        let ip = ip.unwrap_or(OF_UNIX_SOCKETS);
        let is_proxied = if door == Door::Admin { self.proxied.admin } else { self.proxied.front };
        if !is_proxied {
            return self.enter(id, door, ip, now);
        }
        if !networks::has(&self.trusted, ip) {
            return Entrance::Unannounced;
        }
        self.visitors.insert(id, Visitor::Announcing(ip));
        Entrance::ByProxy
    }

    /// Registers the client that a proxy named for its connection, or the proxy itself if it named
    /// none.
    pub(crate) fn announced(
        &mut self,
        id: ConnectionId,
        door: Door,
        source: Option<IpAddr>,
        now: LoopTime,
    ) -> Entrance {
        let Some(Visitor::Announcing(proxy)) = self.visitors.remove(&id) else { return Entrance::Barred };
        self.enter(id, door, source.unwrap_or(proxy), now)
    }

    /// Admits a client, or a proxy, whose address is known.
    fn enter(&mut self, id: ConnectionId, door: Door, ip: IpAddr, now: LoopTime) -> Entrance {
        let ip = ip.to_canonical();
        if door == Door::Admin {
            return if self.admin.admit(ip) { Entrance::Open } else { Entrance::Barred };
        }
        if networks::has(&self.trusted, ip) {
            self.visitors.insert(id, Visitor::Proxy { ip, held: None });
            return Entrance::Open;
        }
        if !self.front.admit(ip) {
            return Entrance::Barred;
        }
        if ip.is_loopback() {
            return Entrance::Open;
        }
        let key = if fault!("direct-clients-counted-together") { ClientKey::NOBODY } else { ClientKey::of(ip) };
        let crowd = self.throttle.hold(key, now);
        self.visitors.insert(id, Visitor::Counted { key, crowd });
        if crowd == Some(Crowd::Flood) { Entrance::Shut } else { Entrance::Open }
    }

    /// Removes a closed connection.
    pub(crate) fn closed(&mut self, id: ConnectionId) {
        if let Some(Visitor::Counted { key, crowd: Some(_) } | Visitor::Proxy { held: Some(key), .. }) =
            self.visitors.remove(&id)
        {
            self.throttle.release(key);
        }
        if self.visitors.is_empty() && self.visitors.capacity() > 64 {
            self.visitors = HashMap::new();
        }
    }

    /// Returns the client that the header of a request names, if the connection is that of a
    /// trusted proxy.
    pub(crate) fn named(&self, id: ConnectionId, head: &RequestHead<'_>) -> Option<Named> {
        let Visitor::Proxy { ip, .. } = self.visitors.get(&id)? else { return None };
        Some(forwarded::client(head, *ip, &self.trusted, self.by))
    }

    /// Returns the client of a request on a connection; an error if it is refused. A request that a
    /// proxy forwards counts as one of the client's connections, until it is
    /// [`answered`](Self::answered). The second value of an error is whether the connection is at
    /// fault, and is to be closed. `named` is the client that a proxy [names](Self::named).
    pub(crate) fn asks(
        &mut self,
        id: ConnectionId,
        named: Option<Named>,
        now: LoopTime,
    ) -> Result<Asking, (Problem, bool)> {
        self.answered(id);
        let Some(visitor) = self.visitors.get_mut(&id) else { return Ok(Asking(None)) };
        let (proxy, held) = match visitor {
            Visitor::Announcing(_) => return Ok(Asking(None)),
            Visitor::Counted { key, crowd: None | Some(Crowd::Fine) } => return Ok(Asking(Some(*key))),
            Visitor::Counted { .. } => return Err((Problem::TooManyRequests(CONNECTIONS_RETRY_S), true)),
            Visitor::Proxy { ip, held } => (*ip, held),
        };
        let (is_admitted, key) = match named.unwrap_or(Named::Itself) {
            Named::Itself => (self.front.admit(proxy), None),
            Named::Client(client) => (self.front.admit(client), Some(ClientKey::of(client))),
            // The unreadable address could be one that is denied.
            Named::Unreadable(proxy) if fault!("unreadable-counts-as-proxy") => (self.front.admit(proxy), None),
            Named::Unreadable(_) if fault!("unreadable-passes-rules") => (true, None),
            Named::Unreadable(proxy) => (self.front.is_empty(), Some(ClientKey::unreadable_of(proxy))),
        };
        if !is_admitted {
            return Err((Problem::Forbidden, false));
        }
        let Some(key) = key else { return Ok(Asking(None)) };
        match self.throttle.hold(key, now) {
            None => {}
            Some(_) if fault!("proxied-connection-not-counted") => self.throttle.release(key),
            Some(Crowd::Fine) => *held = Some(key),
            Some(Crowd::Over | Crowd::Flood) => {
                self.throttle.release(key);
                return Err((Problem::TooManyRequests(CONNECTIONS_RETRY_S), false));
            }
        }
        Ok(Asking(Some(key)))
    }

    /// Ends the request of a connection: the connection of a proxy no longer belongs to a client.
    pub(crate) fn answered(&mut self, id: ConnectionId) {
        if let Some(Visitor::Proxy { held, .. }) = self.visitors.get_mut(&id)
            && let Some(key) = held.take()
        {
            self.throttle.release(key);
        }
    }

    /// Counts a body of at most `bytes` bytes that a client starts to send, until
    /// [`end_body`](Self::end_body).
    pub(crate) fn begin_body(&mut self, asking: Asking, bytes: u64, now: LoopTime) -> Result<(), Problem> {
        let Asking(Some(key)) = asking else { return Ok(()) };
        let key = if fault!("bodies-counted-together") { ClientKey::NOBODY } else { key };
        if !self.throttle.begin_body(key, bytes, now) && !fault!("bodies-of-one-without-bound") {
            return Err(Problem::TooManyRequests(CONNECTIONS_RETRY_S));
        }
        let is_full = self.body_bytes > 0 && self.body_bytes.saturating_add(bytes) > self.body_bytes_max;
        if is_full && !fault!("bodies-without-bound") {
            self.throttle.end_body(key, bytes);
            return Err(Problem::BodyLimit);
        }
        self.body_bytes += bytes;
        Ok(())
    }

    /// Ends the count of a body that has arrived, or that will not arrive.
    pub(crate) fn end_body(&mut self, asking: Asking, bytes: u64) {
        let Asking(Some(key)) = asking else { return };
        if fault!("body-counted-for-ever") {
            return;
        }
        self.throttle.end_body(if fault!("bodies-counted-together") { ClientKey::NOBODY } else { key }, bytes);
        self.body_bytes = self.body_bytes.saturating_sub(bytes);
    }

    /// Counts a call against its client's limits, except for `paid` publications that were counted
    /// before. Returns the number of publications that are counted now.
    pub(crate) fn charge(&mut self, asking: Asking, cost: Cost, paid: usize, now: LoopTime) -> Result<usize, Problem> {
        let publications = match cost {
            Cost::Nothing => 0,
            Cost::Subscribe => {
                self.take(asking, Charge::Subscribe, 0..1, now)?;
                0
            }
            Cost::Publish(count) => count,
        };
        let counted = if fault!("charged-at-head-and-again") { 0 } else { paid };
        self.take(asking, Charge::Publish, counted as u64..publications as u64, now)?;
        Ok(publications.max(paid))
    }

    /// Counts a publication that is not a call of its own.
    pub(crate) fn charge_publish(&mut self, asking: Asking, now: LoopTime) -> Result<(), Problem> {
        self.take(asking, Charge::Publish, 0..1, now)
    }

    /// Counts publications that are not refused: those of a message to a pattern beyond the number
    /// counted before, and actions that count as publications. If they exceed the limit, they are
    /// owed: the client cannot publish again until they are paid.
    pub(crate) fn owe_publishes(&mut self, asking: Asking, count: u64, now: LoopTime) {
        if let Asking(Some(key)) = asking {
            self.throttle.owe(key, Charge::Publish, count, now);
        }
    }

    fn take(&mut self, asking: Asking, charge: Charge, units: Range<u64>, now: LoopTime) -> Result<(), Problem> {
        let (Asking(Some(key)), false) = (asking, units.is_empty()) else { return Ok(()) };
        self.throttle.take(key, charge, units, now).map_err(Problem::TooManyRequests)
    }

    /// Counts a subscription that a client adds to its connection. Returns the number to pass to
    /// [`end_subscriptions`](Self::end_subscriptions) when it ends: 0 if the client is not limited.
    pub(crate) fn begin_subscription(&mut self, asking: Asking, now: LoopTime) -> Result<u32, Problem> {
        let Asking(Some(key)) = asking else { return Ok(0) };
        match self.throttle.hold_subscription(key, now) {
            Ok(count) => Ok(count),
            Err(()) if fault!("added-subscriptions-not-limited") => Ok(0),
            Err(()) => Err(Problem::TooManyRequests(CONNECTIONS_RETRY_S)),
        }
    }

    /// Releases a number of a client's counted subscriptions that have ended.
    pub(crate) fn end_subscriptions(&mut self, asking: Asking, count: u32) {
        if let (Asking(Some(key)), false) = (asking, count == 0) {
            self.throttle.release_subscriptions(key, count);
        }
    }

    /// Returns the bytes of the bodies that limited clients are sending.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Returns the number of recorded addresses.
    pub(crate) fn addresses(&self) -> usize {
        self.throttle.addresses()
    }

    /// Forgets some of the addresses that have been idle for a while. The loop calls it about once
    /// a second.
    pub(crate) fn sweep(&mut self, now: LoopTime) {
        self.throttle.sweep(now);
    }
}
