//! `ccomet pub`: publishes.

use std::borrow::Cow;
use std::io::{self, BufRead, Read, Write};

use clap::Args;
use sealed_http::client::Fetch;
use serde::Deserialize;

use super::call::Caller;
use super::place::{channels, query};
use super::{Outcome, Target, printable, refusal, with_token};

pub(super) const EXAMPLES: &str = "\
  ccomet pub news 'hello'                           one message
  ccomet pub news < article.json                    the standard input, unchanged
  tail -f access.log | ccomet pub -l log            each line
  ccomet pub a,b 'hello' --event edited --ttl 60    to two channels, with a type, for a minute

The exit status is 0 if the server has accepted all messages, and 1 if not.";

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
    /// With --lines, the key of a line is KEY-NUMBER
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Delivers the message for this long, in seconds
    #[arg(long, value_name = "SECONDS")]
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

impl Publish {
    pub(super) fn run(&self) -> Outcome {
        let (place, channel) = channels(std::slice::from_ref(&self.channel), &self.target.server)?;
        let parameters = [("event", self.event.clone()), ("ttl", self.ttl.map(|ttl| ttl.to_string()))];
        let target = place.target(&format!("/channels/{channel}{}", query(&parameters)));
        let token = self.target.credentials.token()?;
        let mut caller = Caller::new(&place)?;
        let mut send = |body: Vec<u8>, key: Option<String>| -> Outcome {
            let fetch = Fetch::post(target.as_str()).map_err(|_| format!("not a channel: {}", self.channel))?;
            let mut fetch = with_token(fetch.body(body), token.as_deref())?;
            if let Some(key) = key {
                let keyed = fetch.try_header("Idempotency-Key", key).map_err(|_| "the key has control characters")?;
                fetch = keyed.repeatable();
            }
            let answer = caller.call(&fetch)?;
            if !(200..300).contains(&answer.status) {
                return Err(refusal(answer.status, &answer.body).into());
            }
            self.print(&answer.body)
        };
        if self.lines {
            return self.publish_lines(&mut send);
        }
        let body = match self.text.as_deref() {
            None | Some("-") => {
                let mut body = Vec::new();
                io::stdin().lock().read_to_end(&mut body)?;
                body
            }
            Some(text) => text.as_bytes().to_vec(),
        };
        send(body, self.key.clone())
    }

    /// Publishes each line, and ends with the first that the server does not accept.
    fn publish_lines(&self, send: &mut dyn FnMut(Vec<u8>, Option<String>) -> Outcome) -> Outcome {
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
            let key = self.key.as_ref().map(|key| format!("{key}-{number}"));
            send(line, key).map_err(|error| format!("line {number} is not published: {error}"))?;
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
