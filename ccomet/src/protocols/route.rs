//! The conversion of a request into a [`Call`]: the general requirements, and then each protocol in
//! turn. It has no side effects.

use sealed::fault;
use sealed_http::{Method, Request, RequestHead};

use super::call::{Call, Door, RefusedCall};
use super::{PROTOCOLS, Protocol};
use crate::config::{Api, Config, Limits, Times};
use crate::core::problem::Problem;

/// The methods of a file.
pub(crate) const READ_METHODS: &str = "GET, HEAD, OPTIONS";

/// A request, or its head alone, and the listener at which it arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) door: Door,
    pub(crate) head: &'a RequestHead<'a>,
    pub(crate) body: &'a [u8],
    pub(crate) config: &'a Config,
}

impl Incoming<'_> {
    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    pub(crate) fn times(&self) -> &Times {
        &self.config.times
    }
}

/// The purpose of a request with a body, known from its head.
#[derive(Debug)]
pub(crate) enum Ahead {
    /// This call, whose messages are still empty.
    Publish(Call),
    /// A publication in channels that the body names.
    PublishSome,
    /// A request for a file with this path.
    File(String),
    /// Any other request, which hardly needs a body.
    Other,
}

/// The path at which the settings are reloaded, at the admin listener.
const RELOAD_PATH: &str = "/reload";
const RELOAD_METHODS: &str = "POST, OPTIONS";

/// Reads a request.
pub(crate) fn read(door: Door, request: &Request<'_>, config: &Config) -> Result<Call, RefusedCall> {
    read_by(&PROTOCOLS, &Incoming { door, head: &request.head, body: request.body, config })
}

/// Reads the head of a request with a body. A fault that the head reveals is refused.
pub(crate) fn read_ahead(door: Door, head: &RequestHead<'_>, config: &Config) -> Result<Ahead, RefusedCall> {
    let incoming = Incoming { door, head, body: &[], config };
    refuse_packed(&incoming)?;
    if let Some(ahead) = spoken(&PROTOCOLS, door, config).find_map(|protocol| protocol.read_ahead(&incoming)) {
        return ahead;
    }
    // No other requests use a body, so their calls are known now.
    Ok(match read_by(&PROTOCOLS, &incoming)? {
        Call::File { path } => Ahead::File(path),
        _ => Ahead::Other,
    })
}

/// Reads a request in one of these protocols.
pub(super) fn read_by(protocols: &[&dyn Protocol], incoming: &Incoming<'_>) -> Result<Call, RefusedCall> {
    refuse_packed(incoming)?;
    if incoming.door == Door::Admin && incoming.head.path() == RELOAD_PATH {
        return match incoming.head.method() {
            Method::Post => Ok(Call::Reload),
            Method::Options => Ok(Call::Preflight { allow: RELOAD_METHODS }),
            _ => Err(RefusedCall::method(RELOAD_METHODS)),
        };
    }
    let mut spoken = spoken(protocols, incoming.door, incoming.config);
    if let Some(call) = spoken.find_map(|protocol| protocol.read(incoming)) {
        return call;
    }
    match incoming.head.method() {
        Method::Options => Ok(Call::Preflight { allow: READ_METHODS }),
        // A missing path takes precedence over a wrong method.
        _ => Ok(Call::File { path: incoming.head.path().to_owned() }),
    }
}

/// Returns the maximum length of the body of a request to the admin listener.
pub(crate) fn admin_body_bytes_max(head: &RequestHead<'_>, config: &Config) -> usize {
    let incoming = Incoming { door: Door::Admin, head, body: &[], config };
    let longer = spoken(&PROTOCOLS, Door::Admin, config).find_map(|protocol| protocol.body_bytes_max(&incoming));
    longer.unwrap_or(config.limits.message_bytes_max)
}

/// Returns whether a GET of this path at the admin listener changes something.
pub(crate) fn get_has_effect(path: &str, apis: &[Api]) -> bool {
    PROTOCOLS.iter().any(|protocol| protocol.is_spoken(apis) && protocol.get_has_effect(path))
}

/// Returns the protocols that a listener serves.
fn spoken<'a>(
    protocols: &'a [&dyn Protocol],
    door: Door,
    config: &'a Config,
) -> impl Iterator<Item = &'a dyn Protocol> {
    let apis = if door == Door::Front { &config.front.apis } else { &config.admin.apis };
    protocols.iter().copied().filter(|protocol| protocol.is_spoken(apis))
}

/// Refuses a compressed body: readers would receive it without its encoding.
fn refuse_packed(Incoming { head, .. }: &Incoming<'_>) -> Result<(), RefusedCall> {
    let is_packed = |(name, value): (&str, &[u8])| {
        name.eq_ignore_ascii_case("content-encoding") && !value.trim_ascii().eq_ignore_ascii_case(b"identity")
    };
    if head.method() == Method::Post && head.headers().any(is_packed) && !fault!("packed-body-published") {
        return Err(Problem::UnsupportedEncoding.into());
    }
    Ok(())
}

/// Parses a number that consists of digits only.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
