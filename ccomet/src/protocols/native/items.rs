//! Items and replies of the native API.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sealed_http::Response;

use crate::core::json;
use crate::core::message::{ChannelKind, ChannelName, Message, Movement};
use crate::core::position::{Spot, write_position};
use crate::engine::{Listed, Membership, Page};
use crate::protocols::format::jsonp;
use crate::protocols::format::response::{json_response, script_response};

/// Writes an item for a message; `spot` is the one after it.
pub(crate) fn write_message(channel: &ChannelName, spot: Spot, message: &Message, out: &mut Vec<u8>) {
    if let Some(movement) = message.movement() {
        return write_movement(channel, spot, movement, message, out);
    }
    let (channel, spot) = message.origin().unwrap_or((channel, spot));
    out.extend_from_slice(br#"{"type":"message","channel":"#);
    json::write_string(channel.as_str(), out);
    out.extend_from_slice(br#","position":""#);
    spot.write(out);
    out.extend_from_slice(br#"","time":"#);
    json::write_number(message.time().as_millis(), out);
    if let Some(sender) = &message.sender {
        out.extend_from_slice(br#","sender":"#);
        json::write_string(sender, out);
    }
    if let Some(event) = message.event() {
        out.extend_from_slice(br#","event":"#);
        json::write_string(event, out);
    }
    if let Ok(text) = std::str::from_utf8(&message.payload) {
        out.extend_from_slice(br#","data":"#);
        json::write_string(text, out);
    } else {
        out.extend_from_slice(br#","data_base64":"#);
        json::write_string(&BASE64.encode(&message.payload), out);
    }
    out.push(b'}');
}

/// Writes an item for a member that joined or left.
fn write_movement(channel: &ChannelName, spot: Spot, movement: Movement, message: &Message, out: &mut Vec<u8>) {
    let kind = match movement {
        Movement::Join => "join",
        Movement::Leave => "leave",
    };
    out.extend_from_slice(br#"{"type":"#);
    json::write_string(kind, out);
    write_channel(channel, out);
    out.extend_from_slice(br#","position":""#);
    spot.write(out);
    out.extend_from_slice(br#"","time":"#);
    json::write_number(message.time().as_millis(), out);
    out.extend_from_slice(br#","id":"#);
    json::write_string(&String::from_utf8_lossy(&message.payload), out);
    out.push(b'}');
}

/// Writes the channel of an item, and whether the item is about its presence.
fn write_channel(channel: &ChannelName, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","channel":"#);
    match channel.kind() {
        ChannelKind::Presence(watched) => {
            json::write_string(watched, out);
            out.extend_from_slice(br#","of":"presence""#);
        }
        ChannelKind::Named(_) | ChannelKind::Pattern(_) => json::write_string(channel.as_str(), out),
    }
}

/// Returns the members of a channel; the list `members` is omitted for clients that may not see
/// them.
pub(crate) fn presence(channel: &ChannelName, who: &Membership, with_members: bool) -> Vec<u8> {
    let mut out = br#"{"channel":"#.to_vec();
    json::write_string(channel.as_str(), &mut out);
    out.extend_from_slice(br#","subscribers":"#);
    json::write_number(who.subscribers, &mut out);
    if with_members {
        out.extend_from_slice(br#","position":""#);
        write_position(who.position, &mut out);
        out.extend_from_slice(br#"","members":["#);
        for (index, member) in who.members.iter().enumerate() {
            out.extend_from_slice(if index > 0 { br#",{"id":"#.as_slice() } else { br#"{"id":"# });
            json::write_string(&member.id, &mut out);
            out.extend_from_slice(br#","connections":"#);
            json::write_number(member.connections.into(), &mut out);
            out.push(b'}');
        }
        out.extend_from_slice(br#"],"incomplete":"#);
        json::write(&who.is_incomplete, &mut out);
    }
    out.extend_from_slice(b"}\n");
    out
}

/// Writes an item that reports a gap, with the number of missed messages if it is known. The
/// following messages start at `spot`.
pub(crate) fn write_gap(channel: &ChannelName, missed: Option<u64>, spot: Spot, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"gap""#);
    write_channel(channel, out);
    out.extend_from_slice(br#","missed":"#);
    json::write(&missed, out);
    out.extend_from_slice(br#","position":""#);
    spot.write(out);
    out.extend_from_slice(br#""}"#);
}

/// Writes an item that reports that the channel was closed.
pub(crate) fn write_close(channel: &ChannelName, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"close""#);
    write_channel(channel, out);
    out.push(b'}');
}

/// The first item of a subscription that is added to a WebSocket.
pub(crate) const SUBSCRIBED: &[u8] = br#"{"type":"subscribed"}"#;

/// Returns an item that announces the heartbeat interval of a stream.
pub(crate) fn hello(heartbeat_ms: u64) -> Vec<u8> {
    let mut out = br#"{"type":"hello","heartbeat_ms":"#.to_vec();
    json::write_number(heartbeat_ms, &mut out);
    out.push(b'}');
    out
}

/// Returns an item that asks the client to reconnect after a time, since the server shuts down.
pub(crate) fn bye(retry_ms: u64) -> Vec<u8> {
    let mut out = br#"{"type":"bye","retry_ms":"#.to_vec();
    json::write_number(retry_ms, &mut out);
    out.push(b'}');
    out
}

/// Returns an item that announces the expiry of the reader's token, in seconds.
pub(crate) fn token_ends(expires_in_s: u64) -> Vec<u8> {
    let mut out = br#"{"type":"token","expires_in_s":"#.to_vec();
    json::write_number(expires_in_s, &mut out);
    out.push(b'}');
    out
}

/// Writes the reply of a long poll: the position after its items, and the items, which are encoded
/// already.
pub(crate) fn write_reply<'a>(
    spots: impl IntoIterator<Item = Spot>,
    items: impl IntoIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#"{"position":""#);
    write_position(spots, out);
    out.extend_from_slice(br#"","items":["#);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]}");
}

/// Returns a page of a channel's history. Messages have the form of those in the channel, after a
/// gap if there is one.
pub(crate) fn history(channel: &ChannelName, page: &Page) -> Vec<u8> {
    let mut items = Vec::with_capacity(page.entries.len() + 1);
    if let Some(missed) = page.gap {
        let mut item = Vec::new();
        write_gap(channel, missed.0, page.begin, &mut item);
        items.push(item);
    }
    for (number, message) in &page.entries {
        let mut item = Vec::with_capacity(message.payload.len() + 160);
        write_message(channel, Spot { next: number + 1, ..page.end }, message, &mut item);
        items.push(item);
    }
    let mut out = Vec::new();
    write_reply([page.end], items.iter().map(Vec::as_slice), &mut out);
    out.pop();
    out.extend_from_slice(br#","more":"#);
    json::write(&page.more, &mut out);
    out.extend_from_slice(b"}\n");
    out
}

/// Returns the state of a channel.
pub(crate) fn info(listed: &Listed) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_info(listed, &mut out);
    out.push(b'\n');
    out
}

fn write_info(Listed { channel, info }: &Listed, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"channel":"#);
    json::write_string(channel.as_str(), out);
    out.extend_from_slice(br#","position":""#);
    info.spot.write(out);
    out.push(b'"');
    for (name, value) in [("subscribers", info.subscribers), ("messages", info.messages), ("bytes", info.bytes)] {
        out.push(b',');
        json::write_string(name, out);
        out.push(b':');
        json::write_number(value, out);
    }
    out.push(b'}');
}

/// Returns a page of the list of channels. If there are more, `next` is the last name of this page.
pub(crate) fn list(channels: &[Listed], more: bool) -> Vec<u8> {
    let mut out = br#"{"channels":["#.to_vec();
    for (index, listed) in channels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_info(listed, &mut out);
    }
    out.extend_from_slice(br#"],"next":"#);
    let next = channels.last().map(|listed| listed.channel.as_str()).filter(|_| more);
    json::write(&next, &mut out);
    out.extend_from_slice(b"}\n");
    out
}

/// Returns the answer to a publisher.
pub(crate) fn published(channel: &ChannelName, spot: Spot, callback: Option<&str>) -> Response {
    let mut json = Vec::with_capacity(128);
    json.extend_from_slice(br#"{"channel":"#);
    json::write_string(channel.as_str(), &mut json);
    json.extend_from_slice(br#","position":""#);
    spot.write(&mut json);
    json.extend_from_slice(br#""}"#);
    let body = jsonp::wrap(callback, json);
    if callback.is_some() { script_response(body) } else { json_response(body) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::core::message::Draft;
    use crate::core::position::Epoch;
    use crate::core::time::UnixMillis;

    fn spot(next: u64) -> Spot {
        Spot { epoch: Epoch(1), next }
    }

    fn item(payload: &'static [u8], sender: Option<&str>) -> serde_json::Value {
        let payload = Bytes::from_static(payload);
        let draft = Draft { payload, sender: sender.map(Into::into), ..Draft::default() };
        let message = draft.taken_at(UnixMillis::from_millis(17));
        let mut out = Vec::new();
        write_message(&ChannelName::new("a\"b").expect("a name"), spot(1), &message, &mut out);
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn messages_are_items() {
        let text = item("l1\n'</script>".as_bytes(), Some("ann"));
        assert_eq!(text["data"], "l1\n'</script>");
        assert_eq!((&text["channel"], &text["sender"], &text["time"]), (&"a\"b".into(), &"ann".into(), &17.into()));
        assert_eq!(text["position"], "0000000000001-0000000001");
        let binary = item(b"\xff\x00", None);
        assert_eq!(binary["data_base64"], "/wA=");
        assert!(binary.get("data").is_none() && binary.get("sender").is_none());
    }

    #[test]
    fn replies_contain_their_items_and_the_position_after_them() {
        let mut gap = Vec::new();
        write_gap(&ChannelName::new("a").expect("a name"), None, spot(3), &mut gap);
        let mut out = Vec::new();
        write_reply([spot(3), spot(4)], [gap.as_slice(), gap.as_slice()], &mut out);
        let reply: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(reply["position"], "0000000000001-0000000003.0000000000001-0000000004");
        assert_eq!(reply["items"][1]["missed"], serde_json::Value::Null);
    }
}
