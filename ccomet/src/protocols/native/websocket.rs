//! What a client says on its WebSocket, and what it is answered there: everything the server says
//! has the form of a poll's reply.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::items as native;
use super::publication::{checked_event, checked_key, checked_ttl, exact, read_data, read_given};
use crate::core::json;
use crate::core::message::{ChannelName, Draft};
use crate::core::position::Spot;
use crate::core::problem::Problem;

/// What a client says in a message of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// To publish; the answer has the same `reference`.
    Publish { channel: ChannelName, draft: Draft, reference: Option<i64> },
    /// That this token counts from now on.
    Token { token: String, reference: Option<i64> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(rename = "type")]
    kind: String,
    channel: Option<String>,
    #[serde(borrow, default, deserialize_with = "read_given")]
    data: Option<&'a RawValue>,
    event: Option<String>,
    ttl: Option<u32>,
    key: Option<String>,
    token: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<i64>,
}

/// Reads a message; what is wrong with it is told with its reference, if it has one that can be
/// read.
pub(crate) fn read(text: &str, message_bytes_max: usize) -> Result<Said, (Problem, Option<i64>)> {
    let raw: Raw<'_> = serde_json::from_str(text).map_err(|_| (Problem::BadCommand, None))?;
    let refused = |problem| (problem, raw.reference);
    let event = raw.event.as_deref().map(checked_event).transpose().map_err(refused)?;
    let key = raw.key.as_deref().map(checked_key).transpose().map_err(refused)?;
    let ttl_s = checked_ttl(raw.ttl).map_err(refused)?;
    match (raw.kind.as_str(), raw.channel, raw.data, raw.token) {
        ("token", None, None, Some(token)) => Ok(Said::Token { token, reference: raw.reference }),
        ("publish", Some(channel), Some(data), None) => {
            let channel = ChannelName::new(&channel).map_err(|_| refused(Problem::BadChannel))?;
            let payload = exact(read_data(data).map_err(refused)?.into_bytes());
            if payload.len() > message_bytes_max {
                return Err(refused(Problem::MessageTooLarge));
            }
            let draft = Draft { payload, sender: None, event, ttl_s, key };
            Ok(Said::Publish { channel, draft, reference: raw.reference })
        }
        _ => Err(refused(Problem::BadCommand)),
    }
}

/// The reference of a message that is not read, if it has one that can be found.
pub(crate) fn reference(text: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Referring {
        #[serde(rename = "ref")]
        reference: Option<i64>,
    }
    serde_json::from_str(text).ok().and_then(|referring: Referring| referring.reference)
}

/// The answer to a publisher.
pub(crate) fn published(channel: &ChannelName, spot: Spot, reference: Option<i64>) -> Vec<u8> {
    let mut item = br#"{"type":"published","ref":"#.to_vec();
    json::write(&reference, &mut item);
    item.extend_from_slice(br#","channel":"#);
    json::write_string(channel.as_str(), &mut item);
    item.extend_from_slice(br#","position":""#);
    spot.write(&mut item);
    item.extend_from_slice(br#""}"#);
    reply(&item)
}

/// The answer to a token.
pub(crate) fn renewed(reference: Option<i64>) -> Vec<u8> {
    let mut item = br#"{"type":"renewed","ref":"#.to_vec();
    json::write(&reference, &mut item);
    item.push(b'}');
    reply(&item)
}

/// What went wrong.
pub(crate) fn refused(problem: Problem, reference: Option<i64>) -> Vec<u8> {
    let details = problem.details().kind("error").title(None);
    let details = match reference {
        Some(reference) => details.member("ref", reference),
        None => details,
    };
    reply(&details.to_json())
}

fn reply(item: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(item.len() + 32);
    native::write_reply([], [item], &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn messages_are_read_and_refused_by_name() {
        let said = read(r#"{"type":"publish","channel":"a","data":"hi","ref":7}"#, 10).expect("fine");
        let channel = ChannelName::new("a").expect("a name");
        let draft = Draft { payload: Bytes::from_static(b"hi"), ..Draft::default() };
        assert_eq!(said, Said::Publish { channel, draft, reference: Some(7) });
        for (text, problem, reference) in [
            ("", Problem::BadCommand, None),
            ("[]", Problem::BadCommand, None),
            (r#"{"type":"publish","channel":"a","ref":1}"#, Problem::BadCommand, Some(1)),
            (r#"{"type":"dance","ref":2}"#, Problem::BadCommand, Some(2)),
            (r#"{"type":"publish","channel":"a,b","data":"","ref":3}"#, Problem::BadChannel, Some(3)),
            (r#"{"type":"publish","channel":"a*","data":""}"#, Problem::BadChannel, None),
            (r#"{"type":"publish","channel":"a","data":"12345678901"}"#, Problem::MessageTooLarge, None),
            (r#"{"type":"publish","channel":"a","data":"","color":"red"}"#, Problem::BadCommand, None),
        ] {
            assert_eq!(read(text, 10), Err((problem, reference)), "{text}");
        }
    }
}
