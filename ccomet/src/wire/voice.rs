//! How a stream speaks: in the words of an API, over a transport, in a framing of HTTP.

use bytes::Bytes;
use sealed::fault;

use super::framing::Framing;
use super::{icomet, native, sse};
use crate::message::{ChannelName, Message};
use crate::position::{Spot, write_position};

/// How a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Voice {
    pub(crate) tongue: Tongue,
    pub(crate) transport: Transport,
    pub(crate) framing: Framing,
}

/// Whose words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Tongue {
    Native,
    Icomet,
}

/// What carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    /// Server-Sent Events.
    EventStream,
    /// An endless body, a JSON object a line.
    Lines,
    /// A page that never ends, each event a script for the page around it.
    Iframe,
    /// A WebSocket, a JSON object a message.
    Socket,
}

/// What a stream says in the native API's words.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Saying<'a> {
    /// When to come back, where that is to change.
    pub(crate) retry_ms: Option<u64>,
    /// The position behind it, where it has one.
    pub(crate) position: Option<&'a [Spot]>,
    /// The type of an event that is none of the channel's messages.
    pub(crate) kind: Option<&'static str>,
    /// The item: JSON.
    pub(crate) item: &'a [u8],
}

/// What a page gets ahead of the first event. Browsers look at nothing before there is some of it.
const PAGE_BYTES_MIN: usize = 1_024;

impl Voice {
    pub(crate) fn content_type(self) -> &'static str {
        match (self.transport, self.tongue) {
            (Transport::EventStream, Tongue::Native) => "text/event-stream",
            (Transport::EventStream, Tongue::Icomet) => "text/event-stream; charset=utf-8",
            (Transport::Lines, Tongue::Native) => "application/x-ndjson; charset=utf-8",
            (Transport::Lines, Tongue::Icomet) => "application/json; charset=utf-8",
            (Transport::Iframe, _) => "text/html; charset=utf-8",
            (Transport::Socket, _) => "",
        }
    }

    /// A message of one channel. `spot` is the one right after it.
    pub(crate) fn write_message(self, channel: &ChannelName, spot: Spot, message: &Message, out: &mut Vec<u8>) {
        let mut item = Vec::with_capacity(message.payload.len() + 160);
        match self.tongue {
            Tongue::Native => {
                native::write_message(channel, spot, message, &mut item);
                self.say(&Saying { position: Some(&[spot]), item: &item, ..Saying::default() }, out);
            }
            Tongue::Icomet => {
                icomet::write_message(channel, spot.next - 1, message, &mut item);
                self.write_icomet(&item, out);
            }
        }
    }

    /// A saying of the native API.
    pub(crate) fn say(self, saying: &Saying<'_>, out: &mut Vec<u8>) {
        self.framing.around(out, |out| {
            if self.transport == Transport::EventStream {
                return sse::write_event(saying.retry_ms, saying.position, saying.kind, saying.item, out);
            }
            let (before, after) = self.marks();
            out.extend_from_slice(before);
            native::write_reply(saying.position.unwrap_or_default().iter().copied(), [saying.item], out);
            out.extend_from_slice(after);
        });
    }

    /// The same around an item that others get too: what stands before it, the item itself, and what stands after.
    pub(crate) fn say_around(self, spots: &[Spot], item: &Bytes) -> [Bytes; 3] {
        let (begin, middle, end): (&[u8], &[u8], &[u8]) = match self.transport {
            Transport::EventStream => (b"id: ", b"\ndata: ", b"\n\n"),
            Transport::Lines | Transport::Iframe | Transport::Socket => (br#"{"position":""#, br#"","items":["#, b"]}"),
        };
        let (before, after) = self.marks();
        let mut head = [before, begin].concat();
        write_position(spots.iter().copied(), &mut head);
        head.extend_from_slice(middle);
        let (before, after) = self.framing.split(head, item.len(), &[end, after].concat());
        [before.into(), item.clone(), after.into()]
    }

    /// An event of icomet's, ready made as JSON.
    pub(crate) fn write_icomet(self, event: &[u8], out: &mut Vec<u8>) {
        let (before, after): (&[u8], &[u8]) = match self.transport {
            Transport::EventStream if fault!("icomet-event-unended") => (b"data: ", b"\n"),
            Transport::EventStream => (b"data: ", b"\n\n"),
            Transport::Lines => (b"", b"\n"),
            Transport::Iframe => (b"<script>parent.icomet_cb(", b");</script>\n"),
            Transport::Socket => (b"", b""),
        };
        self.framing.around(out, |out| {
            for piece in [before, event, after] {
                out.extend_from_slice(piece);
            }
        });
    }

    /// What stands before the first event.
    pub(crate) fn write_opening(self, listener: &str, out: &mut Vec<u8>) {
        if self.transport != Transport::Iframe {
            return;
        }
        let mut page = String::from("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>ccomet</title>\n");
        if self.tongue == Tongue::Native {
            // Told to the one origin that asked, and to no other page that might have this in a frame.
            let mut origin = b"location.origin".to_vec();
            if !listener.is_empty() {
                origin.clear();
                super::json::write_string(listener, &mut origin);
            }
            page.push_str("<script>function m(reply){parent.postMessage(reply,");
            page.push_str(&String::from_utf8_lossy(&origin));
            page.push_str(")}</script>\n");
        }
        page.push_str("</head><body>\n");
        while page.len() < PAGE_BYTES_MIN {
            page.push_str("                                                               \n");
        }
        self.framing.around(out, |out| out.extend_from_slice(page.as_bytes()));
    }

    /// A sign of life of the native API.
    pub(crate) fn write_heartbeat(self, out: &mut Vec<u8>) {
        self.framing.around(out, |out| {
            if self.transport == Transport::EventStream {
                return out.extend_from_slice(sse::HEARTBEAT);
            }
            let (before, after) = self.marks();
            out.extend_from_slice(before);
            native::write_reply([], [], out);
            out.extend_from_slice(after);
        });
    }

    /// What stands around a reply.
    fn marks(self) -> (&'static [u8], &'static [u8]) {
        match self.transport {
            Transport::Iframe => (b"<script>m(", b");</script>\n"),
            Transport::Lines => (b"", b"\n"),
            Transport::EventStream | Transport::Socket => (b"", b""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Epoch;

    const SPOT: Spot = Spot { epoch: Epoch(1), next: 2 };
    const TRANSPORTS: [Transport; 4] = [Transport::EventStream, Transport::Lines, Transport::Iframe, Transport::Socket];

    fn voice(transport: Transport, framing: Framing) -> Voice {
        Voice { tongue: Tongue::Native, transport, framing }
    }

    #[test]
    fn chunks_hold_what_goes_plain_otherwise() {
        for transport in TRANSPORTS {
            let saying =
                Saying { retry_ms: Some(5), position: Some(&[SPOT]), kind: Some("gap"), item: b"{\"type\":\"gap\"}" };
            let say = |framing: Framing, out: &mut Vec<u8>| {
                voice(transport, framing).write_opening("https://a.example", out);
                let opened = out.len();
                voice(transport, framing).say(&saying, out);
                out.split_off(opened)
            };
            let plain = say(Framing::Plain, &mut Vec::new());
            let expected = [format!("{:x}\r\n", plain.len()).as_bytes(), &plain, b"\r\n"].concat();
            assert_eq!(say(Framing::Chunked, &mut Vec::new()), expected);
        }
    }

    #[test]
    fn an_item_of_others_is_said_like_one_of_its_own() {
        let item = Bytes::from_static(b"{\"type\":\"message\"}");
        for transport in TRANSPORTS {
            for framing in [Framing::Plain, Framing::Chunked, Framing::Message] {
                let voice = voice(transport, framing);
                let mut said = Vec::new();
                voice.say(&Saying { position: Some(&[SPOT]), item: &item, ..Saying::default() }, &mut said);
                assert_eq!(voice.say_around(&[SPOT], &item).concat(), said, "{voice:?}");
            }
        }
    }

    #[test]
    fn events_say_all_that_they_have() {
        let mut said = Vec::new();
        let saying = Saying { retry_ms: Some(5), position: Some(&[SPOT]), kind: Some("gap"), item: b"{}" };
        voice(Transport::EventStream, Framing::Plain).say(&saying, &mut said);
        assert_eq!(said, b"retry: 5\nid: 0000000000001-0000000002\nevent: gap\ndata: {}\n\n");
        said.clear();
        voice(Transport::Iframe, Framing::Plain).say(&saying, &mut said);
        let page = "<script>m({\"position\":\"0000000000001-0000000002\",\"items\":[{}]});</script>\n";
        assert_eq!(String::from_utf8_lossy(&said), page);
    }
}
