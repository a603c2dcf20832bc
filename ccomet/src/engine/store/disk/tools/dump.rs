//! `dump`: the messages of a store as lines of JSON.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::view::View;
use crate::core::json;
use crate::core::message::{ChannelName, Message};
use crate::core::position::Spot;
use crate::engine::store::disk::log::segment_name;
use crate::engine::store::disk::opening::Refused;

/// The number of places that are read at a time.
const PLACES: usize = 4_096;

/// Writes the messages of one channel, or of all in the order of their names. Returns their number,
/// or `None` if the store does not have the channel.
pub(in crate::engine::store::disk) fn dump(
    view: &View,
    channel: Option<&str>,
    out: &mut dyn io::Write,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<u64>, Refused> {
    let mut is_found = channel.is_none();
    let (mut records, mut count, mut line) = (view.records(), 0, Vec::new());
    let failed = |error| Refused::Io("write the messages", error);
    for (name, id) in view.channels()? {
        if channel.is_some_and(|channel| channel != name.as_str()) {
            continue;
        }
        let Some(row) = view.row(id)? else { continue };
        is_found = true;
        let mut next = row.first;
        while next < row.next {
            let entries = view.entries(id, next, PLACES)?;
            let Some((last, _)) = entries.last() else { break };
            next = last + 1;
            for (number, entry) in entries {
                let message = records.message(id, number, entry).map_err(|why| {
                    let (segment, offset) = (segment_name(entry.segment), entry.offset);
                    Refused::Damaged(format!(
                        "message number {number} of channel {name}, {segment} at byte {offset}: {why}"
                    ))
                })?;
                line.clear();
                write_line(&name, Spot { epoch: row.epoch, next: number + 1 }, &message, &mut line);
                out.write_all(&line).map_err(failed)?;
                count += 1;
            }
            progress(&format!("{count} messages"));
        }
    }
    out.flush().map_err(failed)?;
    Ok(is_found.then_some(count))
}

/// Writes a message with the names that it has in the API.
fn write_line(channel: &ChannelName, spot: Spot, message: &Message, out: &mut Vec<u8>) {
    let mut text = |name: &[u8], value: &str| {
        out.extend_from_slice(name);
        json::write_string(value, out);
    };
    text(br#"{"channel":"#, channel.as_str());
    text(br#","position":"#, &spot.to_string());
    out.extend_from_slice(br#","time":"#);
    json::write_number(message.time().as_millis(), out);
    if let Some(expires) = message.extra.as_ref().and_then(|extra| extra.expires) {
        out.extend_from_slice(br#","expires":"#);
        json::write_number(expires.as_millis(), out);
    }
    let mut text = |name: &[u8], value: &str| {
        out.extend_from_slice(name);
        json::write_string(value, out);
    };
    let optional: [(&[u8], Option<&str>); 3] = [
        (br#","sender":"#, message.sender.as_deref()),
        (br#","event":"#, message.event()),
        (br#","key":"#, message.key()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            text(name, value);
        }
    }
    match std::str::from_utf8(&message.payload) {
        Ok(data) => text(br#","data":"#, data),
        Err(_) => text(br#","data_base64":"#, &BASE64.encode(&message.payload)),
    }
    out.extend_from_slice(b"}\n");
}
