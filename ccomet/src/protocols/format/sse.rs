//! Server-Sent Events, as defined by the HTML standard.

use crate::core::json;
use crate::core::position::{Spot, write_position};

/// The time in milliseconds after which a browser reconnects, if the server does not change it.
pub(crate) const RETRY_MS: u64 = 2_000;

/// A heartbeat that scripts can listen for, and that proxies must pass on.
pub(crate) const HEARTBEAT: &[u8] = b"event: heartbeat\ndata: \n\n";

/// Writes an event. `data` is a single line, as JSON is.
pub(crate) fn write_event(
    retry_ms: Option<u64>,
    id: Option<&[Spot]>,
    kind: Option<&str>,
    data: &[u8],
    out: &mut Vec<u8>,
) {
    debug_assert!(!data.contains(&b'\n') && !data.contains(&b'\r'));
    if let Some(retry_ms) = retry_ms {
        out.extend_from_slice(b"retry: ");
        json::write_number(retry_ms, out);
        out.push(b'\n');
    }
    if let Some(spots) = id {
        out.extend_from_slice(b"id: ");
        write_position(spots.iter().copied(), out);
        out.push(b'\n');
    }
    if let Some(kind) = kind {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}
