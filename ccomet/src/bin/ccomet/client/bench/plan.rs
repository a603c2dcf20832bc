//! What a benchmark does: options, and presets for those that are not given.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::client::place::Place;
use crate::client::{Credentials, refusal, seconds};

const IN_URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The longest run and life, and the longest message.
const DAY_S: u64 = 86_400;
const SIZE_MAX: u32 = 8 * 1024 * 1024;

pub(crate) const EXAMPLES: &str = "\
Examples:
  ten thousand readers of one channel, by WebSocket:
    ccomet bench --subscribers 10000 --rate 100
  event streams of a server elsewhere, with a plot:
    ccomet bench http://host:8100 --transport sse --channels 100 \\
      --publishers 100 --rate 1000 --svg plot.svg
  a steady number of clients that come and go:
    ccomet bench --preset churn
  another server:
    ccomet bench http://localhost:8200 --transport sse \\
      --subscribe-path '/sub/{channel}' --publish-path '/pub/{channel}'

Latency is the time from when a message was due until the client has read it, both by the clock of this process. A \
publisher whose previous request is unanswered sends late, and the delay counts: a server that stalls is not spared the \
messages that it has delayed (coordinated omission). The time that this client takes itself counts as well: leave it a \
core of its own, and do not compare figures of machines that differ.

The exit status is 1 if nothing was measured, and 2 if the options are wrong.";

/// The arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// URL of the server
    #[arg(value_name = "URL", default_value = "http://localhost:8100")]
    pub(super) server: Place,
    /// Sets the options that are not given for one of the workloads below
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// How subscribers receive messages [default: ws]
    #[arg(long, value_name = "NAME")]
    transport: Option<Transport>,
    /// Subscribers, spread over the channels [default: 100]
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
    /// Publishers, spread over the channels, each with a connection of its own [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    publishers: Option<u32>,
    /// Messages a second, of all publishers together; 0: none [default: 10]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Channels, with the names PREFIX0, PREFIX1 and so on [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    channels: Option<u32>,
    /// What the names of the channels begin with
    #[arg(long, value_name = "PREFIX", default_value = "bench.")]
    prefix: String,
    /// Bytes of a message, such as 300 or 4k; at least the 40 to 60 of its number and time
    /// [default: 100]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u32>,
    /// For how long messages are published, such as 30 or 5m [default: 10]
    #[arg(long, value_name = "TIME", value_parser = |text: &str| seconds(text, DAY_S))]
    duration: Option<u64>,
    /// Ends each subscriber after a random time around this, such as 30 or 5m, and starts another
    /// in its place
    #[arg(long, value_name = "TIME", value_parser = |text: &str| seconds(text, DAY_S))]
    life: Option<u64>,
    /// Event loops of this client, each with a thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) loops: u8,
    /// Process of a server on this machine, whose memory is printed for each number of connections
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// Writes the results to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Writes a plot of latency percentiles over time to a file, as SVG
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    templates: Templates,
}

/// How another server than this project's is used.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Other servers")]
struct Templates {
    /// Path at which subscribers connect, with {channel} for the name
    #[arg(long, value_name = "PATH", requires = "publish_path")]
    subscribe_path: Option<String>,
    /// Path at which messages are published, with {channel} for the name
    #[arg(long, value_name = "PATH", requires = "subscribe_path")]
    publish_path: Option<String>,
    /// Method with which messages are published
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    publish_method: String,
    /// Body of a publication, with {channel} and {message}
    #[arg(long, value_name = "TEXT", default_value = "{message}")]
    publish_body: String,
    /// Content type of a publication
    #[arg(long, value_name = "TYPE", default_value = "text/plain")]
    publish_type: String,
    /// The number of channels was given, so that a fixed channel is meant.
    #[arg(skip)]
    may_be_fixed: bool,
}

impl Templates {
    /// Checks that requests name their channel, if there are several, and have their message.
    fn check(&self, channels: usize) -> Result<(), String> {
        if !self.publish_body.contains("{message}") {
            return Err("--publish-body has no {message}: no message would arrive".to_owned());
        }
        let (Some(subscribe), Some(publish)) = (&self.subscribe_path, &self.publish_path) else {
            return Ok(());
        };
        let is_fixed = self.may_be_fixed && channels == 1;
        let publishes = publish.contains("{channel}") || self.publish_body.contains("{channel}");
        for (option, has_channel) in
            [("--subscribe-path", subscribe.contains("{channel}")), ("--publish-path", publishes)]
        {
            if !has_channel && !is_fixed {
                return Err(format!("{option} has no {{channel}}; a fixed channel is for --channels 1, given as such"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Transport {
    /// WebSocket
    Ws,
    /// Server-Sent Events
    Sse,
    /// Long polling
    Poll,
}

impl Transport {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::Poll => "poll",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// A client simulator: 1,000 clients by long polling in 100 rooms, in which 100 of them write
    Clients,
    /// A steady number of connections: 1,000 clients that come and go, ended by themselves or by
    /// the server, for a minute
    Churn,
    /// Growing numbers of idle connections, from 1,000 up to 100,000 or the limit of open files,
    /// with the memory of the server (--pid)
    Connections,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("not a number from 0 to 1000000".to_owned()),
    }
}

fn size(text: &str) -> Result<u32, String> {
    let size = u32::try_from(ccomet::parse_bytes(text)?).unwrap_or(u32::MAX);
    if (1..=SIZE_MAX).contains(&size) { Ok(size) } else { Err(format!("it is not from 1 to {SIZE_MAX} bytes")) }
}

/// What all loops do.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) place: Place,
    pub(super) transport: Transport,
    pub(super) publishers: usize,
    pub(super) channels: usize,
    pub(super) size: usize,
    pub(super) rate: f64,
    pub(super) duration: Duration,
    pub(super) life: Option<Duration>,
    /// Every other subscriber is ended by the server: it polls once.
    pub(super) server_ends: bool,
    /// The numbers of subscribers, one after the other. Messages are published with the last.
    pub(super) steps: Vec<usize>,
    /// The server is one of this project.
    pub(super) is_native: bool,
    /// Marks the messages of this run.
    pub(super) run: u32,
    prefix: String,
    token: Option<String>,
    templates: Templates,
}

impl Bench {
    /// Returns what to do, with the options of a preset where none are given.
    pub(super) fn plan(&self, run: u32) -> Result<Plan, String> {
        let preset = self.preset;
        let or = |given: Option<u64>, [clients, churn, connections, other]: [u64; 4]| {
            given.unwrap_or(match preset {
                Some(Preset::Clients) => clients,
                Some(Preset::Churn) => churn,
                Some(Preset::Connections) => connections,
                None => other,
            })
        };
        let growing = (preset == Some(Preset::Connections)).then(|| vec![1_000, 5_000, 10_000, 50_000, 100_000]);
        let steps = match (self.subscribers, growing) {
            (Some(last), Some(mut steps)) => {
                steps.retain(|step| *step < last);
                steps.push(last);
                steps
            }
            (None, Some(steps)) => steps,
            (given, None) => vec![or(given.map(|count| count as u64), [1_000, 1_000, 0, 100]) as usize],
        };
        let polls = matches!(preset, Some(Preset::Clients)).then_some(Transport::Poll);
        let default_rate = or(None, [50, 10, 1, 10]) as u32;
        Ok(Plan {
            place: self.server.clone(),
            transport: self.transport.or(polls).unwrap_or(Transport::Ws),
            publishers: or(self.publishers.map(u64::from), [100, 10, 1, 1]) as usize,
            channels: or(self.channels.map(u64::from), [100, 10, 1, 1]) as usize,
            size: or(self.size.map(u64::from), [100, 100, 100, 100]) as usize,
            rate: self.rate.unwrap_or(f64::from(default_rate)),
            duration: Duration::from_secs(or(self.duration, [30, 60, 5, 10])),
            life: Some(or(self.life, [0, 5, 0, 0])).filter(|life| *life > 0).map(Duration::from_secs),
            server_ends: preset == Some(Preset::Churn) && self.templates.subscribe_path.is_none(),
            steps,
            is_native: self.templates.subscribe_path.is_none(),
            run,
            prefix: self.prefix.clone(),
            token: self.credentials.token()?,
            templates: Templates { may_be_fixed: self.channels.is_some(), ..self.templates.clone() },
        })
    }
}

impl Plan {
    /// Returns the number of subscribers of a loop at a step: loops have equal shares.
    pub(super) fn share(total: usize, index: usize, loops: usize) -> usize {
        total / loops + usize::from(index < total % loops)
    }

    /// Returns a request of a subscriber. `resume` is the query with which a poll goes on, and
    /// `fields` has header fields for it.
    pub(super) fn subscribe(&self, channel: usize, how: Transport, resume: &str, fields: &str) -> String {
        let name = utf8_percent_encode(&self.channel(channel), IN_URL).to_string();
        let path = match &self.templates.subscribe_path {
            Some(path) => path.replace("{channel}", &name),
            None => format!("/channels/{name}{resume}"),
        };
        let accept = match how {
            Transport::Sse => "Accept: text/event-stream\r\n",
            _ => "",
        };
        self.head("GET", &path, &format!("{accept}{fields}"))
    }

    /// Returns a request of a publisher.
    pub(super) fn publish(&self, channel: usize, message: &str) -> String {
        let name = utf8_percent_encode(&self.channel(channel), IN_URL).to_string();
        let Templates { publish_path, publish_method, publish_body, publish_type, .. } = &self.templates;
        let Some(path) = publish_path else {
            let length = format!("Content-Length: {}\r\n", message.len());
            return self.head("POST", &format!("/channels/{name}"), &length) + message;
        };
        let body = publish_body.replace("{channel}", &name).replace("{message}", message);
        let fields = format!("Content-Type: {publish_type}\r\nContent-Length: {}\r\n", body.len());
        self.head(publish_method, &path.replace("{channel}", &name), &fields) + &body
    }

    fn channel(&self, index: usize) -> String {
        format!("{}{index}", self.prefix)
    }

    fn head(&self, method: &str, path: &str, fields: &str) -> String {
        let token = self.token.as_ref().map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let (target, host) = (self.place.target(path), self.place.authority());
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ccomet-bench\r\n{token}{fields}\r\n")
    }

    /// Checks what would make requests malformed.
    pub(super) fn check(&self) -> Result<(), String> {
        let sample = self.head(&self.templates.publish_method, "/", "");
        let publish = self.publish(0, "");
        let fields = [
            self.token.as_deref().unwrap_or_default(),
            &self.templates.publish_type,
            publish.lines().next().unwrap_or_default(),
            self.templates.subscribe_path.as_deref().unwrap_or("/"),
        ];
        let is_fine = |text: &&str| !text.chars().any(char::is_control) && text.is_ascii();
        if !fields.iter().all(is_fine) || sample.split(' ').count() < 3 {
            return Err("the token and the templates may have printable ASCII characters only".to_owned());
        }
        self.templates.check(self.channels)
    }

    /// Returns the reason of a refusal.
    pub(super) fn refusal(&self, status: u16, body: &[u8]) -> String {
        if self.is_native { refusal(status, body) } else { format!("the server answers with the status {status}") }
    }
}
