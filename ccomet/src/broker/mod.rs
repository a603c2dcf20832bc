//! Who numbers a channel's messages and keeps its history.
//!
//! A loop's hub speaks to its broker in [`Command`]s and hears of what happened in [`Event`]s; it cannot tell where
//! the numbers are given. In memory ([`MemoryBroker`]) each channel has its home on one loop of the process.

mod home;
mod lookup;
mod memory;
mod owner;
mod watch;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use home::{Home, HomeLimits, KeyLimits, OwnerLimits, PresenceLimits};
pub(crate) use lookup::{ChannelInfo, Edge, Listed, Listing, Member, Page, Range, Who};
pub(crate) use memory::{Mail, MemoryBroker};
pub(crate) use owner::Owner;

use crate::message::{ChannelName, Message, Movement};
use crate::one_or_more::OneOrMore;
use crate::pattern::Pattern;
use crate::position::{Epoch, Spot};
use crate::time::{LoopTime, UnixMillis};

/// What a loop asks of whoever numbers a channel.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Number and keep messages, all of them or none; answered by `Accepted` or `Refused`. One that was published before, under
    /// its key, is not kept again.
    Publish { channel: ChannelName, messages: OneOrMore<Message>, owner: Owner, ticket: Ticket },
    /// Tell all who wait in the channel that somebody signed in: no number, not kept. Ends a wait of that name.
    Sign { channel: ChannelName, name: Arc<str> },
    /// Send this loop the channel's history and from then on what is published; answered by `Attached` or `NotAttached`.
    Attach { channel: ChannelName, owner: Owner },
    /// Send this attached loop what it does not have yet, now; answered by `Synced`.
    Sync { channel: ChannelName },
    /// No more of that channel.
    Detach { channel: ChannelName },
    /// A subscriber of this loop waits under a name. One that waits under it already is displaced.
    Claim { channel: ChannelName, name: Arc<str>, claim: Claim },
    /// It does not wait any more.
    Release { channel: ChannelName, name: Arc<str>, claim: Claim },
    /// End the channel: its history is gone, its numbers start anew. Answered by `Ended`.
    Delete { channel: ChannelName, ticket: Ticket },
    /// Drop the channel's history; its numbers go on. Answered by `Ended`.
    Clear { channel: ChannelName, ticket: Ticket },
    /// From the home of a pattern: tell what there is of it, and from now on what is published. Answered by `Fill`. What is
    /// told comes with the same `run`: a pattern that went and came again is not told what was for the one before.
    Follow { pattern: ChannelName, run: u64 },
    /// Not any more.
    Unfollow { pattern: ChannelName },
    /// To the home of a pattern: what there was when it began to follow, each with the time that puts it in order.
    Fill { pattern: ChannelName, run: u64, entries: Vec<(UnixMillis, Arc<Message>)> },
    /// What was published since.
    Feed { pattern: ChannelName, run: u64, entries: Vec<Arc<Message>> },
    /// A channel of the pattern was cleared or closed: keep nothing that was in it.
    Forget { pattern: ChannelName },
    /// Number and keep a message in every channel that there is of a pattern. Answered by `Broadcasted` or `Refused` from every home
    /// when it is done, where somebody asks.
    Broadcast { order: BroadcastOrder, ticket: Option<Ticket> },
    /// Make the channel if need be, keep it in use for so long, and give it that token if it has none. Answered by
    /// `Signed` or `Refused`.
    SignFor { channel: ChannelName, hold: Duration, token: Token, ticket: Ticket },
    /// Tell whether the channel has that token; answered by `Admitted`.
    Admit { channel: ChannelName, token: Option<Token>, ticket: Ticket },
    /// Tell a part of what the channel has kept; answered by `Read`.
    Read { channel: ChannelName, range: Range, ticket: Ticket },
    /// Tell of the channels of this home; answered by `Listed`, from every home.
    List { listing: Listing, ticket: Ticket },
    /// Tell what is known of the channel; answered by `Inspected`.
    Inspect { channel: ChannelName, ticket: Ticket },
    /// So many subscribers of this loop are in the channel now.
    Count { channel: ChannelName, subscribers: u32 },
    /// So many connections of a member are in the channel on this loop now.
    Present { channel: ChannelName, id: Arc<str>, connections: u32 },
    /// Tell who is in the channel; answered by `Present` or `Refused`.
    Who { channel: ChannelName, owner: Owner, ticket: Ticket },
    /// Tell this loop of every channel that comes into use or goes out of it, or no more.
    Watch { wanted: bool },
    /// This many `Appended` and `Truncated` events have been worked off.
    Acknowledge { count: u32 },
}

/// A message for all channels of a pattern.
#[derive(Debug, Clone)]
pub(crate) struct BroadcastOrder {
    pub(crate) pattern: Pattern,
    pub(crate) message: Message,
    /// A home that has more of these channels publishes it in none of them.
    pub(crate) reach_max: usize,
    /// Whose message it is.
    pub(crate) owner: Owner,
}

/// What a loop is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// The messages have their numbers and are in the history: the spot behind each.
    Accepted { ticket: Ticket, spots: OneOrMore<Spot> },
    /// In so many channels of that home.
    Broadcasted { ticket: Ticket, channels: u64 },
    /// The message was not taken.
    Refused { ticket: Ticket, why: Refusal },
    /// The channel as it is now. What is published from here on comes as `Appended`, without a gap.
    Attached { channel: ChannelName, epoch: Epoch, first: u64, entries: Vec<Arc<Message>> },
    /// The channel cannot be had.
    NotAttached { channel: ChannelName, owner: Owner, why: Refusal },
    /// Messages from number `first` on. Where this loop was slow, `first` may be beyond what it has.
    /// The channel keeps nothing before number `kept_from`.
    Appended { channel: ChannelName, first: u64, entries: Vec<Arc<Message>>, signs: Vec<Arc<str>>, kept_from: u64 },
    /// The channel keeps nothing any more before that number.
    Truncated { channel: ChannelName, kept_from: u64 },
    /// The answer to `Sync`: the same, up to how the channel was when it was asked.
    Synced { channel: ChannelName, first: u64, entries: Vec<Arc<Message>> },
    /// Another subscriber waits under that name now, or its owner signed in anew.
    Displaced { claim: Claim },
    /// The channel was deleted.
    Closed { channel: ChannelName },
    /// The channel's history up to that number is gone.
    Cleared { channel: ChannelName, first: u64 },
    /// The answer to `Delete` and `Clear`: the number that the channel's next message would have had, if there was one.
    Ended { ticket: Ticket, next: Option<u64> },
    /// The answer to `SignFor`: the number of the oldest message kept, or of the next one, and the channel's token.
    Signed { ticket: Ticket, first: u64, token: Token },
    /// The answer to `Admit`.
    Admitted { ticket: Ticket, is_right: bool },
    /// The answer to `Read`, where there is such a channel.
    Read { ticket: Ticket, page: Option<Page> },
    /// The answer to `List`, sorted by name.
    Listed { ticket: Ticket, channels: Vec<Listed> },
    /// The answer to `Inspect`, where there is such a channel.
    Inspected { ticket: Ticket, info: Option<ChannelInfo> },
    /// The answer to `Who`.
    Present { ticket: Ticket, who: Who },
    /// A member came into a channel of this home, or went.
    Moved { channel: ChannelName, id: Arc<str>, movement: Movement },
    /// A channel is in use, or not any more.
    Use { channel: ChannelName, in_use: bool },
}

/// What opens a channel to who knows it: 128 random bits.
#[derive(Clone, Copy)]
pub(crate) struct Token([u8; 16]);

impl Token {
    pub(crate) fn new(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// Reads 32 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        Some(Self(bits.to_be_bytes()))
    }

    /// Whether they are the same, told in the same time whichever bits differ.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(other.0).fold(0, |differing, (mine, theirs)| differing | (mine ^ theirs));
        std::hint::black_box(differing) == 0
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A secret: not for logs.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
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
    /// There are as many patterns as there may be.
    PatternLimit,
    /// The client has made as many channels or patterns as one may.
    ClientLimit,
    /// There are as many messages on their way to all channels of a pattern as there may be.
    BroadcastLimit,
    /// The pattern stands for more channels than one message may go to.
    BroadcastTooWide,
    /// Something else was published under the same key.
    KeyReused,
}

/// The time, by both clocks, and a random number: the broker looks at no clock itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For what is dated: messages, epochs, and how long they are kept.
    pub(crate) time: UnixMillis,
    /// For what takes a while.
    pub(crate) loop_time: LoopTime,
    pub(crate) random: u64,
}

/// Whoever numbers messages, as one loop sees it.
pub(crate) trait Broker {
    /// Takes a command. Its answer, if it has one, comes as an event, at once or later.
    fn command(&mut self, now: Now, command: Command);
    /// What happened, in order.
    fn next_event(&mut self) -> Option<Event>;
    /// The end of a tick: what was gathered is passed on.
    fn flush(&mut self, now: Now);
    /// Whether there is work that was left for the next tick.
    fn has_work(&self) -> bool;
    /// About once a second: what has become old goes.
    fn sweep(&mut self, now: Now);
}
