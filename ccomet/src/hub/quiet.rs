//! What subscribers are told though there is nothing new: that the server lives, that a poll has waited long enough, that the
//! server goes down.

use std::time::Duration;

use bytes::Bytes;

use super::subscriber::{Flags, Kind};
use super::{Hub, Reply, Sink, SubscriberKey};
use crate::protocols::format::stream_format::{Saying, Tongue};
use crate::protocols::icomet::events::{self as icomet, Kind as Happening};
use crate::protocols::native::items as native;
use crate::time::UnixMillis;
use crate::wire::problem::Problem;

impl Hub {
    /// A stream's time for a sign of life has come. It is sent where nothing else was since the last time. Returns how
    /// long it is until the next one.
    pub(crate) fn beat(&mut self, key: SubscriberKey, now: UnixMillis, sink: &mut impl Sink) -> Duration {
        self.now = now;
        let Some(subscriber) = self.subscribers.get_mut(key.0 as usize) else { return self.limits.heartbeat };
        let is_icomet = subscriber.kind.voice().is_some_and(|voice| voice.tongue == Tongue::Icomet);
        let period = if is_icomet { self.limits.noop } else { self.limits.heartbeat };
        let Some(voice) = subscriber.kind.voice().filter(|_| subscriber.is(Flags::STARTED)) else { return period };
        let mut out = Vec::new();
        if is_icomet {
            // Its clients count from the last word, so that is looked for with its channel.
            let Some(channel) = subscriber.only_channel().and_then(|key| self.channels.get(key as usize)) else {
                return period;
            };
            // Where the calendar was set back, nobody knows how long it was: better too soon than never.
            let silence = self.now.checked_since(channel.spoken).unwrap_or(period);
            let left = period.saturating_sub(silence);
            if !left.is_zero() {
                return left;
            }
            voice.write_icomet(&icomet::event(Happening::Noop, &channel.name, subscriber.beats, ""), &mut out);
        } else {
            let spoken = subscriber.is(Flags::SPOKEN);
            subscriber.clear(Flags::SPOKEN);
            if spoken {
                return period;
            }
            voice.write_heartbeat(&mut out);
        }
        if !subscriber.is(Flags::BLOCKED) {
            subscriber.beats = subscriber.beats.wrapping_add(1);
            if !sink.stream(subscriber.peer, &[out.into()]) {
                subscriber.set(Flags::BLOCKED);
            }
        }
        period
    }

    /// Returns whether a subscriber is a poll that cannot be answered with a position, since a channel of it has not come yet.
    pub(crate) fn has_no_position(&self, key: SubscriberKey) -> bool {
        let subscriber = self.subscribers.get(key.0 as usize);
        subscriber.is_some_and(|held| matches!(held.kind, Kind::Poll | Kind::Classic) && !held.is(Flags::STARTED))
    }

    /// A poll has waited long enough: it is answered without a message.
    pub(crate) fn time_out(&mut self, key: SubscriberKey, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        self.end_wait(key, sink);
    }

    /// Answers a poll without a message.
    fn end_wait(&mut self, key: SubscriberKey, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get(key.0 as usize) else { return };
        let reply = match subscriber.kind {
            Kind::Stream(_) => return,
            Kind::IcometPoll => self.icomet_reply(key.0, Happening::Noop),
            _ if subscriber.is(Flags::STARTED) => self.poll_reply(key.0, &[]),
            // Its channel did not come in time, and there is no position to tell.
            _ => Reply::Problem(Problem::ShuttingDown, self.callback(key.0)),
        };
        self.conclude(key.0, reply, sink);
    }

    /// The server goes down: a stream is told when to come back, a poll is answered without a message.
    pub(crate) fn dismiss(&mut self, key: SubscriberKey, retry_ms: u64, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        let Some(subscriber) = self.subscribers.get(key.0 as usize) else { return };
        let peer = subscriber.peer;
        let Some(voice) = subscriber.kind.voice() else { return self.end_wait(key, sink) };
        if !subscriber.is(Flags::STARTED) {
            sink.open(peer, voice, "");
        }
        // icomet's clients know no such word: they see the end.
        if voice.tongue == Tongue::Native {
            let mut bye = Vec::new();
            let item = native::bye(retry_ms);
            let saying = Saying { retry_ms: Some(retry_ms), kind: Some("bye"), item: &item, ..Saying::default() };
            voice.say(&saying, &mut bye);
            sink.stream(peer, &[Bytes::from(bye)]);
        }
        self.leave(key.0);
        sink.end(peer);
    }
}
