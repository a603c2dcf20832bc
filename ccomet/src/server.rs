//! The server: loops in a pool, each with a [`Gateway`].

use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sealed::{Address, Listen, Place, Pool, Resolver, ResolverConfig, SocketOptions, Stopper, Workers, fault};
use sealed_http::Server as HttpServer;

#[cfg(feature = "disk")]
use crate::config::SyncMode;
use crate::config::{Config, ConfigError, socket_mode};
#[cfg(feature = "disk")]
use crate::engine::{Crews, LogSync, SharedStore, StoreSettings};
#[cfg(feature = "redis")]
use crate::gateway::RedisParts;
#[cfg(feature = "disk")]
use crate::gateway::store_times;
use crate::gateway::{Acceptors, Gateway, ReloadParts, ServerParts, Taken, http_settings};
use crate::handle::{Handle, LoopMessage};
use crate::in_force::{InForce, SharedInForce};
use crate::on_call::{CallInfo, Decision, Judge};
use crate::ops::console::Console;
use crate::ops::counters::LoopCounters;
use crate::ops::health::{Life, Listener};
use crate::ops::listening::{hint, permit};
use crate::ops::metrics::Metrics;
use crate::ops::refusals::RefusalCounts;
use crate::ops::reload::{Reload, ReloadListener, SettingsSource};
use crate::ops::signals;
use crate::protocols::call::Door;

/// Threads that look up the host name of the back end, for all loops.
const LOOKUPS_MAX: usize = 2;
/// Lookups that wait for a thread. Loops that look up the same name share a lookup.
const LOOKUPS_WAITING_MAX: usize = 1_000;

/// Reloads that wait for a thread. The server asks for one at a time.
const RELOADS_WAITING_MAX: usize = 1;

/// The time after which the index of the store is updated, if anything was published.
#[cfg(feature = "disk")]
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// The number of channels that a loop hands over to a checkpoint of the store in one tick.
#[cfg(feature = "disk")]
const CHANNELS_AT_ONCE: usize = 1_000;
/// Reads of one loop that are in progress at a time: enough for all threads to have work. Their
/// results are processed in one tick.
#[cfg(feature = "disk")]
const READS_AT_ONCE: usize = 4;
/// Places of messages, not in the index yet, that a read gets from its loop.
#[cfg(feature = "disk")]
const PLACES_AT_ONCE: u64 = 1_024;
/// Threads that read from the store, and reads that wait for a thread.
#[cfg(feature = "disk")]
const READERS: usize = 2;
#[cfg(feature = "disk")]
const READS_WAITING_MAX: usize = 100_000;

/// An error of [`Server::bind`], [`Server::run`] or [`Server::stop_on_signals`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener cannot be opened.
    #[error("cannot open the {listener} listener ({listener}.listen, --{listener}){hint}")]
    Listen {
        /// The listener: `front` or `admin`.
        listener: &'static str,
        /// What to do, after a colon; empty if that is unknown.
        hint: &'static str,
        /// The address, and the error of the operating system.
        #[source]
        source: sealed::Error,
    },
    /// The event loops cannot be created, or have failed.
    #[error(transparent)]
    Loop(#[from] sealed::Error),
    /// The store on disk cannot be opened.
    #[cfg(feature = "disk")]
    #[error(transparent)]
    Store(#[from] crate::engine::StoreError),
}

/// Listening sockets for a server to take over, for instance from socket activation. One loop
/// accepts their connections, for all loops.
///
/// ```
/// use std::net::TcpListener;
/// use ccomet::{Config, Server, Sockets};
///
/// let (front, admin) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
/// let sockets = Sockets { front: Some(front), admin: Some(admin) };
/// let server = Server::bind_with(Config::default(), sockets)?;
/// # drop(server);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Sockets {
    /// The public listener, in place of `front.listen`.
    pub front: Option<TcpListener>,
    /// The private listener, in place of `admin.listen`.
    pub admin: Option<TcpListener>,
}

/// A server that listens already and waits to be run.
#[derive(Debug)]
pub struct Server {
    pool: Pool<LoopMessage>,
    in_force: InForce,
    shared_in_force: Arc<SharedInForce>,
    reload: ReloadParts,
    front: Address,
    admin: Address,
    life: Option<Listener>,
    #[cfg(feature = "disk")]
    disk_store: Option<Arc<SharedStore>>,
    #[cfg(feature = "sim")]
    pub(crate) store: Option<crate::engine::StoreFaults>,
    judge: Option<Judge>,
}

impl Server {
    /// Checks the configuration and opens the store, if there is one, and both listeners. With port
    /// 0, the system chooses the port. Blocks while it opens the store.
    ///
    /// # Errors
    /// If a setting is wrong, or if the store or a listener cannot be opened.
    pub fn bind(config: Config) -> Result<Self, Error> {
        Self::bind_with(config, Sockets::default())
    }

    /// Binds like [`bind`](Self::bind), with listeners that may be open already.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    pub fn bind_with(config: Config, sockets: Sockets) -> Result<Self, Error> {
        let loops = config.loops;
        Self::bind_to(config, sockets, &Machine::system(), |loop_config| Pool::new(loop_config, loops))
    }

    /// Binds like [`bind_with`](Self::bind_with), in a pool that `make_pool` creates.
    pub(crate) fn bind_to(
        mut config: Config,
        sockets: Sockets,
        machine: &Machine,
        make_pool: impl FnOnce(sealed::Config) -> sealed::Result<Pool<LoopMessage>>,
    ) -> Result<Self, Error> {
        // The checks apply to the actual addresses.
        for (socket, listen) in [(&sockets.front, &mut config.front.listen), (&sockets.admin, &mut config.admin.listen)]
        {
            if let Some(address) = socket.as_ref().and_then(|socket| socket.local_addr().ok()) {
                *listen = address.into();
            }
        }
        config.check()?;
        let taken = Taken { front: sockets.front.is_some(), admin: sockets.admin.is_some() };
        let mut pool = make_pool(loop_config(&config, 1))?;
        let count = pool.loops();
        *pool.config_mut() = loop_config(&config, count);
        #[cfg(feature = "disk")]
        let disk_store = open_store(&config, machine, &pool)?;
        config.store.check_features()?;
        let in_force = InForce::new(config)?;
        let config = &in_force.config;
        let acceptors = Acceptors::new(&in_force.tls);
        // The order matters: the number of a listener identifies it.
        let Config { front, admin, .. } = &**config;
        let listen = acceptors.listen(Door::Front, Listen::on(&front.listen));
        let front = open_listener(&mut pool, ("front", &front.listen, &front.socket_mode), listen, sockets.front)?;
        let listen = acceptors.listen(Door::Admin, Listen::on(&admin.listen));
        let admin = open_listener(&mut pool, ("admin", &admin.listen, &admin.socket_mode), listen, sockets.admin)?;
        let shared_in_force = Arc::new(SharedInForce::new(in_force.clone()));
        let workers = (machine.workers)(1, RELOADS_WAITING_MAX);
        Ok(Self {
            pool,
            reload: ReloadParts::new(workers, taken, acceptors, shared_in_force.clone()),
            in_force,
            shared_in_force,
            front,
            admin,
            life: None,
            judge: None,
            #[cfg(feature = "disk")]
            disk_store,
            #[cfg(feature = "sim")]
            store: None,
        })
    }

    /// Returns the address of the public listener.
    pub fn front(&self) -> &Address {
        &self.front
    }

    /// Returns the address of the private listener.
    pub fn admin(&self) -> &Address {
        &self.admin
    }

    /// Returns a stopper, which stops the server from any thread: it drains within its time limit,
    /// and [`run`](Self::run) returns.
    pub fn stopper(&self) -> Stopper {
        self.pool.stopper()
    }

    /// Returns a handle to use the server from inside the process: from any thread, also while it
    /// runs.
    pub fn handle(&self) -> Handle {
        Handle::new(self.pool.mailboxes(), self.stopper(), self.shared_in_force.clone())
    }

    /// Sets a callback for the server's state while it runs: a watchdog of the service manager, for
    /// example, wants to know that it makes progress. The callback runs on the thread of the first
    /// loop, and must not block. A panic in it ends the server.
    ///
    /// ```
    /// use ccomet::{Config, Life, Server};
    ///
    /// # let mut config = Config::default();
    /// # config.front.listen = "127.0.0.1:0".parse()?;
    /// # config.admin.listen = "127.0.0.1:0".parse()?;
    /// let mut server = Server::bind(config)?;
    /// server.on_life(|life| match life {
    ///     Life::Alive => println!("all loops make progress"),
    ///     Life::Stopping => println!("shutting down"),
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_life(&mut self, tell: impl Fn(Life) + Send + Sync + 'static) {
        self.life = Some(Listener(Arc::new(tell)));
    }

    /// Sets a callback that decides about each call of a client of the public listener before it is
    /// executed: to subscribe, to read, or to publish, also on a WebSocket. It is asked after the
    /// limits by address, the token and the rules have allowed the call, and before the hooks. It
    /// is not asked about files and preflight requests, nor about calls of a [`Handle`].
    ///
    /// It runs on the thread of the loop that handles the call, and concurrently if there are
    /// several loops. It must not block, since all clients of that loop would wait. For decisions
    /// that need a look-up elsewhere, use a hook of [`Hooks`](crate::Hooks). A panic in it ends the
    /// server.
    ///
    /// ```
    /// use ccomet::{Action, Config, Decision, Server};
    ///
    /// # let mut config = Config::default();
    /// # config.front.listen = "127.0.0.1:0".parse()?;
    /// # config.admin.listen = "127.0.0.1:0".parse()?;
    /// let mut server = Server::bind(config)?;
    /// server.on_call(|call| match call.action() {
    ///     Action::Publish if call.channels().any(|channel| channel.starts_with("news.")) => Decision::Refuse,
    ///     _ => Decision::Allow,
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_call(&mut self, f: impl Fn(&CallInfo<'_>) -> Decision + Send + Sync + 'static) {
        self.judge = Some(Judge(Arc::new(f)));
    }

    /// Sets the source of the settings for reloads: at SIGHUP
    /// ([`stop_on_signals`](Self::stop_on_signals)) and at `POST /reload` of the admin listener.
    /// Settings with an error change nothing. A setting whose change needs a restart keeps its
    /// value, and is named in the log and in the answer. No client is disconnected.
    ///
    /// The closure runs on a thread of its own, and may block. A panic in it ends the server.
    ///
    /// ```
    /// use std::path::Path;
    /// use ccomet::{Config, Server};
    ///
    /// # let mut config = Config::default();
    /// # config.front.listen = "127.0.0.1:0".parse()?;
    /// # config.admin.listen = "127.0.0.1:0".parse()?;
    /// let mut server = Server::bind(config)?;
    /// server.reload_from(|| Config::read(Path::new("ccomet.toml")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reload_from(&mut self, read: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static) {
        self.reload.source = Some(SettingsSource(Arc::new(read)));
    }

    /// Sets a callback for the steps of reloads, for instance to apply `log.level`, which only the
    /// program around the server can do. The callback runs on the thread of the first loop, and
    /// must not block. A panic in it ends the server.
    pub fn on_reload(&mut self, tell: impl Fn(Reload<'_>) + Send + Sync + 'static) {
        self.reload.listener = Some(ReloadListener(Arc::new(tell)));
    }

    /// Runs until it is stopped and has drained. Blocks.
    ///
    /// # Errors
    /// If a loop fails or panics, including in a closure passed by the program.
    pub fn run(self) -> Result<(), Error> {
        let loops = self.pool.loops();
        self.in_force.config.admin.warn();
        tracing::info!(front = %self.front, admin = %self.admin, loops, "serving");
        #[cfg(feature = "disk")]
        let disk_store = self.disk_store.clone();
        let (pool, service) = self.into_parts(true);
        let ended = pool.run(service);
        #[cfg(feature = "disk")]
        if let Some(store) = disk_store {
            store.finish();
        }
        ended?;
        tracing::info!("stopped");
        Ok(())
    }

    #[cfg(feature = "sim")]
    pub(crate) fn in_force(&self) -> Arc<SharedInForce> {
        self.shared_in_force.clone()
    }

    /// Splits the server into its pool and the constructor of each loop's service. The metrics show
    /// the process if `is_alone`: if it runs no simulation.
    pub(crate) fn into_parts(
        self,
        is_alone: bool,
    ) -> (Pool<LoopMessage>, impl Fn(Place<LoopMessage>) -> HttpServer<Gateway> + Send + Sync + 'static) {
        #[cfg(feature = "sim")]
        let store = self.store;
        #[cfg(feature = "disk")]
        let disk_store = self.disk_store.clone();
        let Self { pool, in_force, reload, life, judge, .. } = self;
        let settings = http_settings(&in_force.config);
        let metrics = Arc::new(Metrics {
            counters: LoopCounters::for_loops(pool.loops()),
            watches: pool.watches(),
            refusals: RefusalCounts::new(),
            console: Arc::new(Console::new(pool.loops())),
            started: OnceLock::new(),
            has_process: is_alone,
        });
        // No thread is started before the first lookup.
        let lookups = Workers::new(LOOKUPS_MAX, LOOKUPS_WAITING_MAX);
        let resolver = Resolver::new(&lookups, ResolverConfig::default());
        let shared = ServerParts {
            #[cfg(feature = "redis")]
            redis: RedisParts::new(&in_force, &resolver, pool.loops()),
            in_force,
            reload,
            metrics,
            life,
            judge,
            resolver,
            #[cfg(feature = "disk")]
            disk_store,
            #[cfg(feature = "sim")]
            store,
        };
        (pool, move |place| HttpServer::new(settings.clone(), Gateway::new(shared.clone(), place)))
    }

    /// Lets SIGINT and SIGTERM stop the server, from now on; a second signal ends the time limit at
    /// once. SIGHUP reloads the settings, if [`reload_from`](Self::reload_from) has named their
    /// source. SIGUSR1 and SIGUSR2, which would end the process otherwise, are logged and have no
    /// other effect.
    ///
    /// # Errors
    /// If the signals cannot be caught.
    pub fn stop_on_signals(&mut self) -> Result<(), Error> {
        self.pool.stop_on_signals()?;
        if fault!("hang-up-ends-process") {
            return Ok(());
        }
        Ok(self.pool.deliver_signals(signals::CAUGHT)?)
    }
}

/// Opens a listener, or takes over its socket. `how` has its name, its address, and the permissions
/// of a Unix socket.
fn open_listener(
    pool: &mut Pool<LoopMessage>,
    how: (&'static str, &Address, &str),
    listen: Listen,
    socket: Option<TcpListener>,
) -> Result<Address, Error> {
    let (listener, address, mode) = how;
    let bound = match socket {
        Some(socket) => pool.adopt_listener(socket, listen),
        None => pool.listen(listen).and_then(|bound| match bound.address.path().zip(socket_mode(mode)) {
            Some((path, mode)) => permit(path, mode)
                .map(|()| bound)
                .map_err(|source| sealed::Error::Listen { address: address.to_string(), source }),
            None => Ok(bound),
        }),
    };
    bound.map(|bound| bound.address).map_err(|source| Error::Listen { listener, hint: hint(&source), source })
}

/// The machine on which a server runs: the system, or a simulation.
pub(crate) struct Machine {
    #[cfg(feature = "disk")]
    pub(crate) disk: sealed::disk::Disk,
    /// Creates threads for work that blocks: at most so many, and so much work that waits.
    pub(crate) workers: Box<dyn Fn(usize, usize) -> Workers>,
    /// Changes the settings of the store, in tests.
    #[cfg(all(feature = "disk", feature = "sim"))]
    pub(crate) sizes: Option<crate::simulated::StoreSizes>,
}

impl Machine {
    fn system() -> Self {
        Self {
            #[cfg(feature = "disk")]
            disk: sealed::disk::Disk::system(),
            workers: Box::new(Workers::new),
            #[cfg(all(feature = "disk", feature = "sim"))]
            sizes: None,
        }
    }
}

/// Opens the store on disk, if there is to be one.
#[cfg(feature = "disk")]
fn open_store(config: &Config, machine: &Machine, pool: &Pool<LoopMessage>) -> Result<Option<Arc<SharedStore>>, Error> {
    let Some(path) = config.store.path.clone() else { return Ok(None) };
    let [a, b, c, d, ..] = pool.secret().ok_or(crate::engine::StoreError::NoRandomBits)?;
    let store = &config.store;
    let sync = match store.sync {
        SyncMode::Commit => LogSync::Commit,
        SyncMode::Interval => LogSync::Interval(Duration::from_millis(store.sync_interval_ms)),
        SyncMode::Never => LogSync::Never,
    };
    let settings = StoreSettings {
        path,
        sync,
        segment_bytes: store.segment_bytes,
        checkpoint_bytes: store.checkpoint_bytes,
        checkpoint_interval: CHECKPOINT_INTERVAL,
        channels_at_once: CHANNELS_AT_ONCE,
        reads_at_once: READS_AT_ONCE,
        places_at_once: PLACES_AT_ONCE,
        waiting_bytes_max: store.waiting_bytes_max,
        bytes_max: store.bytes_max,
        times: store_times(config),
        cache_bytes: store.index_cache_bytes,
        window_max: store.window_messages_max,
    };
    #[cfg(feature = "sim")]
    let settings = match machine.sizes {
        Some(sizes) => StoreSettings {
            segment_bytes: sizes.segment_bytes,
            checkpoint_bytes: sizes.checkpoint_bytes,
            checkpoint_interval: sizes.checkpoint_interval,
            channels_at_once: sizes.channels_at_once,
            reads_at_once: sizes.reads_at_once,
            places_at_once: sizes.places_at_once,
            ..settings
        },
        None => settings,
    };
    let workers = &machine.workers;
    let crews = Crews {
        writer: workers(1, 4),
        readers: workers(READERS, READS_WAITING_MAX),
        keeper: workers(1, 16),
        syncer: workers(1, 1),
    };
    Ok(Some(SharedStore::open(&machine.disk, settings, crews, u32::from_ne_bytes([a, b, c, d]), pool.loops())?))
}

fn loop_config(config: &Config, loops: usize) -> sealed::Config {
    sealed::Config {
        connections_max: config.limits.connections_max.div_ceil(loops),
        socket: SocketOptions {
            silence_max: Some(Duration::from_secs(config.times.silence_max_s)),
            ..SocketOptions::default()
        },
        drain_limit: Duration::from_secs(config.times.drain_s),
        ..sealed::Config::default()
    }
}
