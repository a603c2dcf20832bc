//! Starts subscribers: determines the start in each of their channels, and reports messages that
//! are lost for them.

use bytes::Bytes;
use sealed::fault;

use super::channel::Channel;
use super::encoder::{Encoder, Gap, Item, PollOutcome, Resolved, StreamEvent};
use super::subscriber::{Flags, StartAt};
use super::{Hub, PollReply, Sink};
use crate::core::position::{Missed, Spot};
use crate::core::tally::GapCause;
use crate::core::time::UnixMillis;

/// A report to a subscriber about its start in a channel.
#[derive(Debug, Clone, Copy)]
enum Notice {
    /// The subscriber may have missed something.
    Gap(Missed),
    /// The channel has not assigned the number that the client named.
    Unknown,
}

/// A gap to report to a subscriber when it starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct StartGap {
    /// The index of the channel among those of the subscriber.
    index: usize,
    /// The spot that the subscriber named.
    from: Spot,
    missed: Missed,
}

impl Hub {
    /// Starts the subscribers of a channel that waited for nothing else.
    pub(super) fn start_all(&mut self, key: u32, sink: &mut impl Sink) {
        let rare = self.channels[key as usize].rare_if_any();
        for waiting in rare.map_or(Vec::new(), |rare| std::mem::take(&mut rare.starting)) {
            let Some(subscriber) = self.subscribers.get_mut(waiting as usize) else { continue };
            let channel = &mut self.channels[key as usize];
            let mut cursors = subscriber.cursors_mut().iter_mut();
            let cursor = cursors.find(|cursor| cursor.channel == key && cursor.start.is_some());
            if let Some(cursor) = cursor {
                if !channel.is_ready_for(cursor) {
                    channel.rare_mut().starting.push(waiting);
                    continue;
                }
                // From here on the subscriber waits at most for other channels, and this channel
                // may start to count its orders anew.
                cursor.syncs = 0;
            }
            self.start_if_ready(waiting, sink);
        }
        self.wake_followers(key);
        if let Some(channel) = self.channels.get_mut(key as usize) {
            channel.slim();
        }
    }

    /// Starts a subscriber once all of its channels are open.
    pub(super) fn start_if_ready(&mut self, key: u32, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get_mut(key as usize) else { return };
        if subscriber.is(Flags::STARTED) {
            return;
        }
        let channels = &self.channels;
        if !subscriber.cursors().iter().all(|cursor| channels[cursor.channel as usize].is_ready_for(cursor)) {
            return;
        }
        subscriber.set(Flags::STARTED);
        let format = subscriber.format;
        let encoder = self.limits.encoders.get(format);
        let (mut gaps, mut is_unknown) = (Vec::new(), false);
        for (index, cursor) in subscriber.cursors_mut().iter_mut().enumerate() {
            let channel = &self.channels[cursor.channel as usize];
            let start = cursor.start.take().unwrap_or(StartAt::Latest);
            let (next, notice) = resolve(channel, start, encoder, self.now);
            cursor.next = next;
            cursor.is_from_oldest = !format.is_stream() && matches!(start, StartAt::Oldest | StartAt::Last(_));
            match (start, notice) {
                (StartAt::After(from), Some(Notice::Gap(missed))) => {
                    self.tally.note_gap(cause_of(missed), missed.0);
                    gaps.push(StartGap { index, from, missed });
                }
                (_, Some(Notice::Unknown)) => is_unknown = true,
                _ => {}
            }
        }
        if format.is_stream() {
            self.start_stream(key, &gaps, is_unknown, sink);
        } else {
            self.start_poll(key, &gaps, is_unknown, sink);
        }
    }

    fn start_stream(&mut self, key: u32, gaps: &[StartGap], is_unknown: bool, sink: &mut impl Sink) {
        let subscriber = &mut self.subscribers[key as usize];
        let (peer, format, label) = (subscriber.peer, subscriber.format, subscriber.label());
        let target = subscriber.details.as_mut().and_then(|details| details.target.take()).unwrap_or_default();
        sink.open(peer, format, &target);
        let encoder = self.limits.encoders.get(format);
        let mut hello = Vec::with_capacity(256);
        encoder.write_event(format, label, &StreamEvent::Opening { target: &target }, &mut hello);
        self.write_hello(key, gaps, is_unknown, &mut hello);
        let subscriber = &mut self.subscribers[key as usize];
        if !hello.is_empty() && !sink.stream(peer, &[Bytes::from(hello)]) {
            subscriber.set(Flags::BLOCKED);
        }
        subscriber.slim();
        // The history may be longer than one batch: while the head of the response is queued,
        // nothing more is sent, and `drained` delivers the rest.
        self.feed_stream(key, sink);
    }

    /// Writes the first events of a stream: its position, so that a client that loses the stream at
    /// once can resume, and the messages that the client has missed.
    fn write_hello(&self, key: u32, gaps: &[StartGap], is_unknown: bool, out: &mut Vec<u8>) {
        let subscriber = &self.subscribers[key as usize];
        let (format, label) = (subscriber.format, subscriber.label());
        let encoder = self.limits.encoders.get(format);
        let channel = |index: usize| &self.channels[subscriber.cursors()[index].channel as usize];
        let spots = self.spots(subscriber.cursors());
        // The position after a gap is left out: a client that lost the stream between the two
        // events would never learn of the gap.
        let position = gaps.is_empty().then_some(spots.as_slice());
        encoder.write_event(format, label, &StreamEvent::Hello { heartbeat: self.limits.heartbeat, position }, out);
        if let (true, [_]) = (is_unknown, subscriber.cursors()) {
            let Channel { name, log, .. } = channel(0);
            encoder.write_event(format, label, &StreamEvent::UnknownStart { channel: name, next: log.next() }, out);
        }
        // Likewise, each gap's position covers the gaps that have been reported, and not those that
        // follow.
        let mut reached = spots.clone();
        for gap in gaps {
            if !fault!("first-gap-covers-others") {
                reached[gap.index] = gap.from;
            }
        }
        for StartGap { index, missed, .. } in gaps.iter().copied() {
            reached[index] = spots[index];
            let gap = Gap { channel: &channel(index).name, missed, spot: spots[index] };
            encoder.write_event(format, label, &StreamEvent::Gap { gap, position: &reached }, out);
        }
    }

    fn start_poll(&mut self, key: u32, gaps: &[StartGap], is_unknown: bool, sink: &mut impl Sink) {
        let subscriber = &self.subscribers[key as usize];
        if let (true, [cursor]) = (is_unknown, subscriber.cursors()) {
            let Channel { name, log, .. } = &self.channels[cursor.channel as usize];
            let outcome = PollOutcome::UnknownStart { channel: name, next: log.next() };
            let encoder = self.limits.encoders.get(subscriber.format);
            if let Some(body) = encoder.reply(subscriber.target(), &outcome) {
                return self.conclude(key, PollReply::Encoded(body), sink);
            }
        }
        let lost = gaps.iter().map(|StartGap { index, missed, .. }| {
            let cursor = &subscriber.cursors()[*index];
            let channel = &self.channels[cursor.channel as usize];
            (channel.name.clone(), *missed, channel.spot(cursor.next))
        });
        let lost: Vec<_> = lost.collect();
        let items = lost.iter().map(|(channel, missed, spot)| Gap { channel, missed: *missed, spot: *spot });
        let items: Vec<_> = items.map(Item::Gap).collect();
        let at_once = subscriber.details.as_ref().is_some_and(|details| details.answer_at_once);
        let answers = at_once || !items.is_empty() || self.has_news(key);
        // The poll waits until older messages are in memory; otherwise it would return for them at
        // once.
        if answers && (!items.is_empty() || self.is_poll_ready(key)) {
            self.answer_poll(key, &items, sink);
        }
    }
}

/// Returns the cause of a gap of a reader that resumes.
pub(super) fn cause_of(missed: Missed) -> GapCause {
    if missed.0.is_some() { GapCause::Late } else { GapCause::Renumbered }
}

/// Returns where a subscription starts in a channel, and a notice about that.
fn resolve(channel: &Channel, start: StartAt, encoder: &dyn Encoder, now: UnixMillis) -> (u64, Option<Notice>) {
    let (first, next) = (channel.kept_from, channel.log.next());
    match start {
        StartAt::Latest => (next, None),
        StartAt::Oldest => (first, None),
        StartAt::Last(count) => (channel.last(count, now), None),
        StartAt::Number(number) => match encoder.resolve(number, next) {
            Resolved::Message(number) => (number.clamp(first, next), None),
            Resolved::NotYet | Resolved::Nothing => (next, Some(Notice::Unknown)),
        },
        StartAt::After(spot) if Some(spot.epoch) == channel.epoch() && spot.next <= next => {
            let missed = first.saturating_sub(spot.next);
            (spot.next.max(first), (missed > 0).then_some(Notice::Gap(Missed(Some(missed)))))
        }
        StartAt::After(_) => (first, Some(Notice::Gap(Missed(None)))),
    }
}
