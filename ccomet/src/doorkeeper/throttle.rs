//! How much an address may ask for: connections at a time, and subscribes and publishes a minute.

use std::collections::HashMap;
use std::net::IpAddr;

use slab::Slab;

use crate::config::Limits;

const MINUTE_US: u64 = 60_000_000;
/// Places that are looked at for one that is free, where all are taken.
const TRIES: usize = 8;
/// Places that are looked at in a sweep, at least.
const SWEEP_MIN: usize = 64;
const SWEEP_ROUNDS: usize = 60;

/// Where an address is in the table. It counts as long as the address has connections, and otherwise until the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

/// What is counted by the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    Subscribe,
    Publish,
}

/// How many connections an address has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowd {
    /// As many as it may.
    Fine,
    /// Too many.
    Over,
    /// Twice as many as it may, or more.
    Flood,
}

/// A bounded table of addresses. Those for whom there is no room are not limited, but by the limits of the whole server; room
/// is made by forgetting those who owe nothing and have no connection.
#[derive(Debug)]
pub(super) struct Throttle {
    connections_max: u32,
    subscribes: Bucket,
    publishes: Bucket,
    addresses_max: usize,
    entries: Slab<Entry>,
    places: HashMap<u128, u32>,
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    key: u128,
    connections: u32,
    /// When the bucket is full again, in microseconds of the loop's clock: a bucket is that one number.
    subscribes_full_us: u64,
    publishes_full_us: u64,
}

impl Entry {
    fn is_idle(&self, now_ms: u64) -> bool {
        self.connections == 0 && self.subscribes_full_us <= now_ms * 1_000 && self.publishes_full_us <= now_ms * 1_000
    }
}

/// A bucket that holds a minute's worth, and is filled steadily.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_minute: u64,
}

impl Bucket {
    /// Takes one out, of a bucket that would be full at `full_us`. Otherwise: in how many seconds there is one.
    fn take(self, full_us: &mut u64, now_ms: u64) -> Result<(), u32> {
        // What is missing from the bucket is the time in which it comes.
        let (now, one_us) = (now_ms * 1_000, MINUTE_US / self.per_minute);
        let owed_us = full_us.saturating_sub(now) + one_us;
        let wait_us = owed_us.saturating_sub(one_us * self.per_minute);
        if wait_us > 0 {
            return Err(wait_us.div_ceil(1_000_000) as u32);
        }
        *full_us = now + owed_us;
        Ok(())
    }

    /// Takes so many out, though there be fewer: what is missing is owed.
    fn owe(self, full_us: &mut u64, count: u64, now_ms: u64) {
        let cost_us = (MINUTE_US / self.per_minute).saturating_mul(count);
        *full_us = (*full_us).max(now_ms * 1_000).saturating_add(cost_us);
    }
}

impl Throttle {
    /// For one of so many loops.
    pub(super) fn new(limits: &Limits, loops: usize) -> Self {
        let bucket = |per_minute: u32| Bucket { per_minute: u64::from(per_minute).clamp(1, MINUTE_US) };
        Self {
            connections_max: limits.connections_per_address_max,
            subscribes: bucket(limits.subscribes_per_address_minute),
            publishes: bucket(limits.publishes_per_address_minute),
            addresses_max: limits.addresses_max.div_ceil(loops),
            entries: Slab::new(),
            places: HashMap::new(),
            hand: 0,
        }
    }

    /// The place of an address, made where there is none and there is room.
    pub(super) fn find(&mut self, ip: IpAddr, now_ms: u64) -> Option<Place> {
        let key = key(ip);
        if let Some(place) = self.places.get(&key) {
            return Some(Place(*place));
        }
        if self.entries.len() >= self.addresses_max {
            self.forget_some(TRIES, 1, now_ms);
            if self.entries.len() >= self.addresses_max {
                return None;
            }
        }
        let entry = Entry { key, connections: 0, subscribes_full_us: 0, publishes_full_us: 0 };
        let place = self.entries.insert(entry) as u32;
        self.places.insert(key, place);
        Some(Place(place))
    }

    /// The address has one connection more.
    pub(super) fn connected(&mut self, place: Place) -> Crowd {
        let connections = &mut self.entries[place.0 as usize].connections;
        *connections += 1;
        match *connections {
            count if count <= self.connections_max => Crowd::Fine,
            count if count < self.connections_max.saturating_mul(2) => Crowd::Over,
            _ => Crowd::Flood,
        }
    }

    /// The address has one connection less.
    pub(super) fn disconnected(&mut self, place: Place) {
        self.entries[place.0 as usize].connections -= 1;
    }

    /// Counts something, or says in how many seconds there is room for it.
    pub(super) fn take(&mut self, place: Place, charge: Charge, now_ms: u64) -> Result<(), u32> {
        let entry = &mut self.entries[place.0 as usize];
        match charge {
            Charge::Subscribe => self.subscribes.take(&mut entry.subscribes_full_us, now_ms),
            Charge::Publish => self.publishes.take(&mut entry.publishes_full_us, now_ms),
        }
    }

    /// Counts something that was done already, as often as it was.
    pub(super) fn owe(&mut self, place: Place, charge: Charge, count: u64, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(place.0 as usize) else { return };
        match charge {
            Charge::Subscribe => self.subscribes.owe(&mut entry.subscribes_full_us, count, now_ms),
            Charge::Publish => self.publishes.owe(&mut entry.publishes_full_us, count, now_ms),
        }
    }

    pub(super) fn sweep(&mut self, now_ms: u64) {
        let share = SWEEP_MIN.max(self.entries.len() / SWEEP_ROUNDS);
        self.forget_some(share.min(self.entries.capacity()), usize::MAX, now_ms);
        if self.entries.is_empty() && self.entries.capacity() > SWEEP_MIN {
            (self.entries, self.places) = (Slab::new(), HashMap::new());
        }
    }

    /// Looks at so many places, and forgets up to so many addresses of which there is nothing to be known.
    fn forget_some(&mut self, looks: usize, mut count: usize, now_ms: u64) {
        for _ in 0..looks {
            self.hand = (self.hand + 1) % self.entries.capacity().max(1);
            if self.entries.get(self.hand).is_some_and(|entry| entry.is_idle(now_ms)) {
                let entry = self.entries.remove(self.hand);
                self.places.remove(&entry.key);
                count -= 1;
                if count == 0 {
                    return;
                }
            }
        }
    }
}

/// Whom an address stands for: of IPv6, everyone in its /64, for that is what one subscriber is given.
fn key(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
        IpAddr::V6(ip) => u128::from(ip) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(addresses_max: usize) -> Throttle {
        let limits = Limits {
            addresses_max,
            connections_per_address_max: 2,
            subscribes_per_address_minute: 7,
            publishes_per_address_minute: 3,
            ..Limits::default()
        };
        Throttle::new(&limits, 1)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_minutes_worth_may_come_at_once_and_then_as_time_passes() {
        let mut throttle = throttle(10);
        let place = throttle.find(ip("192.0.2.1"), 0).expect("room");
        let mut publish = |now_ms| throttle.take(place, Charge::Publish, now_ms);
        assert_eq!([publish(5), publish(5), publish(5), publish(5)], [Ok(()), Ok(()), Ok(()), Err(20)]);
        // What was refused does not count.
        assert_eq!([publish(20_004), publish(20_005), publish(20_005)], [Err(1), Ok(()), Err(20)]);
        assert_eq!([publish(200_000), publish(200_000), publish(200_000)], [Ok(()); 3]);
        // The other bucket is another, whose share of a minute is not whole.
        let taken = (0..9).filter(|_| throttle.take(place, Charge::Subscribe, 200_000).is_ok()).count();
        assert_eq!(taken, 7);
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_an_address_of_ipv4_is_one_however_it_is_written() {
        let mut throttle = throttle(10);
        let mut find = |text: &str| throttle.find(ip(text), 0).expect("room");
        assert_eq!(find("2001:db8::1"), find("2001:db8::ffff:1"));
        assert_ne!(find("2001:db8::1"), find("2001:db8:0:1::1"));
        assert_eq!(find("192.0.2.1"), find("::ffff:192.0.2.1"));
        assert_ne!(find("192.0.2.1"), find("192.0.2.2"));
        assert_ne!(find("192.0.2.1"), find("::1"));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_only_who_owes_nothing() {
        let mut throttle = throttle(3);
        let [one, two, _] =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| throttle.find(ip(text), 0).expect("room"));
        assert_eq!(throttle.connected(one), Crowd::Fine);
        throttle.take(two, Charge::Publish, 0).expect("the first");
        // The third has nothing to be remembered for.
        let four = throttle.find(ip("192.0.2.4"), 0).expect("its place");
        assert_eq!(throttle.connected(four), Crowd::Fine);
        assert_eq!(throttle.find(ip("192.0.2.5"), 0), None);
        assert_eq!(throttle.find(ip("192.0.2.2"), 0), Some(two));
        // The second has paid.
        assert!(throttle.find(ip("192.0.2.5"), 20_000).is_some());
        throttle.disconnected(one);
        throttle.disconnected(four);
        throttle.sweep(100_000);
        assert_eq!((throttle.entries.len(), throttle.places.len()), (0, 0));
    }

    #[test]
    fn connections_are_counted_as_they_come_and_go() {
        let mut throttle = throttle(3);
        let place = throttle.find(ip("192.0.2.1"), 0).expect("room");
        let crowds = [(); 5].map(|()| throttle.connected(place));
        assert_eq!(crowds, [Crowd::Fine, Crowd::Fine, Crowd::Over, Crowd::Flood, Crowd::Flood]);
        for _ in 0..4 {
            throttle.disconnected(place);
        }
        assert_eq!(throttle.connected(place), Crowd::Fine);
    }
}
