//! The entrance of the shard, for channels that only the store keeps: after a restart, or because
//! they were unloaded.
//!
//! A request, an order or a change for such a channel opens it first. If the store answers later,
//! everything that concerns the channel waits in one queue until then, and goes on in the order of
//! its arrival. So the rest of the shard knows only channels that are in memory. Channels whose
//! messages come from other channels are never in the store. If the store keeps nothing elsewhere,
//! the gate is always open.

use std::collections::{HashMap, VecDeque};

use sealed::fault;

use super::changes::{Cause, Change};
use super::publishing::Broadcasting;
use super::work::Task;
use super::{Asker, Shard};
use crate::core::message::{ChannelName, Message};
use crate::core::owner::Owner;
use crate::core::position::Epoch;
use crate::core::window::MessageLog;
use crate::engine::store::{KeptChannel, Opened, Unreadable};
use crate::engine::{ChannelEvent, Order, Refusal, Request, Tick, Window};

/// The maximum number of requests and of orders to open that wait, for all channels. Other orders
/// are for channels that were to be opened before, and are never refused.
const WAITING_MAX: usize = 4_096;

/// The maximum number of changes of broadcasts that wait: the store opens so many channels at a
/// time for them.
const CHANGES_MAX: usize = 256;

/// A request, an order of a loop, or a change that starts inside the shard.
#[derive(Debug)]
pub(super) enum Entrant {
    Request(Asker, Request),
    Order(usize, Order),
    Change(ChannelName, Change),
}

impl Entrant {
    /// Returns its channel; `None` if it concerns many.
    fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Request(_, request) => request.channel(),
            Self::Order(_, order) => Some(order.channel()),
            Self::Change(channel, _) => Some(channel),
        }
    }

    /// Returns whether it has an effect or a result if the channel is not in memory. Only channels
    /// in memory have readers and tokens.
    fn needs_channel(&self) -> bool {
        match self {
            Self::Request(_, request) => !matches!(request, Request::Announce { .. } | Request::CheckToken { .. }),
            Self::Order(_, order) => matches!(order, Order::Open { .. }),
            Self::Change(..) => true,
        }
    }

    /// Returns the bytes of its messages.
    fn bytes(&self) -> usize {
        match self {
            Self::Request(_, Request::Publish { messages, .. }) => messages.iter().map(Message::cost).sum(),
            Self::Change(_, change) => change.bytes(),
            Self::Request(..) | Self::Order(..) => 0,
        }
    }

    /// Returns whether it creates its channel if nothing is kept of it, or needs the epoch that the
    /// channel would have.
    fn creates_channel(&self) -> bool {
        match self {
            Self::Request(_, request) => {
                matches!(request, Request::Publish { .. } | Request::Presence { .. } | Request::IssueToken { .. })
            }
            Self::Order(_, order) => matches!(order, Order::Open { .. }),
            Self::Change(_, change) => matches!(change, Change::Publish { cause: Cause::Asker(_), .. }),
        }
    }

    fn is_change(&self) -> bool {
        matches!(self, Self::Change(..))
    }

    /// Returns whether it may be refused if too many wait.
    fn is_refusable(&self) -> bool {
        !matches!(self, Self::Order(_, order) if !matches!(order, Order::Open { .. }))
    }

    /// Returns whether it comes from a client, for which the last channels are not available.
    fn is_of_client(&self) -> bool {
        let owner = match self {
            Self::Request(_, Request::Publish { owner, .. } | Request::Presence { owner, .. })
            | Self::Order(_, Order::Open { owner, .. })
            | Self::Change(_, Change::Publish { owner, .. }) => *owner,
            _ => Owner::default(),
        };
        owner.is_counted()
    }
}

/// What waits for channels that the store opens.
#[derive(Debug, Default)]
pub(super) struct Gate {
    queues: HashMap<ChannelName, VecDeque<Entrant>>,
    /// The number of entrants in all queues, and of the changes among them.
    waiting: usize,
    changes: usize,
    /// The bytes of their messages.
    bytes: usize,
    /// The channel whose queue goes on: the store keeps nothing of it that is not in memory.
    settled: Option<ChannelName>,
    /// The epoch of that channel if it is created, and the store assigns epochs.
    assigned: Option<Epoch>,
    /// Broadcasts that continue when less waits.
    broadcasts: VecDeque<Broadcasting>,
}

impl Gate {
    /// Notes that the store keeps a channel that is not in memory any more.
    pub(super) fn unloaded(&mut self, name: &ChannelName) {
        self.settled.take_if(|settled| settled == name);
    }

    /// Returns the epoch that the store has assigned to a channel that does not exist.
    pub(super) fn assigned_epoch(&self, name: &ChannelName) -> Option<Epoch> {
        self.assigned.filter(|_| self.settled.as_ref() == Some(name))
    }

    /// Returns whether broadcasts are to wait, so that requests find room.
    pub(super) fn is_busy(&self) -> bool {
        self.changes >= CHANGES_MAX || self.waiting >= WAITING_MAX / 2
    }

    /// Adds an entrant to the queue of a channel.
    fn add(&mut self, name: ChannelName, entrant: Entrant) {
        self.waiting += 1;
        self.changes += usize::from(entrant.is_change());
        self.bytes += entrant.bytes();
        let queue = self.queues.entry(name).or_default();
        if fault!("order-at-gate-changed") {
            return queue.push_front(entrant);
        }
        queue.push_back(entrant);
    }

    /// Takes the queue of a channel.
    fn take(&mut self, name: &ChannelName) -> Option<VecDeque<Entrant>> {
        let queue = self.queues.remove(name)?;
        self.waiting -= queue.len();
        self.changes -= queue.iter().filter(|entrant| entrant.is_change()).count();
        self.bytes -= queue.iter().map(Entrant::bytes).sum::<usize>();
        if self.queues.is_empty() {
            self.queues.shrink_to(64);
        }
        Some(queue)
    }

    /// Holds a broadcast until less waits.
    pub(super) fn hold(&mut self, broadcasting: Broadcasting) {
        self.broadcasts.push_back(broadcasting);
    }

    /// Returns the channels that the store opens.
    pub(super) fn names(&self) -> impl Iterator<Item = &ChannelName> {
        self.queues.keys()
    }

    /// Returns whether an entrant finds no room.
    fn is_full_for(&self, entrant: &Entrant, bytes_max: usize) -> bool {
        let is_full = self.waiting >= WAITING_MAX || self.bytes + entrant.bytes() > bytes_max;
        is_full && entrant.is_refusable()
    }

    #[cfg(feature = "sim")]
    pub(super) fn waiting(&self) -> usize {
        self.waiting + self.broadcasts.len()
    }
}

impl Shard {
    /// Carries out what a loop asks for, once its channel is in memory or known not to exist.
    pub(super) fn enter(&mut self, now: Tick, entrant: Entrant) {
        let name = entrant.channel().filter(|name| self.may_be_kept(name)).cloned();
        let Some(name) = name else { return self.admit(now, entrant) };
        let is_full = self.gate.is_full_for(&entrant, self.limits.waiting_bytes_max);
        if self.gate.queues.contains_key(&name) {
            if is_full {
                return self.turn_away(entrant, Refusal::Unavailable);
            }
            return self.gate.add(name, entrant);
        }
        let creates = entrant.creates_channel();
        let lacks_epoch = creates && self.store.assigns_numbers() && self.gate.assigned.is_none();
        let is_settled = self.gate.settled.as_ref() == Some(&name) && !lacks_epoch || fault!("kept-channel-not-opened");
        if self.names.contains_key(&name) || is_settled || !entrant.needs_channel() {
            return self.admit(now, entrant);
        }
        if is_full {
            return self.turn_away(entrant, Refusal::Unavailable);
        }
        match self.store.open(now, &name, creates) {
            Opened::Absent => self.admit(now, entrant),
            Opened::Kept(kept) => match self.restore(now, &name, kept, entrant.is_of_client()) {
                Ok(()) => self.admit(now, entrant),
                Err(why) => self.turn_away(entrant, why),
            },
            Opened::Later => self.gate.add(name, entrant),
            Opened::Refused => self.turn_away(entrant, Refusal::Unavailable),
        }
    }

    fn admit(&mut self, now: Tick, entrant: Entrant) {
        match entrant {
            Entrant::Request(asker, request) => self.request(now, asker, request),
            Entrant::Order(from, order) => self.order(from, now, order),
            Entrant::Change(name, change) => self.begin_by_name(now, name, change),
        }
    }

    /// Refuses what cannot be carried out. Orders for a channel that could not be opened have no
    /// effect.
    fn turn_away(&mut self, entrant: Entrant, why: Refusal) {
        match entrant {
            Entrant::Request(asker, _) => self.reply(asker, Err(why)),
            Entrant::Order(from, Order::Open { channel, owner }) => {
                self.notify(from, channel, ChannelEvent::Refused { owner, why });
            }
            Entrant::Order(..) => {}
            Entrant::Change(_, change) => self.refuse_change(&change, why),
        }
    }

    /// Continues with what waits for a channel, after the store has opened it.
    pub(super) fn opened(&mut self, now: Tick, name: ChannelName, kept: Result<Option<KeptChannel>, Unreadable>) {
        let Some(queue) = self.gate.take(&name) else {
            debug_assert!(false, "{name} was not to be opened");
            return;
        };
        let are_clients = queue.iter().all(Entrant::is_of_client);
        let outcome = match kept {
            Ok(None) => Ok(()),
            Ok(Some(kept)) => self.restore(now, &name, kept, are_clients),
            Err(Unreadable) => Err(Refusal::Unavailable),
        };
        self.pass_queue(now, name, queue, outcome);
    }

    /// Continues with what waits for a channel of which nothing is kept, with the epoch that the
    /// store has assigned to it.
    pub(super) fn found_vacant(&mut self, now: Tick, name: &ChannelName, epoch: Epoch) {
        let Some(queue) = self.gate.take(name) else {
            debug_assert!(false, "{name} was not to be opened");
            return;
        };
        self.epochs.note(epoch);
        self.gate.assigned = Some(epoch);
        self.pass_queue(now, name.clone(), queue, Ok(()));
        self.gate.assigned = None;
        if !self.names.contains_key(name) && !self.gate.queues.contains_key(name) {
            self.store.forget(name);
        }
    }

    fn pass_queue(&mut self, now: Tick, name: ChannelName, queue: VecDeque<Entrant>, outcome: Result<(), Refusal>) {
        self.gate.settled = Some(name);
        for entrant in queue.into_iter().filter(|_| !fault!("queue-at-gate-lost")) {
            match outcome {
                Ok(()) => self.enter(now, entrant),
                Err(why) => self.turn_away(entrant, why),
            }
        }
        self.gate.settled = None;
        self.send_feeds();
        self.evict();
        for _ in 0..self.gate.broadcasts.len() {
            if self.gate.is_busy() {
                break;
            }
            let Some(broadcasting) = self.gate.broadcasts.pop_front() else { break };
            self.begin(now, Task::Broadcast(broadcasting));
        }
    }

    /// Creates a channel in memory as the store keeps it. It counts for no client: its creator is
    /// not known.
    fn restore(&mut self, now: Tick, name: &ChannelName, kept: KeptChannel, is_of_client: bool) -> Result<(), Refusal> {
        let KeptChannel { window: Window { epoch, kept_from, first, entries }, keys } = kept;
        if !self.has_room(now, is_of_client) {
            self.store.unload(name);
            return Err(Refusal::ChannelLimit);
        }
        self.epochs.note(epoch);
        let epoch = if fault!("epoch-renewed-at-opening") { self.epochs.fresh(now) } else { epoch };
        let key = self.create(now, name.clone(), epoch, Owner::default());
        let channel = &mut self.channels[key];
        channel.log = MessageLog::starting_at(first);
        let stored = channel.stored.get_or_insert_default();
        (stored.kept_from, stored.visited, stored.is_unused) = (kept_from, now.loop_time, true);
        for message in entries {
            self.push(key, message);
        }
        for kept in keys.into_iter().filter(|_| !fault!("keys-not-restored")) {
            self.keys.restore(now.time, name, epoch, kept);
        }
        self.trim(key, now);
        self.note_idle(key);
        self.evict();
        Ok(())
    }
}
