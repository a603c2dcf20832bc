//! Name resolution that does not block a loop: the system's resolver on the threads of workers,
//! with a cache.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use crate::caught;
use crate::net::Clock;
use crate::workers::{WorkError, Workers};

/// The longest name of a host (RFC 1035), with a dot at its end.
const HOST_BYTES_MAX: usize = 254;

/// The outcome of a lookup. The error is shared because an `io::Error` cannot be cloned.
pub(crate) type LookupOutcome = Result<Vec<IpAddr>, Arc<io::Error>>;

/// Returns an outcome with an error of its own.
pub(crate) fn owned(outcome: LookupOutcome) -> io::Result<Vec<IpAddr>> {
    outcome.map_err(|error| io::Error::new(error.kind(), error))
}

/// What is done with the outcome of a lookup. It may run on another thread.
pub(crate) type Waiter = Box<dyn FnOnce(LookupOutcome) + Send>;

type LookUp = Box<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Resolves names of hosts on the threads of [`Workers`]. Clones share the cache.
///
/// [`Connect::by_name`](crate::Connect::by_name) connects to a name, and
/// [`Context::resolve`](crate::Context::resolve) delivers the addresses as a message.
///
/// Simultaneous lookups of one name share one answer. Each name that is being looked up occupies a
/// thread of the workers. If a name server is slow, lookups wait for each other, and other work
/// waits for them. A program with many lookups and much other work should give the resolver workers
/// of its own.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

/// How a [`Resolver`] caches.
///
/// Take the fields that you do not set from [`Default`]: a minor version may add fields.
#[derive(Debug, Clone)]
pub struct ResolverConfig {
    /// Time for which addresses are reused. The system's resolver reports no time to live. With
    /// zero they are not reused. Default 30 s.
    pub cache_time: Duration,
    /// Time for which a failed lookup is not repeated. Default 1 s.
    pub failure_time: Duration,
    /// Maximum number of names in the cache; at the limit, the oldest is dropped. Default 1,024.
    pub names_max: usize,
    /// Decides whether an address may be used, whether it was looked up or given in place of a
    /// name. An IPv4 address inside an IPv6 address (`::ffff:10.0.0.1`) is passed as IPv4. If no
    /// address of a host may be used, the lookup fails with the kind
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied). A program that connects to hosts that
    /// strangers name should not let them reach its own network: not only loopback, private and
    /// link-local addresses, but also unspecified ones (`0.0.0.0`, `::`), which systems connect to
    /// themselves. The example `socks5` of the repository has such a list. Default: all addresses.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use sealed::ResolverConfig;
    ///
    /// // Only hosts of the company's own network.
    /// fn is_internal(address: IpAddr) -> bool {
    ///     matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
    /// }
    ///
    /// let config = ResolverConfig { allow: is_internal, ..ResolverConfig::default() };
    /// # let _ = config;
    /// ```
    pub allow: fn(IpAddr) -> bool,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            cache_time: Duration::from_secs(30),
            failure_time: Duration::from_secs(1),
            names_max: 1024,
            allow: |_| true,
        }
    }
}

struct Shared {
    workers: Workers,
    clock: Clock,
    config: ResolverConfig,
    look_up: LookUp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    /// Lookups in progress, each with those that wait for it.
    pending: HashMap<Arc<str>, Vec<Waiter>>,
}

#[derive(Default)]
struct Cache {
    names: HashMap<Arc<str>, Cached>,
    /// The names in the order in which they were looked up, with the number of the lookup.
    order: VecDeque<(Arc<str>, u64)>,
    last_lookup: u64,
}

struct Cached {
    outcome: LookupOutcome,
    until: Duration,
    lookup: u64,
}

impl Resolver {
    /// Creates a resolver that asks the system (`getaddrinfo`). On simulated workers it knows the
    /// names that were set with `Simulation::set_name`.
    ///
    /// A failed lookup has the kind [`NotFound`](io::ErrorKind::NotFound), whether the name does
    /// not exist or no name server answers: systems do not tell these apart. Errors of the system
    /// itself, such as having no descriptors left, keep their kind. With
    /// [`Context::resolve`](crate::Context::resolve), the error of the system is its source.
    pub fn new(workers: &Workers, config: ResolverConfig) -> Self {
        #[cfg(feature = "sim")]
        if let Some(crew) = workers.as_simulated() {
            let crew = crew.clone();
            return Self::with_lookup(workers, config, move |host| crew.look_up(host));
        }
        Self::with_lookup(workers, config, |host| match (host, 0).to_socket_addrs() {
            Ok(found) => Ok(found.map(|address| address.ip()).collect()),
            // Out of descriptors, for example.
            Err(error) if error.raw_os_error().is_some() => Err(error),
            Err(error) => Err(io::Error::new(io::ErrorKind::NotFound, error)),
        })
    }

    /// Creates a resolver that calls `look_up` with the name of a host, on a thread of `workers`.
    /// A name without addresses is the same as an error of the kind
    /// [`NotFound`](io::ErrorKind::NotFound).
    ///
    /// ```
    /// use sealed::{Resolver, ResolverConfig, Workers};
    ///
    /// let workers = Workers::new(2, 100);
    /// let resolver = Resolver::with_lookup(&workers, ResolverConfig::default(), |host| match host {
    ///     "db" => Ok(vec![[10, 0, 0, 5].into()]),
    ///     _ => Err(std::io::ErrorKind::NotFound.into()),
    /// });
    /// # let _ = resolver;
    /// ```
    pub fn with_lookup(
        workers: &Workers,
        config: ResolverConfig,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        let (workers, clock) = (workers.clone(), workers.clock());
        Self {
            shared: Arc::new(Shared { workers, clock, config, look_up: Box::new(look_up), state: Mutex::default() }),
        }
    }

    /// Returns the outcome for a host if it is known without a lookup.
    pub(crate) fn known(&self, host: &str) -> Option<LookupOutcome> {
        if let Ok(address) = host.parse() {
            return Some(if self.shared.allows(address) || fault!("address-not-judged") {
                Ok(vec![address])
            } else {
                Err(Arc::new(io::ErrorKind::PermissionDenied.into()))
            });
        }
        if host.is_empty() || host.len() > HOST_BYTES_MAX {
            return Some(Err(Arc::new(io::Error::new(io::ErrorKind::NotFound, "not a name of a host"))));
        }
        self.shared.lock().cache.find(host, self.shared.clock.now())
    }

    /// Starts a lookup, or joins the one in progress. `waiter` is called with the outcome, once.
    pub(crate) fn look_up(&self, host: &str, waiter: Waiter) -> Result<(), WorkError> {
        let mut state = self.shared.lock();
        if let Some(waiters) = state.pending.get_mut(host).filter(|_| !fault!("lookups-not-joined")) {
            waiters.push(waiter);
            return Ok(());
        }
        let name: Arc<str> = host.into();
        let (shared, host) = (self.shared.clone(), name.clone());
        self.shared.workers.submit(Box::new(move || shared.run(&host)), None)?;
        state.pending.entry(name).or_default().push(waiter);
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allows(&self, address: IpAddr) -> bool {
        (self.config.allow)(address.to_canonical())
    }

    fn run(&self, host: &Arc<str>) {
        let found = caught::run(|| (self.look_up)(host));
        let found = found.unwrap_or_else(|| Err(io::Error::other("the lookup panicked")));
        let found = found.and_then(|mut found| {
            // A name without an address cannot be used any more than an unknown one.
            if found.is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            found.retain(|address| self.allows(*address) || fault!("found-address-not-judged"));
            if found.is_empty() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(found) }
        });
        let outcome = found.map_err(Arc::new);
        let time = if outcome.is_ok() { self.config.cache_time } else { self.config.failure_time };
        let until = self.clock.now().saturating_add(time);
        let waiters = {
            let mut state = self.lock();
            if !time.is_zero() {
                state.cache.insert(host.clone(), outcome.clone(), until, self.config.names_max);
            }
            state.pending.remove(host).unwrap_or_default()
        };
        for waiter in waiters {
            let outcome = outcome.clone();
            // A waiter of a loop that is gone drops what it has, which can panic. The others are
            // called nevertheless.
            caught::run(move || waiter(outcome));
        }
    }
}

impl Cache {
    fn find(&self, host: &str, now: Duration) -> Option<LookupOutcome> {
        let cached = self.names.get(host)?;
        (now < cached.until || fault!("stale-addresses-used")).then(|| cached.outcome.clone())
    }

    fn insert(&mut self, name: Arc<str>, outcome: LookupOutcome, until: Duration, names_max: usize) {
        if names_max == 0 {
            return;
        }
        while self.names.len() >= names_max && !self.names.contains_key(&name) && !fault!("cache-unbounded") {
            let Some((oldest, lookup)) = self.order.pop_front() else { break };
            // The name may have been looked up again since.
            if self.names.get(&oldest).is_some_and(|cached| cached.lookup == lookup) {
                self.names.remove(&oldest);
            }
        }
        self.last_lookup += 1;
        let lookup = self.last_lookup;
        self.order.push_back((name.clone(), lookup));
        self.names.insert(name, Cached { outcome, until, lookup });
        if self.order.len() > 2 * self.names.len() + 16 {
            let names = &self.names;
            self.order.retain(|(name, lookup)| names.get(name).is_some_and(|cached| cached.lookup == *lookup));
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Resolver")
            .field("names", &state.cache.names.len())
            .field("lookups", &state.pending.len())
            .finish_non_exhaustive()
    }
}
