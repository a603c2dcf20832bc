//! The path from a loop to the shard of a channel, and back: on this loop, or by mail.

use std::collections::VecDeque;
use std::time::Duration;

use sealed::{Mailbox, PostError, fault};

use super::event::Order;
use super::peer::{Mail, Parcel, ToLoop, ToShard};
use super::pending::PendingRequests;
use super::request::Request;
use super::shard::Shard;
use super::store::Store;
use super::{ChannelEvent, Output, ShardLimits, Tick};
use crate::core::health::HealthProblem;
use crate::core::message::ChannelName;
use crate::core::tally::{EngineTally, StoreFigures, StoreTally};

/// The time after which mail is posted again for which another loop had no room.
const POST_RETRY: Duration = Duration::from_millis(1);

/// The engine as one loop sees it: its shard of the channels, and the path to the other shards. `T`
/// is the context of a request until its reply, `M` a message to a loop, which may be mail.
#[derive(Debug)]
pub(crate) struct Engine<T, M> {
    index: usize,
    mailboxes: Vec<Mailbox<M>>,
    shard: Shard,
    pending: PendingRequests<T>,
    /// Output for this loop, in order.
    inbox: VecDeque<ToLoop>,
    /// Replies to requests that were given up.
    given_up: VecDeque<Output<T>>,
    /// Parcels for each of the other loops.
    outgoing: Vec<Vec<Parcel>>,
    /// Set if a mailbox was full.
    is_mail_left: bool,
    /// The number of deliveries from each loop that were processed and are not acknowledged yet.
    to_acknowledge: Vec<u32>,
}

impl<T, M: From<Mail> + TryInto<Mail>> Engine<T, M> {
    /// Creates the engine of loop `index`. `mailboxes` are those of all loops; `request_max` is how
    /// long a request waits for its reply.
    pub(crate) fn new(
        index: usize,
        mailboxes: Vec<Mailbox<M>>,
        limits: ShardLimits,
        store: Box<dyn Store>,
        request_max: Duration,
    ) -> Self {
        let loops = mailboxes.len();
        Self {
            index,
            mailboxes,
            shard: Shard::new(limits, store, index, loops),
            pending: PendingRequests::new(request_max),
            inbox: VecDeque::new(),
            given_up: VecDeque::new(),
            outgoing: (0..loops).map(|_| Vec::new()).collect(),
            is_mail_left: false,
            to_acknowledge: vec![0; loops],
        }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::core::holdings::Holdings, seen: &mut crate::core::holdings::Seen) {
        all.asking += self.pending.len();
        self.shard.add_to(all, seen);
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_store_to(
        &self,
        all: &mut crate::core::holdings::Holdings,
        seen: &mut crate::core::holdings::Seen,
    ) {
        self.shard.store.add_to(all, seen);
    }

    /// Ends the engine, and returns what outlives it.
    #[cfg(all(test, feature = "sim"))]
    pub(super) fn into_store(self) -> Box<dyn Store> {
        self.shard.store
    }

    #[cfg(feature = "sim")]
    pub(crate) fn set_store_faults(&mut self, faults: super::StoreFaults) {
        self.shard.store.set_faults(faults);
    }

    #[cfg(feature = "sim")]
    pub(crate) fn most_work(&self) -> usize {
        self.shard.most_work()
    }

    /// Changes the limits of this loop's shard, and how long a request waits for its reply.
    pub(crate) fn set_limits(&mut self, limits: ShardLimits, request_max: Duration) {
        self.shard.set_limits(limits);
        self.pending.set_limit(request_max);
    }

    /// Returns what prevents the engine from keeping or reading messages.
    pub(crate) fn problems(&self) -> Vec<HealthProblem> {
        self.shard.store.problems()
    }

    /// Returns what this loop's shard holds, and what it has dropped.
    pub(crate) fn tally(&self) -> EngineTally {
        self.shard.tally()
    }

    /// Returns the counts of this loop's store, if it has any.
    pub(crate) fn store_tally(&self) -> Option<&StoreTally> {
        self.shard.store.tally()
    }

    /// Returns the counts of the store that all loops share, if there is one.
    pub(crate) fn store_figures(&self) -> Option<StoreFigures> {
        self.shard.store.figures()
    }

    /// Starts a request. Its only reply comes with `context` from
    /// [`next_output`](Self::next_output), at once or later.
    pub(crate) fn request(&mut self, now: Tick, request: Request, context: T) {
        let id = self.pending.add(now.loop_time, &request, self.mailboxes.len(), context);
        match request.channel() {
            Some(channel) => {
                let shard = self.shard_of(channel);
                self.send(now, shard, ToShard::Request(id, request));
            }
            None => self.send_to_all(now, || ToShard::Request(id, request.clone())),
        }
    }

    /// Carries out an order of the hub. Its results come as events from
    /// [`next_output`](Self::next_output).
    pub(crate) fn order(&mut self, now: Tick, order: Order) {
        let shard = self.shard_of(order.channel());
        self.send(now, shard, ToShard::Order(order));
    }

    /// Starts or stops reports of all channels that come into use or go out of use.
    pub(crate) fn watch_activity(&mut self, now: Tick, wanted: bool) {
        self.send_to_all(now, || ToShard::WatchActivity(wanted));
    }

    /// Processes mail of another loop.
    pub(crate) fn receive(&mut self, now: Tick, mail: Mail) {
        for parcel in mail.parcels {
            match parcel {
                Parcel::Shard(message) => {
                    self.shard.take(mail.from, now, message);
                    self.pass_on(now);
                }
                Parcel::Loop(message) => {
                    let is_delivery = matches!(
                        message,
                        ToLoop::Channel(_, ChannelEvent::Appended { .. } | ChannelEvent::Truncated { .. })
                    );
                    self.to_acknowledge[mail.from] += u32::from(is_delivery);
                    if fault!("loops-out-of-order") {
                        self.inbox.push_front(message);
                    } else {
                        self.inbox.push_back(message);
                    }
                }
            }
        }
    }

    /// Returns the next output.
    pub(crate) fn next_output(&mut self) -> Option<Output<T>> {
        while let Some(message) = self.inbox.pop_front() {
            return Some(match message {
                ToLoop::Channel(channel, event) => Output::Channel(channel, event),
                ToLoop::NameTaken(claim) => Output::NameTaken(claim),
                ToLoop::Activity { channel, in_use } => Output::Activity { channel, in_use },
                ToLoop::Presence { channel, id, movement } => Output::Presence { channel, id, movement },
                ToLoop::Reply(id, outcome) => match self.pending.reply(id, outcome) {
                    Some((context, outcome)) => Output::Reply(context, outcome),
                    None => continue,
                },
            });
        }
        self.given_up.pop_front()
    }

    /// Ends a tick: passes gathered messages on to followers and other loops.
    pub(crate) fn end_tick(&mut self, now: Tick) {
        self.shard.work(now);
        self.pass_on(now);
        self.shard.keep_all(now);
        self.pass_on(now);
        self.shard.flush();
        self.pass_on(now);
    }

    /// Posts the parcels for the other loops. Returns the time after which the loop is to tick
    /// again, if anything is left to do then.
    pub(crate) fn post(&mut self, now: Tick) -> Option<Duration> {
        self.is_mail_left = false;
        for to in 0..self.mailboxes.len() {
            let count = std::mem::take(&mut self.to_acknowledge[to]);
            if count > 0 {
                self.outgoing[to].push(Parcel::Shard(ToShard::Acknowledge(count)));
            }
            if self.outgoing[to].is_empty() {
                continue;
            }
            let mail = Mail { from: self.index, parcels: std::mem::take(&mut self.outgoing[to]) };
            // If the mailbox is gone, its loop has failed, and the server ends.
            if let Err(PostError::Full(message)) = self.mailboxes[to].post(mail.into())
                && let Ok(mail) = message.try_into()
            {
                self.outgoing[to] = mail.parcels;
                self.is_mail_left = true;
            }
        }
        if self.shard.has_work() {
            return Some(Duration::ZERO);
        }
        let store = self.shard.store_due().map(|due| due.saturating_since(now.loop_time));
        let mail = self.is_mail_left.then_some(POST_RETRY);
        store.into_iter().chain(mail).min()
    }

    /// Takes the mail for another loop, which would be posted otherwise.
    #[cfg(all(test, feature = "sim"))]
    pub(super) fn take_mail(&mut self, to: usize) -> Mail {
        let count = std::mem::take(&mut self.to_acknowledge[to]);
        let acknowledged = (count > 0).then_some(Parcel::Shard(ToShard::Acknowledge(count)));
        let parcels = std::mem::take(&mut self.outgoing[to]).into_iter().chain(acknowledged).collect();
        Mail { from: self.index, parcels }
    }

    /// Drops expired state, and gives up requests that have waited for too long. The loop calls
    /// this about once a second.
    pub(crate) fn sweep(&mut self, now: Tick) {
        self.shard.sweep(now);
        self.pass_on(now);
        // Memory that only a burst needed is released.
        if self.inbox.is_empty() {
            self.inbox.shrink_to(8);
        }
        self.shard.outbox.shrink_to(8);
        self.outgoing.iter_mut().for_each(|outgoing| outgoing.shrink_to(8));
        let given_up = self.pending.give_up(now.loop_time);
        self.given_up.extend(given_up.into_iter().map(|(context, outcome)| Output::Reply(context, outcome)));
    }

    /// Returns the shard of a channel.
    fn shard_of(&self, channel: &ChannelName) -> usize {
        channel.shard(self.mailboxes.len())
    }

    fn send(&mut self, now: Tick, to: usize, message: ToShard) {
        if to != self.index {
            return self.outgoing[to].push(Parcel::Shard(message));
        }
        self.shard.take(self.index, now, message);
        self.pass_on(now);
    }

    fn send_to_all(&mut self, now: Tick, message: impl Fn() -> ToShard) {
        let own = self.index;
        for to in (0..self.mailboxes.len()).filter(|to| *to != own).chain([own]) {
            self.send(now, to, message());
        }
    }

    /// Passes the output of this loop's shard on to its destinations.
    fn pass_on(&mut self, now: Tick) {
        while !self.shard.outbox.is_empty() {
            let mut own = Vec::new();
            for (to, parcel) in self.shard.outbox.drain(..) {
                match parcel {
                    Parcel::Loop(message) if to == self.index => self.inbox.push_back(message),
                    Parcel::Shard(message) if to == self.index => own.push(message),
                    parcel => self.outgoing[to].push(parcel),
                }
            }
            for message in own {
                self.shard.take(self.index, now, message);
            }
        }
    }
}

impl Request {
    /// Returns the channel whose shard carries out the request; `None` for a request to all shards.
    pub(super) fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Publish { channel, .. }
            | Self::Announce { channel, .. }
            | Self::Delete { channel }
            | Self::Clear { channel }
            | Self::Read { channel, .. }
            | Self::Inspect { channel }
            | Self::Presence { channel, .. }
            | Self::IssueToken { channel, .. }
            | Self::CheckToken { channel, .. } => Some(channel),
            Self::Broadcast(_) | Self::List { .. } => None,
        }
    }
}
