//! The `ccomet` program: reads its settings, prints its addresses, and runs.

mod descriptors;
mod import_icomet;
mod logging;
mod service_manager;
#[cfg(feature = "disk")]
mod store;
mod token;

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use ccomet::{Config, Server};
use clap::{Args, Parser, Subcommand};

use crate::import_icomet::ImportIcomet;
#[cfg(feature = "disk")]
use crate::store::StoreArguments;
use crate::token::TokenArguments;

/// A comet server: pages, phones and programs subscribe to channels, and the server pushes each
/// message of a channel to its subscribers as soon as it is published.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

/// The options of the server, which replace settings of the file. Each subcommand has those that it
/// uses.
#[derive(Debug, Clone, Args)]
struct Options {
    /// Settings, as TOML. `ccomet config --reference` describes all of them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the public listener, for publishing, subscribing and the chat demo [default:
    /// 127.0.0.1:8100]
    #[arg(long, value_name = "ADDR", value_parser = ccomet::listen_address)]
    front: Option<SocketAddr>,
    /// Address of the private listener, which can also list, inspect, clear and close channels
    /// [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR", value_parser = ccomet::listen_address)]
    admin: Option<SocketAddr>,
    /// Directory in which messages are kept over restarts; created if it does not exist [default:
    /// none, messages are in memory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Event loops, each with a thread [default: one for each core]
    #[arg(long, value_name = "N")]
    loops: Option<NonZeroUsize>,
    /// How much to log: error, warn, info, debug, trace, or by module, such as `info,sealed=debug`
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Starts even if the front is open to every client: not on loopback, and without a list of
    /// networks or tokens in the settings
    #[arg(long)]
    open_front: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks the settings and prints them all, or prints a reference of them; starts nothing
    #[command(visible_alias = "check-config")]
    Config {
        /// Prints the reference as Markdown: each setting with its default, range, error code and
        /// meaning
        #[arg(long)]
        reference: bool,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Makes a token with a key of the settings and prints it, or checks a token
    Token(TokenArguments),
    /// Prints an icomet.conf as settings of this server, and warns of settings without an
    /// equivalent
    ImportIcomet(ImportIcomet),
    /// Checks, inspects, salvages or backs up the store in the directory `--data`
    #[cfg(feature = "disk")]
    Store(StoreArguments),
}

const EXAMPLES: &str = "\
Try it, with the server running in another terminal:
  curl -N -H 'Accept: text/event-stream' localhost:8100/channels/news    subscribe
  curl -d 'hello' localhost:8100/channels/news                           publish
  curl 'localhost:8100/channels/news?after=oldest&wait=0'                read the history
  curl -X DELETE localhost:8000/channels/news                            close the channel

A token, with a key in the settings:
  ccomet --config ccomet.toml token --sub ann --subscribe 'news.*' --publish chat --ttl 3600

SIGTERM and SIGINT let the server drain: waiting polls are answered, streams are asked to reconnect later.
A second signal ends it at once.";

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The sources are included: 'cannot listen' alone does not help.
            let mut message = format!("ccomet: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                message = format!("{message}: {cause}");
                source = cause.source();
            }
            // Standard error may be closed.
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(Command::ImportIcomet(import)) = &arguments.command {
        return Ok(std::io::stdout().write_all(import.toml()?.as_bytes())?);
    }
    if let Some(Command::Config { reference: true, .. }) = arguments.command {
        return Ok(std::io::stdout().write_all(Config::reference().as_bytes())?);
    }
    let config = match &arguments.command {
        Some(Command::Config { options, .. }) => settings(&arguments.options.with(options))?,
        Some(Command::Token(token)) => settings(&arguments.options.with_files(token.config.as_ref(), None))?,
        #[cfg(feature = "disk")]
        Some(Command::Store(store)) => {
            settings(&arguments.options.with_files(store.config.as_ref(), store.data.as_ref()))?
        }
        Some(Command::ImportIcomet(_)) | None => settings(&arguments.options)?,
    };
    match &arguments.command {
        Some(Command::Config { .. }) => {
            return Ok(std::io::stdout().write_all(config.to_toml().as_bytes())?);
        }
        Some(Command::Token(token)) => return Ok(writeln!(std::io::stdout(), "{}", token.run(&config)?)?),
        #[cfg(feature = "disk")]
        Some(Command::Store(store)) => return store.run(config.store.path.as_deref()),
        Some(Command::ImportIcomet(_)) | None => {}
    }
    let _log = logging::start(&config.log.level)?;
    descriptors::raise_limit(config.limits.connections_max);

    let demo = config.front.demo;
    let mut server = Server::bind_with(config, service_manager::sockets()?)?;
    // This comes before the announcement: a program that starts the server may stop it as soon as
    // it knows the addresses.
    server.stop_on_signals()?;
    let chat = if demo { format!("chat   http://{}/chat.html\n", server.front()) } else { String::new() };
    let announcement = format!("front  http://{}\nadmin  http://{}\n{chat}", server.front(), server.admin());
    // Standard output may be closed, which must not keep the server from running.
    let _ = std::io::stdout().write_all(announcement.as_bytes());
    service_manager::keep_informed(&mut server);
    server.run()?;
    Ok(())
}

impl Options {
    /// Returns the options with those of a subcommand, which take precedence.
    fn with(&self, inner: &Self) -> Self {
        Self {
            front: inner.front.or(self.front),
            admin: inner.admin.or(self.admin),
            loops: inner.loops.or(self.loops),
            log: inner.log.clone().or_else(|| self.log.clone()),
            open_front: inner.open_front || self.open_front,
            ..self.with_files(inner.config.as_ref(), inner.data.as_ref())
        }
    }

    /// Returns the options with the paths of a subcommand, which take precedence.
    fn with_files(&self, config: Option<&PathBuf>, data: Option<&PathBuf>) -> Self {
        let (config, data) = (config.or(self.config.as_ref()).cloned(), data.or(self.data.as_ref()).cloned());
        Self { config, data, ..self.clone() }
    }
}

fn settings(options: &Options) -> Result<Config, ccomet::ConfigError> {
    let mut config = match &options.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(front) = options.front {
        config.front.listen = front;
    }
    if let Some(admin) = options.admin {
        config.admin.listen = admin;
    }
    if options.loops.is_some() {
        config.loops = options.loops;
    }
    if let Some(data) = &options.data {
        config.store.path = Some(data.clone());
    }
    if let Some(level) = &options.log {
        config.log.level.clone_from(level);
    }
    config.front.open |= options.open_front;
    config.check()?;
    Ok(config)
}
