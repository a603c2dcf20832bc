//! What the console of the admin listener shows beside the metrics: the newest refusals, the slow
//! readers, and the settings. All loops share it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::core::message::ChannelName;
use crate::core::time::UnixMillis;

/// The number of refusals that are kept.
const REFUSALS_MAX: usize = 100;

/// The maximum number of slow readers of a loop that are reported.
pub(crate) const SLOW_MAX: usize = 100;

/// The time for which the loops look for slow readers after somebody has asked for them.
const INTEREST: Duration = Duration::from_secs(10);

/// The refusals of one kind on one loop within about a second.
#[derive(Debug)]
pub(crate) struct RecentRefusal {
    pub(crate) time: UnixMillis,
    pub(crate) code: &'static str,
    pub(crate) count: u64,
    /// The rest describes the first of them. Texts are empty if nothing is known.
    pub(crate) client: String,
    pub(crate) path: String,
    pub(crate) channel: String,
    pub(crate) reason: String,
}

/// A reader whose connection accepts no more output for now.
#[derive(Debug, Clone)]
pub(crate) struct SlowReader {
    pub(crate) client: Option<IpAddr>,
    pub(crate) transport: &'static str,
    /// One of the channels in which it is behind.
    pub(crate) channel: ChannelName,
    /// The number of messages that it has not been sent yet, over all its channels.
    pub(crate) behind: u64,
    /// The bytes that wait for the kernel.
    pub(crate) queued_bytes: usize,
    /// The time at which the loop first saw it like this.
    pub(crate) since: UnixMillis,
}

/// The slow readers of one loop.
#[derive(Debug, Default)]
pub(crate) struct LoopReaders {
    /// The time at which the loop looked for them.
    pub(crate) time: UnixMillis,
    /// Their number, which may be greater than that of those listed.
    pub(crate) count: usize,
    pub(crate) readers: Vec<SlowReader>,
}

#[derive(Debug)]
pub(crate) struct Console {
    refusals: Mutex<VecDeque<RecentRefusal>>,
    slow: Vec<Mutex<LoopReaders>>,
    /// The time at which somebody last asked for slow readers: a [`UnixMillis`], as a number.
    asked: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Console {
    /// Creates the console of a server with `loops` loops.
    pub(crate) fn new(loops: usize) -> Self {
        let slow = (0..loops).map(|_| Mutex::default()).collect();
        Self { refusals: Mutex::default(), slow, asked: AtomicU64::new(0) }
    }

    pub(crate) fn note_refusals(&self, refusals: impl Iterator<Item = RecentRefusal>) {
        let mut kept = lock(&self.refusals);
        for refusal in refusals {
            if kept.len() == REFUSALS_MAX {
                kept.pop_back();
            }
            kept.push_front(refusal);
        }
    }

    /// Returns the newest refusals as JSON, the newest first.
    pub(crate) fn refusals(&self) -> Value {
        let kept = lock(&self.refusals);
        let refusals = kept.iter().map(|refusal| {
            let RecentRefusal { time, code, count, client, path, channel, reason } = refusal;
            json!({
                "time": time.as_millis(), "code": code, "count": count,
                "client": client, "path": path, "channel": channel, "reason": reason,
            })
        });
        json!({ "refusals": refusals.collect::<Vec<_>>() })
    }

    /// Returns whether the loops are to look for slow readers.
    pub(crate) fn is_interested(&self, now: UnixMillis) -> bool {
        let asked = UnixMillis::from_millis(self.asked.load(Ordering::Relaxed));
        now.checked_since(asked).is_some_and(|since| since <= INTEREST)
    }

    /// Replaces the slow readers of a loop.
    pub(crate) fn set_slow(&self, index: usize, readers: LoopReaders) {
        *lock(&self.slow[index]) = readers;
    }

    /// Returns the slow readers as JSON, those farthest behind first. The list is complete if each
    /// loop has looked for them recently: the first question makes them look.
    pub(crate) fn slow_readers(&self, now: UnixMillis) -> Value {
        self.asked.store(now.as_millis(), Ordering::Relaxed);
        let (mut is_complete, mut count, mut readers) = (true, 0, Vec::new());
        for held in &self.slow {
            let held = lock(held);
            let is_recent = now.checked_since(held.time).is_some_and(|since| since <= INTEREST);
            is_complete &= is_recent;
            count += if is_recent { held.count } else { 0 };
            readers.extend(held.readers.iter().filter(|_| is_recent).cloned());
        }
        readers.sort_by_key(|reader| std::cmp::Reverse(reader.behind));
        let readers = readers.iter().map(|reader| {
            let SlowReader { client, transport, channel, behind, queued_bytes, since } = reader;
            json!({
                "client": client.map_or_else(String::new, |client| client.to_string()),
                "transport": transport, "channel": channel.as_str(), "behind": behind,
                "queued_bytes": queued_bytes, "since": since.as_millis(),
            })
        });
        json!({ "complete": is_complete, "count": count, "readers": readers.collect::<Vec<_>>() })
    }
}
