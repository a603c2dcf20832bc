//! What a loop counts.

/// Counts of one loop since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Turns of the loop.
    pub ticks: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections ended, of either kind.
    pub closed: u64,
    /// Times that accepting was paused for want of descriptors, or at `connections_max`.
    pub accept_pauses: u64,
    /// Bytes read.
    pub bytes_received: u64,
    /// Bytes the kernel took.
    pub bytes_sent: u64,
    /// Messages taken from the mailbox.
    pub messages: u64,
}
