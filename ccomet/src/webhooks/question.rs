//! Questions to the back end, and the interpretation of its answers.

use std::collections::BTreeMap;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use sealed::fault;
use sealed_http::client::{FetchError, Fetched};
use sealed_http::codec::ResponseHead;
use serde::Deserialize;

use crate::core::json;
use crate::core::message::{ChannelName, Draft};

/// The longest time for which an answer is kept, in seconds.
const KEPT_MAX_S: u64 = 3_600;

/// An action of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum QuestionKind {
    Subscribe,
    Publish,
}

/// The question whether a client may do something.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) action: QuestionKind,
    pub(crate) member: Option<&'a str>,
    pub(crate) channels: Vec<&'a ChannelName>,
    /// The messages to publish, each with its channel.
    pub(crate) drafts: Vec<(&'a ChannelName, &'a Draft)>,
    /// The origin of the page that sends the request, as far as its browser names it.
    pub(crate) origin: Option<&'a str>,
    /// The fields of the client's request that are passed on.
    pub(crate) headers: Vec<(Box<str>, Box<str>)>,
}

impl Question<'_> {
    /// Creates a question about an action, without its details.
    pub(crate) fn about(action: QuestionKind) -> Self {
        Self { action, member: None, channels: Vec::new(), drafts: Vec::new(), origin: None, headers: Vec::new() }
    }

    /// Writes the question as JSON. Returns `None` if that takes more than `bytes_max` bytes.
    pub(crate) fn to_json(&self, bytes_max: usize) -> Option<Bytes> {
        let mut out = Vec::with_capacity(256);
        let kind = if self.action == QuestionKind::Publish { "publish" } else { "subscribe" };
        out.extend_from_slice(br#"{"type":"#);
        json::write_string(kind, &mut out);
        out.extend_from_slice(br#","id":"#);
        json::write(&self.member, &mut out);
        out.extend_from_slice(br#","origin":"#);
        json::write(&self.origin, &mut out);
        if self.action == QuestionKind::Subscribe {
            out.extend_from_slice(br#","channels":"#);
            write_names(self.channels.iter().copied(), &mut out);
        } else {
            out.extend_from_slice(br#","messages":["#);
            for (index, copies) in self.drafts.chunk_by(|one, other| is_same(one.1, other.1)).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                // This check precedes the encoding: an escaped message is up to six times as long.
                let length = copies.first().map_or(0, |(_, draft)| draft.payload.len());
                if out.len().saturating_add(length) > bytes_max {
                    return None;
                }
                write_message(copies, &mut out);
            }
            out.push(b']');
        }
        if !self.headers.is_empty() {
            let headers: BTreeMap<&str, &str> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            out.extend_from_slice(br#","headers":"#);
            json::write(&headers, &mut out);
        }
        out.push(b'}');
        (out.len() <= bytes_max || fault!("question-without-bound")).then(|| out.into())
    }
}

/// Returns whether two drafts are of one message for several channels. Such drafts share their
/// bytes.
fn is_same(one: &Draft, other: &Draft) -> bool {
    let bytes = |draft: &Draft| (draft.payload.as_ptr(), draft.payload.len());
    bytes(one) == bytes(other) && one.event == other.event && !fault!("message-repeated-in-question")
}

fn write_names<'a>(channels: impl Iterator<Item = &'a ChannelName>, out: &mut Vec<u8>) {
    let names: Vec<&str> = channels.map(ChannelName::as_str).collect();
    json::write(&names, out);
}

/// Writes a message once, with all its channels.
fn write_message(copies: &[(&ChannelName, &Draft)], out: &mut Vec<u8>) {
    let Some((_, draft)) = copies.first() else { return };
    out.extend_from_slice(br#"{"channels":"#);
    write_names(copies.iter().map(|(channel, _)| *channel), out);
    if let Some(event) = &draft.event {
        out.extend_from_slice(br#","event":"#);
        json::write_string(event, out);
    }
    if let Ok(text) = std::str::from_utf8(&draft.payload) {
        out.extend_from_slice(br#","data":"#);
        json::write_string(text, out);
    } else {
        out.extend_from_slice(br#","data_base64":"#);
        json::write_string(&BASE64.encode(&draft.payload), out);
    }
    out.push(b'}');
}

/// The result of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Refused,
    /// The back end cannot be asked: there is no connection, no answer in time, or a server error
    /// (5xx).
    Down,
    /// The answer is not understood, or there is no room for the question. A client can cause this,
    /// so it never allows anything.
    Unclear,
}

/// A verdict, and the number of seconds for which it is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackEndAnswer {
    pub(crate) verdict: Verdict,
    pub(crate) kept_s: u64,
}

#[derive(Deserialize)]
struct Body {
    allow: bool,
}

impl BackEndAnswer {
    /// Interprets the result of a request. Returns `None` if more is to come.
    pub(crate) fn of(fetched: &Fetched<'_>) -> Option<Self> {
        let verdict = match fetched {
            Fetched::Whole(head, body) => return Some(Self::read(head, body)),
            Fetched::Failed(FetchError::TimedOut) => Verdict::Down,
            Fetched::Failed(FetchError::NotConnected(kind))
                if is_of_network(*kind) || fault!("full-counts-as-down") =>
            {
                Verdict::Down
            }
            // A question can make a server close the connection, for instance if it is too long for
            // the server.
            Fetched::Failed(_) => Verdict::Unclear,
            _ => return None,
        };
        Some(Self { verdict, kept_s: 0 })
    }

    fn read(head: &ResponseHead<'_>, body: &[u8]) -> Self {
        let verdict = match head.status() {
            204 => Verdict::Allowed,
            200 => match serde_json::from_slice(body) {
                Ok(Body { allow: true }) => Verdict::Allowed,
                Ok(Body { allow: false }) => Verdict::Refused,
                Err(_) if fault!("unclear-counts-as-down") => Verdict::Down,
                Err(_) => Verdict::Unclear,
            },
            // A retry may be answered.
            408 | 425 | 429 => Verdict::Unclear,
            400..500 if fault!("refusal-counts-as-down") => Verdict::Down,
            400..500 => Verdict::Refused,
            500..600 => Verdict::Down,
            _ => Verdict::Unclear,
        };
        // Only an answer about the question itself is kept, not the failure to read it.
        let is_answer = matches!(head.status(), 200 | 204 | 403) && verdict != Verdict::Unclear;
        let kept_s = head.header_str("cache-control").map_or(0, max_age_s);
        Self { verdict, kept_s: if is_answer { kept_s } else { 0 } }
    }
}

/// Returns whether the back end or the network is the reason for a missing connection. A loop at
/// its limit of connections or descriptors does not connect, either, but clients can cause that.
fn is_of_network(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
        NotFound, TimedOut,
    };
    matches!(
        kind,
        ConnectionRefused
            | ConnectionReset
            | ConnectionAborted
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
            | NotFound
            | TimedOut
    )
}

/// Returns the time for which the field allows keeping an answer.
fn max_age_s(field: &str) -> u64 {
    let mut seconds = 0;
    for directive in field.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return 0;
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.eq_ignore_ascii_case("max-age")
        {
            seconds = value.trim_matches('"').parse().unwrap_or(0);
        }
    }
    seconds.min(KEPT_MAX_S)
}

/// Returns the reason for which a response is a failure, in words.
pub(crate) fn reason_of(fetched: &Fetched<'_>) -> String {
    match fetched {
        Fetched::Whole(head, _) if head.is_success() => {
            format!("status {}, and nothing that can be read", head.status())
        }
        Fetched::Whole(head, _) => format!("status {}", head.status()),
        Fetched::Failed(error) => error.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sealed_http::codec::{Asked, DecodeError, Limits};

    use super::*;

    fn answer(status: u16, fields: &str, body: &str) -> (Verdict, u64) {
        let text = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        let head = ResponseHead::parse(text.as_bytes(), Asked::Other, &Limits::default()).expect("a head");
        let BackEndAnswer { verdict, kept_s } = BackEndAnswer::read(&head, body.as_bytes());
        (verdict, kept_s)
    }

    #[test]
    fn only_failures_of_the_back_end_itself_count_as_down() {
        let age = "Cache-Control: private, max-age=60\r\n";
        assert_eq!(answer(204, "", ""), (Verdict::Allowed, 0));
        assert_eq!(answer(200, age, r#"{"allow":true,"more":1}"#), (Verdict::Allowed, 60));
        assert_eq!(answer(200, age, r#"{"allow":false}"#), (Verdict::Refused, 60));
        assert_eq!(answer(403, "", "whatever"), (Verdict::Refused, 0));
        assert_eq!(answer(403, age, "whatever"), (Verdict::Refused, 60));
        for status in [400, 401, 404, 413, 422, 431, 499] {
            assert_eq!(answer(status, age, ""), (Verdict::Refused, 0), "{status}");
        }
        for (status, body) in [(200, ""), (200, "{}"), (200, r#"{"allow":"yes"}"#), (201, ""), (302, ""), (429, "")] {
            assert_eq!(answer(status, age, body), (Verdict::Unclear, 0), "{status} {body}");
        }
        for status in [500, 502, 503, 599] {
            assert_eq!(answer(status, age, ""), (Verdict::Down, 0), "{status}");
        }
        let failed = |error| BackEndAnswer::of(&Fetched::Failed(error)).map(|answer| answer.verdict);
        assert_eq!(failed(FetchError::TimedOut), Some(Verdict::Down));
        assert_eq!(failed(FetchError::NotConnected(io::ErrorKind::ConnectionRefused)), Some(Verdict::Down));
        assert_eq!(failed(FetchError::NotConnected(io::ErrorKind::Other)), Some(Verdict::Unclear));
        assert_eq!(failed(FetchError::Busy), Some(Verdict::Unclear));
        assert_eq!(failed(FetchError::Lost(io::ErrorKind::ConnectionReset)), Some(Verdict::Unclear));
        assert_eq!(failed(FetchError::Malformed(DecodeError::BodyTooLarge)), Some(Verdict::Unclear));
    }

    #[test]
    fn an_answer_is_valid_for_its_max_age_of_at_most_an_hour() {
        for (field, kept_s) in
            [("max-age=99999", 3_600), ("max-age=x", 0), ("max-age=5, no-store", 0), ("MAX-AGE=\"7\"", 7)]
        {
            assert_eq!(max_age_s(field), kept_s, "{field}");
        }
    }

    #[test]
    fn a_question_contains_the_client_and_its_action() {
        let name = |name: &str| ChannelName::new(name).expect("a name");
        let (channel, other) = (name("a\"b"), name("c"));
        let text = Draft { payload: "hi".into(), event: Some("T".into()), ..Draft::default() };
        let binary = Draft { payload: Bytes::from_static(b"\xff\x00"), ..Draft::default() };
        let drafts = vec![(&channel, &text), (&other, &text), (&channel, &binary)];
        let question = Question { member: Some("ann"), drafts, ..Question::about(QuestionKind::Publish) };
        let json: serde_json::Value =
            serde_json::from_slice(&question.to_json(usize::MAX).expect("room")).expect("JSON");
        assert_eq!((&json["type"], &json["id"]), (&"publish".into(), &"ann".into()));
        assert_eq!((&json["messages"][0]["data"], &json["messages"][0]["event"]), (&"hi".into(), &"T".into()));
        assert_eq!(
            (&json["messages"][1]["data_base64"], &json["messages"][1]["channels"]),
            (&"/wA=".into(), &serde_json::json!(["a\"b"]))
        );
        assert_eq!(json["messages"][0]["channels"], serde_json::json!(["a\"b", "c"]), "each message once");
        assert_eq!(json["messages"].as_array().map(Vec::len), Some(2));
        let origin = Some("https://a.example");
        let question = Question { channels: vec![&channel], origin, ..Question::about(QuestionKind::Subscribe) };
        let json: serde_json::Value =
            serde_json::from_slice(&question.to_json(usize::MAX).expect("room")).expect("JSON");
        assert_eq!(json, serde_json::json!({"type": "subscribe", "id": null, "origin": origin, "channels": ["a\"b"]}));
        let length = question.to_json(usize::MAX).map_or(0, |json| json.len());
        assert!(question.to_json(length).is_some() && question.to_json(length - 1).is_none());
    }
}
