//! Items of a subscription, and how they are printed.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::client::printable;

/// The number of bytes that are written at the latest.
const PENDING_BYTES_MAX: usize = 64 * 1024;

/// A reply of the server: a line of the stream.
#[derive(Debug, Deserialize)]
pub(super) struct Reply<'a> {
    #[serde(borrow)]
    pub(super) position: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) items: Vec<&'a RawValue>,
}

/// An item of a reply: a message, or another event.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) position: Option<Cow<'a, str>>,
    time: Option<i64>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    sender: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    of: Option<Cow<'a, str>>,
    missed: Option<u64>,
    #[serde(borrow)]
    pub(super) reason: Option<Cow<'a, str>>,
    pub(super) retry_ms: Option<u64>,
    pub(super) heartbeat_ms: Option<u64>,
    pub(super) expires_in_s: Option<u64>,
}

/// How items are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Readable,
    Json,
    Raw,
}

/// The standard output, and the position after what it has taken.
#[derive(Debug)]
pub(super) struct Output {
    form: Form,
    /// What is to be written, in complete lines.
    pending: Vec<u8>,
    /// The positions after parts of it, each with the number of bytes up to there.
    marks: Vec<(usize, String)>,
    position: Option<String>,
}

impl Output {
    pub(super) fn new(form: Form) -> Self {
        Self { form, pending: Vec::new(), marks: Vec::new(), position: None }
    }

    /// Prints an item, if it is one for a reader of the channels.
    pub(super) fn print(&mut self, item: &Item<'_>, json: &str) -> io::Result<()> {
        if !matches!(&*item.kind, "message" | "gap" | "close" | "join" | "leave") {
            return Ok(());
        }
        match self.form {
            Form::Json => self.pending.extend_from_slice(json.as_bytes()),
            Form::Readable => self.pending.extend_from_slice(item.readable().as_bytes()),
            Form::Raw if item.kind == "message" => self.pending.extend_from_slice(&item.payload()),
            // The output has messages alone.
            Form::Raw => {
                self.flush()?;
                eprintln!("ccomet: {}", item.readable());
                return Ok(());
            }
        }
        self.pending.push(b'\n');
        if self.pending.len() >= PENDING_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Notes the position after all that has been printed.
    pub(super) fn mark(&mut self, position: String) {
        if self.pending.is_empty() {
            self.position = Some(position);
        } else {
            self.marks.push((self.pending.len(), position));
        }
    }

    /// Returns the position after all that has been written.
    pub(super) fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        let outcome = self.write_to(&mut io::stdout().lock());
        self.pending.clear();
        self.marks.clear();
        outcome
    }

    fn write_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = self.pending.get(written..).filter(|rest| !rest.is_empty()) {
            written += match out.write(rest).and_then(|count| out.flush().map(|()| count)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let reached = self.marks.partition_point(|(end, _)| *end <= written);
            self.position =
                self.marks.drain(..reached).next_back().map(|(_, position)| position).or(self.position.take());
        }
        Ok(())
    }
}

impl Item<'_> {
    /// Returns the message, as it was published.
    fn payload(&self) -> Cow<'_, [u8]> {
        match (&self.data, &self.data_base64) {
            (Some(text), _) => Cow::Borrowed(text.as_bytes()),
            (None, Some(encoded)) => BASE64.decode(&**encoded).unwrap_or_default().into(),
            (None, None) => Cow::Borrowed(b""),
        }
    }

    /// Returns a line for a person.
    fn readable(&self) -> String {
        let time = self.time.and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok());
        let mut line = time.map_or_else(String::new, |time| stamp(time) + "  ");
        line.push_str(&printable(self.channel.as_deref().unwrap_or_default()));
        let _ = match &*self.kind {
            "message" => {
                if let Some(event) = &self.event {
                    let _ = write!(line, " [{}]", printable(event));
                }
                if let Some(sender) = &self.sender {
                    let _ = write!(line, " <{}>", printable(sender));
                }
                let payload = self.payload();
                match std::str::from_utf8(&payload) {
                    Ok(text) => write!(line, "  {}", printable(text)),
                    Err(_) => write!(line, "  {} bytes: {}", payload.len(), payload.escape_ascii()),
                }
            }
            "gap" => {
                let what = if self.of.is_some() { "joins and leaves" } else { "messages" };
                match self.missed {
                    Some(missed) => write!(line, "  --- gap: {missed} {what} missed"),
                    None => write!(line, "  --- gap: {what} may have been missed"),
                }
            }
            "close" => match &self.reason {
                // It ends the whole subscription, and names no channel.
                Some(reason) => write!(line, "--- closed: {}", words(reason)),
                None => write!(line, "  --- closed"),
            },
            kind => write!(line, "  --- {kind}: {}", printable(self.id.as_deref().unwrap_or_default())),
        };
        line
    }
}

/// Returns a time (UTC), always with milliseconds, so that lines are aligned.
fn stamp(time: OffsetDateTime) -> String {
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, ms) = time.to_hms_milli();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", u8::from(month))
}

/// Returns a reason of the server, such as `token_expired`, for people.
pub(super) fn words(reason: &str) -> String {
    printable(reason).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(json: &str) -> String {
        serde_json::from_str::<Item<'_>>(json).expect("an item").readable()
    }

    #[test]
    fn items_are_lines_for_people() {
        let message = r#"{"type":"message","channel":"news","position":"P","time":1795000000000,"data":"a\u001b\nb"}"#;
        assert_eq!(readable(message), "2026-11-18T11:06:40.000Z  news  a\\u{1b}\\nb");
        let binary = r#"{"type":"message","channel":"n","position":"P","time":5,"event":"T","data_base64":"/wA="}"#;
        assert_eq!(readable(binary), "1970-01-01T00:00:00.005Z  n [T]  2 bytes: \\xff\\x00");
        assert_eq!(readable(r#"{"type":"gap","channel":"n","missed":12}"#), "n  --- gap: 12 messages missed");
        let unknown = r#"{"type":"gap","channel":"n","of":"presence","missed":null}"#;
        assert_eq!(readable(unknown), "n  --- gap: joins and leaves may have been missed");
        assert_eq!(readable(r#"{"type":"join","channel":"n","of":"presence","id":"ann"}"#), "n  --- join: ann");
    }

    #[test]
    fn an_end_of_the_subscription_has_its_reason() {
        assert_eq!(readable(r#"{"type":"close","reason":"token_expired"}"#), "--- closed: token expired");
        assert_eq!(readable(r#"{"type":"close","channel":"n"}"#), "n  --- closed");
    }

    /// An output that takes this many bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            if count > 0 { Ok(count) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_position_is_that_of_the_last_message_that_was_written_completely() {
        for (room, expected) in [(0, "start"), (3, "start"), (4, "one"), (7, "one"), (8, "two"), (9, "two")] {
            let mut output = Output::new(Form::Raw);
            output.mark("start".to_owned());
            for name in ["one", "two", "three"] {
                let item = Item { kind: "message".into(), data: Some(name.into()), ..Item::default() };
                output.print(&item, "").expect("it is kept");
                output.mark(name.to_owned());
            }
            assert!(output.write_to(&mut Full(room)).is_err(), "{room}");
            assert_eq!(output.position(), Some(expected), "{room}");
        }
    }
}
