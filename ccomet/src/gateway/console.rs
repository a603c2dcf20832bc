//! The pages of the console that are not files, and this loop's part of them.

use std::collections::HashMap;

use sealed::ConnectionId;
use sealed_http::{Http, Response};

use super::metering::transport_of;
use super::{Gateway, unix_time};
use crate::core::time::UnixMillis;
use crate::ops::console::{LoopReaders, SLOW_MAX, SlowReader};
use crate::ops::counters::Transport;
use crate::protocols::format::response::json_response;

/// The slow readers of this loop, and the time at which each was first seen. There are none while
/// nobody asks for them.
pub(super) type SlowSince = HashMap<ConnectionId, UnixMillis>;

impl Gateway {
    /// Returns the page of the console with this path, if there is one.
    pub(super) fn console_page(&self, http: &Http<'_, Self>, path: &str) -> Option<Response> {
        let page = match path {
            "/refusals" => self.metrics.console.refusals(),
            "/slow-readers" => self.metrics.console.slow_readers(unix_time(http)),
            "/settings" => serde_json::to_value(&*self.config).unwrap_or_default(),
            _ => return None,
        };
        Some(json_response(page.to_string()))
    }

    /// Reports this loop's slow readers, if somebody wants to know.
    pub(super) fn look_for_slow_readers(&mut self, http: &Http<'_, Self>) {
        let now = unix_time(http);
        if !self.metrics.console.is_interested(now) {
            self.slow_since = SlowSince::new();
            return;
        }
        let (count, found) = self.hub.slow_readers(SLOW_MAX);
        let since = std::mem::take(&mut self.slow_since);
        let mut readers = Vec::with_capacity(found.len());
        for (id, channel, behind) in found {
            let since = since.get(&id).copied().unwrap_or(now);
            self.slow_since.insert(id, since);
            let named = self.answering.refusals.client(id);
            let session = http.state(id).map(|client| client.session).unwrap_or_default();
            readers.push(SlowReader {
                client: named.or_else(|| http.peer_addr(id).and_then(|peer| peer.ip())),
                transport: Transport::ALL[transport_of(session) as usize],
                channel,
                behind,
                queued_bytes: http.queued(id),
                since,
            });
        }
        self.metrics.console.set_slow(self.index, LoopReaders { time: now, count, readers });
    }
}
