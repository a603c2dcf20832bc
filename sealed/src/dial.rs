//! Connections that are being made: parallel attempts, of which the first to succeed is used
//! (RFC 8305).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::vec::IntoIter;

use slab::Slab;

use crate::address::Address;
use crate::id::{ConnectionId, TimerId};
use crate::net::Stream;
use crate::socket::Connect;

/// All connections of one loop that are being made.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    /// Dials by the slot of the connection.
    dials: BTreeMap<u32, Dial>,
    attempts: Slab<Attempt>,
}

/// One connection that is being made.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) id: ConnectionId,
    pub(crate) connect: Connect,
    untried: IntoIter<Address>,
    attempts: Vec<usize>,
    /// The timer that limits all attempts together.
    pub(crate) limit: Option<TimerId>,
    /// The timer that starts the attempt with the next address.
    pub(crate) next: Option<TimerId>,
    /// Why the last attempt failed.
    pub(crate) failure: io::ErrorKind,
}

#[derive(Debug)]
struct Attempt {
    stream: Stream,
    slot: u32,
}

impl Dials {
    /// Begins a connection to these addresses. Starts no attempt yet.
    pub(crate) fn begin(&mut self, id: ConnectionId, addresses: Vec<Address>, connect: Connect) {
        let untried = in_turn(addresses).into_iter();
        let failure = io::ErrorKind::AddrNotAvailable;
        let dial = Dial { id, connect, untried, attempts: Vec::new(), limit: None, next: None, failure };
        self.dials.insert(id.slot, dial);
    }

    pub(crate) fn find(&mut self, slot: u32) -> Option<&mut Dial> {
        self.dials.get_mut(&slot)
    }

    /// Returns the number that the next attempt will get.
    pub(crate) fn next_attempt(&self) -> usize {
        self.attempts.vacant_key()
    }

    /// Records an attempt that has been started.
    pub(crate) fn add(&mut self, slot: u32, stream: Stream) {
        if let Some(dial) = self.dials.get_mut(&slot) {
            dial.attempts.push(self.attempts.insert(Attempt { stream, slot }));
        }
    }

    /// Returns the slot that an attempt belongs to, and its socket.
    pub(crate) fn attempt(&mut self, attempt: usize) -> Option<(u32, &mut Stream)> {
        self.attempts.get_mut(attempt).map(|attempt| (attempt.slot, &mut attempt.stream))
    }

    /// Records that an attempt has failed. Returns the slot that it belonged to.
    pub(crate) fn fail(&mut self, attempt: usize, failure: io::ErrorKind) -> Option<u32> {
        let slot = self.attempts.try_remove(attempt)?.slot;
        let dial = self.dials.get_mut(&slot)?;
        dial.attempts.retain(|held| *held != attempt);
        if !fault!("last-failure-forgotten") {
            dial.failure = failure;
        }
        Some(slot)
    }

    /// Records that an attempt has succeeded, and gives up the others.
    pub(crate) fn succeed(&mut self, attempt: usize) -> Option<(Stream, Dial)> {
        let Attempt { stream, slot } = self.attempts.try_remove(attempt)?;
        let mut dial = self.dials.remove(&slot)?;
        dial.attempts.retain(|held| *held != attempt);
        if !fault!("late-attempts-stay-open") {
            self.give_up(&dial);
        }
        Some((stream, dial))
    }

    /// Gives up on a connection that has not been made.
    pub(crate) fn end(&mut self, slot: u32) -> Option<Dial> {
        let dial = self.dials.remove(&slot)?;
        // An attempt may just have succeeded. The peer must not take an ordinary end for a complete
        // transfer of nothing.
        for attempt in &dial.attempts {
            if let Some(attempt) = self.attempts.get_mut(*attempt).filter(|_| !fault!("given-up-dial-ends-ordinarily"))
            {
                attempt.stream.reset_on_close();
            }
        }
        if !fault!("ended-dial-leaves-attempts") {
            self.give_up(&dial);
        }
        Some(dial)
    }

    fn give_up(&mut self, dial: &Dial) {
        for attempt in &dial.attempts {
            self.attempts.try_remove(*attempt);
        }
        if self.attempts.is_empty() && self.attempts.capacity() > 16 {
            self.attempts = Slab::new();
        }
    }
}

impl Dial {
    /// Sets the addresses to try, which were not known before.
    pub(crate) fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        let Some(lookup) = &self.connect.lookup else { return };
        self.untried = in_turn(lookup.addresses(addresses)).into_iter();
    }

    /// Returns the next address to try.
    pub(crate) fn next_address(&mut self) -> Option<Address> {
        self.untried.next()
    }

    /// Returns whether there are addresses left to try.
    pub(crate) fn has_more(&self) -> bool {
        self.untried.len() > 0
    }

    /// Returns whether an attempt is in progress.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.attempts.is_empty()
    }
}

fn in_turn(addresses: Vec<Address>) -> Vec<Address> {
    if fault!("families-not-in-turn") { addresses } else { take_turns(addresses) }
}

/// Alternates between the address families, starting with that of the first address, and keeps the
/// order within each family.
fn take_turns(addresses: Vec<Address>) -> Vec<Address> {
    let first = addresses.first().cloned();
    let same = |address: &Address| match (&first, address) {
        (Some(Address::Inet(first)), Address::Inet(address)) => first.is_ipv4() == address.is_ipv4(),
        _ => true,
    };
    let (one, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(same);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        match (one.next(), other.next()) {
            (None, None) => return turns,
            (first, second) => turns.extend(first.into_iter().chain(second)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let given = ["[::1]:1", "[::1]:2", "[::1]:3", "1.1.1.1:4", "1.1.1.1:5"].map(address);
        let turns = take_turns(given.map(Address::Inet).to_vec());
        let wanted =
            ["[::1]:1", "1.1.1.1:4", "[::1]:2", "1.1.1.1:5", "[::1]:3"].map(|text| Address::Inet(address(text)));
        assert_eq!(turns, wanted);
    }
}
