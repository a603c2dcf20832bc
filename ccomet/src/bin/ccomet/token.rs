//! `ccomet token`: makes a token with a key of the configuration.

use std::path::PathBuf;
use std::time::SystemTime;

use ccomet::{Claims, Config, Grant, Pattern, Verifier, make_token};
use clap::Args;

/// The claims of the token.
#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    /// Settings, as TOML, with the keys (`auth.keys`)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The key in the settings that signs the token; not needed if there is only one
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// The subject, which is the name of the bearer
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,
    /// A channel that the bearer may read, or a pattern such as 'news.*'; can be repeated
    #[arg(long, value_name = "CHANNEL")]
    subscribe: Vec<Pattern>,
    /// A channel to which the bearer may publish, or a pattern; can be repeated
    #[arg(long, value_name = "CHANNEL")]
    publish: Vec<Pattern>,
    /// A channel whose members the bearer may see, or a pattern; can be repeated
    #[arg(long, value_name = "CHANNEL")]
    presence: Vec<Pattern>,
    /// The time until the token expires, in seconds or with a unit, such as 90s, 15m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = ccomet::parse_seconds, default_value = "1h")]
    ttl: u64,
    /// The audience [default: `auth.audience` of the settings]
    #[arg(long, value_name = "NAME")]
    aud: Option<String>,
    #[allow(clippy::doc_markdown)] // the help shows the text verbatim
    /// The private key of an EdDSA, RS256 or ES256 key: PKCS#8 in PEM, as `openssl genpkey` writes
    /// it
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// Checks a token instead of making one: prints its permissions, or why the server refuses it
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["key", "sub", "subscribe", "publish", "presence", "ttl", "aud", "private_key"])]
    check: Option<String>,
}

impl TokenArguments {
    /// Returns the text to print: a token, or the description of one.
    pub(crate) fn run(&self, config: &Config) -> Result<String, Box<dyn std::error::Error>> {
        if !config.auth.has_keys() {
            return Err("the settings have no key for tokens (auth.keys): name the file that has one (--config FILE), or make such a file \
                        (ccomet gen-config > ccomet.toml)".into());
        }
        let now_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        match &self.check {
            Some(token) => Ok(describe(&Verifier::new(&config.auth)?.verify(token.trim(), now_s)?, now_s)),
            None => self.make(config, now_s),
        }
    }

    fn make(&self, config: &Config, iat: u64) -> Result<String, Box<dyn std::error::Error>> {
        let claims = Claims {
            sub: self.sub.clone(),
            aud: self.aud.clone().or_else(|| config.auth.audience.clone()),
            iat,
            exp: iat.saturating_add(self.ttl),
            subscribe: self.subscribe.clone(),
            publish: self.publish.clone(),
            presence: self.presence.clone(),
        };
        let key = match (&self.key, &config.auth.keys[..]) {
            (Some(key), _) => key,
            (None, [only]) => &only.id,
            (None, several) => {
                let ids: Vec<&str> = several.iter().map(|key| key.id.as_str()).collect();
                return Err(
                    format!("auth.keys has several keys; name one of them with --key: {}", ids.join(", ")).into()
                );
            }
        };
        Ok(make_token(&config.auth, key, self.private_key.as_deref(), &claims)?)
    }
}

/// Returns a description of a grant, with a line for each claim.
fn describe(grant: &Grant, now_s: u64) -> String {
    let list = |patterns: &[Pattern]| {
        let names: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
    };
    let left_s = grant.expires_s.unwrap_or(now_s).saturating_sub(now_s);
    format!(
        "accepted\nsubject    {}\nsubscribe  {}\npublish    {}\npresence   {}\nexpires in {left_s} s",
        grant.subject.as_deref().unwrap_or("none").escape_debug(),
        list(&grant.subscribe),
        list(&grant.publish),
        list(&grant.presence),
    )
}
