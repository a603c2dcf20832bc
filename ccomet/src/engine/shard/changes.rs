//! Changes of channels: publications, clearing and deletion. The shard submits each change to the
//! store, and completes it once the store has kept it. Each channel has one change in progress, and
//! the others wait for their turns: so publications that wait for a slow store are kept together,
//! and numbers are in the order in which publications arrived.

use std::collections::VecDeque;
use std::sync::Arc;

use sealed::fault;

use super::elsewhere::Behind;
use super::gate::Entrant;
use super::{Asker, Reachability, Shard};
use crate::core::message::{ChannelName, Message};
use crate::core::one_or_more::OneOrMore;
use crate::core::owner::Owner;
use crate::core::position::Spot;
use crate::core::time::LoopTime;
use crate::core::window::MessageLog;
use crate::engine::store::{self, NotKept, NumberedMessage, Outcome, Submitted};
use crate::engine::{ChannelEvent, Refusal, Reply, Tick, Window};

/// The maximum number of changes of one channel that wait.
const WAITING_MAX: usize = 1_000;

/// The maximum number of publications of one channel that are submitted together, and the bytes
/// from which on no further one joins them.
const TOGETHER_MAX: usize = 100;
const TOGETHER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A requested change.
#[derive(Debug)]
pub(super) enum Change {
    Publish { cause: Cause, owner: Owner, messages: OneOrMore<Arc<Message>> },
    Clear(Asker),
    Delete(Asker),
}

/// The cause of a publication.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    Asker(Asker),
    /// The broadcast of that number.
    Broadcast(usize),
}

/// The plan for one message of a publication.
#[derive(Debug)]
pub(super) enum Planned {
    /// The message is kept already, before this spot.
    Known(Spot),
    New(Arc<Message>),
    /// The message equals the new message of this index among those submitted together.
    Same(usize),
}

/// The messages of one publisher, and the plan for each.
#[derive(Debug)]
struct Publication {
    cause: Cause,
    owner: Owner,
    planned: OneOrMore<Planned>,
}

/// The state that a channel has in addition to its window, if the store keeps messages elsewhere
/// than in memory.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// The number of the oldest message kept.
    pub(super) kept_from: u64,
    /// The time when it was opened, or last read.
    pub(super) visited: LoopTime,
    /// Set if it has not been used since it was opened, as reading its history is no use.
    pub(super) is_unused: bool,
    /// The number of parts that the store reads.
    pub(super) reads: u32,
    /// What waits until the store has caught up with other servers.
    pub(super) behind: VecDeque<Behind>,
    under_way: Option<UnderWay>,
    waiting: VecDeque<Change>,
}

impl Change {
    /// Returns the bytes of its messages.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Publish { messages, .. } => messages.iter().map(|message| message.cost()).sum(),
            Self::Clear(_) | Self::Delete(_) => 0,
        }
    }

    /// Returns whether it may be submitted together with others. If the store assigns numbers, it
    /// may refuse a publication with keys, which must not affect others.
    fn joins(&self, assigns_numbers: bool) -> bool {
        let Self::Publish { messages, .. } = self else { return false };
        !assigns_numbers || messages.iter().all(|message| message.key().is_none())
    }
}

impl Stored {
    /// Returns the number of changes that wait for their turns or for the store.
    #[cfg(feature = "sim")]
    pub(super) fn waiting(&self) -> usize {
        let under_way = match &self.under_way {
            Some(UnderWay::Publish(publications)) => {
                publications.iter().map(|publication| publication.planned.iter().count()).sum()
            }
            other => usize::from(other.is_some()),
        };
        under_way + self.waiting.len()
    }

    /// Returns the bytes of the changes that wait for their turns.
    #[cfg(feature = "sim")]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(Change::bytes).sum()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some() || !self.waiting.is_empty()
    }
}

#[derive(Debug)]
enum UnderWay {
    Publish(OneOrMore<Publication>),
    Clear(Asker),
    Delete(Asker),
}

impl Shard {
    /// Starts a change of a channel, or queues it until its turn.
    pub(super) fn begin_change(&mut self, now: Tick, key: usize, change: Change) {
        let (is_cut_off, is_given_up) = (self.is_cut_off(), self.reachability == Reachability::GivenUp);
        if let Some(stored) = self.channels[key].stored.as_mut()
            && (stored.is_busy() || is_cut_off)
        {
            if is_given_up {
                return self.refuse_change(&change, Refusal::Unavailable);
            }
            let bytes = self.waiting_bytes + change.bytes();
            if stored.waiting.len() < WAITING_MAX && bytes <= self.limits.waiting_bytes_max {
                self.waiting_bytes = bytes;
                return stored.waiting.push_back(change);
            }
            return self.refuse_change(&change, Refusal::Unavailable);
        }
        self.make_change(now, key, change);
    }

    /// Takes the next change of a channel that waits, if `is_next` allows it.
    pub(super) fn take_waiting(&mut self, key: usize, is_next: impl FnOnce(&Change) -> bool) -> Option<Change> {
        let stored = self.channels[key].stored.as_mut()?;
        stored.waiting.front().filter(|change| is_next(change))?;
        let change = stored.waiting.pop_front()?;
        self.waiting_bytes -= change.bytes();
        Some(change)
    }

    pub(super) fn refuse_change(&mut self, change: &Change, why: Refusal) {
        match change {
            Change::Publish { cause, .. } => self.conclude(*cause, Err(why)),
            Change::Clear(asker) | Change::Delete(asker) => self.reply(*asker, Err(why)),
        }
    }

    /// Plans a change and submits it to the store.
    fn make_change(&mut self, now: Tick, key: usize, change: Change) {
        let under_way = match change {
            Change::Publish { cause, owner, messages } => match self.plan(key, messages, &mut Vec::new()) {
                Ok(planned) => UnderWay::Publish(OneOrMore::one(Publication { cause, owner, planned })),
                Err(why) => return self.conclude(cause, Err(why)),
            },
            Change::Clear(asker) => UnderWay::Clear(asker),
            Change::Delete(asker) => UnderWay::Delete(asker),
        };
        self.hand_over(now, key, under_way);
    }

    fn hand_over(&mut self, now: Tick, key: usize, under_way: UnderWay) {
        match self.submit(now, key, &under_way) {
            Submitted::Kept => self.complete(now, key, under_way, Ok(())),
            Submitted::Refused(why) => self.complete(now, key, under_way, Err(why)),
            Submitted::Later if fault!("accepted-before-kept") => self.complete(now, key, under_way, Ok(())),
            Submitted::Later => self.channels[key].stored.get_or_insert_default().under_way = Some(under_way),
        }
    }

    /// Determines which of the messages are new. `new` has the keyed messages that are submitted
    /// ahead of these.
    fn plan(
        &self,
        key: usize,
        messages: OneOrMore<Arc<Message>>,
        new: &mut Vec<Arc<Message>>,
    ) -> Result<OneOrMore<Planned>, Refusal> {
        let channel = &self.channels[key];
        let is_checked = messages.rest.is_empty() || !fault!("misused-key-among-several");
        let all = || messages.iter().map(|message| &**message);
        let is_misused = |message: &Message| {
            new.iter().any(|other| message.key().is_some() && other.key() == message.key() && !other.is_same(message))
        };
        if is_checked && (self.keys.is_misused(&channel.name, channel.epoch, all()) || all().any(is_misused)) {
            return Err(Refusal::KeyReused);
        }
        Ok(messages.map(|message| {
            if message.key().is_none() {
                return Planned::New(message);
            }
            if let Some(spot) = self.keys.published(&channel.name, channel.epoch, &message) {
                return Planned::Known(spot);
            }
            let is_same = |other: &Arc<Message>| other.key() == message.key() && !fault!("retry-kept-again");
            if let Some(index) = new.iter().position(is_same) {
                return Planned::Same(index);
            }
            new.push(message.clone());
            Planned::New(message)
        }))
    }

    fn submit(&mut self, now: Tick, key: usize, under_way: &UnderWay) -> Submitted {
        let place = self.channels[key].place();
        let publications = match under_way {
            UnderWay::Clear(_) => return self.store.submit(now, place, store::StoreChange::Clear),
            UnderWay::Delete(_) => return self.store.submit(now, place, store::StoreChange::Remove),
            UnderWay::Publish(publications) => publications,
        };
        let planned = &publications.first.planned;
        if let (Planned::New(message), true, true) =
            (&planned.first, planned.rest.is_empty(), publications.rest.is_empty())
        {
            return self.store.submit(now, place, store::StoreChange::Append(std::slice::from_ref(message)));
        }
        let planned = publications.iter().flat_map(|publication| publication.planned.iter());
        let new = planned.filter_map(|planned| match planned {
            Planned::New(message) => Some(message.clone()),
            Planned::Known(_) | Planned::Same(_) => None,
        });
        let new: Vec<_> = new.collect();
        if new.is_empty() {
            return Submitted::Kept;
        }
        self.store.submit(now, place, store::StoreChange::Append(&new))
    }

    /// Completes a change after the store has kept or refused it.
    fn complete(&mut self, now: Tick, key: usize, under_way: UnderWay, kept: Result<(), NotKept>) {
        match (under_way, kept) {
            (UnderWay::Publish(publications), Ok(())) => self.keep_all_of(now, key, publications, None),
            (UnderWay::Publish(publications), Err(why)) => {
                for publication in publications.iter() {
                    self.conclude(publication.cause, Err(why.into()));
                }
            }
            (UnderWay::Clear(asker), Ok(())) => {
                let next = self.clear(key);
                self.reply(asker, Ok(Reply::Ended(Some(next))));
            }
            (UnderWay::Delete(asker), Ok(())) => {
                let waiting: Vec<_> = std::iter::from_fn(|| self.take_waiting(key, |_| true)).collect();
                let name = self.channels[key].name.clone();
                let next = self.delete(key);
                self.reply(asker, Ok(Reply::Ended(Some(next))));
                for change in waiting.into_iter().filter(|_| !fault!("changes-lost-with-channel")) {
                    self.enter(now, Entrant::Change(name.clone(), change));
                }
            }
            (UnderWay::Clear(asker) | UnderWay::Delete(asker), Err(why)) => {
                self.reply(asker, Err(why.into()));
            }
        }
    }

    /// Starts a change of the channel of that name, which may not exist: it waited for a channel
    /// that is gone, or for the store to open the channel.
    pub(super) fn begin_by_name(&mut self, now: Tick, name: ChannelName, change: Change) {
        if let Some(key) = self.key_of(&name) {
            return self.begin_change(now, key, change);
        }
        match change {
            Change::Publish { cause: cause @ Cause::Asker(asker), owner, messages } => {
                match self.open(now, name, owner) {
                    Ok(key) => self.begin_change(now, key, Change::Publish { cause, owner, messages }),
                    Err(why) => self.reply(asker, Err(why)),
                }
            }
            // The broadcast was for the channels that existed then.
            Change::Publish { cause, .. } => self.conclude(cause, Err(Refusal::KeyReused)),
            Change::Clear(asker) | Change::Delete(asker) => self.reply(asker, Ok(Reply::Ended(None))),
        }
    }

    /// Appends messages to the channel, and replies to their publishers.
    /// `numbered` has the new messages, if the store assigns numbers.
    fn keep_all_of(
        &mut self,
        now: Tick,
        key: usize,
        publications: OneOrMore<Publication>,
        numbered: Option<Vec<NumberedMessage>>,
    ) {
        let mut numbered = numbered.map(Vec::into_iter);
        // The spots of the new messages that have keys.
        let mut made = Vec::new();
        let concluded = publications.map(|Publication { cause, owner, planned }| {
            // A broadcast goes to existing channels and does not change their owners.
            if matches!(cause, Cause::Asker(_)) {
                self.pass_to_back_end(key, owner);
            }
            let spots = planned.map(|planned| match planned {
                Planned::Known(spot) => spot,
                Planned::Same(index) => made.get(index).copied().unwrap_or(Spot::UNKNOWN),
                Planned::New(message) => {
                    let stored = numbered.as_mut().and_then(Iterator::next);
                    let spot = match &stored {
                        Some(known) if known.is_known => {
                            Spot { epoch: self.channels[key].epoch, next: known.number + 1 }
                        }
                        Some(new) => self.append(key, now, &new.message),
                        None => self.append(key, now, &message),
                    };
                    if message.key().is_some() {
                        made.push(spot);
                        if !fault!("retry-kept-again") {
                            self.keys.note(&self.channels[key].name, &message, spot, owner);
                        }
                    }
                    spot
                }
            });
            (cause, spots)
        });
        // The messages of a broadcast are forwarded once they are in all channels that one tick
        // allows.
        if matches!(concluded.first.0, Cause::Asker(_)) {
            self.send_feeds();
            self.evict();
        }
        concluded.map(|(cause, spots)| self.conclude(cause, Ok(spots)));
    }

    /// Reports the outcome of a publication to its cause.
    fn conclude(&mut self, cause: Cause, outcome: Result<OneOrMore<Spot>, Refusal>) {
        match cause {
            Cause::Asker(asker) => self.reply(asker, outcome.map(Reply::Published)),
            Cause::Broadcast(number) => self.broadcast_came(number, outcome.map(|_| ())),
        }
    }

    /// Processes the outcomes of the store.
    pub(super) fn settle(&mut self, now: Tick) {
        while let Some(outcome) = self.store.next_outcome(now) {
            match outcome {
                Outcome::Changed { channel, kept } => self.changed(now, &channel, kept),
                Outcome::Numbered { channel, messages } => self.numbered(now, &channel, messages),
                Outcome::Appended { channel, first, messages } => self.appended(now, &channel, first, &messages),
                Outcome::CaughtUp { channel } => self.caught_up_with_others(now, &channel),
                Outcome::Cleared { channel } => self.cleared(&channel),
                Outcome::Removed { channel } => self.removed(now, &channel),
                Outcome::Replaced { channel, window } => self.replaced(&channel, &window),
                Outcome::Passing { channel, messages } => {
                    self.pass_by(&channel, messages);
                    self.send_feeds();
                }
                Outcome::PassingCleared { channel } => self.forget_in_patterns(&channel),
                Outcome::Restarted { channel, window } => self.restarted(&channel, &window),
                Outcome::Page { read, part } => self.has_read(read, part),
                Outcome::Opened { channel, kept } => self.opened(now, channel, kept),
                Outcome::Vacant { channel, epoch } => self.found_vacant(now, &channel, epoch),
                Outcome::Names { read, names, has_more } => self.has_listed(now, read, names, has_more),
                Outcome::CutOff => self.cut_off(),
                Outcome::GivenUp => self.give_up(),
                Outcome::Back => self.back(now),
            }
        }
    }

    fn changed(&mut self, now: Tick, name: &ChannelName, kept: Result<(), NotKept>) {
        let Some(key) = self.key_of(name) else { return };
        if let Some(under_way) = self.take_under_way(key) {
            self.complete(now, key, under_way, kept);
            self.send_feeds();
            self.evict();
        }
        self.continue_changes(now, name);
    }

    /// Completes a publication whose messages the store has numbered.
    pub(super) fn complete_numbered(&mut self, now: Tick, key: usize, messages: Vec<NumberedMessage>) {
        match self.take_under_way(key) {
            Some(UnderWay::Publish(publications)) => self.keep_all_of(now, key, publications, Some(messages)),
            other => debug_assert!(false, "no publication is in progress, but {other:?}"),
        }
    }

    fn take_under_way(&mut self, key: usize) -> Option<UnderWay> {
        self.channels[key].stored.as_mut().and_then(|stored| stored.under_way.take())
    }

    /// Starts the changes of a channel that wait, as far as it is their turn.
    pub(super) fn continue_changes(&mut self, now: Tick, name: &ChannelName) {
        while let Some(key) = self.key_of(name)
            && !self.is_cut_off()
            && self.channels[key].stored.as_ref().is_some_and(|stored| stored.under_way.is_none())
            && let Some(change) = self.take_waiting(key, |_| true)
        {
            match change {
                Change::Publish { .. } => self.publish_together(now, key, change),
                change => self.make_change(now, key, change),
            }
        }
    }

    /// Submits a publication, together with those that follow it.
    fn publish_together(&mut self, now: Tick, key: usize, first: Change) {
        let assigns_numbers = self.store.assigns_numbers();
        let is_joined = first.joins(assigns_numbers);
        let (mut new, mut publications, mut next, mut bytes) = (Vec::new(), Vec::new(), Some(first), 0);
        while let Some(Change::Publish { cause, owner, messages }) = next {
            bytes += messages.iter().map(|message| message.cost()).sum::<usize>();
            match self.plan(key, messages, &mut new) {
                Ok(planned) => publications.push(Publication { cause, owner, planned }),
                Err(why) => self.conclude(cause, Err(why)),
            }
            let has_room = publications.len() < TOGETHER_MAX && bytes < TOGETHER_BYTES_MAX;
            let is_joined = |change: &Change| has_room && is_joined && change.joins(assigns_numbers);
            next = self.take_waiting(key, is_joined);
        }
        let mut publications = publications.into_iter();
        if let Some(first) = publications.next() {
            self.hand_over(now, key, UnderWay::Publish(OneOrMore { first, rest: publications.collect() }));
        }
    }

    /// Replaces a channel's state after a restart of its numbers.
    fn restarted(&mut self, name: &ChannelName, window: &Window) {
        let Window { epoch, kept_from, first, ref entries } = *window;
        self.epochs.replace(name, epoch);
        // A channel that is not in memory has the new numbers when it is opened.
        let Some(key) = self.key_of(name) else { return };
        if self.channels[key].epoch == epoch {
            return self.skip_to(key, window);
        }
        self.change(key, |channel, dropped| {
            channel.log.drop_before(channel.log.next(), |message| dropped.note(&message));
            channel.epoch = epoch;
            channel.log = MessageLog::starting_at(first);
            let stored = channel.stored.get_or_insert_default();
            // Reads in progress are of the earlier numbers.
            (stored.kept_from, stored.reads) = (kept_from, 0);
        });
        for message in entries {
            self.push(key, message.clone());
        }
        let channel = &mut self.channels[key];
        for follower in &mut channel.attached {
            follower.cursor = channel.log.next();
        }
        // The keys of messages in memory are registered again. Their owners are not known.
        for (number, message) in (first..).zip(entries) {
            self.keys.note(name, message, Spot { epoch, next: number + 1 }, Owner::default());
        }
        for index in 0..self.channels[key].attached.len() {
            let to = self.channels[key].attached[index].to;
            self.notify(to, name.clone(), ChannelEvent::Restarted(window.clone()));
        }
    }
}
