//! The reads that a loop has begun: pages of channels, and channels to open. Only a few are in
//! progress at a time, so that what they return takes a small part of a tick and little memory. The
//! others wait for their turn.

use std::collections::VecDeque;

use super::DiskStore;
use super::channel::Channel;
use super::reading::PageRequest;
use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::core::time::UnixMillis;
use crate::engine::store::{Outcome, Part, PartRange, Unreadable};

/// A read that waits for its turn.
#[derive(Debug)]
pub(super) enum Wanted {
    Page { read: u32, channel: ChannelName, epoch: Epoch, range: PartRange, now: UnixMillis },
    Open { channel: ChannelName, now: UnixMillis },
}

/// The reads of a loop.
#[derive(Debug, Default)]
pub(super) struct Reads {
    in_progress: usize,
    waiting: VecDeque<Wanted>,
}

impl Reads {
    pub(super) fn add(&mut self, wanted: Wanted) {
        self.waiting.push_back(wanted);
    }

    pub(super) fn end_one(&mut self) {
        self.in_progress -= 1;
    }

    fn next(&mut self, at_once: usize) -> Option<Wanted> {
        if self.in_progress >= at_once {
            return None;
        }
        let wanted = self.waiting.pop_front()?;
        self.in_progress += 1;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(wanted)
    }
}

impl Channel {
    /// Returns the request for a page, with places that the index may not have, at most
    /// `places_max` of them.
    fn page(&self, read: u32, range: PartRange, now: UnixMillis, places_max: u64) -> PageRequest {
        let (tail_begin, kept) = (self.tail_begin(), self.row.first..self.row.next);
        let mut reach = kept.clone();
        let tail = if range.is_backward {
            let end = range.begin.clamp(tail_begin, kept.end);
            let begin = end.saturating_sub(places_max).max(tail_begin);
            if begin > tail_begin {
                reach.start = reach.start.max(begin);
            }
            begin..end
        } else {
            let begin = range.begin.clamp(tail_begin, kept.end);
            reach.end = kept.end.min(begin + places_max);
            begin..reach.end
        };
        let tail_begin = tail.start;
        PageRequest {
            read,
            id: self.id,
            kept,
            reach,
            tail_begin,
            tail: self.places(tail),
            range,
            is_window: false,
            now,
        }
    }
}

impl DiskStore {
    /// Begins reads, as many as may be in progress.
    pub(super) fn begin_reads(&mut self) {
        let (at_once, places_max) = (self.shared.settings.reads_at_once, self.shared.settings.places_at_once);
        while let Some(wanted) = self.reads.next(at_once) {
            let (shared, to) = (self.shared.clone(), self.index);
            match wanted {
                Wanted::Page { read, channel, epoch, range, now } => {
                    let channel = self.channels.get(&channel).filter(|channel| channel.row.epoch == epoch);
                    let part = match channel.map(|channel| channel.page(read, range, now, places_max)) {
                        Some(request) => {
                            if shared.clone().crews.readers.spawn(move || shared.read_page(to, &request)).is_ok() {
                                continue;
                            }
                            Err(Unreadable)
                        }
                        None => Ok(Part::empty_at(range.begin)),
                    };
                    self.outcomes.push_back(Outcome::Page { read, part });
                }
                Wanted::Open { channel, now } => {
                    let known = self.channels.get(&channel).map(|channel| channel.known());
                    let name = channel.clone();
                    if shared.clone().crews.readers.spawn(move || shared.open_channel(to, name, known, now)).is_ok() {
                        continue;
                    }
                    self.opening.remove(&channel);
                    self.outcomes.push_back(Outcome::Opened { channel, kept: Err(Unreadable) });
                }
            }
            self.reads.end_one();
        }
    }
}
