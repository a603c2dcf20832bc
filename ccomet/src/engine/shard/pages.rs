//! Parts of a channel's history: from its window, or from the store if they are not in memory. Only
//! this module determines where a part begins, and whether messages are missing there.

use std::sync::Arc;

use sealed::fault;

use super::elsewhere::Behind;
use super::lookup::ListInProgress;
use super::publishing::Broadcasting;
use super::{Asker, ChannelState, Shard};
use crate::core::message::{ChannelName, Message};
use crate::core::position::{Epoch, Missed, Spot};
use crate::core::time::UnixMillis;
use crate::engine::store::{KeptSummary, NameRange, Part, PartRange, Unreadable};
use crate::engine::{ChannelEvent, Edge, Page, Range, Refusal, Reply, Tick};

/// The limits of one page that a loop gets of messages that are not in memory. A page ends before a
/// multiple of the number of messages, so that readers at different places come together.
const FETCH_MESSAGES_MAX: u64 = 128;
const FETCH_BYTES_MAX: usize = 256 * 1024;

/// The number of reads for loops that are made again in a sweep.
const FETCHES_PER_SWEEP: usize = 1_000;

/// The number of attempts to read a page for a loop, one in each sweep. After the last one, the
/// readers are notified of a gap.
const FETCH_ATTEMPTS_MAX: u32 = 60;

/// A part of a channel's history that the store reads, or names of channels.
#[derive(Debug)]
pub(super) enum Reading {
    Page {
        asker: Asker,
        channel: ChannelName,
        start: PageStart,
    },
    Fetch(Fetch),
    /// Names for a list.
    List(Box<ListInProgress>),
    /// Names for a broadcast.
    Broadcast(Box<Broadcasting>),
}

/// A read for a loop that has ordered messages from number `from` on.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) to: usize,
    pub(super) channel: ChannelName,
    pub(super) epoch: Epoch,
    pub(super) from: u64,
    /// The number of attempts that have failed.
    pub(super) failures: u32,
}

/// The beginning of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageStart {
    epoch: Epoch,
    begin: u64,
    is_backward: bool,
    gap: Option<Missed>,
    /// The number of the next message at the time of the request.
    next: u64,
}

impl PageStart {
    fn of(channel: &ChannelState, range: Range) -> Self {
        let (first, next, epoch) = (channel.kept_from(), channel.log.next(), channel.epoch);
        let (begin, gap) = match range.edge {
            Edge::Begin => (first, None),
            Edge::End => (next, None),
            Edge::At(spot) if spot.epoch == epoch && spot.next <= next => {
                let missed = first.saturating_sub(spot.next);
                (spot.next.max(first), (missed > 0).then_some(Missed(Some(missed))))
            }
            // The spot is of another epoch: all messages kept are newer.
            Edge::At(_) => (if range.is_backward { next } else { first }, Some(Missed(None))),
        };
        Self { epoch, begin, is_backward: range.is_backward, gap, next }
    }

    /// Returns the page with these messages. If there are no more, the next page begins where the
    /// history ends.
    fn page(self, part: Part) -> Page {
        let spot = |next| Spot { epoch: self.epoch, next };
        let end = match (part.has_more, self.is_backward) {
            (true, _) => part.end,
            (false, true) => part.kept_from.min(self.begin),
            (false, false) => self.next,
        };
        let Part { entries, has_more, .. } = part;
        Page { entries, gap: self.gap, begin: spot(self.begin), end: spot(end), more: has_more }
    }
}

impl ChannelState {
    /// Returns a part of the window.
    fn part(&self, range: PartRange, now: UnixMillis) -> Part {
        let PartRange { begin, is_backward, limit, bytes_max } = range;
        let numbered = |(number, entry): (u64, &Arc<Message>)| (number, entry.clone());
        let living = |(_, message): &(u64, Arc<Message>)| !message.is_expired(now);
        let (mut entries, mut end, mut bytes) = (Vec::new(), begin, 0);
        let mut take = |(number, message): (u64, Arc<Message>)| {
            bytes += message.payload.len();
            if entries.len() == limit || (bytes > bytes_max && !entries.is_empty()) {
                return false;
            }
            end = if is_backward { number } else { number + 1 };
            entries.push((number, message));
            true
        };
        let is_whole = if is_backward {
            let begin = begin + u64::from(fault!("page-begin-repeated"));
            let older = self.log.back().skip_while(|(number, _)| *number >= begin);
            older.map(numbered).filter(living).all(&mut take)
        } else {
            self.log.since(begin).map(numbered).filter(living).all(&mut take)
        };
        if is_whole && !is_backward {
            end = self.log.next();
        }
        Part { entries, end, has_more: !is_whole, kept_from: self.kept_from(), readable_from: 0 }
    }

    /// Returns whether all messages that are kept in that direction are in memory.
    fn has_in_memory(&self, begin: u64, is_backward: bool) -> bool {
        self.kept_from() == self.log.first() || !is_backward && begin >= self.log.first()
    }
}

impl Shard {
    pub(super) fn read(&mut self, now: Tick, asker: Asker, name: &ChannelName, range: Range) {
        let Some(key) = self.key_of(name) else { return self.reply(asker, Ok(Reply::Page(None))) };
        let channel = &self.channels[key];
        let here = Spot { epoch: channel.epoch, next: channel.log.next() };
        let is_ahead = matches!(range.edge, Edge::At(spot) if spot > here);
        if !is_ahead || !self.wait_for_others(key, Behind::Read(asker, range)) {
            self.read_now(now, asker, key, range);
        }
    }

    /// Reads a channel as this shard knows it.
    pub(super) fn read_now(&mut self, now: Tick, asker: Asker, key: usize, range: Range) {
        self.visit(key, now);
        let name = self.channels[key].name.clone();
        let channel = &self.channels[key];
        let start = PageStart::of(channel, range);
        let Range { is_backward, limit, bytes_max, .. } = range;
        let range = PartRange { begin: start.begin, is_backward, limit, bytes_max };
        if channel.has_in_memory(start.begin, is_backward) {
            let page = start.page(channel.part(range, now.time));
            return self.reply(asker, Ok(Reply::Page(Some(page))));
        }
        self.begin_read(now, key, Reading::Page { asker, channel: name, start }, range);
    }

    /// Prepares to read a channel, which stays in memory for a while.
    fn visit(&mut self, key: usize, now: Tick) {
        self.trim(key, now);
        if let Some(stored) = &mut self.channels[key].stored {
            stored.visited = now.loop_time;
        }
    }

    /// Sends a loop messages from a number on.
    pub(super) fn fetch(&mut self, now: Tick, fetch: Fetch) {
        let Fetch { ref channel, epoch, from, .. } = fetch;
        // If the numbers have begun anew, the loop has been notified.
        let Some(key) = self.key_of(channel).filter(|key| self.channels[*key].epoch == epoch) else { return };
        self.visit(key, now);
        let channel = &self.channels[key];
        let begin = from.max(channel.kept_from());
        let limit = (FETCH_MESSAGES_MAX - begin % FETCH_MESSAGES_MAX) as usize;
        let range = PartRange { begin, is_backward: false, limit, bytes_max: FETCH_BYTES_MAX };
        if channel.has_in_memory(begin, false) {
            let part = channel.part(range, now.time);
            return self.send_part(fetch, part);
        }
        self.begin_read(now, key, Reading::Fetch(fetch), range);
    }

    /// Makes another attempt at some of the reads for loops that have failed. The readers wait
    /// meanwhile.
    pub(super) fn fetch_again(&mut self, now: Tick) {
        let count = self.unread.len().min(FETCHES_PER_SWEEP);
        for fetch in self.unread.drain(..count).collect::<Vec<_>>() {
            self.fetch(now, fetch);
        }
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
    }

    /// Forgets the reads for a loop that follows a channel no more.
    pub(super) fn forget_unread(&mut self, to: usize, channel: &ChannelName) {
        self.unread.retain(|fetch| fetch.to != to || fetch.channel != *channel);
    }

    fn begin_read(&mut self, now: Tick, key: usize, reading: Reading, range: PartRange) {
        if let Some(stored) = &mut self.channels[key].stored {
            stored.reads += 1;
        }
        let read = self.reads.insert(reading) as u32;
        self.store.read(now, read, self.channels[key].place(), range);
    }

    /// Notes that the store has read a part of a channel, unless its numbers have begun anew.
    fn end_read(&mut self, name: &ChannelName, epoch: Epoch) {
        let key = self.key_of(name).filter(|key| self.channels[*key].epoch == epoch);
        if let Some(stored) = key.and_then(|key| self.channels[key].stored.as_mut()) {
            stored.reads = stored.reads.saturating_sub(1);
        }
    }

    fn send_part(&mut self, fetch: Fetch, part: Part) {
        let Fetch { to, channel, epoch, from, .. } = fetch;
        let Part { entries, end, kept_from, readable_from, .. } = part;
        let readable_from = readable_from.max(from);
        self.notify(to, channel, ChannelEvent::Page { epoch, from, readable_from, end, kept_from, entries });
    }

    /// Notes that a read for a loop has failed. The disk, or the index, may work again soon.
    fn fetch_failed(&mut self, mut fetch: Fetch) {
        let Some(key) = self.key_of(&fetch.channel) else { return };
        fetch.failures += 1;
        if fetch.failures < FETCH_ATTEMPTS_MAX && !fault!("unread-at-first-attempt-missed") {
            return self.unread.push(fetch);
        }
        // The readers are notified of a gap, and go on with what is in memory.
        let channel = &self.channels[key];
        let (end, kept_from) = (channel.log.first(), channel.kept_from());
        self.send_part(fetch, Part { entries: Vec::new(), end, has_more: false, kept_from, readable_from: end });
    }

    /// Completes a read with the part that the store has read.
    pub(super) fn has_read(&mut self, read: u32, part: Result<Part, Unreadable>) {
        match self.reads.try_remove(read as usize) {
            Some(Reading::Page { asker, channel, mut start }) => {
                self.end_read(&channel, start.epoch);
                let Ok(part) = part else { return self.reply(asker, Err(Refusal::Unavailable)) };
                // Messages may have been dropped since the request, or cannot be read.
                let missed = part.kept_from.max(part.readable_from).saturating_sub(start.begin);
                if missed > 0 && !start.is_backward {
                    let before = start.gap.map_or(Some(0), |Missed(missed)| missed);
                    start.gap = Some(Missed(before.map(|before| before + missed)));
                    start.begin += missed;
                }
                self.reply(asker, Ok(Reply::Page(Some(start.page(part)))));
            }
            Some(Reading::Fetch(fetch)) => {
                self.end_read(&fetch.channel, fetch.epoch);
                match part {
                    Ok(part) => self.send_part(fetch, part),
                    Err(Unreadable) => self.fetch_failed(fetch),
                }
            }
            Some(Reading::List(_) | Reading::Broadcast(_)) => debug_assert!(false, "a part is no list of names"),
            None => {}
        }
    }

    /// Asks the store for more names.
    pub(super) fn begin_names(&mut self, now: Tick, reading: Reading, range: NameRange) {
        let read = self.reads.insert(reading) as u32;
        self.store.names(now, read, range);
    }

    /// Continues a list or a broadcast with the names that the store has read.
    pub(super) fn has_listed(
        &mut self,
        now: Tick,
        read: u32,
        names: Result<Vec<KeptSummary>, Unreadable>,
        has_more: bool,
    ) {
        match self.reads.try_remove(read as usize) {
            Some(Reading::List(list)) => self.list_on(now, list, names, has_more),
            Some(Reading::Broadcast(broadcasting)) => self.broadcast_found(now, broadcasting, names, has_more),
            Some(Reading::Page { .. } | Reading::Fetch(_)) => debug_assert!(false, "names are no part"),
            None => {}
        }
    }

    /// Ends a tick: completes the changes that were submitted in it and are kept.
    pub(in crate::engine) fn keep_all(&mut self, now: Tick) {
        self.store.flush(now);
        self.settle(now);
    }

    /// Returns when the store will have an outcome, if that is known.
    pub(in crate::engine) fn store_due(&self) -> Option<crate::core::time::LoopTime> {
        self.store.due()
    }
}
