//! The items of version 1.0: JSONP calls whose argument is a string literal that contains a JSON
//! array.

use bytes::Bytes;

use crate::core::json;
use crate::core::message::{ChannelName, Message};

/// The reply to `/sign`, as a whole array.
pub(super) const SIGNED_IN: &[u8] = br#"[{"type" : "sign in"}]"#;
/// The reply to `/publish`, as a whole array.
pub(super) const PUBLISHED: &[u8] = br#"[{"type" : "publish"}]"#;
/// The answer for a missing or malformed parameter, as a whole array.
pub(super) const BAD_PARAMETERS: &[u8] = br#"[{"type" : "400", "reason" : "error params"}]"#;

/// Writes an item for a message, escaped as text of the string literal.
pub(super) fn write_message(channel: &ChannelName, seqid: u64, message: &Message, out: &mut Vec<u8>) {
    let payload = String::from_utf8_lossy(&message.payload);
    write_item("MSG", &payload, message.sender.as_deref().unwrap_or(""), seqid, channel, out);
}

/// Returns an item for a sign-in, escaped as text of the string literal.
pub(super) fn sign(channel: &ChannelName, seqid: u64, name: &str) -> Bytes {
    let mut out = Vec::new();
    write_item("SIGN", "SIGN", name, seqid, channel, &mut out);
    Bytes::from(out)
}

/// Returns the envelope around items that are escaped already.
pub(super) fn envelope<'a>(callback: &str, items: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(callback.as_bytes());
    out.extend_from_slice(b"('[");
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]')");
    out
}

/// Returns the envelope around one of the fixed arrays above, none of which needs escaping.
pub(super) fn envelope_fixed(callback: &str, array: &[u8]) -> Vec<u8> {
    [callback.as_bytes(), b"('", array, b"')"].concat()
}

fn write_item(kind: &str, msg: &str, sname: &str, seqid: u64, channel: &ChannelName, out: &mut Vec<u8>) {
    let mut item = Vec::with_capacity(msg.len() + 96);
    let mut field = |before: &str, value: &str| {
        item.extend_from_slice(before.as_bytes());
        json::write_string(value, &mut item);
    };
    field(r#"{"type":"#, kind);
    field(r#","msg":"#, msg);
    field(r#","sname":"#, sname);
    field(r#","seqid":"#, &seqid.to_string());
    field(r#","channel":"#, channel.as_str());
    item.push(b'}');
    escape_literal(&item, out);
}

/// Escapes JSON as text of a string literal in single quotes. It contains no line breaks, U+2028,
/// U+2029 or `</`: [`json`] has escaped them.
fn escape_literal(json: &[u8], out: &mut Vec<u8>) {
    for byte in json {
        if matches!(byte, b'\'' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::message::Draft;
    use crate::core::time::UnixMillis;

    #[test]
    fn the_envelope_has_the_form_that_the_page_of_2014_expects() {
        let channel = ChannelName::new("abc").expect("a name");
        let draft = Draft { payload: Bytes::from_static(b"hello"), sender: Some("ann".into()), ..Draft::default() };
        let message = draft.taken_at(UnixMillis::default());
        let mut item = Vec::new();
        write_message(&channel, 7, &message, &mut item);
        assert_eq!(
            envelope("cb", [item.as_slice(), &sign(&channel, 8, "bob")]),
            br#"cb('[{"type":"MSG","msg":"hello","sname":"ann","seqid":"7","channel":"abc"},{"type":"SIGN","msg":"SIGN","sname":"bob","seqid":"8","channel":"abc"}]')"#
        );
        assert_eq!(envelope_fixed("cb", SIGNED_IN), br#"cb('[{"type" : "sign in"}]')"#);
    }

    /// Parses a JavaScript string literal in the simple way.
    fn unescape(literal: &str) -> String {
        let mut out = String::new();
        let mut chars = literal.chars();
        while let Some(c) = chars.next() {
            assert!(c != '\'' && c != '\n' && c != '\r' && c != '\u{2028}', "would end the literal");
            out.push(if c == '\\' { chars.next().expect("something is escaped") } else { c });
        }
        out
    }

    #[test]
    fn any_text_survives_both_escapes() {
        let text = "'\"\\ </script> \r\n\t\u{0}\u{2028}\u{2029} 😀 中文 \\' \\\\";
        let draft = Draft { payload: Bytes::from(text), sender: Some(text.into()), ..Draft::default() };
        let message = draft.taken_at(UnixMillis::default());
        let mut item = Vec::new();
        write_message(&ChannelName::new("'\\").expect("a name"), 0, &message, &mut item);
        assert!(!String::from_utf8_lossy(&item).contains("</"));
        let json = unescape(&String::from_utf8(item).expect("UTF-8"));
        let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&parsed["msg"], &parsed["sname"], &parsed["channel"]), (&text.into(), &text.into(), &"'\\".into()));
    }
}
