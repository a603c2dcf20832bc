//! What is on its way from a shard to one loop: so many deliveries, and so many bytes of messages. What comes after them waits
//! in the channels' logs, where it is counted, and is dropped when it is too much.

use std::collections::VecDeque;

use sealed::fault;

use super::ShardLimits;

#[derive(Debug, Default)]
pub(super) struct PeerWindow {
    /// What was sent and not acknowledged yet, in order: the bytes of each delivery.
    under_way: VecDeque<usize>,
    bytes: usize,
    /// Channels of which there is something to be sent.
    pub(super) queue: VecDeque<usize>,
}

impl PeerWindow {
    /// Whether another delivery may be sent.
    pub(super) fn has_room(&self, limits: &ShardLimits) -> bool {
        self.under_way.len() < limits.deliveries_max
            && (self.bytes < limits.delivery_bytes_max || fault!("delivery-bytes-without-bound"))
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.under_way.push_back(bytes);
        self.bytes += bytes;
    }

    /// The loop has worked off so many deliveries.
    pub(super) fn acknowledged(&mut self, count: u32) {
        for _ in 0..count {
            let Some(bytes) = self.under_way.pop_front() else { break };
            self.bytes -= bytes;
        }
        if self.under_way.is_empty() {
            self.under_way.shrink_to(8);
        }
    }

    #[cfg(feature = "sim")]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
