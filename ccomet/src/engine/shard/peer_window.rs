//! The flow control of deliveries from a shard to one loop, by their number and bytes. Messages
//! beyond the limit wait in the channels' logs, where they are counted, and dropped if there are
//! too many.

use std::collections::VecDeque;

use sealed::fault;

use super::ShardLimits;

#[derive(Debug, Default)]
pub(super) struct PeerWindow {
    /// The bytes of each delivery that is not acknowledged yet, in order.
    under_way: VecDeque<usize>,
    bytes: usize,
    /// The channels that have something to send.
    pub(super) queue: VecDeque<usize>,
}

impl PeerWindow {
    /// Returns whether another delivery may be sent.
    pub(super) fn has_room(&self, limits: &ShardLimits) -> bool {
        self.under_way.len() < limits.deliveries_max
            && (self.bytes < limits.delivery_bytes_max || fault!("delivery-bytes-without-bound"))
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.under_way.push_back(bytes);
        self.bytes += bytes;
    }

    /// Removes deliveries that the loop has acknowledged.
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
