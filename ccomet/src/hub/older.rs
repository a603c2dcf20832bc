//! The messages before a channel's window: they are kept, but not in memory. A subscriber that
//! needs them waits until the engine has read them, a page at a time. The channel holds the page
//! beside its window.

use std::collections::VecDeque;
use std::sync::Arc;

use sealed::fault;

use super::channel::Channel;
use super::encoder::{Gap, Item, StreamEvent};
use super::subscriber::Flags;
use super::{FollowerKey, Hub, Sink};
use crate::core::message::{ChannelName, Message};
use crate::core::position::{Epoch, Missed};
use crate::core::tally::GapCause;
use crate::engine::{Order, Window};

/// The messages `from .. end`. Those before `readable_from` cannot be read; others that are missing
/// have expired.
#[derive(Debug, Default)]
pub(super) struct OlderPage {
    pub(super) from: u64,
    pub(super) readable_from: u64,
    pub(super) end: u64,
    pub(super) entries: Vec<(u64, Arc<Message>)>,
}

/// The number of readers that a tick resumes. Each gets at most a batch, so that very many readers
/// of one page do not hold up the others of the loop.
const RESUMED_PER_TICK: usize = 32;

/// A reader that waits for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Subscriber(u32),
    /// A reader inside the process.
    Follower(u32),
}

/// The messages before a channel's window, as far as they are needed.
#[derive(Debug, Default)]
pub(super) struct Older {
    page: OlderPage,
    /// Set from the order for a page until its arrival.
    is_fetching: bool,
    /// The readers that wait, and the number that each needs next. Some may have left since.
    waiting: VecDeque<(Waiter, u64)>,
    /// The readers that have waited for the page, and are to be resumed.
    resuming: VecDeque<Waiter>,
}

impl Older {
    /// Returns whether message `number` is in the page, or has expired.
    pub(super) fn covers(&self, number: u64) -> bool {
        (self.page.readable_from..self.page.end).contains(&number)
    }

    /// Returns the number after the messages that cannot be read, if message `number` is one of
    /// them.
    pub(super) fn unreadable_to(&self, number: u64) -> Option<u64> {
        (self.page.from..self.page.readable_from).contains(&number).then_some(self.page.readable_from)
    }

    pub(super) fn entry(&self, number: u64) -> Option<&Arc<Message>> {
        let entries = &self.page.entries;
        let index = entries.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&entries[index].1)
    }
}

impl Channel {
    /// Drops the page if no reader waits for another.
    pub(super) fn forget_older(&mut self) {
        let is_over = |older: &Older| !older.is_fetching && older.waiting.is_empty() && older.resuming.is_empty();
        if let Some(rare) = self.rare_if_any().filter(|rare| rare.older.as_ref().is_some_and(is_over)) {
            rare.older = None;
        }
        self.slim();
    }

    /// Returns the order for the page that is needed next, if no page is on its way or in use.
    fn next_fetch(&mut self) -> Option<Order> {
        let (channel, epoch) = (self.name.clone(), self.epoch()?);
        let older = self.rare_if_any()?.older.as_mut()?;
        let is_in_use = older.is_fetching || !older.resuming.is_empty();
        let (_, from) = older.waiting.front().filter(|_| !is_in_use)?;
        let order = Order::Fetch { channel, epoch, from: *from };
        older.is_fetching = true;
        Some(order)
    }
}

impl Hub {
    /// Returns whether a reader has to wait for message `next` of a channel, because that is not in
    /// memory. The reader resumes when it is.
    pub(super) fn fetch_for(&mut self, channel: u32, reader: Waiter, next: u64) -> bool {
        let now = self.now;
        let channel = &mut self.channels[channel as usize];
        if !channel.must_fetch(next, now) {
            return false;
        }
        let next = channel.skip_expired(channel.available_from(next), now);
        let older = channel.rare_mut().older.get_or_insert_default();
        if !older.waiting.iter().any(|(waiting, _)| *waiting == reader) {
            older.waiting.push_back((reader, next));
        }
        self.orders.extend(channel.next_fetch());
        true
    }

    /// Takes a page. The readers that wait for it are resumed at the end of this tick and of the
    /// next ones.
    pub(super) fn take_older(&mut self, key: u32, page: OlderPage, kept_from: u64) {
        let channel = &mut self.channels[key as usize];
        channel.kept_from = channel.kept_from.max(kept_from);
        let older = channel.rare_mut().older.get_or_insert_default();
        (older.page, older.is_fetching) = (page, false);
        let waiting = std::mem::take(&mut older.waiting);
        older.resuming.extend(waiting.into_iter().map(|(reader, _)| reader));
        self.resuming.push_back(key);
    }

    /// Resumes some of the readers that have waited for a page. Those whose messages are in other
    /// pages wait again, behind the others.
    pub(super) fn resume_some(&mut self, sink: &mut impl Sink) {
        let mut left = RESUMED_PER_TICK;
        while let Some(key) = self.resuming.front().copied().filter(|_| left > 0) {
            let older = self.channels.get_mut(key as usize).and_then(|channel| channel.rare_if_any()?.older.as_mut());
            match older.and_then(|older| older.resuming.pop_front()) {
                Some(Waiter::Subscriber(reader)) => self.resume(reader, sink),
                Some(Waiter::Follower(reader)) => self.mark_follower_ready(FollowerKey(reader)),
                None => {
                    self.resuming.pop_front();
                    let channel = self.channels.get_mut(key as usize);
                    self.orders.extend(channel.and_then(Channel::next_fetch));
                    continue;
                }
            }
            left -= 1;
        }
    }

    /// Returns whether readers are left that are to be resumed in the next tick.
    pub(crate) fn is_resuming(&self) -> bool {
        !self.resuming.is_empty()
    }

    /// Delivers to a subscriber what is available now.
    fn resume(&mut self, key: u32, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get(key as usize) else { return };
        if !subscriber.is(Flags::STARTED) || subscriber.is(Flags::BLOCKED) {
            return;
        }
        if subscriber.format.is_stream() {
            self.feed_stream(key, sink);
        } else if self.has_news(key) && self.is_poll_ready(key) {
            self.answer_poll(key, &[], sink);
        }
    }

    /// Returns the key of the channel of that name, if its numbers are those of the epoch.
    pub(super) fn key_in(&self, name: &ChannelName, epoch: Epoch) -> Option<u32> {
        let key = *self.names.get(name)?;
        (self.channels[key as usize].epoch() == Some(epoch) || fault!("page-of-other-numbers")).then_some(key)
    }

    /// Handles a restart of a channel's numbers: its readers may have missed something, and resume
    /// with the oldest message kept.
    pub(super) fn restart(&mut self, key: u32, window: Window, sink: &mut impl Sink) {
        let channel = &mut self.channels[key as usize];
        if !channel.is_attached() {
            return;
        }
        let kept_from = window.kept_from;
        channel.attach(window);
        // The truncation that is due at the end of this tick has numbers of the old epoch.
        if !fault!("truncation-outlives-numbers") {
            self.truncated.retain(|(truncated, ..)| *truncated != key);
        }
        let channel = &self.channels[key as usize];
        let members = channel.subscribers.clone();
        for member in members {
            let Some(subscriber) = self.subscribers.get_mut(member as usize) else { continue };
            if subscriber.is(Flags::STARTED) && !fault!("new-numbers-not-reported") {
                subscriber.set_cursor(key, kept_from);
                self.report_restart(member, key, sink);
            }
        }
        self.restart_followers(key);
        self.start_all(key, sink);
    }

    fn report_restart(&mut self, member: u32, key: u32, sink: &mut impl Sink) {
        self.tally.note_gap(GapCause::Renumbered, None);
        let subscriber = &self.subscribers[member as usize];
        let channel = &self.channels[key as usize];
        let (peer, format, label) = (subscriber.peer, subscriber.format, subscriber.label());
        let name = channel.name.clone();
        let gap = Gap { channel: &name, missed: Missed(None), spot: channel.spot(channel.kept_from) };
        if !format.is_stream() {
            return self.answer_poll(member, &[Item::Gap(gap)], sink);
        }
        let position = match subscriber.only_channel() {
            Some(_) => vec![gap.spot],
            None => self.spots(subscriber.cursors()),
        };
        let mut event = Vec::new();
        let encoder = self.limits.encoders.get(format);
        encoder.write_event(format, label, &StreamEvent::Gap { gap, position: &position }, &mut event);
        if !event.is_empty() && !sink.stream(peer, &[event.into()]) {
            self.subscribers[member as usize].set(Flags::BLOCKED);
        }
        self.resume(member, sink);
    }

    /// Sets whether the engine does not know what is published in a channel.
    pub(super) fn set_interrupted(&mut self, name: &ChannelName, is_interrupted: bool, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        self.channels[key as usize].rare_mut().is_interrupted = is_interrupted;
        if !is_interrupted && !self.is_attaching(name) {
            self.start_all(key, sink);
        }
    }
}
