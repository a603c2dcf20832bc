//! Events without a message: heartbeats, and the ends of streams and polls.

use std::time::Duration;

use sealed::fault;

use bytes::Bytes;

use super::encoder::{Format, HeartbeatRule, PollOutcome, StreamEvent};
use super::sink::ReplyBody;
use super::subscriber::Flags;
use super::{Hub, PollReply, Sink, SubscriberKey};
use crate::core::message::ChannelName;
use crate::core::problem::Problem;
use crate::core::time::UnixMillis;

impl Hub {
    /// Sends a stream's heartbeat if nothing else was sent since the last one was due. Returns the
    /// time until the next one is due.
    pub(crate) fn beat(&mut self, key: SubscriberKey, now: UnixMillis, sink: &mut impl Sink) -> Duration {
        self.now = now;
        let Some(subscriber) = self.subscribers.get_mut(key.0 as usize) else { return self.limits.heartbeat };
        let format = subscriber.format;
        let encoder = self.limits.encoders.get(format);
        let rule = encoder.rules().heartbeat;
        let period = match rule {
            HeartbeatRule::SinceLastEvent => self.limits.heartbeat,
            HeartbeatRule::SinceChannelSpoke => self.limits.channel_silence_max,
        };
        if !format.is_stream() || !subscriber.is(Flags::STARTED) {
            return period;
        }
        let channel = subscriber.only_channel().and_then(|key| self.channels.get(key as usize));
        match (rule, channel) {
            (HeartbeatRule::SinceLastEvent, _) => {
                let spoken = subscriber.is(Flags::SPOKEN);
                subscriber.clear(Flags::SPOKEN);
                if spoken {
                    return period;
                }
            }
            (HeartbeatRule::SinceChannelSpoke, None) => return period,
            (HeartbeatRule::SinceChannelSpoke, Some(channel)) => {
                // If the calendar was set back, the length of the silence is unknown: an early
                // heartbeat does less harm than none.
                let silence = self.now.checked_since(channel.spoken).unwrap_or(period);
                let left = period.saturating_sub(silence);
                if !left.is_zero() {
                    return left;
                }
            }
        }
        if !subscriber.is(Flags::BLOCKED) {
            let mut out = Vec::new();
            let event =
                StreamEvent::Heartbeat { channel: channel.map(|channel| &channel.name), count: subscriber.beats };
            encoder.write_event(format, None, &event, &mut out);
            subscriber.beats = subscriber.beats.wrapping_add(1);
            if !sink.stream(subscriber.peer, &[out.into()]) {
                subscriber.set(Flags::BLOCKED);
            }
        }
        period
    }

    /// Returns whether a subscriber is a poll that cannot be answered with a position, because one
    /// of its channels is not open yet.
    pub(crate) fn has_no_position(&self, key: SubscriberKey) -> bool {
        let Some(subscriber) = self.subscribers.get(key.0 as usize) else { return false };
        let rules = self.limits.encoders.get(subscriber.format).rules();
        !subscriber.format.is_stream() && rules.needs_position && !subscriber.is(Flags::STARTED)
    }

    /// Answers a poll that has waited long enough.
    pub(crate) fn time_out(&mut self, key: SubscriberKey, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        match self.unread_channel(key) {
            Some(name) if !fault!("unread-history-is-none") => {
                self.conclude_closed(key.0, &name, Some(Problem::Unavailable), sink);
            }
            _ => self.end_wait(key, sink),
        }
    }

    /// Returns the channel whose messages a poll still waits for because they are not in memory, if
    /// it has none of another channel.
    fn unread_channel(&self, key: SubscriberKey) -> Option<ChannelName> {
        let subscriber = self.subscribers.get(key.0 as usize).filter(|subscriber| !subscriber.format.is_stream())?;
        let cursors =
            || subscriber.cursors().iter().map(|cursor| (&self.channels[cursor.channel as usize], cursor.next));
        let (channel, _) = cursors().find(|(channel, next)| channel.must_fetch(*next, self.now))?;
        let has_others = cursors().any(|(channel, next)| channel.entry(channel.skip_expired(next, self.now)).is_some());
        (subscriber.is(Flags::STARTED) && !has_others).then(|| channel.name.clone())
    }

    /// Answers a poll without a message.
    fn end_wait(&mut self, key: SubscriberKey, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get(key.0 as usize) else { return };
        let format = subscriber.format;
        let (Some(cursor), false) = (subscriber.cursors().first(), format.is_stream()) else { return };
        let channel = &self.channels[cursor.channel as usize].name;
        let outcome = PollOutcome::TimedOut { channel, count: subscriber.beats };
        let reply = match self.limits.encoders.get(format).reply(subscriber.target(), &outcome) {
            Some(body) => PollReply::Encoded(body),
            None if subscriber.is(Flags::STARTED) => {
                self.poll_reply(key.0, &[]).unwrap_or_else(|| PollReply::Encoded(ReplyBody::default()))
            }
            // Its channel did not open in time, so there is no position to reply with.
            None => {
                let target = subscriber.target().map(Box::from);
                PollReply::Refused { problem: Problem::ShuttingDown, target, body: None }
            }
        };
        self.conclude(key.0, reply, sink);
    }

    /// Warns a stream that its reader's access ends soon.
    pub(crate) fn warn_of_expiry(&mut self, key: SubscriberKey, in_s: u64, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get(key.0 as usize) else { return };
        let event = self.encode_event(subscriber.format, &StreamEvent::AccessExpiring { in_s });
        sink.stream(subscriber.peer, &[event]);
    }

    /// Ends a stream whose reader's access has ended.
    pub(crate) fn expire(&mut self, key: SubscriberKey, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        self.end_stream(key.0, &StreamEvent::AccessExpired, sink);
    }

    /// Ends a subscriber because the server shuts down. A stream gets the time after which to
    /// reconnect; a poll gets an answer without a message.
    pub(crate) fn shut_down(&mut self, key: SubscriberKey, retry_ms: u64, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        if self.is_stream(key) {
            self.end_stream(key.0, &StreamEvent::ShuttingDown { retry_ms }, sink);
        } else {
            self.end_wait(key, sink);
        }
    }

    /// Ends a subscriber because one of its channels is closed or cannot be opened.
    pub(super) fn conclude_closed(
        &mut self,
        key: u32,
        name: &ChannelName,
        problem: Option<Problem>,
        sink: &mut impl Sink,
    ) {
        // Its connection may have ended meanwhile, with another of its subscriptions.
        let Some(subscriber) = self.subscribers.get(key as usize) else { return };
        let (peer, format) = (subscriber.peer, subscriber.format);
        if let (Some(problem), Some(label)) = (problem, subscriber.label()) {
            self.leave(key);
            return sink.refuse(peer, label, problem);
        }
        if let Some(problem) = problem {
            let reply = self.refusal(format, name, subscriber.target(), problem);
            return self.conclude(key, reply, sink);
        }
        let next = self.channel_named(name).map_or(0, |channel| channel.log.next());
        if format.is_stream() {
            return self.end_stream(key, &StreamEvent::Closed { channel: name, next }, sink);
        }
        // A poll that has not started returns with the position that it came with.
        let is_started = subscriber.is(Flags::STARTED);
        let position = if is_started { self.spots(subscriber.cursors()) } else { Vec::new() };
        let outcome = PollOutcome::Closed { channel: name, next, position: &position };
        let body = self.limits.encoders.get(format).reply(subscriber.target(), &outcome).unwrap_or_default();
        self.conclude(key, PollReply::Encoded(body), sink);
    }

    /// Sends a stream its last event, if the protocol has one, and ends it.
    fn end_stream(&mut self, key: u32, event: &StreamEvent<'_>, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get_mut(key as usize) else { return };
        let (peer, format, label) = (subscriber.peer, subscriber.format, subscriber.label());
        let encoder = self.limits.encoders.get(format);
        let mut out = Vec::new();
        // The stream may have waited for its channel until now.
        if !subscriber.is(Flags::STARTED) {
            let target = subscriber.details.as_mut().and_then(|details| details.target.take());
            let target = target.filter(|_| !fault!("close-without-opening")).unwrap_or_default();
            sink.open(peer, format, &target);
            if !fault!("close-without-opening") {
                encoder.write_event(format, label, &StreamEvent::Opening { target: &target }, &mut out);
            }
        }
        encoder.write_event(format, label, event, &mut out);
        if !out.is_empty() {
            sink.stream(peer, &[out.into()]);
        }
        self.leave(key);
        // A connection outlasts the subscriptions that were added to it.
        if label.is_none() || fault!("added-end-ends-connection") {
            sink.end(peer);
        }
    }

    fn encode_event(&self, format: Format, event: &StreamEvent<'_>) -> Bytes {
        let mut out = Vec::new();
        self.limits.encoders.get(format).write_event(format, None, event, &mut out);
        out.into()
    }
}
