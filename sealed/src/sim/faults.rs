use std::time::Duration;

use super::Random;

/// What a connection's way is like, both ways.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The least time a byte travels.
    pub latency_min: Duration,
    /// The longest; each segment's time is drawn between the two, and order is kept.
    pub latency_max: Duration,
    /// Bytes a second; `None`: as many as there are.
    pub bandwidth: Option<u64>,
    /// Bytes that a loop may have on their way to a peer that has not read them: the kernels' buffers at both ends.
    pub buffer_bytes: usize,
    /// Bytes of room in them from which on a loop is told that it can write again, at least one. Linux waits for a third of
    /// the buffer, though it takes bytes before.
    pub room_told_bytes: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_micros(20),
            latency_max: Duration::from_micros(200),
            bandwidth: None,
            buffer_bytes: 256 * 1024,
            room_told_bytes: 1,
        }
    }
}

/// What goes wrong by chance, each as a probability from 0 to 1. None of it is wrong by the rules: a program
/// that is right copes with all of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Faults {
    /// A read brings less than there is, down to one byte; the rest comes later.
    pub short_read: f64,
    /// A write takes less than there is room for, down to one byte; there is room again later.
    pub short_write: f64,
    /// A read or a write would block, though a moment later it would not.
    pub would_block: f64,
    /// A segment that arrives finds the connection reset, at both ends.
    pub reset: f64,
    /// A peer falls silent for good when it should have received a segment: it acknowledges nothing, and sends nothing.
    pub vanish: f64,
    /// An attempt to connect is refused.
    pub refuse: f64,
    /// An attempt to connect is lost, and repeated after a second.
    pub slow_connect: f64,
    /// Accepting fails for want of descriptors.
    pub accept: f64,
    /// A wake-up from another loop comes late.
    pub late_wake: f64,
    /// A wake-up comes twice.
    pub double_wake: f64,
    /// A loop is interrupted while it posts to another, and others run meanwhile.
    pub interleave: f64,
    /// A loop that could run does not, for a while.
    pub stall: f64,
    /// A step of a tick takes long: the callbacks of one kind, for example. Not one of [`any`](Self::any), for it slows all of a
    /// run down: what is done in a second without it may take a minute.
    pub slow_tick: f64,
    /// The clock jumps ahead while all sleep, as when a machine was suspended.
    pub jump: f64,
    /// The longest of the times that the faults above last.
    pub delay_max: Duration,
    /// The farthest that the clock jumps.
    pub jump_max: Duration,
}

impl Faults {
    /// Some of each, more or less, as it falls: each run its own mixture, some of them calm.
    pub fn any(random: &mut Random) -> Self {
        let mut some = |most: f64| -> f64 {
            let strength = [0.0, 0.1, 1.0][random.below(3)];
            most * strength
        };
        Self {
            short_read: some(0.5),
            short_write: some(0.5),
            would_block: some(0.3),
            reset: some(0.01),
            vanish: some(0.003),
            refuse: some(0.1),
            slow_connect: some(0.1),
            accept: some(0.3),
            late_wake: some(0.5),
            double_wake: some(0.2),
            interleave: some(0.5),
            stall: some(0.1),
            slow_tick: 0.0,
            jump: some(0.002),
            delay_max: Duration::from_millis([1, 20, 300][random.below(3)]),
            jump_max: Duration::from_secs(20),
        }
    }
}
