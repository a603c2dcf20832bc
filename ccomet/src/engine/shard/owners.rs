//! The accounts of clients on a shard: their channels, and the history that these keep.
//!
//! A channel counts for the address and for the subject of the client that created it. The channels
//! of the admin listener and of loopback share one account, `NOBODY`.

use std::collections::HashMap;
use std::num::NonZeroU64;

use sealed::fault;
use slab::Slab;

use super::ranks::Ranks;
use crate::core::owner::Owner;

/// The limits of the channels and patterns that one client may have created on one shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnerLimits {
    pub(crate) channels_max: usize,
    pub(crate) patterns_max: usize,
}

/// The account of channels that count for no client.
const NOBODY: usize = 0;

/// The divisor of the history limit for the share of `NOBODY`. Up to that share, its channels lose
/// nothing as long as those of clients keep messages.
const NOBODYS_SHARE: usize = 2;

/// The clients that have created channels, by address and by subject: at most two accounts for each
/// channel.
#[derive(Debug)]
pub(super) struct Owners {
    limits: OwnerLimits,
    numbers: HashMap<NonZeroU64, u32>,
    accounts: Slab<Account>,
    /// The accounts of clients, by the bytes of their history.
    ranks: Ranks,
}

#[derive(Debug, Default)]
struct Account {
    part: Option<NonZeroU64>,
    channels: usize,
    patterns: usize,
    /// The weight of its channels.
    bytes: usize,
    /// Its channels that keep messages.
    with_history: Vec<u32>,
    /// The index of the channel that eviction visits next.
    next: usize,
}

/// The accounts for which a channel counts, and its index in the list of each, if it keeps
/// messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted([(u32, u32); 2]);

/// Stands for no account in [`Counted`], which is a part of every channel.
const NO_ACCOUNT: u32 = u32::MAX;

/// The new index of a channel in the list of an account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    account: u32,
    place: u32,
}

/// A channel of the account that is the next to lose history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) key: usize,
    account: usize,
    /// The number of channels of the account that keep messages.
    pub(super) count: usize,
    /// The mean weight of these channels.
    pub(super) mean: usize,
}

impl Account {
    fn count_mut(&mut self, is_pattern: bool) -> &mut usize {
        if is_pattern { &mut self.patterns } else { &mut self.channels }
    }
}

impl Counted {
    pub(super) fn accounts(self) -> impl Iterator<Item = usize> {
        self.entries().map(|(account, _)| account as usize)
    }

    fn entries(self) -> impl Iterator<Item = (u32, u32)> {
        self.0.into_iter().filter(|(account, _)| *account != NO_ACCOUNT)
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut (u32, u32)> {
        self.0.iter_mut().filter(|(account, _)| *account != NO_ACCOUNT)
    }

    /// Sets the new index of the channel.
    pub(super) fn note(&mut self, moved: Moved) {
        for (_, place) in self.entries_mut().filter(|(account, _)| *account == moved.account) {
            *place = moved.place;
        }
    }
}

impl Owners {
    /// Changes the limits. A client keeps the channels that it has.
    pub(super) fn set_limits(&mut self, limits: OwnerLimits) {
        self.limits = limits;
    }

    pub(super) fn new(limits: OwnerLimits) -> Self {
        let mut accounts = Slab::new();
        accounts.insert(Account::default());
        Self { limits, numbers: HashMap::new(), accounts, ranks: Ranks::default() }
    }

    /// Returns whether a client may create one more channel or pattern.
    pub(super) fn may_make(&self, owner: Owner, is_pattern: bool) -> bool {
        let accounts = owner.parts().filter_map(|part| self.accounts.get(*self.numbers.get(&part)? as usize));
        let mut counts = accounts.map(|account| if is_pattern { account.patterns } else { account.channels });
        let max = if is_pattern { self.limits.patterns_max } else { self.limits.channels_max };
        counts.all(|count| count < max)
    }

    /// Counts a new channel.
    pub(super) fn made(&mut self, owner: Owner, is_pattern: bool) -> Counted {
        let mut counted = Counted([(NO_ACCOUNT, 0); 2]);
        let Self { numbers, accounts, .. } = self;
        let of_parts = owner.parts().map(|part| {
            *numbers
                .entry(part)
                .or_insert_with(|| accounts.insert(Account { part: Some(part), ..Account::default() }) as u32)
        });
        for (at, account) in counted.0.iter_mut().zip(of_parts) {
            *at = (account, 0);
        }
        if counted.0[0].0 == NO_ACCOUNT {
            counted.0[0] = (NOBODY as u32, 0);
        }
        for account in counted.accounts() {
            *self.accounts[account].count_mut(is_pattern) += 1;
        }
        counted
    }

    /// Removes a channel that keeps nothing.
    pub(super) fn gone(&mut self, counted: Counted, is_pattern: bool) {
        for number in counted.accounts() {
            let account = &mut self.accounts[number];
            *account.count_mut(is_pattern) -= 1;
            if account.channels + account.patterns == 0
                && let Some(part) = account.part
            {
                self.numbers.remove(&part);
                self.accounts.remove(number);
            }
        }
        if self.numbers.is_empty() && self.numbers.capacity() > 64 {
            (self.numbers, self.ranks) = (HashMap::new(), Ranks::default());
            self.accounts.shrink_to_fit();
        }
    }

    /// Replaces the weight of a channel.
    pub(super) fn weigh(&mut self, counted: Counted, before: usize, now: usize) {
        for number in counted.accounts() {
            let account = &mut self.accounts[number];
            account.bytes = account.bytes - before + now;
            if number != NOBODY && !fault!("history-of-clients-not-compared") {
                self.ranks.set(number, account.bytes);
            }
        }
    }

    /// Returns the total weight of all accounts: each channel counts once for each of its accounts.
    #[cfg(feature = "sim")]
    pub(super) fn bytes(&self) -> usize {
        self.accounts.iter().map(|(_, account)| account.bytes).sum()
    }

    /// Returns a channel of the account that is the next to lose history: the client that keeps
    /// most, or `NOBODY` if it keeps more than its share. Returns `None` if the account has no
    /// channel that keeps messages.
    pub(super) fn list(&mut self, key: usize, counted: &mut Counted) {
        for (number, place) in counted.entries_mut() {
            let listed = &mut self.accounts[*number as usize].with_history;
            *place = listed.len() as u32;
            listed.push(key as u32);
        }
    }

    /// Removes a channel from the lists of its accounts. Calls `moved` for each channel whose index
    /// changes.
    pub(super) fn unlist(&mut self, counted: Counted, mut moved: impl FnMut(usize, Moved)) {
        for (number, place) in counted.entries() {
            let listed = &mut self.accounts[number as usize].with_history;
            listed.swap_remove(place as usize);
            if let Some(key) = listed.get(place as usize) {
                moved(*key as usize, Moved { account: number, place });
            }
            if listed.len() * 4 < listed.capacity() {
                listed.shrink_to(listed.len() * 2);
            }
        }
    }

    /// Returns a channel of the account that is the next to lose history: the client that keeps
    /// most, or nobody, if nobody's channels keep more than their share. Returns `None` if the
    /// account has no channel that keeps messages.
    pub(super) fn candidate(&self, bytes_max: usize) -> Option<Candidate> {
        let is_much = self.accounts[NOBODY].bytes > bytes_max / NOBODYS_SHARE || fault!("back-end-loses-first");
        let number = if is_much { NOBODY } else { self.ranks.heaviest().unwrap_or(NOBODY) };
        let account = &self.accounts[number];
        let key = account.with_history.get(account.next).or_else(|| account.with_history.first())?;
        let count = account.with_history.len();
        Some(Candidate { key: *key as usize, account: number, count, mean: account.bytes / count })
    }

    /// Advances to the next channel of the account.
    pub(super) fn pass_over(&mut self, candidate: Candidate) {
        let account = &mut self.accounts[candidate.account];
        account.next = if account.next + 1 < account.with_history.len() { account.next + 1 } else { 0 };
    }
}
