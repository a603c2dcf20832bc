//! How the events of a stream are carried: by a transport, in a framing of HTTP or WebSocket.

use sealed::fault;
use sealed_http::site::Field;

use super::framing::Framing;
use super::response::CONTENT_SECURITY_POLICY;
use crate::hub::Format;

/// How the events of a stream are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamFormat {
    pub(crate) transport: Transport,
    pub(crate) framing: Framing,
}

/// What carries events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

const TRANSPORTS: [Transport; 4] = [Transport::EventStream, Transport::Lines, Transport::Iframe, Transport::Socket];
const FRAMINGS: [Framing; 3] = [Framing::Chunked, Framing::Plain, Framing::Message];

/// What a page gets ahead of the first event. Browsers look at nothing before there is some of it.
const PAGE_BYTES_MIN: usize = 1_024;

impl StreamFormat {
    /// Returns the hub's name for it, in the protocol of that row.
    pub(crate) const fn in_row(self, row: u8) -> Format {
        Format::stream(row, self.transport as u8 * FRAMINGS.len() as u8 + self.framing as u8)
    }

    /// Reads what [`StreamFormat::in_row`] has written.
    pub(crate) const fn of(format: Format) -> Self {
        let variant = format.variant() as usize;
        Self {
            transport: TRANSPORTS[variant / FRAMINGS.len() % TRANSPORTS.len()],
            framing: FRAMINGS[variant % FRAMINGS.len()],
        }
    }

    /// Writes what stands before the first event: of a page, its head with that script and some
    /// more.
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

    /// Returns what a browser may do with a page in a frame, if the stream is one: it runs the
    /// scripts in the page, loads nothing, and shows the page in frames of one origin alone. An
    /// origin has no character that would end the directive.
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
    fn a_format_names_its_transport_and_framing() {
        for transport in TRANSPORTS {
            for framing in FRAMINGS {
                let format = StreamFormat { transport, framing };
                assert_eq!(StreamFormat::of(format.in_row(7)), format);
            }
        }
    }
}
