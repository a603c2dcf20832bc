//! Token buckets that limit how many bytes per second a connection, or a group of connections, may
//! read and write.

use std::time::Duration;

use slab::Slab;

use crate::shrink::Shrink;

/// A token bucket: an average rate in bytes per second, and a burst after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second; 0 counts as 1.
    pub bytes_per_second: u64,
    /// Bytes that may pass at once after a pause, and at the beginning; 0 counts as 1.
    pub burst_bytes: u64,
}

impl Rate {
    /// Returns a rate of `bytes` per second, with a burst of a tenth of that.
    pub fn per_second(bytes: u64) -> Self {
        Self { bytes_per_second: bytes, burst_bytes: (bytes / 10).max(1) }
    }
}

/// Limits for reading from, and writing to, a connection or a group.
///
/// ```
/// use sealed::{ConnectionId, Context, Rate, Rates, Service};
///
/// fn slow_down<S: Service>(cx: &mut Context<S>, id: ConnectionId) {
///     let write = Rate { bytes_per_second: 1_000_000, burst_bytes: 64 * 1024 };
///     cx.set_rates(id, Rates { read: Some(Rate::per_second(100_000)), write: Some(write) });
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// The limit for bytes read; `None` means no limit.
    pub read: Option<Rate>,
    /// The limit for bytes written; `None` means no limit.
    pub write: Option<Rate>,
}

/// Identifies a group of connections of one loop that share their rates. The id of a group that has
/// been removed finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId {
    slot: u32,
    serial: u32,
}

/// A connection that waits for a bucket continues once the bucket holds one second's bytes divided
/// by this number, rather than after every single byte.
const SHARE_OF_A_SECOND: u64 = 50;

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// In billionths of a byte, so that fractions are not lost between two calls.
    nano_bytes: u128,
    filled: Duration,
}

const NANO: u128 = 1_000_000_000;

impl Bucket {
    fn new(rate: Rate, now: Duration) -> Self {
        let rate = Rate { bytes_per_second: rate.bytes_per_second.max(1), burst_bytes: rate.burst_bytes.max(1) };
        Self { rate, nano_bytes: u128::from(rate.burst_bytes) * NANO, filled: now }
    }

    fn available(&mut self, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.filled).as_nanos();
        self.filled = now;
        let full = u128::from(self.rate.burst_bytes) * NANO;
        let full = if fault!("pause-saves-too-much") { full * 4 } else { full };
        let filled = passed.saturating_mul(u128::from(self.rate.bytes_per_second));
        let filled = if fault!("parts-of-bytes-lost") { filled / NANO * NANO } else { filled };
        self.nano_bytes = self.nano_bytes.saturating_add(filled).min(full);
        (self.nano_bytes / NANO) as u64
    }

    fn take(&mut self, bytes: u64) {
        self.nano_bytes = self.nano_bytes.saturating_sub(u128::from(bytes) * NANO);
    }

    /// Returns the number of bytes worth waiting for.
    fn helping(&self) -> u64 {
        (self.rate.bytes_per_second / SHARE_OF_A_SECOND).clamp(1, self.rate.burst_bytes)
    }

    /// Returns the time until the bucket holds enough bytes to be worth checking again.
    fn wait(&self) -> Duration {
        let missing = (u128::from(self.helping()) * NANO).saturating_sub(self.nano_bytes);
        let nanos = missing.div_ceil(u128::from(self.rate.bytes_per_second));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// The two buckets of a connection or a group.
#[derive(Debug)]
struct Buckets {
    read: Option<Bucket>,
    write: Option<Bucket>,
}

impl Buckets {
    fn new(rates: Rates, now: Duration) -> Self {
        let bucket = |rate| Bucket::new(rate, now);
        Self { read: rates.read.map(bucket), write: rates.write.map(bucket) }
    }

    fn of(&mut self, way: Way) -> Option<&mut Bucket> {
        match way {
            Way::In => self.read.as_mut(),
            Way::Out => self.write.as_mut(),
        }
    }
}

/// The rate limits of a connection.
#[derive(Debug)]
pub(crate) struct Pace {
    own: Buckets,
    pub(crate) group: Option<GroupId>,
    /// Whether a timer is set for the time when bytes may be read, or written, again.
    waits: [bool; 2],
}

impl Pace {
    pub(crate) fn new(now: Duration) -> Self {
        Self { own: Buckets::new(Rates::default(), now), group: None, waits: [false; 2] }
    }

    pub(crate) fn set_rates(&mut self, rates: Rates, now: Duration) {
        self.own = Buckets::new(rates, now);
    }

    /// Returns whether nothing limits the connection any more, and no timer is set for it.
    pub(crate) fn is_free(&self) -> bool {
        self.group.is_none() && self.own.read.is_none() && self.own.write.is_none() && self.waits == [false; 2]
    }

    /// Returns whether a timer is set.
    pub(crate) fn waits(&self, way: Way) -> bool {
        self.waits[way as usize]
    }

    /// Sets whether a timer is set, and returns whether one was.
    pub(crate) fn set_waits(&mut self, way: Way, waits: bool) -> bool {
        std::mem::replace(&mut self.waits[way as usize], waits)
    }
}

/// The buckets of a group, and the number of connections that share them.
#[derive(Debug)]
pub(crate) struct Group {
    serial: u32,
    shared: Buckets,
    pub(crate) members: usize,
}

/// The groups of one loop.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    held: Slab<Group>,
    serial: u32,
    shrink: Shrink,
}

impl Groups {
    pub(crate) fn add(&mut self, rates: Rates, now: Duration) -> GroupId {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let slot = self.held.insert(Group { serial, shared: Buckets::new(rates, now), members: 0 }) as u32;
        GroupId { slot, serial }
    }

    pub(crate) fn remove(&mut self, group: GroupId) -> bool {
        if self.get(group).is_none() {
            return false;
        }
        self.held.remove(group.slot as usize);
        if self.shrink.is_due(1, self.held.len(), self.held.capacity()) {
            self.held.shrink_to_fit();
        }
        true
    }

    pub(crate) fn set_rates(&mut self, group: GroupId, rates: Rates, now: Duration) {
        if let Some(group) = self.get(group) {
            group.shared = Buckets::new(rates, now);
        }
    }

    pub(crate) fn get(&mut self, group: GroupId) -> Option<&mut Group> {
        self.held.get_mut(group.slot as usize).filter(|held| held.serial == group.serial || fault!("old-group-found"))
    }

    /// Returns how many bytes may pass now, and, if none may, after which time to ask again.
    pub(crate) fn allowance(&mut self, pace: &mut Pace, way: Way, now: Duration) -> (usize, Duration) {
        let mut allowed = u64::MAX;
        let mut wait = Duration::ZERO;
        if let Some(own) = pace.own.of(way) {
            allowed = own.available(now);
            wait = own.wait();
        }
        if let Some(group) = pace.group.and_then(|group| self.get(group))
            && let Some(bucket) = group.shared.of(way)
        {
            // Each connection takes part of its share and then queues behind the others, so that
            // the first connection does not take everything.
            let available = bucket.available(now);
            let shared = bucket.helping().max(available / 2);
            let share = shared.div_ceil(group.members.max(1) as u64).min(available);
            let share = if fault!("first-takes-all") { shared.max(available) } else { share };
            if share < allowed {
                allowed = share;
                wait = wait.max(bucket.wait());
            }
        }
        (usize::try_from(allowed).unwrap_or(usize::MAX), wait)
    }

    /// Subtracts `bytes` that have passed.
    pub(crate) fn take(&mut self, pace: &mut Pace, way: Way, bytes: usize) {
        if let Some(own) = pace.own.of(way) {
            own.take(bytes as u64);
        }
        if let Some(bucket) = pace.group.and_then(|group| self.get(group)).and_then(|group| group.shared.of(way)) {
            bucket.take(bytes as u64);
        }
    }
}
