//! The commands that are clients of a running server: `sub`, `pub`, `bench` and `top`.

mod bench;
mod call;
mod place;
mod publish;
mod subscribe;
mod top;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealed_http::client::Fetch;
use serde::Deserialize;

use self::bench::Bench;
use self::place::Place;
use self::publish::Publish;
use self::subscribe::Subscribe;
use self::top::Top;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// Follows channels of a running server, and prints their messages as they come
    #[command(after_help = subscribe::EXAMPLES)]
    Sub(Subscribe),
    /// Publishes a message, or each line of the standard input, and prints its position
    #[command(after_help = publish::EXAMPLES)]
    Pub(Publish),
    /// Measures a running server: subscribers and publishers over any transport
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<Bench>),
    /// Shows what a running server does, live: connections, rates, refusals, the busiest channels
    #[command(after_help = top::EXAMPLES)]
    Top(Top),
}

impl Client {
    /// Runs the command to its end.
    pub(crate) fn run(&self) -> Outcome {
        match self {
            Self::Sub(subscribe) => subscribe.run(),
            Self::Pub(publish) => publish.run(),
            Self::Bench(bench) => bench.run(),
            Self::Top(top) => top.run(),
        }
    }
}

/// Options that are wrong together, or of which one is wrong by what it names.
#[derive(Debug)]
pub(crate) struct Misuse(String);

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// The server, and the credentials for it.
#[derive(Debug, Clone, Args)]
struct Target {
    /// URL of the server, with the path that a proxy adds, if any
    #[arg(long, value_name = "URL", default_value = "http://localhost:8100")]
    server: Place,
    #[command(flatten)]
    credentials: Credentials,
}

/// The token of a client of the front, or a key of the admin listener.
#[derive(Debug, Clone, Args)]
struct Credentials {
    /// Token for the server, or an admin key; other users of this machine can see it
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File that has the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Credentials {
    /// Returns the token, without the white space around it.
    fn token(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.token_file else {
            return Ok(self.token.as_ref().map(|token| token.trim().to_owned()));
        };
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(Some(text.trim().to_owned()))
    }
}

/// Adds a token to a request.
fn with_token(fetch: Fetch, token: Option<&str>) -> Result<Fetch, String> {
    let Some(token) = token else { return Ok(fetch) };
    let added = fetch.try_header("Authorization", format!("Bearer {token}"));
    added.map_err(|_| "the token has control characters: it is not a token".to_owned())
}

/// The members of problem details that a person reads.
#[derive(Debug, Deserialize)]
struct Problem {
    code: Option<String>,
    detail: Option<String>,
}

/// Returns the reason of a refusal, in the words of the server if the answer has any.
fn refusal(status: u16, body: &[u8]) -> String {
    match serde_json::from_slice(body) {
        Ok(Problem { code: Some(code), detail: Some(detail) }) => printable(&format!("{detail} ({status} {code})")),
        _ => format!("the server answers with the status {status}; is it a ccomet server?"),
    }
}

/// Parses a time for an option, from 1 second to this maximum.
fn seconds(text: &str, most: u64) -> Result<u64, String> {
    let seconds = ccomet::parse_seconds(text)?;
    if (1..=most).contains(&seconds) { Ok(seconds) } else { Err(format!("it is not from 1 s to {most} s")) }
}

/// Returns digits with a comma before each group of three.
fn with_commas(digits: &str) -> String {
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns the text without characters that a terminal would execute, and without those that change
/// the direction of the rest of the line.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_words_of_the_server() {
        let body = br#"{"type":"about:blank","title":"X","status":401,"code":"token_missing","detail":"No token."}"#;
        assert_eq!(refusal(401, body), "No token. (401 token_missing)");
        assert_eq!(refusal(502, b"<html>"), "the server answers with the status 502; is it a ccomet server?");
    }

    #[test]
    fn what_a_terminal_would_execute_is_escaped() {
        assert_eq!(printable("grün\u{1b}[2J\n"), "grün\\u{1b}[2J\\n");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }
}
