//! One run: a server, its clients, all faults; and the conditions that must hold at the end.

mod checks;
mod endings;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use ccomet::{Config, Holdings, Simulated};
use sealed::sim::{Faults, Peer, Random, SimDisk, Simulation};

use crate::accounts::Accounts;
use crate::backends::{self, Backend, Suitor};
use crate::crowds::Crowd;
use crate::cuts::Cuts;
use crate::disks::Host;
use crate::http::Http;
use crate::icomet::Counter;
use crate::members::Member;
use crate::meter::{self, Limit};
use crate::oracle::Oracle;
use crate::others::Gatherer;
use crate::proxies::{self, Visitor};
use crate::readers::{Page, Reader};
use crate::redis::Site;
use crate::rulings::Rebel;
use crate::scenery::{self, Scenery};
use crate::sessions::Session;
use crate::tokens::{self, Holder};
use crate::writers::{Admin, Broadcaster, Insider, Nuisance, Publisher};

const ROUNDS: usize = 120;

/// Longer than any time limit of the server, so that everything is over by then.
const LONG: Duration = Duration::from_secs(200);

/// The time by which a message has reached every reader, on the slowest path.
const PROMPT: Duration = Duration::from_millis(400);

/// The environment of the clients: the network, the server's addresses, and the drawn settings.
pub struct Place {
    pub sim: Simulation,
    pub front: SocketAddr,
    /// The public and private listeners of the other servers.
    pub others: Vec<(SocketAddr, SocketAddr)>,
    pub admin: SocketAddr,
    pub channels: Vec<String>,
    /// Set if channels and their idempotency keys last as long as the server runs.
    pub lasting: bool,
    /// The probability that the next step of the admin deletes a channel.
    pub deletes: f64,
    /// Bytes ahead of the first request to the front.
    pub preface: Vec<u8>,
    /// Set if a back end is asked about some channels.
    pub has_hooks: bool,
    /// Set if several subscriptions are too much for one connection to be prompt.
    pub is_narrow: bool,
    /// The maximum delay of due work.
    pub lateness: Duration,
    /// The probability that the output on a new connection is sent in pieces.
    pub cuts: Cell<f64>,
    pub cutting: RefCell<Random>,
}

impl Place {
    /// Connects a client to the front whose address is irrelevant.
    pub fn visit(&self) -> Http {
        if self.preface.is_empty() {
            return self.over(self.sim.connect(self.pick().0));
        }
        let mut http = self.over(self.sim.connect_from(proxies::PROXIES[0], self.front));
        http.send(&self.preface);
        http
    }

    /// Connects a client to the private listener.
    pub fn visit_admin(&self) -> Http {
        self.over(self.sim.connect(self.pick().1))
    }

    /// Returns the listeners of one of the servers.
    fn pick(&self) -> (SocketAddr, SocketAddr) {
        if self.others.is_empty() {
            return (self.front, self.admin);
        }
        let number = self.cutting.borrow_mut().below(self.others.len() + 1);
        self.others.get(number).copied().unwrap_or((self.front, self.admin))
    }

    /// Creates an HTTP client on a connection, which perhaps sends in pieces.
    pub fn over(&self, peer: Peer) -> Http {
        Http::over(peer, Cuts::new(self.cuts.get(), &mut self.cutting.borrow_mut()))
    }
}

pub struct World {
    place: Place,
    config: Config,
    random: Random,
    server: Option<Simulated>,
    /// The machine of a server whose store is on a disk.
    host: Option<Host>,
    /// The Redis of several servers, and those beside `server`.
    site: Option<Site>,
    oracle: Oracle,
    readers: Vec<Reader>,
    pages: Vec<Page>,
    gatherers: Vec<Gatherer>,
    counters: Vec<Counter>,
    members: Vec<Member>,
    sessions: Vec<Session>,
    publishers: Vec<Publisher>,
    admin: Admin,
    nuisances: Vec<Nuisance>,
    scenery: Scenery,
    visitors: Vec<Visitor>,
    holders: Vec<Holder>,
    suitors: Vec<Suitor>,
    rebels: Vec<Rebel>,
    backend: Option<Backend>,
    insider: Insider,
    broadcaster: Option<Broadcaster>,
    crowd: Option<Crowd>,
    accounts: Accounts,
    /// The random source of clients that are not in every world.
    extra: Random,
    restarts: f64,
    faults: Faults,
}

/// Draws the probability that output is sent in pieces, and returns it with the random source of
/// the pieces.
fn cutting(sim: &Simulation) -> (Cell<f64>, RefCell<Random>) {
    let mut cutting = sim.random(5);
    let cuts = *cutting.pick(&[0.0, 0.1, 0.5]).expect("one");
    (Cell::new(cuts), RefCell::new(cutting))
}

/// Returns the maximum delay of work that is due each second.
fn lateness(faults: &Faults) -> Duration {
    let slow = if faults.slow_tick > 0.0 { Duration::from_secs(60) } else { Duration::ZERO };
    let jump = if faults.jump > 0.0 { faults.jump_max } else { Duration::ZERO };
    slow + jump + 10 * faults.delay_max
}

/// Performs one run from the seed. Panics if a promise is broken.
pub fn run(sim: &Simulation) {
    let mut world = World::new(sim);
    for _ in 0..ROUNDS {
        world.round();
    }
    world.calm_down();
    world.check_promptness();
    world.check_channels();
    world.check_readers();
    if world.extra.chance(0.3) {
        return world.kill();
    }
    world.leave();
    world.check_nothing_left();
    world.go_down();
}

impl World {
    #[allow(clippy::too_many_lines)] // each part is drawn once, in the order of the random numbers
    fn new(sim: &Simulation) -> Self {
        let mut random = sim.random(1);
        let (mut config, scenery) = scenery::draw(sim, &mut random);
        let sessions = Session::draw(&mut config, &mut sim.random(7));
        let is_narrow = scenery::draw_link(sim, &mut random);
        let mut site = scenery.on_redis.clone().map(|on_redis| Site::new(sim, on_redis));
        let (host, server) = match &mut site {
            Some(site) => (None, site.start(&config)),
            None => start(sim, &config, &scenery),
        };
        let others = site.iter().flat_map(|site| &site.servers).map(|server| (server.front(), server.admin()));
        let others: Vec<_> = others.collect();
        let channels: Vec<String> =
            ["a", "b", "c", "d", "e"][..=random.below(5)].iter().map(|&name| name.into()).collect();
        let some = |random: &mut Random| -> Vec<String> {
            let count = 1 + random.below(channels.len().min(3));
            (0..count).map(|_| random.pick(&channels).expect("one").clone()).collect()
        };
        let readers = (0..=random.below(10)).map(|n| Reader::new(n, some(&mut random), &mut random)).collect();
        let mut pages: Vec<_> =
            (0..random.below(5)).map(|n| Page::new(n, some(&mut random).remove(0), &mut random)).collect();
        let may_skip = config.history.age_max_s < 60 || scenery.ruling.is_some();
        let mut gatherers: Vec<_> = (0..random.below(3)).map(|n| Gatherer::new(n, may_skip, &mut random)).collect();
        if scenery.has_tokens {
            // There are channels that gatherers may not read.
            gatherers.clear();
        }
        if !others.is_empty() {
            // The numbers of a pattern are those of one server.
            gatherers.clear();
        }
        let mut counters: Vec<_> =
            (0..random.below(4)).map(|n| Counter::new(n, some(&mut random).remove(0), &mut random)).collect();
        if scenery.restarts_numbers() {
            // The protocols of these clients cannot report new numbers.
            counters.clear();
            pages.clear();
        }
        let mut publishers: Vec<_> = (0..=random.below(4)).map(|n| Publisher::new(n, &mut random)).collect();
        for publisher in &mut publishers {
            publisher.retries_refused = host.is_some() || site.is_some();
        }
        let nuisances = (0..random.below(2)).map(|_| Nuisance::default()).collect();
        let deletes = *random.pick(&[0.0, 0.0, 0.05]).expect("one");
        let mut restarts = *random.pick(&[0.0, 0.0, 0.02]).expect("one");
        let faults = draw_faults(sim, &mut random, &scenery, &mut restarts);
        let is_kept = !scenery.forgets_keys && !scenery.is_silent && !scenery.restarts_numbers();
        let lasting = is_kept
            && deletes == 0.0
            && config.history.age_max_s > 60
            && (config.times.channel_idle_s > 60 || host.is_some() || site.is_some());
        let (front, admin) = (server.front(), server.admin());
        let mut extra = sim.random(3);
        let preface = scenery.proxying.as_ref().map_or(Vec::new(), |proxying| proxying.preface(&mut extra));
        let has_hooks = scenery.hooking.is_some();
        let (cuts, cutting) = cutting(sim);
        let place = Place {
            sim: sim.clone(),
            front,
            others,
            admin,
            channels,
            lasting,
            deletes,
            preface,
            has_hooks,
            is_narrow,
            lateness: lateness(&faults),
            cuts,
            cutting,
        };
        let mut members: Vec<_> = (0..random.below(5)).map(|n| Member::new(n, &config, &place, &mut random)).collect();
        if !place.others.is_empty() {
            // Each server knows its own members.
            members.clear();
        }
        let visitors = scenery.proxying.as_ref().map_or(Vec::new(), |proxying| proxying.visitors(&mut extra));
        let holders = if scenery.has_tokens { 1 + extra.below(5) } else { 0 };
        let holders = (0..holders).map(|n| Holder::new(n, &mut extra)).collect();
        let backend = scenery.hooking.as_ref().map(|hooking| hooking.backend(sim));
        let suitors = scenery.hooking.as_ref().map_or(Vec::new(), |hooking| hooking.suitors(&mut extra));
        let mut inside =
            if scenery.has_tokens { vec![tokens::CLOSED[0], tokens::CLOSED[1], tokens::INNER] } else { Vec::new() };
        if backend.is_some() {
            inside.extend(backends::ASKED);
        }
        let accounts = accounts_of(&config, sim, &faults, &scenery);
        let rebels = scenery.ruling.as_ref().map_or(Vec::new(), |ruling| ruling.rebels(&mut extra));
        let mut oracle = Oracle::new(scenery.restarts_numbers());
        scenery.ruling.iter().for_each(|ruling| ruling.tell(&mut oracle));
        oracle.is_lasting = (host.is_some() || site.is_some()) && lasting && scenery.ruling.is_none();
        oracle.keeps_all =
            oracle.is_lasting && config.history.messages_max >= 500 && config.history.bytes_max >= 1 << 20;
        let broadcaster = scenery.is_wide.then(Broadcaster::default);
        let crowd = scenery.is_crowded.then(|| Crowd::new(&config));
        Self {
            place,
            config,
            random,
            server: Some(server),
            host,
            site,
            oracle,
            readers,
            pages,
            gatherers,
            counters,
            members,
            sessions,
            publishers,
            admin: Admin::default(),
            nuisances,
            scenery,
            visitors,
            holders,
            suitors,
            rebels,
            backend,
            insider: Insider::new(inside),
            broadcaster,
            crowd,
            accounts,
            extra,
            restarts,
            faults,
        }
    }

    fn round(&mut self) {
        let longest = *self.random.pick(&[1, 50, 2_000]).expect("one");
        let time = self.random.time(Duration::from_millis(longest));
        self.pass(time);
        if self.scenery.is_silent && self.extra.chance(0.03) {
            let silence = *self.extra.pick(&[10, 70, 130]).expect("one");
            self.pass(Duration::from_secs(silence));
        }
        let Self { place, random, oracle, .. } = self;
        for reader in &mut self.readers {
            reader.act(place, random, oracle);
        }
        for page in &mut self.pages {
            page.act(place, random);
        }
        for gatherer in &mut self.gatherers {
            gatherer.act(place, random, oracle);
        }
        for counter in &mut self.counters {
            counter.act(place, random);
        }
        for member in &mut self.members {
            member.act(place, random, oracle);
        }
        for session in &mut self.sessions {
            session.act(place, random, oracle);
        }
        for publisher in &mut self.publishers {
            publisher.act(place, random, oracle);
        }
        for nuisance in &mut self.nuisances {
            nuisance.act(place, random);
        }
        self.admin.act(place, random, oracle);
        for visitor in &mut self.visitors {
            visitor.act(place, &mut self.extra, oracle, &mut self.accounts);
        }
        for holder in &mut self.holders {
            holder.act(place, &self.config, &mut self.extra, oracle);
        }
        for suitor in &mut self.suitors {
            suitor.act(place, &mut self.extra, oracle);
        }
        for rebel in &mut self.rebels {
            rebel.act(place, &mut self.extra, oracle);
        }
        self.insider.act(place, &mut self.extra, oracle);
        if let Some(broadcaster) = &mut self.broadcaster {
            broadcaster.act(place, &mut self.extra);
        }
        if let Some(crowd) = &mut self.crowd {
            crowd.act(place, &mut self.extra);
        }
        if let (Some(server), true) = (&self.server, self.extra.chance(0.005)) {
            place.sim.note("the server is asked to read its settings again");
            server.hang_up();
        }
        if let Some(site) = &mut self.site {
            site.act();
        }
        let is_due = random.chance(self.restarts) && self.site.is_none();
        if self.host.as_mut().map_or(is_due, Host::act) {
            self.restart();
        }
        self.check_bounds();
    }

    /// Lets time pass, during which the back end answers.
    fn pass(&mut self, time: Duration) {
        if let Some(backend) = &mut self.backend {
            return backend.run_for(&self.place, time, &mut self.extra);
        }
        let disk = self.host.as_ref().map(|host| &host.disk);
        let bytes_max = meter::TICK_BYTES_MAX;
        let limit = if disk.is_some() { Limit::AtOnce(bytes_max) } else { Limit::InAll(bytes_max) };
        meter::run_until(&self.place.sim, time, limit, || disk.is_some_and(SimDisk::is_dead));
    }

    fn loops(&self) -> usize {
        self.config.loops.map_or(1, std::num::NonZeroUsize::get)
    }

    fn hear(&mut self) {
        let oracle = &mut self.oracle;
        self.readers.iter_mut().for_each(|reader| reader.hear(oracle));
        self.pages.iter_mut().for_each(Page::hear);
        self.gatherers.iter_mut().for_each(|gatherer| gatherer.hear(oracle));
        self.counters.iter_mut().for_each(Counter::hear);
        self.members.iter_mut().for_each(|member| member.hear(oracle));
        self.sessions.iter_mut().for_each(|session| session.hear(oracle));
        self.publishers.iter_mut().for_each(|publisher| publisher.hear(oracle));
        self.admin.hear(oracle);
        self.visitors.iter_mut().for_each(|visitor| visitor.hear(oracle, &mut self.accounts));
        self.holders.iter_mut().for_each(|holder| holder.hear(&self.place, oracle));
        self.suitors.iter_mut().for_each(|suitor| suitor.hear(oracle));
        self.rebels.iter_mut().for_each(|rebel| rebel.hear(&self.place, oracle));
        self.insider.hear(oracle);
        self.broadcaster.iter_mut().for_each(Broadcaster::hear);
        self.crowd.iter_mut().for_each(Crowd::hear);
    }

    fn holdings(&self) -> Holdings {
        self.server.as_ref().expect("a server").holdings()
    }
}

/// Starts the first server of a world, perhaps on a disk.
fn start(sim: &Simulation, config: &Config, scenery: &Scenery) -> (Option<Host>, Simulated) {
    let mut host = scenery.on_disk.clone().map(|on_disk| Host::new(sim, on_disk));
    let server = match &mut host {
        Some(host) => host.start(config),
        None => Simulated::start_over(sim, config.clone(), scenery.store).expect("it starts"),
    };
    (host, server)
}

/// Draws the faults and their frequency.
fn draw_faults(sim: &Simulation, random: &mut Random, scenery: &Scenery, restarts: &mut f64) -> Faults {
    let mut faults = Faults::any(random);
    if let Some(hooking) = &scenery.hooking {
        hooking.soften(&mut faults, restarts);
    }
    let mut ticks = sim.random(4);
    if ticks.chance(0.2) {
        faults.slow_tick = *ticks.pick(&[0.01, 0.1]).expect("one");
    }
    sim.set_faults(faults.clone());
    faults
}

fn accounts_of(config: &Config, sim: &Simulation, faults: &Faults, scenery: &Scenery) -> Accounts {
    let mut accounts = Accounts::new(config, sim);
    let has_store = scenery.store.is_some() || scenery.on_disk.is_some() || scenery.on_redis.is_some();
    accounts.may_stall = faults.stall + faults.jump > 0.0 || has_store;
    accounts.may_unload = has_store;
    accounts
}
