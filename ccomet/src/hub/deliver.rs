//! How what is in a channel's log gets to its subscribers: from the cursor to the head, when they can take it.

use std::time::Duration;

use bytes::Bytes;
use sealed::fault;

use super::channel::{Batch, Batches, Channel, Ration};
use super::encoded::Encoded;
use super::polls::{in_json_or_script, reply_of_one};
use super::subscriber::{Flags, Kind, Part, Start, Subscriber};
use super::{Hub, Reply, Sink};
use crate::message::ChannelName;
use crate::position::{Missed, Spot};
use crate::time::{UnixMillis, millis};
use crate::wire::icomet::{Kind as Happening, number_of, seq_of};
use crate::wire::problem::Problem;
use crate::wire::voice::{Saying, Tongue, Voice};
use crate::wire::{Form, classic, icomet, native, sse};

/// What a subscriber is to be told of where it starts in a channel.
#[derive(Debug, Clone, Copy)]
enum Notice {
    /// It may have missed something.
    Gap(Missed),
    /// It does not know the channel's number.
    Number,
}

/// A gap that a subscriber is to be told of when it starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    /// Which of its channels.
    pub(super) index: usize,
    /// Where it was there.
    pub(super) from: Spot,
    pub(super) missed: Missed,
}

impl Hub {
    /// Starts a subscriber once all of its channels are here.
    pub(super) fn start_if_ready(&mut self, key: u32, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get_mut(key as usize) else { return };
        if subscriber.is(Flags::STARTED) {
            return;
        }
        let channels = &self.channels;
        if !subscriber.parts().iter().all(|part| channels[part.channel as usize].is_ready_for(part)) {
            return;
        }
        subscriber.set(Flags::STARTED);
        let (mut gaps, mut announce) = (Vec::new(), false);
        for (index, part) in subscriber.parts().iter_mut().enumerate() {
            let channel = &self.channels[part.channel as usize];
            let start = part.start.take().unwrap_or(Start::Latest);
            let (cursor, notice) = resolve(channel, start, self.now);
            part.cursor = cursor;
            match (start, notice) {
                (Start::After(from), Some(Notice::Gap(missed))) => gaps.push(Gap { index, from, missed }),
                (_, Some(Notice::Number)) => announce = true,
                _ => {}
            }
        }
        match subscriber.kind.voice() {
            Some(voice) => self.start_stream(key, voice, &gaps, announce, sink),
            None if announce => {
                let reply = self.icomet_reply(key, Happening::NextSeq);
                self.conclude(key, reply, sink);
            }
            None => self.start_poll(key, &gaps, sink),
        }
    }

    fn start_stream(&mut self, key: u32, voice: Voice, gaps: &[Gap], announce: bool, sink: &mut impl Sink) {
        let subscriber = &mut self.subscribers[key as usize];
        let peer = subscriber.peer;
        let listener = subscriber.extra.as_mut().and_then(|extra| extra.callback.take()).unwrap_or_default();
        sink.open(peer, voice, &listener);
        let mut hello = Vec::with_capacity(256);
        voice.write_opening(&listener, &mut hello);
        if voice.tongue == Tongue::Native {
            let spots = spots(&self.channels, subscriber.parts());
            let channel = |index: usize| &self.channels[subscriber.parts_ref()[index].channel as usize];
            write_hello(voice, self.limits.heartbeat, &spots, gaps, channel, &mut hello);
        } else if let (true, [part]) = (announce, subscriber.parts()) {
            let channel = &self.channels[part.channel as usize];
            let event = icomet::event(Happening::NextSeq, &channel.name, seq_of(channel.log.next()), "");
            voice.write_icomet(&event, &mut hello);
        }
        if !hello.is_empty() && !sink.stream(peer, &[Bytes::from(hello)]) {
            subscriber.set(Flags::BLOCKED);
        }
        subscriber.slim();
        // History may be longer than what goes at once: the head of the response is still queued, and when that
        // has gone, `drained` fetches the rest.
        self.feed_stream(key, sink);
    }

    /// Whether a poll has something to get in any of its channels.
    pub(super) fn has_news(&mut self, key: u32) -> bool {
        let now = self.now;
        let mut parts = self.subscribers[key as usize].parts().iter_mut();
        parts.any(|part| {
            let channel = &self.channels[part.channel as usize];
            if !fault!("poll-answered-with-expired") {
                part.cursor = channel.skip_expired(part.cursor, now);
            }
            channel.log.next() > part.cursor
        })
    }

    /// Gives everyone in a channel what is new.
    pub(super) fn deliver_channel(&mut self, key: u32, sink: &mut impl Sink) {
        let Some(channel) = self.channels.get_mut(key as usize) else { return };
        channel.dirty = false;
        let signs = std::mem::take(&mut channel.signs);
        let mut members = std::mem::take(&mut channel.subscribers);
        let count = members.len();
        let mut batches = Batches::default();
        let mut replies = Vec::new();
        let ration = self.ration();
        // From the end, so that whoever moves into the place of one who leaves has had his turn.
        for place in (0..members.len()).rev() {
            let member = members[place];
            let subscriber = &mut self.subscribers[member as usize];
            let channel = &self.channels[key as usize];
            if !subscriber.is(Flags::STARTED) {
                continue;
            }
            if subscriber.only_channel().is_some() {
                feed_one(subscriber, channel, &mut self.encoded, &mut batches, ration, sink);
                continue;
            }
            let Some(extra) = subscriber.extra.as_deref_mut() else { continue };
            if let ([part], None) = (extra.parts.as_mut_slice(), subscriber.kind.voice()) {
                let own = extra.name.as_ref();
                let signs = signs.iter().filter(|name| subscriber.kind == Kind::Classic && own != Some(*name));
                let signs: Vec<_> = signs.map(|name| classic::sign(&channel.name, channel.flushed, name)).collect();
                if channel.log.is_empty() && subscriber.kind == Kind::IcometPoll {
                    // What came was too old to be kept, and icomet has no word for that.
                    part.cursor = channel.log.next();
                }
                part.cursor = channel.skip_expired(part.cursor, self.now);
                if channel.log.next() == part.cursor && signs.is_empty() {
                    continue;
                }
                let reply = reply_of_one(subscriber, channel, &mut self.encoded, &signs, &mut replies, ration);
                sink.answer(subscriber.peer, reply);
                members.swap_remove(place);
                if let Some(moved) = members.get(place)
                    && !fault!("moved-keeps-old-place")
                {
                    self.subscribers[*moved as usize].set_place(key, place as u32);
                }
                self.forget(member);
            } else if !subscriber.is(Flags::DIRTY | Flags::BLOCKED) {
                subscriber.set(Flags::DIRTY);
                self.dirty_many.push(member);
            }
        }
        let channel = &mut self.channels[key as usize];
        if members.is_empty() {
            members = Vec::new();
            channel.left = self.now;
        }
        if members.len() != count {
            channel.mark_for_recount(key, &mut self.recount);
        }
        channel.subscribers = members;
        channel.flushed = channel.log.next();
        channel.spoken = self.now;
    }

    /// Gives a stream what is new in its channels, as far as its connection takes it.
    pub(super) fn feed_stream(&mut self, key: u32, sink: &mut impl Sink) {
        let ration = self.ration();
        let subscriber = &mut self.subscribers[key as usize];
        match subscriber.only_channel() {
            Some(channel) => {
                let channel = &self.channels[channel as usize];
                feed_one(subscriber, channel, &mut self.encoded, &mut Batches::default(), ration, sink);
            }
            None => self.feed_many(key, sink),
        }
    }

    fn feed_many(&mut self, key: u32, sink: &mut impl Sink) {
        let ration = self.ration();
        let subscriber = &mut self.subscribers[key as usize];
        let Some(voice) = subscriber.kind.voice() else { return };
        let peer = subscriber.peer;
        let mut index = 0;
        while index < subscriber.parts().len() && !subscriber.is(Flags::BLOCKED) {
            let part = &mut subscriber.parts()[index];
            let channel = &self.channels[part.channel as usize];
            if part.cursor >= channel.log.next() {
                index += 1;
                continue;
            }
            let mut chunks = Vec::new();
            if part.cursor < channel.log.first() {
                let missed = Missed(Some(channel.log.first() - part.cursor));
                part.cursor = channel.log.first();
                let item = gap_item(channel, missed, channel.spot(part.cursor));
                let position = spots(&self.channels, subscriber.parts());
                chunks.push(gap_event(voice, &position, &item));
            } else {
                let batch = channel.batch(&mut self.encoded, part.cursor, Form::NativeItem, ration);
                let Batch { chunks: items, numbers, to, .. } = batch;
                part.cursor = to;
                let mut spots = spots(&self.channels, subscriber.parts());
                for (number, item) in numbers.into_iter().zip(&items) {
                    spots[index].next = number + 1;
                    chunks.extend(voice.say_around(&spots, item));
                }
            }
            if chunks.is_empty() {
                continue;
            }
            subscriber.set(Flags::SPOKEN);
            if !sink.stream(peer, &chunks) {
                subscriber.set(Flags::BLOCKED);
            }
        }
    }

    /// Answers a poll and forgets it.
    pub(super) fn conclude(&mut self, key: u32, reply: Reply, sink: &mut impl Sink) {
        let peer = self.subscribers[key as usize].peer;
        self.leave(key);
        sink.answer(peer, reply);
    }

    /// Ends a subscriber, of whichever kind, because a channel of his is gone.
    pub(super) fn conclude_closed(
        &mut self,
        key: u32,
        name: &ChannelName,
        problem: Option<Problem>,
        sink: &mut impl Sink,
    ) {
        if let Some(problem) = problem {
            let reply = self.refusal_for(key, name, problem);
            return self.conclude(key, reply, sink);
        }
        let subscriber = &mut self.subscribers[key as usize];
        let (peer, kind, started) = (subscriber.peer, subscriber.kind, subscriber.is(Flags::STARTED));
        let mut item = Vec::new();
        match kind {
            Kind::Stream(voice) => {
                let mut event = Vec::new();
                if !started {
                    let listener = subscriber.extra.as_mut().and_then(|extra| extra.callback.take());
                    let listener = listener.filter(|_| !fault!("close-without-opening")).unwrap_or_default();
                    sink.open(peer, voice, &listener);
                    if !fault!("close-without-opening") {
                        voice.write_opening(&listener, &mut event);
                    }
                }
                if voice.tongue == Tongue::Icomet {
                    let next = self.channel_named(name).map_or(0, |channel| channel.log.next());
                    voice.write_icomet(&icomet::event(Happening::Close, name, seq_of(next), ""), &mut event);
                } else {
                    native::write_close(name, &mut item);
                    voice.say(&Saying { kind: Some("close"), item: &item, ..Saying::default() }, &mut event);
                }
                sink.stream(peer, &[Bytes::from(event)]);
                self.leave(key);
                sink.end(peer);
            }
            Kind::Classic => self.conclude(key, Reply::Nothing, sink),
            Kind::IcometPoll => {
                let reply = self.icomet_reply(key, Happening::Close);
                self.conclude(key, reply, sink);
            }
            Kind::Poll => {
                native::write_close(name, &mut item);
                let mut json = Vec::new();
                let extra = subscriber.extra.as_deref();
                let parts = extra.map_or(&[][..], |extra| &extra.parts);
                // One that had not started yet comes back with the position that it came with.
                let spots = if started { spots(&self.channels, parts) } else { Vec::new() };
                native::write_reply(spots, [item.as_slice()], &mut json);
                let reply = extra.map_or(Reply::Nothing, |extra| in_json_or_script(json, extra));
                self.conclude(key, reply, sink);
            }
        }
    }
}

/// The first words of a stream: where it starts, so that a client that loses it at once can resume all the same, and
/// what it has missed.
fn write_hello<'a>(
    voice: Voice,
    heartbeat: Duration,
    spots: &[Spot],
    gaps: &[Gap],
    channel: impl Fn(usize) -> &'a Channel,
    out: &mut Vec<u8>,
) {
    // Not with the position behind a gap: a client that lost the stream between the two would never hear of it.
    let position = gaps.is_empty().then_some(spots);
    let item = native::hello(millis(heartbeat));
    voice.say(&Saying { retry_ms: Some(sse::RETRY_MS), position, kind: Some("hello"), item: &item }, out);
    // Likewise, each gap's id covers the gaps that have been told, and those behind it not yet.
    let mut told = spots.to_vec();
    for gap in gaps {
        if !fault!("first-gap-covers-others") {
            told[gap.index] = gap.from;
        }
    }
    for Gap { index, missed, .. } in gaps.iter().copied() {
        told[index] = spots[index];
        let item = gap_item(channel(index), missed, spots[index]);
        voice.say(&Saying { position: Some(&told), kind: Some("gap"), item: &item, ..Saying::default() }, out);
    }
}

/// Where a subscription starts in a channel, and what it is told of what it cannot have.
fn resolve(channel: &Channel, start: Start, now: UnixMillis) -> (u64, Option<Notice>) {
    let (first, next) = (channel.log.first(), channel.log.next());
    match start {
        Start::Latest => (next, None),
        Start::Oldest => (first, None),
        Start::Last(count) => (channel.last(count, now), None),
        Start::Number(number) => (number.clamp(first, next), None),
        Start::Seq(seq) => match number_of(seq, next) {
            Some(number) => (number.max(first), None),
            None => (next, Some(Notice::Number)),
        },
        Start::After(spot) if Some(spot.epoch) == channel.epoch() && spot.next <= next => {
            let missed = first.saturating_sub(spot.next);
            (spot.next.max(first), (missed > 0).then_some(Notice::Gap(Missed(Some(missed)))))
        }
        Start::After(_) => (first, Some(Notice::Gap(Missed(None)))),
    }
}

/// Gives a stream of one channel what is new.
fn feed_one(
    subscriber: &mut Subscriber,
    channel: &Channel,
    encoded: &mut Encoded,
    batches: &mut Batches,
    ration: Ration,
    sink: &mut impl Sink,
) {
    let Some(voice) = subscriber.kind.voice() else { return };
    while subscriber.cursor < channel.log.next() && !subscriber.is(Flags::BLOCKED) {
        let all_taken = if subscriber.cursor < channel.log.first() {
            let missed = Missed(Some(channel.log.first() - subscriber.cursor));
            subscriber.cursor = channel.log.first();
            if voice.tongue == Tongue::Icomet {
                // It has no word for that.
                continue;
            }
            let spot = channel.spot(subscriber.cursor);
            sink.stream(subscriber.peer, &[gap_event(voice, &[spot], &gap_item(channel, missed, spot))])
        } else {
            let form = Form::Said(voice);
            let (chunks, to) = batches.find(channel, encoded, form, subscriber.cursor, ration);
            subscriber.cursor = to + u64::from(chunks.len() > 2 && fault!("cursor-one-too-far"));
            if chunks.is_empty() {
                continue;
            }
            sink.stream(subscriber.peer, chunks)
        };
        subscriber.set(Flags::SPOKEN);
        if !all_taken {
            subscriber.set(Flags::BLOCKED);
        }
    }
}

/// Moves a cursor that has fallen off the log to the oldest message kept.
pub(super) fn fall_off(channel: &Channel, part: &mut Part) -> Option<Missed> {
    let missed = channel.log.first().checked_sub(part.cursor).filter(|missed| *missed > 0)?;
    part.cursor = channel.log.first();
    (!fault!("no-gap-for-fallen-reader")).then_some(Missed(Some(missed)))
}

pub(super) fn gap_item(channel: &Channel, missed: Missed, spot: Spot) -> Vec<u8> {
    let mut item = Vec::new();
    native::write_gap(&channel.name, missed.0, spot, &mut item);
    item
}

fn gap_event(voice: Voice, position: &[Spot], item: &[u8]) -> Bytes {
    let mut event = Vec::new();
    voice.say(&Saying { position: Some(position), kind: Some("gap"), item, ..Saying::default() }, &mut event);
    event.into()
}

/// Where a subscriber is in each of its channels.
pub(super) fn spots(channels: &slab::Slab<Channel>, parts: &[Part]) -> Vec<Spot> {
    parts.iter().map(|part| channels[part.channel as usize].spot(part.cursor)).collect()
}
