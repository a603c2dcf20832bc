//! Items of a subscription, and how they are printed.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::printable;

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

/// The standard output.
#[derive(Debug)]
pub(super) struct Output {
    form: Form,
    inner: BufWriter<Stdout>,
}

impl Output {
    pub(super) fn new(form: Form) -> Self {
        Self { form, inner: BufWriter::with_capacity(64 * 1024, io::stdout()) }
    }

    /// Prints an item, if it is one for a reader of the channels.
    pub(super) fn print(&mut self, item: &Item<'_>, json: &str) -> io::Result<()> {
        if !matches!(&*item.kind, "message" | "gap" | "close" | "join" | "leave") {
            return Ok(());
        }
        match self.form {
            Form::Json => writeln!(self.inner, "{json}"),
            Form::Readable => writeln!(self.inner, "{}", item.readable()),
            Form::Raw if item.kind == "message" => {
                self.inner.write_all(&item.payload())?;
                self.inner.write_all(b"\n")
            }
            // The output has messages alone.
            Form::Raw => {
                self.inner.flush()?;
                eprintln!("ccomet: {}", item.readable());
                Ok(())
            }
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
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
        let mut line = time.and_then(|time| time.format(&Rfc3339).ok()).map_or_else(String::new, |time| time + "  ");
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
            "close" => write!(line, "  --- closed"),
            kind => write!(line, "  --- {kind}: {}", printable(self.id.as_deref().unwrap_or_default())),
        };
        line
    }
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
        assert_eq!(readable(message), "2026-11-18T11:06:40Z  news  a\\u{1b}\\nb");
        let binary = r#"{"type":"message","channel":"n","position":"P","time":5,"event":"T","data_base64":"/wA="}"#;
        assert_eq!(readable(binary), "1970-01-01T00:00:00.005Z  n [T]  2 bytes: \\xff\\x00");
        assert_eq!(readable(r#"{"type":"gap","channel":"n","missed":12}"#), "n  --- gap: 12 messages missed");
        let unknown = r#"{"type":"gap","channel":"n","of":"presence","missed":null}"#;
        assert_eq!(readable(unknown), "n  --- gap: joins and leaves may have been missed");
        assert_eq!(readable(r#"{"type":"join","channel":"n","of":"presence","id":"ann"}"#), "n  --- join: ann");
    }
}
