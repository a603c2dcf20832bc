//! The `ccomet` program: reads its settings, prints its addresses, and runs.

mod client;
mod descriptors;
mod hang_up;
mod import_icomet;
mod logging;
mod manual;
mod service_manager;
mod settings;
#[cfg(feature = "disk")]
mod store;
mod token;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ccomet::{Config, Reload, Server};
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

use crate::client::Client;
use crate::hang_up::HangUps;
use crate::import_icomet::ImportIcomet;
use crate::settings::{Options, settings, settings_again};
#[cfg(feature = "disk")]
use crate::store::StoreArguments;
use crate::token::TokenArguments;

/// A comet server. Without a command, this program starts the server: pages, phones and programs
/// subscribe to channels, and the server pushes each message of a channel to its subscribers as soon
/// as it is published.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints all settings in force, or a reference of them; starts nothing
    Config {
        /// Prints the reference as Markdown: each setting with its default, range, error code and
        /// meaning
        #[arg(long)]
        reference: bool,
        /// Prints the JSON Schema of the file of settings, for editors
        #[arg(long, conflicts_with = "reference")]
        schema: bool,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Checks the settings, and prints those that differ from their defaults, each with its source.
    /// The exit status is 1 if the server would refuse them.
    CheckConfig {
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Prints a file of settings: all of them as comments, and fresh secrets
    GenConfig {
        /// Writes the settings to a new file that only its user can read, and prints nothing
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Prints a script with which a shell completes the commands and options
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page of the program, or of one of its commands
    Man {
        /// The command, such as `token` or `store check`
        command: Vec<String>,
    },
    /// Makes a token with a key of the settings and prints it, or checks a token
    Token(TokenArguments),
    /// Prints an icomet.conf as settings of this server, and warns of settings without an
    /// equivalent
    ImportIcomet(ImportIcomet),
    /// Checks, inspects, salvages or backs up the store in the directory `--data`
    #[cfg(feature = "disk")]
    Store(StoreArguments),
    #[command(flatten)]
    Client(Client),
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
A second signal ends it at once. SIGHUP reloads the settings, and drops no client.";

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| with_tip(error).exit());
    if let (Some(Command::Client(_)), Some(option)) = (&arguments.command, arguments.options.first_given()) {
        let message = format!(
            "{option} is an option of the server, and has no effect on a command that is a client: name the server by \
             its URL, after the command"
        );
        Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit();
    }
    match run(&arguments) {
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
            if error.is::<client::Misuse>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Adds a tip to the error for a command that other servers have.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let named = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
    if named.is_some_and(|name| ["serve", "server", "start", "run"].contains(&name.as_str())) {
        let tip = "the program without a command starts the server: 'ccomet', or 'ccomet --config FILE'";
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Returns the URL of a listener, or the path of a Unix socket.
fn url(scheme: &str, address: &sealed::Address) -> String {
    address.inet().map_or_else(|| address.to_string(), |address| format!("{scheme}://{address}"))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(Command::Client(client)) = &arguments.command {
        return client.run();
    }
    let printed = match &arguments.command {
        Some(Command::ImportIcomet(import)) => Some(import.toml()?),
        Some(Command::Config { reference: true, .. }) => Some(Config::reference()),
        Some(Command::Config { schema: true, .. }) => Some(Config::schema()),
        Some(Command::Completions { shell }) => Some(manual::completions(*shell)?),
        Some(Command::Man { command }) => Some(manual::page(command)?),
        Some(Command::CheckConfig { options }) => Some(settings::report(&arguments.options.with(options))?),
        Some(Command::GenConfig { output: None }) => Some(settings::template()?),
        Some(Command::GenConfig { output: Some(path) }) => return settings::write_template(path),
        _ => None,
    };
    if let Some(text) = printed {
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    }
    let hang_ups = arguments.command.is_none().then(HangUps::hold).transpose()?;
    let config = match &arguments.command {
        Some(Command::Config { options, .. }) => settings(&arguments.options.with(options))?,
        Some(Command::Token(token)) => settings(&arguments.options.with_files(token.config.as_ref(), None))?,
        #[cfg(feature = "disk")]
        Some(Command::Store(store)) => {
            settings(&arguments.options.with_files(store.config.as_ref(), store.data.as_ref()))?
        }
        _ => settings(&arguments.options)?,
    };
    match &arguments.command {
        Some(Command::Config { .. }) => {
            return Ok(std::io::stdout().write_all(config.to_toml().as_bytes())?);
        }
        Some(Command::Token(token)) => return Ok(writeln!(std::io::stdout(), "{}", token.run(&config)?)?),
        #[cfg(feature = "disk")]
        Some(Command::Store(store)) => return store.run(config.store.path.as_deref()),
        _ => {}
    }
    let (_log, set_level) = logging::start(&config.log.level)?;
    descriptors::raise_limit(config.limits.connections_max);

    let demo = config.front.demo;
    let scheme = |tls: &Option<_>| if tls.is_some() { "https" } else { "http" };
    let (front_scheme, admin_scheme) = (scheme(&config.front.tls), scheme(&config.admin.tls));
    let mut server = Server::bind_with(config, service_manager::sockets()?)?;
    // This comes before the announcement: a program that starts the server may stop it as soon as
    // it knows the addresses.
    server.stop_on_signals()?;
    let chat = match server.front().inet() {
        Some(front) if demo => format!("chat   {front_scheme}://{front}/chat.html\n"),
        _ => String::new(),
    };
    let announcement =
        format!("front  {}\nadmin  {}\n{chat}", url(front_scheme, server.front()), url(admin_scheme, server.admin()));
    // Standard output may be closed, which must not keep the server from running.
    let _ = std::io::stdout().write_all(announcement.as_bytes());
    service_manager::keep_informed(&mut server);
    let options = arguments.options.clone();
    server.reload_from(move || settings_again(&options));
    server.on_reload(move |step| {
        if let Reload::Applied(config) = step {
            set_level(&config.log.level);
        }
        service_manager::note_reload(step);
    });
    hang_ups.map_or(Ok(()), |hang_ups| hang_ups.deliver())?;
    server.run()?;
    Ok(())
}
