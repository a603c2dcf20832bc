//! The responses of icomet's API to requests other than subscriptions, most of them from back ends.

use bytes::Bytes;
use sealed_http::Response;

use super::events::{reply, seq_of};
use crate::core::json;
use crate::core::message::ChannelName;
use crate::core::problem::Problem;
use crate::engine::{ChannelSummary, Token};
use crate::protocols::format::response::{HTML, JSON, SCRIPT, TEXT};

/// The token of a channel, and its expiry.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) channel: &'a ChannelName,
    /// The number of the oldest kept message.
    pub(crate) first: u64,
    pub(crate) token: &'a Token,
    pub(crate) expires_s: u32,
    pub(crate) sub_timeout_s: u64,
}

/// Answers `/ping`.
pub(crate) fn ping(callback: &str, sub_timeout_s: u64) -> Response {
    let event = format!(r#"{{"type":"ping","sub_timeout":{sub_timeout_s}}}"#);
    response(SCRIPT, reply(Some(callback), event.as_bytes()))
}

/// Answers `/push` and `/pub`.
pub(crate) fn published(callback: Option<&str>) -> Response {
    response(SCRIPT, in_call(callback, br#"{"type":"ok"}"#))
}

/// Answers `/broadcast`.
pub(crate) fn broadcast() -> Response {
    response(TEXT, "ok")
}

/// Answers `/close` and `/clear` of a channel whose next message has the number `next`.
pub(crate) fn ended(next: u64) -> Response {
    response(HTML, format!("ok {}", seq_of(next)))
}

/// Answers `/close` and `/clear` of a channel that does not exist.
pub(crate) fn not_connected(channel: &ChannelName) -> Response {
    let response = Response::new(404).header("Content-Type", TEXT).header("X-Content-Type-Options", "nosniff");
    response.body(format!("channel[{channel}] not connected"))
}

/// Answers `/sign`.
pub(crate) fn signed(callback: Option<&str>, signed: &Signed<'_>) -> Response {
    let Signed { channel, first, token, expires_s, sub_timeout_s } = *signed;
    let mut json = br#"{"type":"sign","cname":"#.to_vec();
    json::write_string(channel.as_str(), &mut json);
    let seq = seq_of(first);
    let rest = format!(r#","seq":{seq},"token":"{token}","expires":{expires_s},"sub_timeout":{sub_timeout_s}}}"#);
    json.extend_from_slice(rest.as_bytes());
    response(SCRIPT, in_call(callback, &json))
}

/// Answers `/sign` if the system has no random bits for a token.
pub(crate) fn no_random_bits() -> Response {
    Response::new(503).header("Content-Type", TEXT).body("no random bits")
}

/// Answers `/info` of the server.
pub(crate) fn server_info(channels: u64, subscribers: u64) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let info = format!(r#"{{"version": "{version}", "channels": {channels}, "subscribers": {subscribers}}}"#);
    response(TEXT, info)
}

/// Answers `/info` of a channel.
pub(crate) fn channel_info(channel: &ChannelName, info: Option<ChannelSummary>) -> Response {
    let mut json = br#"{"cname": "#.to_vec();
    json::write_string(channel.as_str(), &mut json);
    json.extend_from_slice(format!(r#", "subscribers": {}}}"#, info.map_or(0, |info| info.subscribers)).as_bytes());
    response(JSON, json)
}

/// Answers `/check`.
pub(crate) fn check(channel: &ChannelName, info: Option<ChannelSummary>) -> Response {
    let mut json = b"{".to_vec();
    if info.is_some_and(|info| info.in_use) {
        json::write_string(channel.as_str(), &mut json);
        json.extend_from_slice(b": 1");
    }
    json.push(b'}');
    response(JSON, json)
}

/// Answers a back end whose request the engine has refused.
pub(crate) fn refused(problem: Problem) -> Response {
    let retry_s = problem.retry_s().unwrap_or(1).to_string();
    let (status, text) = match problem {
        Problem::Unavailable => (503, "Channel cannot be reached"),
        Problem::StoreFull => (507, "Disk is full"),
        Problem::StoreFailed => (503, "Disk has failed"),
        _ => (429, "Too many channels"),
    };
    Response::new(status).header("Content-Type", TEXT).with(&[("Retry-After", retry_s)]).body(text)
}

/// Returns a line of `/psub`.
pub(crate) fn activity(channel: &ChannelName, in_use: bool) -> Vec<u8> {
    format!("{} {channel}\n", u8::from(in_use)).into_bytes()
}

/// Wraps a reply to a back end into a call, if there is a callback. A call has no line break after
/// it.
fn in_call(callback: Option<&str>, json: &[u8]) -> Vec<u8> {
    match callback {
        Some(callback) => [callback.as_bytes(), b"(", json, b");"].concat(),
        None => [json, b"\n"].concat(),
    }
}

fn response(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    Response::new(200)
        .header("Content-Type", content_type)
        .header("Cache-Control", "no-cache")
        .header("X-Content-Type-Options", "nosniff")
        .body(body)
}
