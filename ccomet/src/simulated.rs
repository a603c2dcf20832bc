//! The server on a simulated network: the feature `sim`, for tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

#[cfg(feature = "disk")]
use sealed::sim::SimDisk;
use sealed::sim::{LoopId, Simulation};
use sealed::{EventLoop, Mailbox, Stopper, Workers};
use sealed_http::Server as HttpServer;

use crate::config::Config;
pub use crate::core::holdings::Holdings;
use crate::core::holdings::Seen;
pub use crate::engine::StoreFaults;
use crate::gateway::Gateway;
use crate::handle::{Handle, LoopMessage};
use crate::in_force::SharedInForce;
use crate::ops::signals;
use crate::server::{Error, Machine, Server, Sockets};

/// The sizes of a store on disk, which may be smaller than the settings allow.
#[cfg(feature = "disk")]
#[derive(Debug, Clone, Copy)]
pub struct StoreSizes {
    /// The bytes of a segment of the log.
    pub segment_bytes: u32,
    /// The bytes of the log between two checkpoints.
    pub checkpoint_bytes: u64,
    /// The time between two checkpoints, if anything was published.
    pub checkpoint_interval: std::time::Duration,
    /// The number of channels that a loop hands over to a checkpoint in one tick.
    pub channels_at_once: usize,
    /// The number of reads of a loop that are in progress at a time.
    pub reads_at_once: usize,
    /// The number of places of messages, not in the index yet, that a read gets from the loop.
    pub places_at_once: u64,
}

/// The address of a listener without one: a simulated network has no Unix sockets.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A server whose loops run in a simulation.
///
/// ```
/// use ccomet::{Config, Simulated};
/// use sealed::sim::Simulation;
///
/// let sim = Simulation::new(1);
/// let server = Simulated::start(&sim, Config::default())?;
/// let mut reader = sim.connect(server.front());
/// reader.send("GET /channels/news HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n\r\n");
/// reader.expect("text/event-stream");
/// # Ok::<(), ccomet::Error>(())
/// ```
#[derive(Debug)]
pub struct Simulated {
    sim: Simulation,
    loops: Vec<LoopId>,
    stopper: Stopper,
    mailboxes: Vec<Mailbox<LoopMessage>>,
    in_force: Arc<SharedInForce>,
    front: SocketAddr,
    admin: SocketAddr,
}

impl Simulated {
    /// Starts a server in a simulation. `config.loops` is 1 by default.
    ///
    /// # Errors
    /// As for [`Server::bind`].
    pub fn start(sim: &Simulation, config: Config) -> Result<Self, Error> {
        Self::start_with(sim, config, |_| {})
    }

    /// Starts a server on an unreliable store for tests. The store is slow, refuses changes,
    /// becomes unreachable and loses messages at random, as `store` sets. With `None`, this is the
    /// same as [`start`](Self::start).
    ///
    /// # Errors
    /// As for [`Server::bind`].
    pub fn start_over(sim: &Simulation, config: Config, store: Option<StoreFaults>) -> Result<Self, Error> {
        Self::start_with(sim, config, |server| server.store = store)
    }

    /// Starts a server in a simulation, after `prepare` has changed it, for instance with
    /// [`Server::on_call`].
    ///
    /// # Errors
    /// As for [`Server::bind`].
    pub fn start_with(sim: &Simulation, config: Config, prepare: impl FnOnce(&mut Server)) -> Result<Self, Error> {
        #[cfg(feature = "disk")]
        let machine = Self::machine(sim, &sim.disk());
        #[cfg(not(feature = "disk"))]
        let machine = Machine { workers: Self::workers(sim) };
        Self::start_at(sim, &machine, config, prepare)
    }

    /// Starts a server on a simulated disk, which has the store if `config.store.path` is set.
    /// [`start`](Self::start) uses a new, empty disk instead. The disk outlives the server, so a
    /// test can start another server with the same store.
    ///
    /// # Errors
    /// As for [`Server::bind`].
    #[cfg(feature = "disk")]
    pub fn start_on(sim: &Simulation, disk: &SimDisk, config: Config) -> Result<Self, Error> {
        Self::start_at(sim, &Self::machine(sim, disk), config, |_| {})
    }

    /// Starts a server on a simulated disk, as [`start_on`](Self::start_on) does, with a store of
    /// these sizes.
    ///
    /// # Errors
    /// As for [`Server::bind`].
    #[cfg(feature = "disk")]
    pub fn start_sized(sim: &Simulation, disk: &SimDisk, config: Config, sizes: StoreSizes) -> Result<Self, Error> {
        let machine = Machine { sizes: Some(sizes), ..Self::machine(sim, disk) };
        Self::start_at(sim, &machine, config, |_| {})
    }

    #[cfg(feature = "disk")]
    fn machine(sim: &Simulation, disk: &SimDisk) -> Machine {
        Machine { disk: disk.disk(), workers: Self::workers(sim), sizes: None }
    }

    fn workers(sim: &Simulation) -> Box<dyn Fn(usize, usize) -> Workers> {
        let sim = sim.clone();
        Box::new(move |threads, waiting_max| sim.workers(threads, waiting_max))
    }

    fn start_at(
        sim: &Simulation,
        machine: &Machine,
        config: Config,
        prepare: impl FnOnce(&mut Server),
    ) -> Result<Self, Error> {
        let loops = config.loops.map_or(1, std::num::NonZeroUsize::get);
        let mut server =
            Server::bind_to(config, Sockets::default(), machine, |loop_config| sim.pool(loop_config, loops))?;
        prepare(&mut server);
        let [front, admin] = [server.front(), server.admin()].map(|address| address.inet().unwrap_or(NO_ADDRESS));
        let stopper = server.stopper();
        let in_force = server.in_force();
        let (pool, service) = server.into_parts(false);
        let mailboxes = pool.mailboxes();
        let loops = sim.start_pool(pool, service)?;
        Ok(Self { sim: sim.clone(), loops, stopper, mailboxes, in_force, front, admin })
    }

    /// Returns the address of the public listener.
    pub fn front(&self) -> SocketAddr {
        self.front
    }

    /// Returns the address of the private listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Returns a handle to use the server from inside. All loops run on the thread of the
    /// simulation: take answers with [`try_take`](crate::handle::Pending::try_take), after the
    /// simulation has advanced.
    pub fn handle(&self) -> Handle {
        Handle::new(self.mailboxes.clone(), self.stopper.clone(), self.in_force.clone())
    }

    /// Asks the server to shut down, as SIGTERM does.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// Sends the server SIGHUP: it reloads its settings, if it has a source of them.
    pub fn hang_up(&self) {
        if let (Some(first), Some(signal)) = (self.loops.first(), signals::CAUGHT.first()) {
            self.sim.signal(*first, *signal);
        }
    }

    /// Returns whether any loop is still running.
    pub fn is_running(&self) -> bool {
        self.loops.iter().any(|id| self.sim.is_running(*id))
    }

    /// Ends the server immediately, without a shutdown.
    pub fn kill(self) {
        for id in self.loops {
            self.sim.kill(id);
        }
    }

    /// Returns the greatest number of units of work that a loop has spent in one tick on messages
    /// to patterns and on the initial history of new patterns.
    pub fn most_work(&self) -> usize {
        let most = self.loops.iter().map(|id| {
            self.sim
                .with(*id, |event_loop: &mut EventLoop<HttpServer<Gateway>>| event_loop.parts().0.handler().most_work())
        });
        most.flatten().max().unwrap_or(0)
    }

    /// Changes the faults of the server's store.
    pub fn set_store_faults(&self, faults: StoreFaults) {
        for id in &self.loops {
            self.sim.with(*id, |event_loop: &mut EventLoop<HttpServer<Gateway>>| {
                let (server, cx) = event_loop.parts();
                server.parts(cx).0.set_store_faults(faults);
            });
        }
    }

    /// Returns the resources that the server holds now.
    pub fn holdings(&self) -> Holdings {
        let (mut all, mut seen) = (Holdings::default(), Seen::default());
        for id in &self.loops {
            self.sim.with(*id, |event_loop: &mut EventLoop<HttpServer<Gateway>>| {
                let (server, cx) = event_loop.parts();
                all.connections += cx.connections();
                all.timers += cx.timers();
                all.pooled_bytes += cx.pooled_bytes();
                server.handler().add_to(&mut all, &mut seen);
            });
        }
        for id in &self.loops {
            self.sim.with(*id, |event_loop: &mut EventLoop<HttpServer<Gateway>>| {
                event_loop.parts().0.handler().add_store_to(&mut all, &mut seen);
            });
        }
        all
    }
}
