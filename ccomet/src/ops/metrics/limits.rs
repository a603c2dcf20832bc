//! The limits of the whole server, with what is used of them. The limits of one loop, channel or
//! client are not among them.

use super::Page;
use crate::config::Config;
use crate::ops::counters::Count;

/// A limit, and what is used of it.
pub(super) struct Limit {
    /// The setting.
    pub(super) name: &'static str,
    pub(super) most: u64,
    pub(super) used: u64,
}

/// Returns the limits of the server.
pub(super) fn limits(page: &Page) -> impl Iterator<Item = Limit> {
    let Config { limits, history, store, .. } = &*page.moment.config;
    let limit = |name, most: usize, used| Limit { name, most: most as u64, used };
    let open = page.metrics.counters.iter().flat_map(|one| one.connections.as_flattened());
    let memory = [
        limit("limits.connections_max", limits.connections_max, open.map(Count::get).sum()),
        limit("limits.subscribers_max", limits.subscribers_max, page.sum(|one| &one.subscribers)),
        limit("limits.channels_max", limits.channels_max, page.sum(|one| &one.all_channels)),
        limit("limits.patterns_max", limits.patterns_max, page.sum(|one| &one.patterns)),
        limit("limits.addresses_max", limits.addresses_max, page.sum(|one| &one.addresses)),
        limit("limits.body_bytes_max", limits.body_bytes_max, page.sum(|one| &one.body_bytes)),
        limit("limits.encoded_bytes_max", limits.encoded_bytes_max, page.sum(|one| &one.encoded_bytes)),
        limit("history.total_bytes_max", history.total_bytes_max, page.sum(|one| &one.history_bytes)),
        limit("history.keys_max", history.keys_max, page.sum(|one| &one.keys)),
    ];
    let figures = page.moment.store;
    let waiting =
        figures.map(|figures| limit("store.waiting_bytes_max", store.waiting_bytes_max, figures.waiting_bytes));
    let log = figures.and_then(|figures| figures.log).map(|(_, bytes)| Limit {
        name: "store.bytes_max",
        most: store.bytes_max,
        used: bytes,
    });
    memory.into_iter().chain(waiting).chain(log)
}
