//! Servers with a store on a disk. The disk fails, and the server ends at any moment: it is killed,
//! or loses power. Then it is started again on what the disk has.

use std::time::Duration;

use ccomet::{Config, Simulated, StoreSizes, SyncMode};
use sealed::sim::{DiskFaults, Random, SimDisk, Simulation};

/// The attempts to start a server, after which the disk works.
const TROUBLED_STARTS: usize = 3;

/// What happens to the disk of a world, and to the server on it.
#[derive(Debug, Clone)]
pub struct OnDisk {
    sizes: StoreSizes,
    /// The disk fails at times.
    fails: bool,
    /// The machine may lose power.
    loses_power: bool,
    /// The probability that the server ends in a round.
    ends: f64,
    /// The probability that the space on the disk changes in a round.
    fills: f64,
}

impl OnDisk {
    pub fn draw(config: &mut Config, random: &mut Random) -> Self {
        let sync =
            *random.pick(&[SyncMode::Commit, SyncMode::Commit, SyncMode::Interval, SyncMode::Never]).expect("one");
        config.store.path = Some("data".into());
        config.store.sync = sync;
        config.store.window_messages_max = *random.pick(&[1_000, 10, 3]).expect("one");
        config.store.index_cache_bytes = 1 << 20;
        let sizes = StoreSizes {
            segment_bytes: *random.pick(&[4_096, 20_000, 1 << 20]).expect("one"),
            checkpoint_bytes: *random.pick(&[500, 10_000, 1 << 40]).expect("one"),
            checkpoint_interval: Duration::from_secs(*random.pick(&[2, 60]).expect("one")),
            channels_at_once: *random.pick(&[2, 1_000]).expect("one"),
            reads_at_once: *random.pick(&[1, 2, 16]).expect("one"),
            places_at_once: *random.pick(&[2, 1_024]).expect("one"),
        };
        Self {
            sizes,
            fails: random.chance(0.4),
            // Otherwise, a power cut may take what was accepted.
            loses_power: sync == SyncMode::Commit,
            ends: *random.pick(&[0.01, 0.05]).expect("one"),
            fills: *random.pick(&[0.0, 0.0, 0.1]).expect("one"),
        }
    }
}

/// The machine of a server with a disk.
pub struct Host {
    sim: Simulation,
    pub disk: SimDisk,
    on: OnDisk,
    pub random: Random,
    /// Set if the disk works from now on.
    is_calm: bool,
    /// Set if the running server may meet a fault, or end.
    is_troubled: bool,
}

impl Host {
    pub fn new(sim: &Simulation, on: OnDisk) -> Self {
        Self { sim: sim.clone(), disk: sim.disk(), on, random: sim.random(10), is_calm: false, is_troubled: false }
    }

    /// Starts a server on what the disk has. It may end while it starts, or meet a disk that fails;
    /// then another one is started.
    pub fn start(&mut self, config: &Config) -> Simulated {
        for attempt in 0.. {
            let is_calm = self.is_calm || attempt >= TROUBLED_STARTS;
            self.prepare(is_calm);
            match Simulated::start_sized(&self.sim, &self.disk, config.clone(), self.on.sizes) {
                Ok(server) => return server,
                Err(error) => {
                    let text = error.to_string();
                    assert!(!is_calm && !text.contains("damaged"), "the server starts again: {error:?}");
                    self.end();
                }
            }
        }
        unreachable!()
    }

    fn prepare(&mut self, is_calm: bool) {
        self.is_troubled = false;
        self.disk.set_faults(DiskFaults::default());
        if is_calm {
            self.disk.set_capacity(None);
            return;
        }
        if self.on.fails && self.random.chance(0.5) {
            self.disk.set_faults(DiskFaults::any(&mut self.random));
            self.is_troubled = true;
        }
        if self.random.chance(self.on.ends) {
            self.plan();
        }
    }

    /// Plans the end of the server in the middle of its work with the disk.
    fn plan(&mut self) {
        self.is_troubled = true;
        let operations = 1 + self.random.below(60) as u64;
        if self.on.loses_power && self.random.chance(0.5) {
            self.disk.cut_after(operations);
        } else {
            self.disk.kill_after(operations);
        }
    }

    /// Ends the process on the disk.
    pub fn end(&mut self) {
        if self.on.loses_power && self.random.chance(0.5) {
            self.sim.note("the power goes off");
            self.disk.power_cut();
        } else {
            self.sim.note("the server is killed");
            self.disk.kill();
        }
    }

    /// Lets something happen to the disk. Returns whether the server has ended or ends now.
    pub fn act(&mut self) -> bool {
        if self.random.chance(self.on.fills) {
            let free = self.random.chance(0.5).then(|| self.disk.bytes_used() + self.random.below(20_000) as u64);
            self.disk.set_capacity(free);
        }
        if self.random.chance(self.on.ends) {
            if self.random.chance(0.5) {
                return true;
            }
            self.plan();
        }
        self.disk.is_dead()
    }

    /// Ends all faults from now on. Returns whether the server has to be restarted for that. A disk
    /// that was full works again by itself.
    pub fn calm_down(&mut self) -> bool {
        self.is_calm = true;
        self.disk.set_faults(DiskFaults::default());
        self.disk.set_capacity(None);
        self.is_troubled || self.random.chance(0.5)
    }
}
