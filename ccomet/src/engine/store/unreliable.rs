//! A store for tests: it keeps changes late, opens channels late, has little in memory, refuses
//! changes and reads, becomes unreachable and returns, and loses messages.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{ChannelPlace, KeptChannel, KeptKey, KeptSummary, NameRange, NotKept, Opened, Outcome, Part, PartRange};
use super::{Store, StoreChange, Submitted, Unreadable, digest};
use crate::core::message::{ChannelName, Message};
use crate::core::position::{Epoch, Spot};
use crate::core::time::{LoopTime, millis};
use crate::core::window::{HistoryLimits, MessageLog};
use crate::engine::{Tick, Window};

/// The maximum number of keys that it keeps of a channel.
const KEYS_MAX: usize = 1_000;

/// The time after which it drops old messages of unloaded channels again.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// The faults of a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreFaults {
    /// The number of messages of a channel that are in memory.
    pub window_max: usize,
    /// The maximum time until a change is kept, or a part is read.
    pub delay_max: Duration,
    /// The number in a thousand of changes, and of attempts to open channels or to read names, that
    /// are refused.
    pub refusals: u32,
    /// The number of changes in a thousand at which the store becomes unreachable.
    pub cuts: u32,
    /// The maximum time for which it is unreachable.
    pub cut_max: Duration,
    /// The percentage of channels that have lost messages when the store returns, and have other
    /// numbers.
    pub restarts: u32,
    /// How long an idle channel stays in memory.
    pub idle_max: Duration,
}

/// A store that behaves like an unreliable store on another machine.
#[derive(Debug)]
pub(crate) struct UnreliableStore {
    faults: StoreFaults,
    channels: HashMap<ChannelName, Kept>,
    /// The work in progress, by the time at which it is done, and in the order of its arrival.
    jobs: BTreeMap<(LoopTime, u64), Job>,
    last_job: u64,
    random: u64,
    /// The time until which the store is unreachable.
    cut_until: Option<LoopTime>,
    outcomes: VecDeque<Outcome>,
    swept: LoopTime,
}

/// A channel.
#[derive(Debug)]
struct Kept {
    epoch: Epoch,
    log: MessageLog<Arc<Message>>,
    keys: VecDeque<KeptKey>,
    /// The limits of the last trim.
    limits: Option<HistoryLimits>,
    /// Set if the shard has unloaded it.
    is_unloaded: bool,
}

impl Kept {
    fn new(epoch: Epoch, next: u64) -> Self {
        let (log, keys) = (MessageLog::starting_at(next), VecDeque::new());
        Self { epoch, log, keys, limits: None, is_unloaded: false }
    }

    fn push(&mut self, message: Arc<Message>) {
        let (digest, time) = (digest(&message), message.time());
        let key: Option<Box<str>> = message.key().map(Into::into);
        let next = self.log.push(message) + 1;
        self.keys.extend(key.map(|key| KeptKey { key, digest, next, time }));
        if self.keys.len() > KEYS_MAX {
            self.keys.pop_front();
        }
    }

    /// Returns the newest messages that may be in memory.
    fn window(&self, window_max: usize) -> Window {
        let (epoch, kept_from) = (self.epoch, self.log.first());
        let first = self.log.next().saturating_sub(window_max as u64).max(kept_from);
        let entries = self.log.since(first).map(|(_, message)| message.clone()).collect();
        Window { epoch, kept_from, first, entries }
    }
}

#[derive(Debug)]
enum Job {
    Open { channel: ChannelName },
    Names { read: u32, range: NameRange },
    StoreChange { channel: ChannelName, epoch: Epoch, next: u64, change: OwnedChange },
    Read { read: u32, channel: ChannelName, epoch: Epoch, range: PartRange },
}

#[derive(Debug)]
enum OwnedChange {
    Append(Vec<Arc<Message>>),
    Clear,
    Remove,
}

impl UnreliableStore {
    pub(crate) fn new(faults: StoreFaults) -> Self {
        Self {
            faults,
            channels: HashMap::new(),
            jobs: BTreeMap::new(),
            last_job: 0,
            random: 1,
            cut_until: None,
            outcomes: VecDeque::new(),
            swept: LoopTime::default(),
        }
    }

    /// Returns a random number below `bound`.
    fn random(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn begin(&mut self, now: Tick, job: Job) {
        let delay = self.random(millis(self.faults.delay_max) + 1);
        self.last_job += 1;
        self.jobs.insert((now.loop_time.plus(Duration::from_millis(delay)), self.last_job), job);
    }

    fn make(&mut self, channel: &ChannelName, epoch: Epoch, next: u64, change: OwnedChange) {
        let entry = self.channels.entry(channel.clone());
        let kept = entry.or_insert_with(|| Kept::new(epoch, next));
        if kept.epoch != epoch {
            *kept = Kept::new(epoch, next);
        }
        match change {
            OwnedChange::Append(messages) => {
                for message in messages {
                    kept.push(message);
                }
            }
            OwnedChange::Clear => kept.log.drop_before(kept.log.next(), drop),
            OwnedChange::Remove => {
                self.channels.remove(channel);
            }
        }
    }

    fn finish(&mut self, job: Job, now: Tick, is_kept: bool) {
        match job {
            Job::StoreChange { channel, epoch, next, change } => {
                if is_kept {
                    self.make(&channel, epoch, next, change);
                }
                self.outcomes.push_back(Outcome::Changed {
                    channel,
                    kept: if is_kept { Ok(()) } else { Err(NotKept::Unavailable) },
                });
            }
            Job::Read { read, channel, epoch, range } => {
                let part = if self.is_refused() { Err(Unreadable) } else { Ok(self.part(&channel, epoch, range, now)) };
                self.outcomes.push_back(Outcome::Page { read, part });
            }
            Job::Open { channel } => {
                let kept = if self.is_refused() { Err(Unreadable) } else { Ok(self.kept(&channel, now)) };
                self.outcomes.push_back(Outcome::Opened { channel, kept });
            }
            Job::Names { read, range } => {
                let (names, has_more) = self.listed(&range, now);
                let names = if self.is_refused() { Err(Unreadable) } else { Ok(names) };
                self.outcomes.push_back(Outcome::Names { read, names, has_more });
            }
        }
    }

    /// Returns what is kept of a channel that the shard opens.
    fn kept(&mut self, channel: &ChannelName, now: Tick) -> Option<KeptChannel> {
        self.expire(channel, now);
        let kept = self.channels.get_mut(channel)?;
        kept.is_unloaded = false;
        Some(KeptChannel { window: kept.window(self.faults.window_max), keys: kept.keys.iter().cloned().collect() })
    }

    /// Drops messages of an unloaded channel that exceed its limits.
    fn expire(&mut self, channel: &ChannelName, now: Tick) {
        let Some(kept) = self.channels.get_mut(channel).filter(|kept| kept.is_unloaded) else { return };
        if let Some(limits) = &kept.limits {
            kept.log.trim(limits, now.time, drop);
        }
        if kept.log.is_empty() {
            self.channels.remove(channel);
        }
    }

    fn listed(&mut self, range: &NameRange, now: Tick) -> (Vec<KeptSummary>, bool) {
        let is_meant = |name: &&ChannelName| name.as_str().starts_with(&*range.prefix) && name.as_str() > &*range.after;
        let mut names: Vec<ChannelName> = self.channels.keys().filter(is_meant).cloned().collect();
        names.sort_unstable();
        for name in &names {
            self.expire(name, now);
        }
        let summary = |channel: ChannelName| {
            let kept = self.channels.get(&channel)?;
            let spot = Spot { epoch: kept.epoch, next: kept.log.next() };
            Some(KeptSummary { channel, kept_from: kept.log.first(), bytes: kept.log.bytes() as u64, spot })
        };
        let mut names: Vec<KeptSummary> = names.into_iter().filter_map(summary).collect();
        let has_more = names.len() > range.limit;
        names.truncate(range.limit);
        (names, has_more)
    }

    fn is_refused(&mut self) -> bool {
        self.random(1_000) < u64::from(self.faults.refusals)
    }

    fn part(&self, channel: &ChannelName, epoch: Epoch, range: PartRange, now: Tick) -> Part {
        let PartRange { begin, is_backward, limit, bytes_max } = range;
        let Some(Kept { log, .. }) = self.channels.get(channel).filter(|kept| kept.epoch == epoch) else {
            return Part::empty_at(begin);
        };
        let all: Vec<(u64, &Arc<Message>)> = if is_backward {
            log.back().filter(|(number, _)| *number < begin).collect()
        } else {
            log.since(begin).collect()
        };
        let (mut entries, mut end, mut bytes, mut has_more) = (Vec::new(), begin, 0, false);
        for (number, message) in all.into_iter().filter(|(_, message)| !message.is_expired(now.time)) {
            bytes += message.payload.len();
            if entries.len() == limit || bytes > bytes_max && !entries.is_empty() {
                has_more = true;
                break;
            }
            end = if is_backward { number } else { number + 1 };
            entries.push((number, message.clone()));
        }
        if !has_more && !is_backward {
            end = log.next();
        }
        Part { entries, end, has_more, kept_from: log.first(), readable_from: 0 }
    }

    /// Makes the store reachable again. Each change that was in progress is kept or lost; some
    /// channels have lost messages.
    fn reconnect(&mut self, now: Tick) {
        self.cut_until = None;
        for job in std::mem::take(&mut self.jobs).into_values() {
            let is_kept = self.random(2) == 0;
            self.finish(job, now, is_kept);
        }
        let mut names: Vec<ChannelName> = self.channels.keys().cloned().collect();
        names.sort_unstable();
        for channel in names {
            if self.random(100) >= u64::from(self.faults.restarts) {
                continue;
            }
            let (lost, first) = (self.random(4) as usize, self.random(5));
            let window_max = self.faults.window_max;
            let Some(kept) = self.channels.get_mut(&channel) else { continue };
            let old = std::mem::replace(&mut kept.log, MessageLog::starting_at(first));
            let rest = old.len().saturating_sub(lost);
            kept.keys.clear();
            for (_, message) in old.since(0).take(rest) {
                kept.push(message.clone());
            }
            kept.epoch = Epoch::new(now.time, now.random, kept.epoch);
            let window = kept.window(window_max);
            self.outcomes.push_back(Outcome::Restarted { channel, window });
        }
        self.outcomes.push_back(Outcome::Back);
    }
}

impl Store for UnreliableStore {
    fn window_max(&self) -> Option<usize> {
        Some(self.faults.window_max)
    }

    fn bytes(&self, channel: &ChannelName) -> Option<u64> {
        self.channels.get(channel).map(|kept| kept.log.bytes() as u64)
    }

    fn open(&mut self, now: Tick, channel: &ChannelName, _: bool) -> Opened {
        self.random ^= now.random;
        if self.cut_until.is_none() {
            if self.is_refused() {
                return Opened::Refused;
            }
            if self.random(2) == 0 {
                return self.kept(channel, now).map_or(Opened::Absent, Opened::Kept);
            }
        }
        self.begin(now, Job::Open { channel: channel.clone() });
        Opened::Later
    }

    fn unload(&mut self, channel: &ChannelName) {
        if let Some(kept) = self.channels.get_mut(channel) {
            kept.is_unloaded = true;
        }
    }

    fn names(&mut self, now: Tick, read: u32, range: NameRange) {
        self.begin(now, Job::Names { read, range });
    }

    fn submit(&mut self, now: Tick, place: ChannelPlace<'_>, change: StoreChange<'_>) -> Submitted {
        self.random ^= now.random;
        let change = match change {
            StoreChange::Append(messages) => OwnedChange::Append(messages.to_vec()),
            StoreChange::Clear => OwnedChange::Clear,
            StoreChange::Remove => OwnedChange::Remove,
        };
        if self.cut_until.is_none() && self.random(1_000) < u64::from(self.faults.cuts) {
            let cut = self.random(millis(self.faults.cut_max) + 1);
            self.cut_until = Some(now.loop_time.plus(Duration::from_millis(cut)));
            self.outcomes.push_back(Outcome::CutOff);
        }
        if self.cut_until.is_none() && self.is_refused() {
            return Submitted::Refused(NotKept::Unavailable);
        }
        let ChannelPlace { channel, epoch, next } = place;
        if self.cut_until.is_none() && self.random(4) == 0 {
            self.make(channel, epoch, next, change);
            return Submitted::Kept;
        }
        self.begin(now, Job::StoreChange { channel: channel.clone(), epoch, next, change });
        Submitted::Later
    }

    fn trim(&mut self, now: Tick, channel: &ChannelName, limits: &HistoryLimits) -> Option<u64> {
        let kept = self.channels.get_mut(channel);
        Some(kept.map_or(0, |kept| {
            kept.limits = Some(*limits);
            kept.log.trim(limits, now.time, drop);
            kept.log.first()
        }))
    }

    fn forget(&mut self, channel: &ChannelName) {
        self.channels.remove(channel);
    }

    fn read(&mut self, now: Tick, read: u32, place: ChannelPlace<'_>, range: PartRange) {
        let ChannelPlace { channel, epoch, .. } = place;
        self.begin(now, Job::Read { read, channel: channel.clone(), epoch, range });
    }

    fn flush(&mut self, now: Tick) {
        if now.loop_time.saturating_since(self.swept) >= SWEEP_PERIOD {
            self.swept = now.loop_time;
            let unloaded = self.channels.iter().filter(|(_, kept)| kept.is_unloaded);
            for name in unloaded.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                self.expire(&name, now);
            }
        }
        if self.channels.is_empty() {
            self.channels.shrink_to_fit();
        }
        if self.outcomes.is_empty() {
            self.outcomes.shrink_to_fit();
        }
    }

    fn next_outcome(&mut self, now: Tick) -> Option<Outcome> {
        if self.outcomes.is_empty() {
            match self.cut_until {
                Some(until) if until <= now.loop_time => self.reconnect(now),
                Some(_) => {}
                None => {
                    while self.outcomes.is_empty()
                        && let Some(entry) = self.jobs.first_entry()
                        && entry.key().0 <= now.loop_time
                    {
                        let job = entry.remove();
                        self.finish(job, now, true);
                    }
                }
            }
        }
        self.outcomes.pop_front()
    }

    #[cfg(test)]
    fn restart(&mut self, now: Tick) {
        for job in std::mem::take(&mut self.jobs).into_values() {
            if matches!(job, Job::StoreChange { .. }) {
                let is_kept = self.random(2) == 0;
                self.finish(job, now, is_kept);
            }
        }
        self.cut_until = None;
        self.outcomes.clear();
        // What the process had in memory is gone.
        self.channels.values_mut().for_each(|kept| kept.is_unloaded = true);
    }

    fn idle_max(&self) -> Option<Duration> {
        Some(self.faults.idle_max)
    }

    fn set_faults(&mut self, faults: StoreFaults) {
        self.faults = faults;
    }

    fn add_to(&self, all: &mut crate::core::holdings::Holdings, seen: &mut crate::core::holdings::Seen) {
        all.stored_channels += self.channels.capacity();
        for kept in self.channels.values() {
            all.stored_messages += kept.log.len();
            all.stored_keys += kept.keys.len();
            all.stored_bytes += kept.log.since(0).map(|(_, message)| seen.count(message)).sum::<usize>();
        }
    }

    fn due(&self) -> Option<LoopTime> {
        if !self.outcomes.is_empty() {
            return Some(LoopTime::default());
        }
        self.cut_until.or_else(|| self.jobs.first_key_value().map(|((due, _), _)| *due))
    }
}
