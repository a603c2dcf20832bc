//! What addresses may ask for, what they have asked for, and what they were given.

use std::collections::HashMap;
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
}

/// What addresses have asked of one server, and what they were given.
#[derive(Debug)]
pub struct Accounts {
    sim: Simulation,
    /// When the server was started.
    pub since: Duration,
    loops: u64,
    subscribes: u64,
    publishes: u64,
    connections: u32,
    /// Whether all addresses are known.
    is_complete: bool,
    asked: HashMap<(IpAddr, Charge), Vec<Duration>>,
    given: HashMap<(IpAddr, Charge), u64>,
    /// Connections, and what may go on for a while on those of others.
    opened: HashMap<IpAddr, u32>,
}

impl Accounts {
    pub fn new(config: &Config, sim: &Simulation) -> Self {
        let limits = &config.limits;
        Self {
            sim: sim.clone(),
            since: sim.now(),
            loops: config.loops.map_or(1, std::num::NonZeroUsize::get) as u64,
            subscribes: limits.subscribes_per_address_minute.into(),
            publishes: limits.publishes_per_address_minute.into(),
            connections: limits.connections_per_address_max,
            is_complete: limits.addresses_max > 100,
            asked: HashMap::new(),
            given: HashMap::new(),
            opened: HashMap::new(),
        }
    }

    pub fn asks(&mut self, client: IpAddr, charge: Charge, now: Duration) {
        self.asked.entry((client, charge)).or_default().push(now);
    }

    pub fn opens(&mut self, client: IpAddr) {
        *self.opened.entry(client).or_default() += 1;
    }

    fn limit(&self, charge: Charge) -> u64 {
        if charge == Charge::Subscribe { self.subscribes } else { self.publishes }
    }

    /// It was refused. Whatever others do, that happens only to one that asked for more than it may.
    pub fn refused(&self, what: &str, client: IpAddr, charge: Charge, now: Duration) {
        let asked = self.asked.get(&(client, charge)).map_or(&[][..], Vec::as_slice);
        let count = asked.iter().filter(|at| **at + WINDOW > now).count() as u64;
        let opened = self.opened.get(&client).copied().unwrap_or(0);
        let is_due = count > self.limit(charge) || opened > self.connections;
        assert!(is_due, "{what}: {client} is refused its {charge:?}, and asked but {count} times: {self:?}");
    }

    /// It was not refused: at some time until now.
    pub fn given(&mut self, what: &str, client: IpAddr, charge: Charge) {
        let given = self.given.entry((client, charge)).or_default();
        *given += 1;
        let given = *given;
        let limit = self.limit(charge);
        let time = self.sim.now().saturating_sub(self.since).as_secs() + 1;
        let most = self.loops * (limit + limit * time / 60 + 1);
        assert!(!self.is_complete || given <= most, "{what}: {client} has {given} {charge:?} in {time} s: {self:?}");
    }
}
