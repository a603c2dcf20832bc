//! `ccomet sub`: follows channels, and resumes after a break.

mod follower;
mod output;

use std::time::Duration;

use clap::Args;
use sealed::{EventLoop, Resolver, ResolverConfig, Workers};
use sealed_http::client::Upstream;
use sealed_http::{Server, Settings};

use self::follower::{Follower, Start};
use self::output::{Form, Output};
use super::place::channels;
use super::{Misuse, Outcome, Target};

pub(super) const EXAMPLES: &str = "\
Examples:
  messages from now on:
    ccomet sub news sport
  all that is kept, and what follows:
    ccomet sub --after oldest --json news | jq .data
  the newest message:
    ccomet sub --last 1 -n 1 --raw news
  all channels of a pattern, at the admin listener:
    ccomet sub 'http://localhost:8000/channels/news.*'

After a break, the command reconnects, and continues after the last message that it has printed. It prints what was \
missed as a gap.

The exit status is 0 after Ctrl-C, after the number of messages that -n names, and if the channel was closed; 1 if the \
server refuses the subscription, or cannot be reached at the start; and 2 if the options are wrong.";

/// The arguments of `sub`.
#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    /// Channels, patterns, or URLs of channels, all on one server
    #[arg(value_name = "URL-or-CHANNEL", required = true)]
    channels: Vec<String>,
    /// Begins after this position, or with the oldest message that is kept [default: messages from
    /// now on]
    #[arg(long, value_name = "oldest|POSITION", conflicts_with = "last")]
    after: Option<String>,
    /// Begins with the last N messages of each channel
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Ends after N messages
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Prints each item as a line of JSON, as the server sends it
    #[arg(long)]
    json: bool,
    /// Prints the text of each message alone, unchanged; on a terminal, control characters take
    /// effect
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Also prints members that enter and leave the channels; the token has to allow this
    #[arg(long)]
    presence: bool,
    #[command(flatten)]
    target: Target,
}

impl Subscribe {
    pub(super) fn run(&self) -> Outcome {
        let (place, path) = channels(&self.channels, &self.target.server).map_err(Misuse)?;
        let form = match (self.json, self.raw) {
            (true, _) => Form::Json,
            (_, true) => Form::Raw,
            _ => Form::Readable,
        };
        let start = Start {
            server: place.authority(),
            unknown_host: place.unknown_host(),
            target: place.target(&format!("/channels/{path}")),
            after: self.after.clone(),
            last: self.last,
            presence: self.presence,
            token: self.target.credentials.token()?,
            count: self.count,
            is_single: !path.contains([',', '*']) && !self.presence,
        };
        let follower = Follower::new(start, Output::new(form));
        let config = sealed::Config { drain_limit: Duration::from_secs(1), ..sealed::Config::default() };
        let mut event_loop = EventLoop::new(config, Server::new(Settings::default(), follower))?;
        // The name is looked up for each connection: the server may have moved.
        let workers = Workers::new(1, 16);
        let resolver = Resolver::new(&workers, ResolverConfig::default());
        let (server, cx) = event_loop.parts();
        let (follower, mut http) = server.parts(cx);
        let upstream = Upstream::by_name(&resolver, &place.host, place.port).host(&place.authority());
        follower.begin(&mut http, upstream);
        event_loop.stop_on_signals()?;
        event_loop.run()?;
        let (server, cx) = event_loop.parts();
        let follower = server.parts(cx).0;
        if let Some(position) = follower.position() {
            eprintln!("ccomet: to continue from here: --after {position}");
        }
        follower.take_failure().map_or(Ok(()), |failure| Err(failure.into()))
    }
}
