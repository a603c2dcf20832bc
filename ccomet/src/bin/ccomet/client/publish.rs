//! `ccomet pub`: publishes.

use std::borrow::Cow;
use std::io::{self, BufRead, Read, Write};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};
use sealed_http::client::Fetch;
use serde::Deserialize;

use super::call::{Answer, Caller, Unanswered};
use super::place::{channels, query};
use super::{Misuse, Outcome, Target, printable, refusal, with_token};

/// How long a message is sent again while the server cannot be reached, and the longest wait
/// before the next attempt.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(2);

pub(super) const EXAMPLES: &str = "\
Examples:
  one message:
    ccomet pub news 'hello'
  the standard input, unchanged:
    ccomet pub news < article.json
  each line, as it comes:
    tail -f access.log | ccomet pub -l log
  to two channels, with a type, for a minute:
    ccomet pub a,b 'hello' --event edited --ttl 1m

The exit status is 0 if the server has accepted all messages, 1 if not, and 2 if the options are wrong.";

/// The arguments of `pub`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Channel, or several, separated by commas; or the URL of a channel
    #[arg(value_name = "URL-or-CHANNEL")]
    channel: String,
    /// The message; without it, or as `-`, the standard input is the message
    #[arg(value_name = "TEXT", conflicts_with = "lines")]
    text: Option<String>,
    /// Publishes each line of the standard input as a message, as soon as it comes
    #[arg(long, short)]
    lines: bool,
    /// The type of the message
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// An idempotency key: if the command is repeated with it, the message is in the channel once.
    /// With --lines, the key of a line is KEY-NUMBER [default: random]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Delivers the message for this long, such as 60, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = ccomet::parse_seconds)]
    ttl: Option<u64>,
    /// Prints the replies of the server, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// The reply to a publication in one channel, in several, or in a pattern.
#[derive(Debug, Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    position: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    results: Vec<Published<'a>>,
}

#[derive(Debug, Deserialize)]
struct Published<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    position: Option<Cow<'a, str>>,
    channels: Option<u64>,
}

/// Sends messages, each as often as it takes.
struct Sender {
    caller: Caller,
    target: String,
    token: Option<String>,
    /// The server has answered.
    has_answered: bool,
    /// The key of a message is the same for each attempt, so that the channel has it once.
    key: String,
}

/// Why a message is not published, or may not be.
struct Failure {
    reason: String,
    /// An attempt may have reached the server.
    is_unknown: bool,
}

impl Publish {
    pub(super) fn run(&self) -> Outcome {
        let (place, channel) = channels(std::slice::from_ref(&self.channel), &self.target.server).map_err(Misuse)?;
        let parameters = [("event", self.event.clone()), ("ttl", self.ttl.map(|ttl| ttl.to_string()))];
        let mut sender = Sender {
            caller: Caller::new(&place)?,
            target: place.target(&format!("/channels/{channel}{}", query(&parameters))),
            token: self.target.credentials.token()?,
            has_answered: false,
            key: self.key.clone().map_or_else(random_key, Ok)?,
        };
        if self.lines {
            return self.publish_lines(&mut sender);
        }
        let body = match self.text.as_deref() {
            None | Some("-") => {
                let mut body = Vec::new();
                io::stdin().lock().read_to_end(&mut body)?;
                body
            }
            Some(text) => text.as_bytes().to_vec(),
        };
        let request = sender.request(body, &sender.key)?;
        match sender.send(&request) {
            Ok(answer) => self.print(&answer.body),
            Err(Failure { reason, is_unknown: true }) => {
                Err(format!("it is unknown whether the message was published: {reason}").into())
            }
            Err(Failure { reason, .. }) => Err(reason.into()),
        }
    }

    /// Publishes each line, and ends with the first that the server does not accept.
    fn publish_lines(&self, sender: &mut Sender) -> Outcome {
        let mut input = io::stdin().lock();
        for number in 1_u64.. {
            let mut line = Vec::new();
            if input.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
                line.pop_if(|byte| *byte == b'\r');
            }
            let request = sender.request(line, &format!("{}-{number}", sender.key))?;
            match sender.send(&request) {
                Ok(answer) => self.print(&answer.body)?,
                Err(Failure { reason, is_unknown: true }) => {
                    return Err(format!("it is unknown whether line {number} was published: {reason}").into());
                }
                Err(Failure { reason, .. }) => return Err(format!("line {number} is not published: {reason}").into()),
            }
        }
        Ok(())
    }

    /// Prints the positions that a reply has.
    fn print(&self, body: &[u8]) -> Outcome {
        let reply: Reply<'_> = serde_json::from_slice(body)
            .map_err(|error| format!("the reply is not that of a ccomet server: {error}"))?;
        let mut out = io::stdout().lock();
        if self.json {
            out.write_all(body.trim_ascii_end())?;
            writeln!(out)?;
        } else if let Some(position) = &reply.position {
            writeln!(out, "{}", printable(position))?;
        }
        for Published { channel, position, channels } in reply.results.iter().filter(|_| !self.json) {
            match (position, channels) {
                (Some(position), _) => writeln!(out, "{}\t{}", printable(channel), printable(position))?,
                (None, Some(count)) => writeln!(out, "{}\t{count} channels", printable(channel))?,
                (None, None) => {}
            }
        }
        Ok(out.flush()?)
    }
}

impl Sender {
    fn request(&self, body: Vec<u8>, key: &str) -> Result<Fetch, String> {
        let fetch = Fetch::post(self.target.as_str()).map_err(|_| format!("not a channel: {}", self.target))?;
        let fetch = with_token(fetch.body(body), self.token.as_deref())?;
        fetch.try_header("Idempotency-Key", key.to_owned()).map_err(|_| "the key has control characters".to_owned())
    }

    /// Sends a message until the server has answered. A server that has never answered gets one
    /// attempt if there is no connection to it.
    fn send(&mut self, request: &Fetch) -> Result<Answer, Failure> {
        let until = Instant::now() + PATIENCE;
        let (mut is_unknown, mut wait) = (false, Duration::ZERO);
        loop {
            let reason = match self.caller.call(request) {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    self.has_answered = true;
                    return Ok(answer);
                }
                Ok(answer) => {
                    let reason = refusal(answer.status, &answer.body);
                    // A proxy answers like this while the server starts again.
                    let is_passing = self.has_answered && matches!(answer.status, 502..=504);
                    is_unknown |= matches!(answer.status, 502..=504) && !is_refusal(&answer);
                    if !is_passing {
                        return Err(Failure { reason, is_unknown });
                    }
                    reason
                }
                Err(failed) => {
                    is_unknown |= !failed.is_unsent();
                    if !self.is_worth_another(&failed, is_unknown) {
                        return Err(Failure { reason: failed.to_string(), is_unknown });
                    }
                    failed.to_string()
                }
            };
            if Instant::now() + wait >= until {
                return Err(Failure { reason, is_unknown });
            }
            // The first attempt after a lost connection follows at once: an idle connection is
            // closed by the server, and this shows only when it is used.
            if !wait.is_zero() {
                eprintln!("ccomet: {reason}; trying again in {:.1} s", wait.as_secs_f64());
                std::thread::sleep(wait);
            }
            wait = (wait * 2).clamp(Duration::from_millis(100), RETRY_MAX);
        }
    }

    fn is_worth_another(&self, failed: &Unanswered, is_unknown: bool) -> bool {
        failed.is_passing() && (self.has_answered || is_unknown)
    }
}

/// Returns whether a server of this project has certainly not published the message.
fn is_refusal(answer: &Answer) -> bool {
    let problem = serde_json::from_slice::<super::Problem>(&answer.body);
    problem.is_ok_and(|problem| problem.code.is_some_and(|code| code != "unavailable"))
}

/// Returns a key that no other message has.
fn random_key() -> Result<String, &'static str> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random bits for the key")?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
