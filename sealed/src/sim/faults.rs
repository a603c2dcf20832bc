use std::time::Duration;

use super::Random;

/// The properties of a connection's link, in both directions.
///
/// ```
/// use std::time::Duration;
/// use sealed::sim::{Link, Simulation};
///
/// let sim = Simulation::new(1);
/// let listener = sim.listen("10.0.0.1:80".parse::<sealed::Address>()?)?;
/// let satellite = Link { latency_min: Duration::from_millis(600), latency_max: Duration::from_secs(1), ..Link::default() };
/// let mut peer = sim.connect_over(satellite, listener.address());
/// peer.send("hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The minimum time that a byte or a datagram travels.
    pub latency_min: Duration,
    /// The maximum time that a byte or a datagram travels. The time of each segment and datagram is
    /// drawn between the two; they stay in order.
    pub latency_max: Duration,
    /// Bytes per second; `None` means no limit.
    pub bandwidth: Option<u64>,
    /// Maximum number of bytes that a loop may have in transit to a peer that has not read them:
    /// the kernel buffers of both ends together. For datagrams, the size of each of the two: a loop
    /// cannot send when its own buffer is full, and a datagram that finds the receiver's full is
    /// lost.
    pub buffer_bytes: usize,
    /// Number of free bytes in these buffers, at least one, from which on the socket of a loop is
    /// reported as writable again. Linux notifies only once a third of the buffer is free, although
    /// it accepts bytes before.
    pub writable_room_bytes: usize,
    /// Maximum length of a datagram; sending a longer one is an error. Default 65,507, the limit of
    /// UDP over IPv4.
    pub datagram_bytes_max: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_micros(20),
            latency_max: Duration::from_micros(200),
            bandwidth: None,
            buffer_bytes: 256 * 1024,
            writable_room_bytes: 1,
            datagram_bytes_max: 65_507,
        }
    }
}

/// Random faults, each with a probability from 0 to 1. All of them can happen on a real network; a
/// correct program copes with all of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Faults {
    /// A read returns fewer bytes than are available, down to one; the rest arrives later.
    pub short_read: f64,
    /// A write takes fewer bytes than there is room for, down to one; there is room again later.
    pub short_write: f64,
    /// A read or a write would block, although a moment later it would not. So would receiving or
    /// sending a datagram.
    pub would_block: f64,
    /// A segment that arrives finds the connection reset, at both ends.
    pub reset: f64,
    /// A peer falls silent permanently instead of receiving a segment: it neither acknowledges nor
    /// sends anything.
    pub vanish: f64,
    /// An attempt to connect is refused.
    pub refuse: f64,
    /// An attempt to connect is lost, and repeated after a second.
    pub slow_connect: f64,
    /// Accepting fails for lack of file descriptors.
    pub accept: f64,
    /// A wake-up from another loop is late.
    pub late_wake: f64,
    /// A wake-up is delivered twice.
    pub double_wake: f64,
    /// A loop is interrupted while it posts to another loop, and other loops run meanwhile.
    pub interleave: f64,
    /// A loop that could run does not run for a while.
    pub stall: f64,
    /// A step of a tick takes long, such as all calls of one kind. [`any`](Self::any) leaves it
    /// out, because it slows a whole run down: work that takes a second without it may take a
    /// minute.
    pub slow_tick: f64,
    /// A piece of work takes long on simulated workers.
    pub slow_work: f64,
    /// The lookup of a name fails, as if no name server had answered.
    pub failed_lookup: f64,
    /// The clock jumps ahead while all loops sleep, as if the machine had been suspended.
    pub jump: f64,
    /// A UDP datagram is lost.
    pub lose: f64,
    /// A UDP datagram arrives twice.
    pub duplicate: f64,
    /// A UDP datagram is late, and later ones overtake it.
    pub reorder: f64,
    /// The readiness of a [source](super::SimSource) is reported late.
    pub late_ready: f64,
    /// A [source](super::SimSource) is reported as ready for all that the service is interested in,
    /// although it may be ready for nothing.
    pub spurious_ready: f64,
    /// The maximum duration of the faults above.
    pub delay_max: Duration,
    /// The maximum distance of a clock jump.
    pub jump_max: Duration,
}

impl Faults {
    /// Returns a random mixture of faults: each run gets its own, and some runs get few or none.
    pub fn any(random: &mut Random) -> Self {
        // From a stream of their own: the other faults of a seed stay what they were.
        let mut of_datagrams = Random::new(random.clone().bits());
        let mut chance = |most: f64| most * [0.0, 0.1, 1.0][of_datagrams.below(3)];
        let (lose, duplicate, reorder) = (chance(0.3), chance(0.2), chance(0.5));
        let mut of_sources = Random::new(of_datagrams.bits());
        let mut chance = |most: f64| most * [0.0, 0.1, 1.0][of_sources.below(3)];
        let (late_ready, spurious_ready) = (chance(0.5), chance(0.3));
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
            slow_work: some(0.3),
            failed_lookup: some(0.1),
            lose,
            duplicate,
            reorder,
            late_ready,
            spurious_ready,
            delay_max: Duration::from_millis([1, 20, 300][random.below(3)]),
            jump_max: Duration::from_secs(20),
        }
    }
}
