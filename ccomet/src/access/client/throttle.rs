//! Limits by address: connections and added subscriptions at a time, and subscribes and publishes
//! per minute.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use sealed::fault;
use slab::Slab;

use crate::config::Limits;
use crate::core::time::LoopTime;

const MINUTE_US: u64 = 60_000_000;
/// The longest time for which a client is refused because of a debt: other clients may share its
/// address.
const DEBT_MAX_US: u64 = 10 * MINUTE_US;
/// The number of entries that are searched for an idle one if the table is full.
const TRIES: usize = 8;
/// The minimum number of entries that a sweep visits.
const SWEEP_MIN: usize = 64;
const SWEEP_ROUNDS: usize = 60;

/// The unit of counting: an IPv4 address; an IPv6 /64, which is what one subscriber is assigned; or
/// all clients of one proxy whose addresses cannot be parsed. A key may be kept and used at any
/// time: it is looked up at each use, and the table may have forgotten the address meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    network: Ipv6Addr,
    is_unreadable: bool,
}

impl ClientKey {
    /// The key that some faults use for all clients.
    pub(super) const NOBODY: Self = Self { network: Ipv6Addr::UNSPECIFIED, is_unreadable: true };

    pub(super) fn of(ip: IpAddr) -> Self {
        let network = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64),
        };
        Self { network, is_unreadable: false }
    }

    /// Returns the key of all clients for which this proxy names no readable address.
    pub(super) fn unreadable_of(proxy: IpAddr) -> Self {
        Self { is_unreadable: true, ..Self::of(proxy) }
    }
}

/// The actions that are limited per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    Subscribe,
    Publish,
}

/// The number of connections of an address, compared with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowd {
    /// Within the limit.
    Fine,
    /// Above the limit.
    Over,
    /// Twice the limit, or more.
    Flood,
}

/// A bounded table of addresses. Addresses for which there is no room are limited only by the
/// limits of the whole server. To make room, the table forgets addresses that owe nothing and hold
/// nothing.
#[derive(Debug)]
pub(super) struct Throttle {
    connections_max: u32,
    subscriptions_max: u32,
    subscribes: Bucket,
    publishes: Bucket,
    body_bytes_max: u64,
    addresses_max: usize,
    entries: Slab<Entry>,
    /// The index of each address among the entries. Indices stay private to this module: the entry
    /// may be gone at the next call.
    places: HashMap<ClientKey, u32>,
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    key: ClientKey,
    connections: u32,
    /// Subscriptions that were added to its connections.
    subscriptions: u32,
    /// The time at which the bucket is full again, in microseconds of the loop's clock. This number
    /// is the whole state of a bucket.
    subscribes_full_us: u64,
    publishes_full_us: u64,
    /// Bytes of the bodies that it is sending.
    body_bytes: u64,
}

impl Entry {
    fn is_idle(&self, now: LoopTime) -> bool {
        let is_idle = self.connections == 0 && self.subscriptions == 0 && self.body_bytes == 0;
        is_idle && self.subscribes_full_us <= now.as_micros() && self.publishes_full_us <= now.as_micros()
    }
}

/// A token bucket that holds the units of one minute, and fills steadily.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_minute: u64,
}

impl Bucket {
    /// Takes units of a request out of a bucket that would be full at `full_us`: all, or none. The
    /// units before the range were taken earlier. The error is the number of seconds until the
    /// whole request could be taken. A request for more units than the bucket holds waits until it
    /// is full; the excess is owed.
    fn take(self, full_us: &mut u64, units: Range<u64>, now: LoopTime) -> Result<(), u32> {
        // The missing units are expressed as the time in which they arrive.
        let (now_us, one_us) = (now.as_micros(), MINUTE_US / self.per_minute);
        let end = if fault!("batch-never-fits") { units.end } else { units.end.min(self.per_minute) };
        let after = |count: u64| {
            let missing_us = full_us.saturating_sub(now_us) + one_us.saturating_mul(count);
            missing_us.saturating_sub(one_us * self.per_minute)
        };
        if after(end.saturating_sub(units.start)) > 0 {
            // The next attempt pays for all of its units.
            let wait_us = after(end);
            if fault!("refused-batch-charged") {
                *full_us = now_us + one_us * self.per_minute;
            }
            return Err(u32::try_from(wait_us.div_ceil(1_000_000)).unwrap_or(u32::MAX));
        }
        self.owe(full_us, units.end.saturating_sub(units.start), now);
        Ok(())
    }

    /// Takes `count` units out, even if the bucket has fewer: the excess is owed, up to the units
    /// of ten minutes.
    fn owe(self, full_us: &mut u64, count: u64, now: LoopTime) {
        let (now_us, cost_us) = (now.as_micros(), (MINUTE_US / self.per_minute).saturating_mul(count));
        let worst = (*full_us).max(now_us.saturating_add(MINUTE_US + DEBT_MAX_US));
        *full_us = (*full_us).max(now_us).saturating_add(cost_us).min(worst);
    }
}

impl Throttle {
    /// Creates the table of one loop of `loops`.
    pub(super) fn new(limits: &Limits, loops: usize) -> Self {
        let bucket = |per_minute: u32| Bucket { per_minute: u64::from(per_minute).clamp(1, MINUTE_US) };
        Self {
            connections_max: limits.connections_per_address_max,
            subscriptions_max: limits.subscriptions_per_address_max,
            subscribes: bucket(limits.subscribes_per_address_minute),
            publishes: bucket(limits.publishes_per_address_minute),
            body_bytes_max: limits.body_bytes_per_address_max as u64,
            addresses_max: limits.addresses_max.div_ceil(loops),
            entries: Slab::new(),
            places: HashMap::new(),
            hand: 0,
        }
    }

    /// Changes the limits. What addresses hold and owe stays.
    pub(super) fn set_limits(&mut self, limits: &Limits, loops: usize) {
        let Self { entries, places, hand, .. } = std::mem::replace(self, Self::new(limits, loops));
        (self.entries, self.places, self.hand) = (entries, places, hand);
    }

    /// Returns the number of addresses in the table.
    pub(super) fn addresses(&self) -> usize {
        self.entries.len()
    }

    /// Returns the entry of an address; creates it if there is none and there is room.
    fn entry(&mut self, key: ClientKey, now: LoopTime) -> Option<&mut Entry> {
        if let Some(place) = self.places.get(&key) {
            return self.entries.get_mut(*place as usize);
        }
        if self.entries.len() >= self.addresses_max {
            self.forget_some(TRIES, 1, now);
            if self.entries.len() >= self.addresses_max {
                return None;
            }
        }
        let entry =
            Entry { key, connections: 0, subscriptions: 0, subscribes_full_us: 0, publishes_full_us: 0, body_bytes: 0 };
        let place = self.entries.insert(entry);
        self.places.insert(key, place as u32);
        self.entries.get_mut(place)
    }

    /// Counts a connection of the address, which is remembered until the connection is released.
    /// Returns `None` if there is no room for the address; nothing is to be released then.
    pub(super) fn hold(&mut self, key: ClientKey, now: LoopTime) -> Option<Crowd> {
        let connections_max = self.connections_max;
        let entry = self.entry(key, now)?;
        entry.connections += 1;
        Some(match entry.connections {
            count if count <= connections_max => Crowd::Fine,
            count if count < connections_max.saturating_mul(2) => Crowd::Over,
            _ => Crowd::Flood,
        })
    }

    /// Releases a connection of the address.
    pub(super) fn release(&mut self, key: ClientKey) {
        let entry = self.places.get(&key).and_then(|place| self.entries.get_mut(*place as usize));
        debug_assert!(entry.as_ref().is_some_and(|entry| entry.connections > 0), "what is held is not forgotten");
        if let Some(entry) = entry {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }

    /// Counts a subscription that is added to one of the address's connections; the address is
    /// remembered until [`release_subscriptions`](Self::release_subscriptions). Returns the number
    /// to release then, 0 if there is no room for the address; an error if the limit is reached.
    pub(super) fn hold_subscription(&mut self, key: ClientKey, now: LoopTime) -> Result<u32, ()> {
        let most = self.subscriptions_max;
        let Some(entry) = self.entry(key, now) else { return Ok(0) };
        if entry.subscriptions >= most {
            return Err(());
        }
        entry.subscriptions += 1;
        Ok(1)
    }

    /// Releases a number of added subscriptions of the address.
    pub(super) fn release_subscriptions(&mut self, key: ClientKey, count: u32) {
        let entry = self.places.get(&key).and_then(|place| self.entries.get_mut(*place as usize));
        if let Some(entry) = entry {
            debug_assert!(entry.subscriptions >= count, "what is held is not forgotten");
            entry.subscriptions = entry.subscriptions.saturating_sub(count);
        }
    }

    /// Counts a body that the address starts to send. Returns whether it is allowed.
    pub(super) fn begin_body(&mut self, key: ClientKey, bytes: u64, now: LoopTime) -> bool {
        let most = self.body_bytes_max;
        let Some(entry) = self.entry(key, now) else { return true };
        // A single body may have any length.
        let is_fine = entry.body_bytes == 0 || entry.body_bytes.saturating_add(bytes) <= most;
        if is_fine {
            entry.body_bytes += bytes;
        }
        is_fine
    }

    /// Ends the count of a body that has arrived, or that will not arrive.
    pub(super) fn end_body(&mut self, key: ClientKey, bytes: u64) {
        if let Some(entry) = self.places.get(&key).and_then(|place| self.entries.get_mut(*place as usize)) {
            entry.body_bytes = entry.body_bytes.saturating_sub(bytes);
        }
    }

    /// Counts units of a request, all or none; the units before the range were counted earlier. The
    /// error is the number of seconds until there is room for the whole request.
    pub(super) fn take(&mut self, key: ClientKey, charge: Charge, units: Range<u64>, now: LoopTime) -> Result<(), u32> {
        let (subscribes, publishes) = (self.subscribes, self.publishes);
        let Some(entry) = self.entry(key, now) else { return Ok(()) };
        match charge {
            Charge::Subscribe => subscribes.take(&mut entry.subscribes_full_us, units, now),
            Charge::Publish => publishes.take(&mut entry.publishes_full_us, units, now),
        }
    }

    /// Counts actions that were done already.
    pub(super) fn owe(&mut self, key: ClientKey, charge: Charge, count: u64, now: LoopTime) {
        let (subscribes, publishes) = (self.subscribes, self.publishes);
        let Some(entry) = self.entry(key, now) else { return };
        match charge {
            Charge::Subscribe => subscribes.owe(&mut entry.subscribes_full_us, count, now),
            Charge::Publish => publishes.owe(&mut entry.publishes_full_us, count, now),
        }
    }

    pub(super) fn sweep(&mut self, now: LoopTime) {
        let share = SWEEP_MIN.max(self.entries.len() / SWEEP_ROUNDS);
        self.forget_some(share.min(self.entries.capacity()), usize::MAX, now);
        if self.entries.is_empty() && self.entries.capacity() > SWEEP_MIN {
            (self.entries, self.places) = (Slab::new(), HashMap::new());
        }
    }

    /// Visits at most `looks` entries, and forgets at most `count` idle addresses among them.
    fn forget_some(&mut self, looks: usize, mut count: usize, now: LoopTime) {
        for _ in 0..looks {
            self.hand = (self.hand + 1) % self.entries.capacity().max(1);
            if self.entries.get(self.hand).is_some_and(|entry| entry.is_idle(now)) {
                let entry = self.entries.remove(self.hand);
                if !fault!("forgotten-place-stays") {
                    self.places.remove(&entry.key);
                }
                count -= 1;
                if count == 0 {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> LoopTime {
        LoopTime::since_start(Duration::from_millis(millis))
    }

    fn throttle(addresses_max: usize) -> Throttle {
        let limits = Limits {
            addresses_max,
            connections_per_address_max: 2,
            subscriptions_per_address_max: 2,
            subscribes_per_address_minute: 7,
            publishes_per_address_minute: 3,
            ..Limits::default()
        };
        Throttle::new(&limits, 1)
    }

    fn key(text: &str) -> ClientKey {
        ClientKey::of(text.parse().expect("an address"))
    }

    #[test]
    fn a_minutes_units_may_be_used_at_once_and_then_as_time_passes() {
        let mut throttle = throttle(10);
        let one = key("192.0.2.1");
        let mut publish = |millis| throttle.take(one, Charge::Publish, 0..1, at(millis));
        assert_eq!([publish(5), publish(5), publish(5), publish(5)], [Ok(()), Ok(()), Ok(()), Err(20)]);
        // Refused units are not counted.
        assert_eq!([publish(20_004), publish(20_005), publish(20_005)], [Err(1), Ok(()), Err(20)]);
        assert_eq!([publish(200_000), publish(200_000), publish(200_000)], [Ok(()); 3]);
        // The other bucket is separate; its units per minute do not divide a minute evenly.
        let taken = (0..9).filter(|_| throttle.take(one, Charge::Subscribe, 0..1, at(200_000)).is_ok()).count();
        assert_eq!(taken, 7);
    }

    #[test]
    fn a_batch_is_taken_whole_or_not_at_all_and_succeeds_after_the_returned_time() {
        let mut throttle = throttle(10);
        let one = key("192.0.2.1");
        let mut publish = |count, seconds: u64| throttle.take(one, Charge::Publish, 0..count, at(seconds * 1_000));
        assert_eq!([publish(2, 0), publish(2, 0), publish(1, 0)], [Ok(()), Err(20), Ok(())]);
        assert_eq!([publish(2, 39), publish(2, 40)], [Err(1), Ok(())]);
        // A batch of more units than a minute's waits until the bucket is full. The rest is owed.
        assert_eq!([publish(5, 40), publish(5, 100)], [Err(60), Ok(())]);
        assert_eq!([publish(1, 100), publish(1, 159), publish(1, 160)], [Err(60), Err(1), Ok(())]);
        // Units of a request that were counted before are not counted again.
        assert_eq!(throttle.take(one, Charge::Publish, 1..5, at(190_000)), Err(30));
        assert_eq!(throttle.take(one, Charge::Publish, 1..5, at(200_000)), Ok(()));
    }

    #[test]
    fn a_debt_is_paid_off_in_ten_minutes_at_most() {
        let mut throttle = throttle(10);
        let ann = key("192.0.2.1");
        for _ in 0..3 {
            throttle.owe(ann, Charge::Publish, 1_000_000, at(0));
        }
        let wait_s = throttle.take(ann, Charge::Publish, 0..1, at(0)).expect_err("it owes");
        assert!((590..=620).contains(&wait_s), "{wait_s}");
        assert_eq!(throttle.take(ann, Charge::Publish, 0..1, at(u64::from(wait_s) * 1_000)), Ok(()));
    }

    #[test]
    fn an_ipv6_network_has_one_key_and_an_ipv4_address_has_one_in_either_form() {
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(key("192.0.2.1"), key("::1"));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_only_addresses_that_owe_nothing_and_hold_nothing() {
        let mut throttle = throttle(3);
        let [one, two, three, four, five] = [1, 2, 3, 4, 5].map(|n| key(&format!("192.0.2.{n}")));
        assert_eq!(throttle.hold(one, at(0)), Some(Crowd::Fine));
        assert_eq!(throttle.hold(three, at(0)), Some(Crowd::Fine));
        throttle.release(three);
        throttle.take(two, Charge::Publish, 0..1, at(0)).expect("the first");
        // The third address has nothing to be remembered for.
        assert_eq!(throttle.hold(four, at(0)), Some(Crowd::Fine));
        assert_eq!(throttle.hold(five, at(0)), None);
        assert_eq!(
            throttle.take(five, Charge::Publish, 0..1, at(0)),
            Ok(()),
            "those for whom there is no room are not limited"
        );
        assert!(!throttle.places.contains_key(&five) && throttle.places.contains_key(&two));
        // The second address has paid its debt.
        assert!(throttle.hold(five, at(20_000)).is_some());
        for key in [one, four, five] {
            throttle.release(key);
        }
        throttle.sweep(at(100_000));
        assert_eq!((throttle.entries.len(), throttle.places.len()), (0, 0));
    }

    #[test]
    fn a_key_outlives_its_entry_and_never_refers_to_another_address() {
        let mut throttle = throttle(1);
        let (ann, bob) = (key("192.0.2.1"), key("192.0.2.2"));
        throttle.take(ann, Charge::Publish, 0..1, at(0)).expect("the first");
        throttle.sweep(at(100_000));
        assert!(throttle.entries.is_empty());
        assert_eq!(throttle.take(bob, Charge::Publish, 0..1, at(100_000)), Ok(()), "in the same place");
        for _ in 0..5 {
            assert_eq!(throttle.take(ann, Charge::Publish, 0..1, at(100_000)), Ok(()), "there is no room, so no limit");
        }
        let left = [(); 3].map(|()| throttle.take(bob, Charge::Publish, 0..1, at(100_000)).is_ok());
        assert_eq!(left, [true, true, false], "one of three was used");
    }

    #[test]
    fn added_subscriptions_are_counted_and_their_address_is_remembered() {
        let mut throttle = throttle(1);
        let (ann, bob) = (key("192.0.2.1"), key("192.0.2.2"));
        let held = [(); 3].map(|()| throttle.hold_subscription(ann, at(0)));
        assert_eq!(held, [Ok(1), Ok(1), Err(())]);
        throttle.sweep(at(100_000));
        assert_eq!(throttle.hold_subscription(bob, at(100_000)), Ok(0), "there is no room, so no limit");
        throttle.release_subscriptions(ann, 1);
        assert_eq!([throttle.hold_subscription(ann, at(0)), throttle.hold_subscription(ann, at(0))], [Ok(1), Err(())]);
        throttle.release_subscriptions(ann, 2);
        throttle.sweep(at(100_000));
        assert!(throttle.entries.is_empty());
    }

    #[test]
    fn connections_are_counted_and_released() {
        let mut throttle = throttle(3);
        let one = key("192.0.2.1");
        let crowds = [(); 5].map(|()| throttle.hold(one, at(0)).expect("room"));
        assert_eq!(crowds, [Crowd::Fine, Crowd::Fine, Crowd::Over, Crowd::Flood, Crowd::Flood]);
        for _ in 0..4 {
            throttle.release(one);
        }
        assert_eq!(throttle.hold(one, at(0)), Some(Crowd::Fine));
    }
}
