//! What addresses may ask for, what they have asked for, and what they were given.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use ccomet::Config;
use sealed::sim::Simulation;

/// A time after which nothing is under way any more, and a minute besides.
const WINDOW: Duration = Duration::from_secs(240);

/// What is counted of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Charge {
    Subscribe,
    Publish,
    /// A body of more than 16 KiB.
    LongBody,
    /// A question to the back end.
    Question,
}

/// What a client may have made, and what others may have made before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Made {
    Channel,
    Pattern,
}

/// What a client asked for, as far as a refusal may have to do with it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who asked, for messages.
    pub what: &'a str,
    pub client: IpAddr,
    pub charge: Charge,
    pub made: Made,
    pub channel: &'a str,
}

/// Whether a channel is a client's own: nobody else uses its name.
pub fn is_own(channel: &str) -> bool {
    channel.starts_with("own.")
}

/// What addresses have asked of one server, and what they were given.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a thing of its own
pub struct Accounts {
    sim: Simulation,
    /// When the server was started.
    pub since: Duration,
    loops: u64,
    subscribes: u64,
    publishes: u64,
    connections: u32,
    /// Channels and patterns that each client may have made on each loop.
    made_max: [usize; 2],
    questions_max: usize,
    /// Some limits of the whole server are so low that they are met.
    is_narrow: bool,
    /// A loop may stall, or the store, for longer than a request waits.
    pub may_stall: bool,
    has_few_patterns: bool,
    /// Whether all addresses are known.
    is_complete: bool,
    asked: HashMap<(IpAddr, Charge), Vec<Duration>>,
    given: HashMap<(IpAddr, Charge), u64>,
    /// Connections, and what may go on for a while on those of others.
    opened: HashMap<IpAddr, u32>,
    /// What each has named, and may have made by that.
    named: HashMap<(IpAddr, Made), HashSet<String>>,
    /// Channels of its own in which each has published.
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

    /// It was refused with 429. Whatever others do, that happens only to one that asked for more than it may.
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

    /// It was refused with 503: others have all that there is. Where there is enough of all, nobody is.
    pub fn unavailable(&self, asked: &Asked<'_>, text: &str) {
        let is_due = match () {
            () if text.contains("shutting_down") => true,
            () if text.contains("\"unavailable\"") => self.may_stall,
            () if text.contains("body_limit") => asked.charge == Charge::Publish,
            () if text.contains("hook_unavailable") => asked.channel.starts_with("asked."),
            () if text.contains("pattern_limit") => asked.made == Made::Pattern && self.has_few_patterns,
            () => self.is_narrow,
        };
        assert!(is_due, "{}: there is room for it: {asked:?}: {text}", asked.what);
    }

    /// It was not refused: at some time until now. Where channels are `lasting`, they are still there.
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
            assert!(!lasting || count <= most, "{what}: {client} has {count} channels, of {most}: {self:?}");
        }
    }
}
