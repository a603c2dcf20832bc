//! The commands of a client on its WebSocket, and the answers to them. Every message of the server
//! has the form of a poll's reply.

use sealed::fault;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::items as native;
use super::publication::{checked_event, checked_key, checked_ttl, exact, read_bounded, read_data, read_given};
use super::request::{Starts, on_socket, read_channels};
use crate::config::Limits;
use crate::core::json;
use crate::core::message::{ChannelName, Draft};
use crate::core::position::Spot;
use crate::core::problem::Problem;
use crate::hub::{Delivery, Label, StartAt, SubscribeRequest};

/// The maximum bytes of a command to unsubscribe that is read although the client is over its
/// limit.
const UNSUBSCRIBE_BYTES_MAX: usize = 256;

/// A command in a text message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Publishes a message; the answer has the same `reference`.
    Publish { channel: ChannelName, draft: Draft, reference: Option<i64> },
    /// Replaces the client's token.
    Token { token: String, reference: Option<i64> },
    /// Adds a subscription of its own for further channels.
    Subscribe { channels: Vec<(ChannelName, StartAt)>, label: Label },
    /// Ends an added subscription.
    Unsubscribe { label: Label },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(rename = "type")]
    kind: String,
    channel: Option<String>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    after: Option<String>,
    last: Option<u64>,
    presence: Option<bool>,
    #[serde(borrow, default, deserialize_with = "read_given")]
    data: Option<&'a RawValue>,
    event: Option<String>,
    ttl: Option<u32>,
    key: Option<String>,
    token: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<i64>,
}

/// Parses a command. An error has the command's reference, if it can be found.
pub(crate) fn read(text: &str, limits: &Limits) -> Result<Command, (Problem, Option<i64>)> {
    let raw: Raw<'_> = serde_json::from_str(text).map_err(|_| (Problem::BadCommand, reference(text)))?;
    let refused = |problem| (problem, raw.reference);
    let event = raw.event.as_deref().map(checked_event).transpose().map_err(refused)?;
    let key = raw.key.as_deref().map(checked_key).transpose().map_err(refused)?;
    let ttl_s = checked_ttl(raw.ttl).map_err(refused)?;
    let has_message = raw.data.is_some() || event.is_some() || ttl_s.is_some() || key.is_some();
    let starts = Starts { after: raw.after.as_deref(), last: raw.last, with_presence: raw.presence };
    let has_starts = raw.channels.is_some() || starts != Starts::default();
    match (raw.kind.as_str(), raw.channel, raw.token, raw.reference.map(Label)) {
        ("token", None, Some(token), _) if !has_message && !has_starts => {
            Ok(Command::Token { token, reference: raw.reference })
        }
        ("subscribe", None, None, Some(label)) if !has_message => {
            let names = raw.channels.ok_or(Problem::BadCommand).and_then(|list| read_names(list, limits));
            let names = names.map_err(refused)?;
            let channels = read_channels(names.iter().map(|name| Some(name.as_str())), limits).map_err(refused)?;
            Ok(Command::Subscribe { channels: starts.of(channels).map_err(refused)?, label })
        }
        ("unsubscribe", None, None, Some(label)) if !has_message && !has_starts => Ok(Command::Unsubscribe { label }),
        ("publish", Some(channel), None, _) if !has_starts => {
            let data = raw.data.ok_or(refused(Problem::BadCommand))?;
            let channel = ChannelName::new(&channel).map_err(|_| refused(Problem::BadChannel))?;
            let payload = exact(read_data(data).map_err(refused)?.into_bytes());
            if payload.len() > limits.message_bytes_max {
                return Err(refused(Problem::MessageTooLarge(limits.message_bytes_max)));
            }
            let draft = Draft { payload, sender: None, event, ttl_s, key };
            Ok(Command::Publish { channel, draft, reference: raw.reference })
        }
        _ => Err(refused(Problem::BadCommand)),
    }
}

/// Parses a command to unsubscribe. Other messages are rejected at almost no cost.
pub(crate) fn read_unsubscribe(text: &str) -> Option<Label> {
    if text.len() > UNSUBSCRIBE_BYTES_MAX {
        return None;
    }
    match read(text, &Limits::default()) {
        Ok(Command::Unsubscribe { label }) => Some(label),
        _ => None,
    }
}

/// Parses the names of a subscription's channels, up to the number that it may have.
fn read_names(list: &RawValue, limits: &Limits) -> Result<Vec<String>, Problem> {
    let most = if fault!("list-of-channels-unbounded") { usize::MAX } else { limits.channels_per_subscription_max };
    match read_bounded(list, most) {
        Ok(names) if names.is_empty() => Err(Problem::BadCommand),
        Err(read) if read > most => Err(Problem::TooManyChannels),
        names => names.map_err(|_| Problem::BadCommand),
    }
}

/// Returns the hub's subscription for a command that adds one to a WebSocket.
pub(crate) fn subscription(channels: Vec<(ChannelName, StartAt)>, label: Label) -> SubscribeRequest {
    SubscribeRequest { label: Some(label), ..SubscribeRequest::new(channels, Delivery::new(on_socket())) }
}

/// Returns the reference of a message that is not executed, if it can be found.
pub(crate) fn reference(text: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Referring {
        #[serde(rename = "ref")]
        reference: Option<i64>,
    }
    serde_json::from_str(text).ok().and_then(|referring: Referring| referring.reference)
}

/// Returns the answer to a publication.
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

/// Returns the answer to a token.
pub(crate) fn renewed(reference: Option<i64>) -> Vec<u8> {
    let mut item = br#"{"type":"renewed","ref":"#.to_vec();
    json::write(&reference, &mut item);
    item.push(b'}');
    reply(&item)
}

/// Returns the answer to a command that ends a subscription.
pub(crate) fn unsubscribed(Label(label): Label) -> Vec<u8> {
    reply(format!(r#"{{"type":"unsubscribed","ref":{label}}}"#).as_bytes())
}

/// Returns the answer to a command that is refused.
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
    fn subscriptions_start_like_those_of_urls() {
        let limits = Limits::default();
        let channel = |name| ChannelName::new(name).expect("a name");
        let (a, b) = (channel("a"), channel("b"));
        for (text, channels) in [
            ("", vec![(a.clone(), StartAt::Latest), (b.clone(), StartAt::Latest)]),
            (r#","after":"oldest""#, vec![(a.clone(), StartAt::Oldest), (b.clone(), StartAt::Oldest)]),
            (r#","last":3,"presence":false"#, vec![(a, StartAt::Last(3)), (b, StartAt::Last(3))]),
        ] {
            let command = read(&format!(r#"{{"type":"subscribe","channels":["b","a"],"ref":-1{text}}}"#), &limits);
            assert_eq!(command, Ok(Command::Subscribe { channels, label: Label(-1) }));
        }
    }

    #[test]
    fn commands_are_parsed_and_refused_with_the_faulty_member() {
        let limits = Limits { message_bytes_max: 10, channels_per_subscription_max: 2, ..Limits::default() };
        let command = read(r#"{"type":"publish","channel":"a","data":"hi","ref":7}"#, &limits).expect("fine");
        let channel = ChannelName::new("a").expect("a name");
        let draft = Draft { payload: Bytes::from_static(b"hi"), ..Draft::default() };
        assert_eq!(command, Command::Publish { channel, draft, reference: Some(7) });
        for (text, problem, reference) in [
            ("", Problem::BadCommand, None),
            ("[]", Problem::BadCommand, None),
            (r#"{"type":"publish","channel":"a","ref":1}"#, Problem::BadCommand, Some(1)),
            (r#"{"type":"dance","ref":2}"#, Problem::BadCommand, Some(2)),
            (r#"{"type":"subscribe","channels":"a","ref":2}"#, Problem::BadCommand, Some(2)),
            (r#"{"type":"publish","channel":"a,b","data":"","ref":3}"#, Problem::BadChannel, Some(3)),
            (r#"{"type":"publish","channel":"a*","data":""}"#, Problem::BadChannel, None),
            (r#"{"type":"publish","channel":"a","data":"12345678901"}"#, Problem::MessageTooLarge(10), None),
            (r#"{"type":"publish","channel":"a","data":"","color":"red"}"#, Problem::BadCommand, None),
            (r#"{"type":"publish","channel":"a","data":"","last":1}"#, Problem::BadCommand, None),
            (r#"{"type":"token","token":"a","channels":["a"],"ref":4}"#, Problem::BadCommand, Some(4)),
            (r#"{"type":"subscribe","channels":["a"]}"#, Problem::BadCommand, None),
            (r#"{"type":"subscribe","ref":5}"#, Problem::BadCommand, Some(5)),
            (r#"{"type":"subscribe","channels":["a"],"data":"","ref":5}"#, Problem::BadCommand, Some(5)),
            (r#"{"type":"subscribe","channels":[],"ref":5}"#, Problem::BadCommand, Some(5)),
            (r#"{"type":"subscribe","channels":["a,b"],"ref":5}"#, Problem::BadChannel, Some(5)),
            (r#"{"type":"subscribe","channels":["a","a"],"ref":5}"#, Problem::TooManyChannels, Some(5)),
            // Elements beyond the limit are not parsed.
            (r#"{"type":"subscribe","channels":["a","b","c",7],"ref":5}"#, Problem::TooManyChannels, Some(5)),
            (r#"{"type":"subscribe","channels":["a",7],"ref":5}"#, Problem::BadCommand, Some(5)),
            (r#"{"type":"subscribe","channels":["a"],"after":"b","ref":5}"#, Problem::BadPosition("after"), Some(5)),
            (
                r#"{"type":"subscribe","channels":["a*"],"presence":true,"ref":5}"#,
                Problem::Excluded("presence", "a pattern"),
                Some(5),
            ),
            (r#"{"type":"unsubscribe"}"#, Problem::BadCommand, None),
            (r#"{"type":"unsubscribe","channels":["a"],"ref":6}"#, Problem::BadCommand, Some(6)),
        ] {
            assert_eq!(read(text, &limits), Err((problem, reference)), "{text}");
        }
    }
}
