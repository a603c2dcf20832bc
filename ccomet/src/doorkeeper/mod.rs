//! Who may come in, by address, and how much of each he may ask for.
//!
//! A client's address is its connection's, or, where the listener has the PROXY protocol, the one that a trusted proxy says in front
//! of the first request. Where that is a trusted proxy's in turn, it is the one that this names (`forwarded.rs`), for each
//! request anew.

mod forwarded;
mod rules;
mod throttle;

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use sealed::ConnectionId;
use sealed_http::RequestHead;

use crate::config::Config;
use crate::wire::icomet::request as icomet;
use crate::wire::problem::Problem;
use crate::wire::request::{Call, Door};

use forwarded::Named;
pub(crate) use rules::Rules;
pub(crate) use throttle::Charge;
use throttle::{Place, Throttle};

pub use forwarded::ForwardedBy;

/// When who has too many connections may try again, in seconds: nobody can know.
const CONNECTIONS_RETRY_S: u32 = 5;

/// Looks at who comes. One for each loop.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    front: Rules,
    admin: Rules,
    trusted: Vec<IpNet>,
    by: ForwardedBy,
    /// Where only trusted proxies connect, and say first for whom.
    proxied: Proxied,
    throttle: Throttle,
    /// Those of whom something has to be known with each request: nobody from loopback, unless it is a proxy.
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
    /// A proxy that has yet to say for whom it connects.
    Announcing(IpAddr),
    /// A proxy that may say for whom it asks.
    Proxy(IpAddr),
    /// Somebody who is counted. One connection too many is answered, once.
    Counted { place: Place, is_over: bool },
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// It may ask.
    Open,
    /// It is told that it may not.
    Barred,
    /// A trusted proxy says first whose it is.
    ByProxy,
    /// It is cut off: one of a flood, which would cost more to answer.
    Shut,
    /// It is cut off: nobody else connects to where proxies say for whom they do.
    Unannounced,
}

/// Who asks, for as long as one request is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asking(Option<Place>);

impl Asking {
    /// Whether the limits by address hold for it.
    pub(crate) fn is_limited(self) -> bool {
        self.0.is_some()
    }
}

impl Doorkeeper {
    pub(crate) fn new(config: &Config, loops: usize) -> Self {
        let (front, admin) = (&config.front, &config.admin);
        Self {
            front: Rules::new(&front.allow, &front.deny),
            admin: Rules::new(&admin.allow, &admin.deny),
            trusted: front.trusted_proxies.clone(),
            by: front.forwarded_by,
            proxied: Proxied { front: front.proxy_protocol, admin: admin.proxy_protocol },
            throttle: Throttle::new(&config.limits, loops),
            visitors: HashMap::new(),
        }
    }

    /// A connection was made.
    pub(crate) fn accepted(&mut self, id: ConnectionId, door: Door, ip: Option<IpAddr>, now_ms: u64) -> Entrance {
        let Some(ip) = ip else { return Entrance::Barred };
        let is_proxied = if door == Door::Admin { self.proxied.admin } else { self.proxied.front };
        if !is_proxied {
            return self.enter(id, door, ip, now_ms);
        }
        if !rules::has(&self.trusted, ip) {
            return Entrance::Unannounced;
        }
        self.visitors.insert(id, Visitor::Announcing(ip));
        Entrance::ByProxy
    }

    /// A proxy said for whom it connects, or that it does so for itself.
    pub(crate) fn announced(&mut self, id: ConnectionId, door: Door, source: Option<IpAddr>, now_ms: u64) -> Entrance {
        let Some(Visitor::Announcing(proxy)) = self.visitors.remove(&id) else { return Entrance::Barred };
        self.enter(id, door, source.unwrap_or(proxy), now_ms)
    }

    /// Somebody comes, from an address that is known.
    fn enter(&mut self, id: ConnectionId, door: Door, ip: IpAddr, now_ms: u64) -> Entrance {
        let ip = ip.to_canonical();
        if door == Door::Admin {
            return if self.admin.admit(ip) { Entrance::Open } else { Entrance::Barred };
        }
        if rules::has(&self.trusted, ip) {
            self.visitors.insert(id, Visitor::Proxy(ip));
            return Entrance::Open;
        }
        if !self.front.admit(ip) {
            return Entrance::Barred;
        }
        if ip.is_loopback() {
            return Entrance::Open;
        }
        let Some(place) = self.throttle.find(ip, now_ms) else { return Entrance::Open };
        let crowd = self.throttle.connected(place);
        self.visitors.insert(id, Visitor::Counted { place, is_over: crowd != throttle::Crowd::Fine });
        if crowd == throttle::Crowd::Flood { Entrance::Shut } else { Entrance::Open }
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, id: ConnectionId) {
        if let Some(Visitor::Counted { place, .. }) = self.visitors.remove(&id) {
            self.throttle.disconnected(place);
        }
        if self.visitors.is_empty() && self.visitors.capacity() > 64 {
            self.visitors = HashMap::new();
        }
    }

    /// Whether a connection may ask, and for whom it does. Where the problem is the connection's own, it is to be closed: the
    /// second value.
    pub(crate) fn asks(
        &mut self,
        id: ConnectionId,
        head: &RequestHead<'_>,
        now_ms: u64,
    ) -> Result<Asking, (Problem, bool)> {
        match self.visitors.get(&id) {
            None | Some(Visitor::Announcing(_)) => Ok(Asking(None)),
            Some(Visitor::Counted { is_over: true, .. }) => Err((Problem::TooManyRequests(CONNECTIONS_RETRY_S), true)),
            Some(Visitor::Counted { place, .. }) => Ok(Asking(Some(*place))),
            Some(Visitor::Proxy(proxy)) => {
                let Named { client, is_named } = forwarded::client(head, *proxy, &self.trusted, self.by);
                if !self.front.admit(client) {
                    return Err((Problem::Forbidden, false));
                }
                Ok(Asking(if is_named { self.throttle.find(client, now_ms) } else { None }))
            }
        }
    }

    /// Counts a call against its client's limits.
    pub(crate) fn charge(&mut self, asking: Asking, call: &Call, now_ms: u64) -> Result<(), Problem> {
        let charge = match call {
            Call::Publish { .. } => Charge::Publish,
            Call::PublishAll { publications } => {
                return publications.iter().try_for_each(|_| self.charge_publish(asking, now_ms));
            }
            // A sign-in of the classic API is told to others, too.
            Call::Subscribe { .. }
            | Call::Read { .. }
            | Call::Who { .. }
            | Call::Socket { .. }
            | Call::Sign { .. }
            | Call::Icomet(icomet::Call::Subscribe { .. }) => Charge::Subscribe,
            _ => return Ok(()),
        };
        self.take(asking, charge, now_ms)
    }

    /// Counts a publication that is no call of its own.
    pub(crate) fn charge_publish(&mut self, asking: Asking, now_ms: u64) -> Result<(), Problem> {
        self.take(asking, Charge::Publish, now_ms)
    }

    /// Counts as many publications as a message to a pattern has come to beyond what was counted before. They are owed where
    /// there is no room for them: the client publishes again when they are paid.
    pub(crate) fn charge_reached(&mut self, asking: Asking, count: u64, now_ms: u64) {
        if let Asking(Some(place)) = asking {
            self.throttle.owe(place, Charge::Publish, count, now_ms);
        }
    }

    fn take(&mut self, asking: Asking, charge: Charge, now_ms: u64) -> Result<(), Problem> {
        let Asking(Some(place)) = asking else { return Ok(()) };
        self.throttle.take(place, charge, now_ms).map_err(Problem::TooManyRequests)
    }

    /// About once a second: forgets some of those who have not been here for a while.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        self.throttle.sweep(now_ms);
    }
}
