//! The format of the events of a stream: a transport, with a framing of HTTP or WebSocket.

use sealed::fault;
use sealed_http::site::Field;

use super::framing::Framing;
use super::response::CONTENT_SECURITY_POLICY;
use crate::hub::Format;

/// The format of the events of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamFormat {
    pub(crate) transport: Transport,
    pub(crate) framing: Framing,
}

/// The transport of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Server-Sent Events.
    EventStream,
    /// An endless body, with one JSON object per line.
    Lines,
    /// A page that never ends. Each event is a script that passes it to the page around the frame.
    Iframe,
    /// A WebSocket, with one JSON object per message.
    Socket,
}

const TRANSPORTS: [Transport; 4] = [Transport::EventStream, Transport::Lines, Transport::Iframe, Transport::Socket];
const FRAMINGS: [Framing; 3] = [Framing::Chunked, Framing::Plain, Framing::Message];

/// The bytes that a page gets before the first event. Browsers do not process a page before a
/// minimum of bytes.
const PAGE_BYTES_MIN: usize = 1_024;

impl StreamFormat {
    /// Returns the hub's identifier of the format, in the protocol of that row.
    pub(crate) const fn in_row(self, row: u8) -> Format {
        Format::stream(row, self.transport as u8 * FRAMINGS.len() as u8 + self.framing as u8)
    }

    /// Parses an identifier that [`StreamFormat::in_row`] has created.
    pub(crate) const fn of(format: Format) -> Self {
        let variant = format.variant() as usize;
        Self {
            transport: TRANSPORTS[variant / FRAMINGS.len() % TRANSPORTS.len()],
            framing: FRAMINGS[variant % FRAMINGS.len()],
        }
    }

    /// Writes the bytes before the first event: for a page, its head with that script, and padding.
    pub(crate) fn write_opening(self, script: &str, out: &mut Vec<u8>) {
        if self.transport != Transport::Iframe {
            return;
        }
        let mut page = String::from("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>ccomet</title>\n");
        page.push_str(script);
        page.push_str("</head><body>\n");
        while page.len() < PAGE_BYTES_MIN {
            page.push_str("                                                               \n");
        }
        self.framing.around(out, |out| out.extend_from_slice(page.as_bytes()));
    }

    /// Returns the policy of a page in a frame, if the stream is one: it runs the scripts in the
    /// page, loads nothing, and is only shown in frames of one origin. An origin has no characters
    /// that would end the directive.
    pub(crate) fn frame_policy(self, origin: &str) -> Option<Field> {
        let ancestor = if origin.is_empty() { "'self'" } else { origin };
        let ancestor = if fault!("frame-shown-anywhere") { "*" } else { ancestor };
        let policy = || format!("default-src 'none'; script-src 'unsafe-inline'; frame-ancestors {ancestor}");
        (self.transport == Transport::Iframe).then(|| (CONTENT_SECURITY_POLICY, policy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_round_trips_its_transport_and_framing() {
        for transport in TRANSPORTS {
            for framing in FRAMINGS {
                let format = StreamFormat { transport, framing };
                assert_eq!(StreamFormat::of(format.in_row(7)), format);
            }
        }
    }
}
