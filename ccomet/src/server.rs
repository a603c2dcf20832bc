//! The server: loops in a pool, each with an [`App`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealed::{Place, Pool, SocketOptions, Stopper};
use sealed_http::{Limits as HttpLimits, Server as HttpServer, Settings};

use crate::app::App;
use crate::auth::Verifier;
use crate::broker::Mail;
use crate::config::{Config, ConfigError};
use crate::tally::Tally;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The event loops cannot be made, listen, or go on.
    #[error(transparent)]
    Loop(#[from] sealed::Error),
}

/// A server that listens already and waits to be run.
#[derive(Debug)]
pub struct Server {
    pool: Pool<Mail>,
    config: Arc<Config>,
    verifier: Arc<Verifier>,
    front: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// Checks the configuration and opens both listeners. Port 0 lets the system choose.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let loops = config.loops;
        Self::bind_to(config, |loop_config| Pool::new(loop_config, loops))
    }

    /// The same on a pool that is made here.
    pub(crate) fn bind_to(
        config: Config,
        make_pool: impl FnOnce(sealed::Config) -> sealed::Result<Pool<Mail>>,
    ) -> Result<Self, Error> {
        config.check()?;
        let verifier = Arc::new(Verifier::new(&config.auth).map_err(ConfigError::from)?);
        let mut pool = make_pool(loop_config(&config, 1))?;
        let count = pool.loops();
        *pool.config_mut() = loop_config(&config, count);
        // In this order: a listener's number tells which of the two it is.
        let front = pool.listen(config.front.listen)?.tcp().unwrap_or(config.front.listen);
        let admin = pool.listen(config.admin.listen)?.tcp().unwrap_or(config.admin.listen);
        Ok(Self { pool, config: Arc::new(config), verifier, front, admin })
    }

    /// Where the public listener is.
    pub fn front(&self) -> SocketAddr {
        self.front
    }

    /// Where the private listener is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Stops the server from any thread: it drains within its limit, and [`run`](Self::run) returns.
    pub fn stopper(&self) -> Stopper {
        self.pool.stopper()
    }

    /// Runs until it is stopped and has drained.
    pub fn run(self) -> Result<(), Error> {
        let loops = self.pool.loops();
        tracing::info!(front = %self.front, admin = %self.admin, loops, "serving");
        let (pool, service) = self.into_parts();
        pool.run(service)?;
        tracing::info!("stopped");
        Ok(())
    }

    /// The pool, and what makes the service of each of its loops.
    pub(crate) fn into_parts(self) -> (Pool<Mail>, impl Fn(Place<Mail>) -> HttpServer<App> + Send + Sync + 'static) {
        let Self { pool, config, verifier, .. } = self;
        let settings = http_settings(&config);
        let tallies = Tally::for_loops(pool.loops());
        (pool, move |place| {
            HttpServer::new(settings.clone(), App::new(config.clone(), verifier.clone(), tallies.clone(), place))
        })
    }

    /// Lets SIGINT and SIGTERM stop the server, from now on; a second one ends its limit.
    pub fn stop_on_signals(&mut self) -> Result<(), Error> {
        Ok(self.pool.stop_on_signals()?)
    }
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

fn http_settings(config: &Config) -> Settings {
    Settings {
        limits: HttpLimits {
            // A script tag publishes in the request line.
            request_line_bytes_max: config.limits.head_bytes_max,
            head_bytes_max: config.limits.head_bytes_max,
            body_bytes_max: config.limits.message_bytes_max as u64,
            ..HttpLimits::default()
        },
        request_timeout: Duration::from_secs(config.times.request_s),
        body_timeout: Duration::from_secs(config.times.request_s),
        idle_timeout: Duration::from_secs(config.times.keep_alive_s),
        ..Settings::default()
    }
}
