//! Publications of a request, and the answer to a request with several publications.

use std::fmt::{self, Formatter};
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use sealed_http::RequestHead;
use sealed_http::site::Query;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::config::Limits;
use crate::core::json;
use crate::core::message::{ChannelName, Draft};
use crate::core::pattern::Pattern;
use crate::core::position::Spot;
use crate::core::problem::{MessageFault, Problem};

/// The maximum length of the type of a message, in bytes.
const EVENT_BYTES_MAX: usize = 128;

/// The header field that names an idempotency key.
const KEY_FIELD: &str = "Idempotency-Key";

/// The maximum length of an idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 128;

/// A message for a channel, or for all channels of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressedDraft {
    pub(crate) channel: ChannelName,
    pub(crate) draft: Draft,
}

/// The outcome of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublicationOutcome {
    /// The message is right before this spot.
    At(Spot),
    /// The message reached this number of channels of its pattern.
    In(u64),
    Refused(Problem),
}

/// Returns the draft of a message whose options are in the query and the header.
pub(crate) fn read_draft(payload: &[u8], head: &RequestHead<'_>, query: Query<'_>) -> Result<Draft, Problem> {
    let get = |name: &'static str| query.get(name).map_err(|_| Problem::BadParameter(name));
    let event = get("event")?.map(|event| checked_event(&event)).transpose()?;
    let ttl_s = get("ttl")?.map(|text| text.parse().map_err(|_| Problem::BadParameter("ttl"))).transpose()?;
    let key = header_key(head)?;
    Ok(Draft { payload: Bytes::copy_from_slice(payload), sender: None, event, ttl_s: checked_ttl(ttl_s)?, key })
}

/// Returns the idempotency key in the header, if there is one.
pub(crate) fn header_key(head: &RequestHead<'_>) -> Result<Option<Box<str>>, Problem> {
    let mut keys = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"));
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some((_, key)), None) => {
            let key = std::str::from_utf8(key).map_err(|_| Problem::BadParameter(KEY_FIELD))?;
            checked_key(key.trim()).map(Some)
        }
        (Some(_), Some(_)) => Err(Problem::BadParameter(KEY_FIELD)),
    }
}

pub(crate) fn checked_event(event: &str) -> Result<Box<str>, Problem> {
    let sized = (1..=EVENT_BYTES_MAX).contains(&event.len());
    if sized && !event.chars().any(char::is_control) { Ok(event.into()) } else { Err(Problem::BadParameter("event")) }
}

pub(crate) fn checked_ttl(ttl_s: Option<u32>) -> Result<Option<u32>, Problem> {
    if ttl_s == Some(0) { Err(Problem::BadParameter("ttl")) } else { Ok(ttl_s) }
}

pub(crate) fn checked_key(key: &str) -> Result<Box<str>, Problem> {
    let sized = (1..=KEY_BYTES_MAX).contains(&key.len());
    if sized && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(key.into())
    } else {
        Err(Problem::BadParameter(KEY_FIELD))
    }
}

/// Parses the name of a channel or of a pattern.
pub(crate) fn read_target(name: &str) -> Result<ChannelName, Problem> {
    let pattern = || Pattern::new(name).ok().filter(|_| name.contains('*'));
    ChannelName::new(name).ok().or_else(|| Some(ChannelName::of_pattern(&pattern()?))).ok_or(Problem::BadChannel)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBody<'a> {
    #[serde(borrow)]
    messages: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMessage<'a> {
    channel: Option<String>,
    #[serde(default, deserialize_with = "read_names")]
    channels: Vec<String>,
    #[serde(borrow, default, deserialize_with = "read_given")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    event: Option<String>,
    ttl: Option<u32>,
    key: Option<String>,
}

/// Parses several messages from JSON. A message without a key gets the key of the request, followed
/// by its index.
pub(crate) fn read_messages(body: &[u8], key: Option<&str>, limits: &Limits) -> Result<Vec<AddressedDraft>, Problem> {
    let RawBody { messages } = serde_json::from_slice(body).map_err(|_| Problem::BadBody)?;
    let messages = read_list(messages, limits.publications_per_request_max)?;
    let mut publications = Vec::new();
    for (place, mut raw) in messages.into_iter().enumerate() {
        let wrong = |fault| Problem::BadMessage(place as u32, fault);
        let mut draft = read_raw(&raw, limits).map_err(wrong)?;
        // No client's key contains a space.
        draft.key = draft.key.or_else(|| key.map(|key| format!("{key} {place}").into()));
        raw.channels.extend(raw.channel.take());
        if raw.channels.is_empty() {
            return Err(wrong(MessageFault::Shape));
        }
        for name in raw.channels {
            if publications.len() == limits.publications_per_request_max {
                return Err(Problem::TooManyMessages);
            }
            let channel = read_target(&name).map_err(|_| wrong(MessageFault::Channel))?;
            publications.push(AddressedDraft { channel, draft: draft.clone() });
        }
    }
    if publications.is_empty() { Err(Problem::BadBody) } else { Ok(publications) }
}

/// Parses the list of messages, up to the first malformed or excess message.
fn read_list(list: &RawValue, most: usize) -> Result<Vec<RawMessage<'_>>, Problem> {
    if !list.get().starts_with('[') {
        return Err(Problem::BadBody);
    }
    read_bounded(list, most).map_err(|read| match read {
        read if read > most => Problem::TooManyMessages,
        read => Problem::BadMessage(read as u32, MessageFault::Shape),
    })
}

/// Parses names of channels, up to the highest number that the setting
/// `publications_per_request_max` can allow.
fn read_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    from.deserialize_seq(Elements { most: 10_000, read: &mut 0, kind: PhantomData })
}

/// Parses a list of at most `most` elements, and stops after them. An error has the number of
/// elements that were parsed: it is greater than `most` if the list is too long.
pub(super) fn read_bounded<'a, T: Deserialize<'a>>(list: &'a RawValue, most: usize) -> Result<Vec<T>, usize> {
    let mut read = 0;
    let elements = Elements { most, read: &mut read, kind: PhantomData };
    let list = serde_json::Deserializer::from_str(list.get()).deserialize_seq(elements);
    list.map_err(|_| read)
}

/// The parser of a list of bounded length: excess elements take no memory. `read` counts the parsed
/// elements.
struct Elements<'a, T> {
    most: usize,
    read: &'a mut usize,
    kind: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} elements", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = list.next_element()? {
            *self.read += 1;
            if *self.read > self.most {
                return Err(A::Error::invalid_length(*self.read, &self));
            }
            all.push(element);
        }
        Ok(all)
    }
}

fn read_raw(raw: &RawMessage<'_>, limits: &Limits) -> Result<Draft, MessageFault> {
    let payload: Bytes = match (raw.data, &raw.data_base64) {
        (Some(data), None) => exact(read_data(data).map_err(|_| MessageFault::Member("data"))?.into_bytes()),
        (None, Some(text)) => exact(BASE64.decode(text).map_err(|_| MessageFault::Base64)?),
        _ => return Err(MessageFault::Shape),
    };
    if payload.len() > limits.message_bytes_max {
        return Err(MessageFault::TooLarge(limits.message_bytes_max));
    }
    let event = raw.event.as_deref().map(checked_event).transpose();
    let key = raw.key.as_deref().map(checked_key).transpose();
    let ttl_s = checked_ttl(raw.ttl).map_err(|_| MessageFault::Member("ttl"))?;
    let event = event.map_err(|_| MessageFault::Member("event"))?;
    Ok(Draft { payload, sender: None, event, ttl_s, key: key.map_err(|_| MessageFault::Member("key"))? })
}

/// Reads a JSON value that is present. `null` counts as present; by default, serde treats it as
/// missing.
pub(crate) fn read_given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Returns the published text of a JSON value: the content of a string, or the JSON of any other
/// value.
pub(crate) fn read_data(data: &RawValue) -> Result<String, Problem> {
    let text = data.get();
    if text.starts_with('"') { serde_json::from_str(text).map_err(|_| Problem::BadBody) } else { Ok(text.to_owned()) }
}

/// Returns a payload without spare capacity, which would be held as long as the message, and not be
/// counted.
pub(crate) fn exact(payload: Vec<u8>) -> Bytes {
    payload.into_boxed_slice().into()
}

/// Returns the list of the outcomes of all publications.
pub(crate) fn write_results<'a>(
    results: impl IntoIterator<Item = (&'a ChannelName, PublicationOutcome)>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#""results":["#);
    for (index, (channel, outcome)) in results.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"channel":"#);
        json::write_string(channel.as_str(), out);
        match outcome {
            PublicationOutcome::At(spot) => {
                out.extend_from_slice(br#","position":""#);
                spot.write(out);
                out.push(b'"');
            }
            PublicationOutcome::In(channels) => {
                out.extend_from_slice(br#","channels":"#);
                json::write_number(channels, out);
            }
            PublicationOutcome::Refused(problem) => {
                out.extend_from_slice(br#","error":"#);
                out.extend_from_slice(&problem.to_callback_argument());
            }
        }
        out.push(b'}');
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<AddressedDraft>, Problem> {
        let limits = Limits { message_bytes_max: 10, publications_per_request_max: 3, ..Limits::default() };
        read_messages(body.as_bytes(), Some("k"), &limits)
    }

    #[test]
    fn messages_are_parsed() {
        let body = r#"{"messages":[
            {"channel":"a","data":"héllo","event":"greeting","ttl":5,"key":"own"},
            {"channels":["b","n.*"],"data":{"x": 1}}]}"#;
        let read = read(body).expect("fine");
        let names: Vec<&str> = read.iter().map(|publication| publication.channel.as_str()).collect();
        assert_eq!(names, ["a", "b", "n.*"]);
        let first = &read[0].draft;
        assert_eq!((&first.payload[..], first.ttl_s), ("héllo".as_bytes(), Some(5)));
        assert_eq!((first.event.as_deref(), first.key.as_deref()), (Some("greeting"), Some("own")));
        assert_eq!((&read[2].draft.payload[..], read[2].draft.key.as_deref()), (&br#"{"x": 1}"#[..], Some("k 1")));
    }

    #[test]
    fn faults_of_messages_are_named() {
        for (body, problem) in [
            ("", Problem::BadBody),
            ("[]", Problem::BadBody),
            (r#"{"messages":[]}"#, Problem::BadBody),
            (r#"{"messages":[{"channel":"a"}]}"#, Problem::BadMessage(0, MessageFault::Shape)),
            (r#"{"messages":[{"data":"x"}]}"#, Problem::BadMessage(0, MessageFault::Shape)),
            (
                r#"{"messages":[{"channel":"a","data":"x","data_base64":"eA=="}]}"#,
                Problem::BadMessage(0, MessageFault::Shape),
            ),
            (r#"{"messages":[{"channel":"a","data_base64":"?"}]}"#, Problem::BadMessage(0, MessageFault::Base64)),
            (
                r#"{"messages":[{"channel":"a","data":"x"},{"channel":"a","data":"\ud800"}]}"#,
                Problem::BadMessage(1, MessageFault::Member("data")),
            ),
            (r#"{"messages":[{"channel":"a","data":"x","color":"red"}]}"#, Problem::BadMessage(0, MessageFault::Shape)),
            (
                r#"{"messages":[{"channel":"a","data":"x"},{"channel":"b","channel":"b","data":"x"}]}"#,
                Problem::BadMessage(1, MessageFault::Shape),
            ),
            (r#"{"messages":[{"channel":"a","data":"x"},17]}"#, Problem::BadMessage(1, MessageFault::Shape)),
            (r#"{"messages":[{"channel":"a","data":"x"}],"more":1}"#, Problem::BadBody),
            (r#"{"messages":[{"channel":"a,b","data":"x"}]}"#, Problem::BadMessage(0, MessageFault::Channel)),
            (
                r#"{"messages":[{"channel":"a","data":"12345678901"}]}"#,
                Problem::BadMessage(0, MessageFault::TooLarge(10)),
            ),
            (r#"{"messages":[{"channels":["a","b","c","d"],"data":""}]}"#, Problem::TooManyMessages),
            (r#"{"messages":[{},{},{},{}]}"#, Problem::TooManyMessages),
            (r#"{"messages":{"channel":"a","data":""}}"#, Problem::BadBody),
            (
                r#"{"messages":[{"channel":"a","data":"","event":"a\nb"}]}"#,
                Problem::BadMessage(0, MessageFault::Member("event")),
            ),
            (
                r#"{"messages":[{"channel":"a","data":"","ttl":0}]}"#,
                Problem::BadMessage(0, MessageFault::Member("ttl")),
            ),
            (
                r#"{"messages":[{"channel":"a","data":"","key":"a b"}]}"#,
                Problem::BadMessage(0, MessageFault::Member("key")),
            ),
        ] {
            assert_eq!(read(body), Err(problem), "{body}");
        }
    }
}
