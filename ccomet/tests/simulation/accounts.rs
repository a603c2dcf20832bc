//! What addresses may request, what they have requested, and what they got.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use ccomet::Config;
use sealed::sim::Simulation;

/// A time after which nothing is in transit, plus a minute.
const WINDOW: Duration = Duration::from_secs(240);

/// A kind of request that is counted for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Charge {
    Subscribe,
    Publish,
    /// A body of more than 16 KiB.
    LongBody,
    /// A question to the back end.
    Question,
}

/// Things that a client may have created, unless other clients created them first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Made {
    Channel,
    Pattern,
}

/// A client's request, as far as it matters to a refusal.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The requesting client, for messages.
    pub what: &'a str,
    pub client: IpAddr,
    pub charge: Charge,
    pub made: Made,
    pub channel: &'a str,
}

/// Returns whether a channel is a client's own: no other client uses its name.
pub fn is_own(channel: &str) -> bool {
    channel.starts_with("own.")
}

/// The requests of addresses to one server, and their results.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a thing of its own
pub struct Accounts {
    sim: Simulation,
    /// The time when the server was started.
    pub since: Duration,
    loops: u64,
    subscribes: u64,
    publishes: u64,
    connections: u32,
    /// The channels and patterns that each client may create on each loop.
    made_max: [usize; 2],
    questions_max: usize,
    /// Some limits of the whole server are low enough to be reached.
    is_narrow: bool,
    /// A loop or the store may stall for longer than a request waits.
    pub may_stall: bool,
    has_few_patterns: bool,
    /// All addresses are known.
    is_complete: bool,
    /// Channels are unloaded, and count for no client once they are opened again.
    pub may_unload: bool,
    asked: HashMap<(IpAddr, Charge), Vec<Duration>>,
    given: HashMap<(IpAddr, Charge), u64>,
    /// Connections, and requests that may go on for a while on connections of proxies.
    opened: HashMap<IpAddr, u32>,
    /// The names that each client has used, and may have created thereby.
    named: HashMap<(IpAddr, Made), HashSet<String>>,
    /// The channels of its own in which each client has published.
    own: HashMap<IpAddr, HashSet<String>>,
}

impl Accounts {
    pub fn new(config: &Config, sim: &Simulation) -> Self {
        let limits = &config.limits;
        let loops = config.loops.map_or(1, std::num::NonZeroUsize::get);
        let narrowest = [limits.connections_max, limits.subscribers_max, limits.channels_max];
        Self {
            sim: sim.clone(),
            since: sim.now(),
            loops: loops as u64,
            subscribes: limits.subscribes_per_address_minute.into(),
            publishes: limits.publishes_per_address_minute.into(),
            connections: limits.connections_per_address_max,
            made_max: [limits.channels_per_client_max, limits.patterns_per_client_max].map(|max| max.div_ceil(loops)),
            questions_max: config.hooks.questions_per_address_max,
            may_stall: false,
            is_narrow: narrowest.into_iter().min() < Some(100) || limits.subscribers_per_channel_max < 100,
            has_few_patterns: limits.patterns_max < 100,
            is_complete: limits.addresses_max > 100,
            may_unload: false,
            asked: HashMap::new(),
            given: HashMap::new(),
            opened: HashMap::new(),
            named: HashMap::new(),
            own: HashMap::new(),
        }
    }

    pub fn asks(&mut self, client: IpAddr, charge: Charge, now: Duration) {
        self.asked.entry((client, charge)).or_default().push(now);
    }

    pub fn opens(&mut self, client: IpAddr) {
        *self.opened.entry(client).or_default() += 1;
    }

    pub fn names(&mut self, client: IpAddr, made: Made, name: &str) {
        self.named.entry((client, made)).or_default().insert(name.to_owned());
    }

    fn limit(&self, charge: Charge) -> u64 {
        if charge == Charge::Subscribe { self.subscribes } else { self.publishes }
    }

    fn count(&self, client: IpAddr, charge: Charge, now: Duration) -> usize {
        let asked = self.asked.get(&(client, charge)).map_or(&[][..], Vec::as_slice);
        asked.iter().filter(|at| **at + WINDOW > now).count()
    }

    /// Checks a refusal with 429. Only a client that requested more than it may is refused so,
    /// whatever others do.
    pub fn refused(&self, asked: &Asked<'_>, now: Duration, text: &str) {
        let Asked { what, client, charge, made, .. } = *asked;
        let opened = self.opened.get(&client).copied().unwrap_or(0);
        let count = |charge| self.count(client, charge, now);
        let named = self.named.get(&(client, made)).map_or(0, HashSet::len);
        let is_due = if text.contains("client_limit") {
            named > self.made_max[usize::from(made == Made::Pattern)]
        } else {
            count(charge) as u64 > self.limit(charge)
                || opened > self.connections
                || count(Charge::LongBody) > 1
                || count(Charge::Question) > self.questions_max
        };
        assert!(
            is_due,
            "{what}: {client} is refused, and has asked for no more than it may: {asked:?} {text} {self:?}"
        );
    }

    /// Checks a refusal with 503: other clients have used up a limit of the server. If no limit is
    /// low, no client is refused so.
    pub fn unavailable(&self, asked: &Asked<'_>, text: &str) {
        let is_due = match () {
            () if text.contains("shutting_down") => true,
            () if ["\"unavailable\"", "store_full", "store_failed"].iter().any(|code| text.contains(code)) => {
                self.may_stall
            }
            () if text.contains("body_limit") => asked.charge == Charge::Publish,
            () if text.contains("hook_unavailable") => asked.channel.starts_with("asked."),
            () if text.contains("pattern_limit") => asked.made == Made::Pattern && self.has_few_patterns,
            () => self.is_narrow,
        };
        assert!(is_due, "{}: there is room for it: {asked:?}: {text}", asked.what);
    }

    /// Notes a request that succeeded at some time until now. If channels are `lasting`, they still
    /// exist.
    pub fn given(&mut self, asked: &Asked<'_>, lasting: bool) {
        let Asked { what, client, charge, channel, .. } = *asked;
        let given = self.given.entry((client, charge)).or_default();
        *given += 1;
        let given = *given;
        let limit = self.limit(charge);
        let time = self.sim.now().saturating_sub(self.since).as_secs() + 1;
        let most = self.loops * (limit + limit * time / 60 + 1);
        assert!(!self.is_complete || given <= most, "{what}: {client} has {given} {charge:?} in {time} s: {self:?}");
        if charge == Charge::Publish && is_own(channel) {
            let own = self.own.entry(client).or_default();
            own.insert(channel.to_owned());
            let (count, most) = (own.len(), self.made_max[0] * self.loops as usize);
            assert!(
                !lasting || self.may_unload || count <= most,
                "{what}: {client} has {count} channels, of {most}: {self:?}"
            );
        }
    }
}
