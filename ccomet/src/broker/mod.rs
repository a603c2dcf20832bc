//! Who numbers a channel's messages and keeps its history.
//!
//! A loop's hub speaks to its broker in [`Command`]s and hears of what happened in [`Event`]s; it cannot tell where
//! the numbers are given. In memory ([`MemoryBroker`]) each channel has its home on one loop of the process.

mod home;
mod memory;

use std::sync::Arc;

pub(crate) use home::{Home, HomeLimits};
pub(crate) use memory::{Mail, MemoryBroker};

use crate::message::{ChannelName, Message};
use crate::position::{Epoch, Spot};

/// What a loop asks of whoever numbers a channel.
#[derive(Debug)]
pub(crate) enum Command {
    /// Number and keep a message; answered by `Accepted` or `Refused`.
    Publish { channel: ChannelName, message: Message, ticket: Ticket },
    /// Tell all who wait in the channel that somebody signed in: no number, not kept. Ends a wait of that name.
    Sign { channel: ChannelName, name: Arc<str> },
    /// Send this loop the channel's history and from then on what is published; answered by `Attached` or `NotAttached`.
    Attach { channel: ChannelName },
    /// Send this attached loop what it does not have yet, now; answered by `Synced`.
    Sync { channel: ChannelName },
    /// No more of that channel.
    Detach { channel: ChannelName },
    /// A subscriber of this loop waits under a name. One that waits under it already is displaced.
    Claim { channel: ChannelName, name: Arc<str>, claim: Claim },
    /// It does not wait any more.
    Release { channel: ChannelName, name: Arc<str>, claim: Claim },
    /// End the channel: its history is gone, its numbers start anew. Answered by `Deleted`.
    Delete { channel: ChannelName, ticket: Ticket },
    /// This many `Appended` events have been worked off.
    Acknowledge { count: u32 },
}

/// What a loop is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// The message has its number and is in the history.
    Accepted { ticket: Ticket, spot: Spot },
    /// The message was not taken.
    Refused { ticket: Ticket, why: Refusal },
    /// The channel as it is now. What is published from here on comes as `Appended`, without a gap.
    Attached { channel: ChannelName, epoch: Epoch, first: u64, entries: Vec<Arc<Message>> },
    /// The channel cannot be had.
    NotAttached { channel: ChannelName, why: Refusal },
    /// Messages from number `first` on. Where this loop was slow, `first` may be beyond what it has.
    Appended { channel: ChannelName, first: u64, entries: Vec<Arc<Message>>, signs: Vec<Arc<str>> },
    /// The answer to `Sync`: the same, up to how the channel was when it was asked.
    Synced { channel: ChannelName, first: u64, entries: Vec<Arc<Message>> },
    /// Another subscriber waits under that name now, or its owner signed in anew.
    Displaced { claim: Claim },
    /// The channel was deleted.
    Closed { channel: ChannelName },
    /// The answer to `Delete`.
    Deleted { ticket: Ticket, existed: bool },
}

/// Finds the caller again when the answer comes: the loop's own number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(pub(crate) u64);

/// Finds the waiting subscriber again: the loop's own number for it, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim(pub(crate) u64);

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are as many channels as there may be.
    ChannelLimit,
}

/// The calendar and a random number, told to whoever may not look for himself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) unix_ms: u64,
    pub(crate) random: u64,
}

/// Whoever numbers messages, as one loop sees it.
pub(crate) trait Broker {
    /// Takes a command. Its answer, if it has one, comes as an event, at once or later.
    fn command(&mut self, now: Now, command: Command);
    /// What happened, in order.
    fn next_event(&mut self) -> Option<Event>;
    /// The end of a tick: what was gathered is passed on.
    fn flush(&mut self);
    /// About once a second: what has become old goes.
    fn sweep(&mut self, now: Now);
}
