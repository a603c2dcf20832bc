//! What the back end is asked, and what its answer means.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use sealed_http::ResponseHead;
use serde::Deserialize;

use crate::message::{ChannelName, Draft};
use crate::wire::json;

/// The longest time for which an answer is kept, in seconds.
const KEPT_MAX_S: u64 = 3_600;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Deed {
    Subscribe,
    Publish,
}

/// Whether somebody may do something.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) deed: Deed,
    pub(crate) member: Option<&'a str>,
    pub(crate) channels: Vec<&'a ChannelName>,
    /// What is to be published, each in its channel.
    pub(crate) drafts: Vec<(&'a ChannelName, &'a Draft)>,
    /// Fields of the client's request that are passed on.
    pub(crate) headers: Vec<(Box<str>, Box<str>)>,
}

impl Question<'_> {
    /// One about nothing yet, by nobody.
    pub(crate) fn about(deed: Deed) -> Self {
        Self { deed, member: None, channels: Vec::new(), drafts: Vec::new(), headers: Vec::new() }
    }

    /// The question as JSON.
    pub(crate) fn to_json(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        let kind = if self.deed == Deed::Publish { "publish" } else { "subscribe" };
        out.extend_from_slice(br#"{"type":"#);
        json::write_string(kind, &mut out);
        out.extend_from_slice(br#","id":"#);
        json::write(&self.member, &mut out);
        if self.deed == Deed::Subscribe {
            out.extend_from_slice(br#","channels":"#);
            let names: Vec<&str> = self.channels.iter().map(|channel| channel.as_str()).collect();
            json::write(&names, &mut out);
        } else {
            out.extend_from_slice(br#","messages":["#);
            for (index, (channel, draft)) in self.drafts.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_draft(channel, draft, &mut out);
            }
            out.push(b']');
        }
        if !self.headers.is_empty() {
            let headers: BTreeMap<&str, &str> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            out.extend_from_slice(br#","headers":"#);
            json::write(&headers, &mut out);
        }
        out.push(b'}');
        out.into()
    }
}

fn write_draft(channel: &ChannelName, draft: &Draft, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"channel":"#);
    json::write_string(channel.as_str(), out);
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

/// What the back end says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Refused,
    /// Nothing that can be understood, or nothing at all.
    Down,
}

/// A verdict, and for how many seconds it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) kept_s: u64,
}

#[derive(Deserialize)]
struct Body {
    allow: bool,
}

impl Answer {
    pub(crate) const DOWN: Self = Self { verdict: Verdict::Down, kept_s: 0 };

    pub(crate) fn read(head: &ResponseHead<'_>, body: &[u8]) -> Self {
        let verdict = match head.status() {
            204 => Verdict::Allowed,
            403 => Verdict::Refused,
            200 => match serde_json::from_slice(body) {
                Ok(Body { allow: true }) => Verdict::Allowed,
                Ok(Body { allow: false }) => Verdict::Refused,
                Err(_) => Verdict::Down,
            },
            _ => Verdict::Down,
        };
        let kept_s = head.header_str("cache-control").map_or(0, max_age_s);
        Self { verdict, kept_s: if verdict == Verdict::Down { 0 } else { kept_s } }
    }
}

/// For how long the field lets an answer be kept.
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

#[cfg(test)]
mod tests {
    use sealed_http::{Asked, Limits};

    use super::*;

    fn answer(status: u16, fields: &str, body: &str) -> (Verdict, u64) {
        let text = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        let head = ResponseHead::parse(text.as_bytes(), Asked::Other, &Limits::default()).expect("a head");
        let Answer { verdict, kept_s } = Answer::read(&head, body.as_bytes());
        (verdict, kept_s)
    }

    #[test]
    fn answers_mean_what_they_say_and_anything_else_means_down() {
        let age = "Cache-Control: private, max-age=60\r\n";
        assert_eq!(answer(204, "", ""), (Verdict::Allowed, 0));
        assert_eq!(answer(200, age, r#"{"allow":true,"more":1}"#), (Verdict::Allowed, 60));
        assert_eq!(answer(200, age, r#"{"allow":false}"#), (Verdict::Refused, 60));
        assert_eq!(answer(403, "", "whatever"), (Verdict::Refused, 0));
        for (status, body) in [(200, ""), (200, "{}"), (200, r#"{"allow":"yes"}"#), (404, ""), (500, ""), (302, "")] {
            assert_eq!(answer(status, age, body), (Verdict::Down, 0), "{status} {body}");
        }
        for (field, kept_s) in
            [("max-age=99999", 3_600), ("max-age=x", 0), ("max-age=5, no-store", 0), ("MAX-AGE=\"7\"", 7)]
        {
            assert_eq!(max_age_s(field), kept_s, "{field}");
        }
    }

    #[test]
    fn questions_name_who_and_what() {
        let channel = ChannelName::new("a\"b").expect("a name");
        let text = Draft { payload: "hi".into(), event: Some("T".into()), ..Draft::default() };
        let binary = Draft { payload: Bytes::from_static(b"\xff\x00"), ..Draft::default() };
        let drafts = vec![(&channel, &text), (&channel, &binary)];
        let question = Question { member: Some("ann"), drafts, ..Question::about(Deed::Publish) };
        let json: serde_json::Value = serde_json::from_slice(&question.to_json()).expect("JSON");
        assert_eq!((&json["type"], &json["id"]), (&"publish".into(), &"ann".into()));
        assert_eq!((&json["messages"][0]["data"], &json["messages"][0]["event"]), (&"hi".into(), &"T".into()));
        assert_eq!(
            (&json["messages"][1]["data_base64"], &json["messages"][1]["channel"]),
            (&"/wA=".into(), &"a\"b".into())
        );
        let question = Question { channels: vec![&channel], ..Question::about(Deed::Subscribe) };
        let json: serde_json::Value = serde_json::from_slice(&question.to_json()).expect("JSON");
        assert_eq!(json, serde_json::json!({"type": "subscribe", "id": null, "channels": ["a\"b"]}));
    }
}
