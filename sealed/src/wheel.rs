//! A hierarchical timer wheel with intrusive links: arming, moving and cancelling are O(1), and an
//! armed timer needs no memory besides its node.
//!
//! The wheel has six levels of 64 buckets; the buckets of the lowest level are one millisecond
//! wide. A timer waits in the level where its time first differs from the wheel's time, and moves
//! down as its time comes near. Buckets are doubly linked lists threaded through the [`Node`]s,
//! which the wheel accesses by number through [`Nodes`].

use std::time::Duration;

const NIL: u32 = u32::MAX;
const UNARMED: u16 = u16::MAX;
const LEVELS: usize = 6;
const BUCKET_BITS: u32 = 6;
const BUCKETS: usize = 1 << BUCKET_BITS;

/// The longest delay, about 24 days. A node keeps 32 bits of its time, and one half of their range
/// is needed to tell earlier times from later ones.
const DELAY_MAX_MS: u64 = (1 << 31) - 1;

/// The wheel's part of a timed object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    previous: u32,
    next: u32,
    /// The low 32 bits of the tick at which the node is due.
    due: u32,
    /// Level and bucket in one number.
    bucket: u16,
}

impl Default for Node {
    fn default() -> Self {
        Self { previous: NIL, next: NIL, due: 0, bucket: UNARMED }
    }
}

impl Node {
    /// Returns whether the node is armed to expire.
    pub(crate) fn is_armed(&self) -> bool {
        self.bucket != UNARMED
    }
}

/// The storage of nodes. A number that was passed to the wheel must stay valid until it is
/// cancelled or expires.
pub(crate) trait Nodes {
    fn node(&mut self, key: u32) -> &mut Node;
}

#[derive(Debug)]
pub(crate) struct Wheel {
    /// All nodes due at or before this tick (in milliseconds) have been handed out.
    elapsed: u64,
    heads: Box<[[u32; BUCKETS]; LEVELS]>,
    /// One bit for each bucket that is not empty.
    occupied: [u64; LEVELS],
    /// Number of armed nodes.
    armed: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { elapsed: 0, heads: Box::new([[NIL; BUCKETS]; LEVELS]), occupied: [0; LEVELS], armed: 0 }
    }
}

impl Wheel {
    /// Arms `key` to expire `delay` after `now`, moving it if it is already armed. A timer never
    /// expires early; it is late by less than a millisecond plus the loop's own delay.
    pub(crate) fn arm(&mut self, nodes: &mut impl Nodes, key: u32, now: Duration, delay: Duration) {
        self.cancel(nodes, key);
        if self.armed == 0 {
            // No node was handed out meanwhile: see `expire`.
            self.elapsed = self.elapsed.max(now.as_millis() as u64);
        }
        let due = now.saturating_add(delay);
        let due = if fault!("timer-rounded-down") { due.as_millis() } else { due.as_nanos().div_ceil(1_000_000) };
        let soonest = self.elapsed.max(now.as_millis() as u64) + 1;
        let due = u64::try_from(due).unwrap_or(u64::MAX).clamp(soonest, soonest + DELAY_MAX_MS - 1);
        self.insert(nodes, key, due);
        self.armed += 1;
    }

    /// Cancels `key`. Does nothing if it is not armed.
    pub(crate) fn cancel(&mut self, nodes: &mut impl Nodes, key: u32) {
        if nodes.node(key).is_armed() {
            self.unlink(nodes, key);
            self.armed -= 1;
        }
    }

    /// Removes and returns one timer that is due at `now`. Call again until it returns `None`.
    pub(crate) fn expire(&mut self, nodes: &mut impl Nodes, now: Duration) -> Option<u32> {
        if self.armed == 0 {
            return None;
        }
        let now = now.as_millis() as u64;
        while let Some((level, bucket, start)) = self.next_bucket() {
            if start > now {
                break;
            }
            self.elapsed = self.elapsed.max(start);
            if level == 0 {
                let key = self.heads[0][bucket];
                self.cancel(nodes, key);
                return Some(key);
            }
            self.move_down(nodes, level, bucket);
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    /// Returns how long after `now` the wheel has to be checked again; `None` if nothing is armed.
    pub(crate) fn next_wait(&self, now: Duration) -> Option<Duration> {
        if self.armed == 0 {
            return None;
        }
        let (_, _, start) = self.next_bucket()?;
        Some(Duration::from_millis(start).saturating_sub(now))
    }

    /// Returns the time from `now` until a node is due; `None` if it is not armed.
    pub(crate) fn left(&self, node: &Node, now: Duration) -> Option<Duration> {
        node.is_armed().then(|| Duration::from_millis(self.due(node)).saturating_sub(now))
    }

    /// Returns the tick at which an armed node is due.
    fn due(&self, node: &Node) -> u64 {
        self.elapsed + u64::from(node.due.wrapping_sub(self.elapsed as u32))
    }

    #[cfg(test)]
    pub(crate) fn armed(&self) -> usize {
        self.armed
    }

    fn insert(&mut self, nodes: &mut impl Nodes, key: u32, due: u64) {
        debug_assert!(due >= self.elapsed);
        let (level, bucket) = self.place(due);
        let head = self.heads[level][bucket];
        *nodes.node(key) =
            Node { previous: NIL, next: head, due: due as u32, bucket: (level << BUCKET_BITS | bucket) as u16 };
        if head != NIL {
            nodes.node(head).previous = key;
        }
        self.heads[level][bucket] = key;
        self.occupied[level] |= 1 << bucket;
    }

    fn unlink(&mut self, nodes: &mut impl Nodes, key: u32) {
        let node = *nodes.node(key);
        let (level, bucket) = (usize::from(node.bucket) >> BUCKET_BITS, usize::from(node.bucket) % BUCKETS);
        if node.previous == NIL {
            debug_assert_eq!(self.heads[level][bucket], key);
            self.heads[level][bucket] = if fault!("neighbour-cancelled-too") { NIL } else { node.next };
        } else {
            nodes.node(node.previous).next = node.next;
        }
        if node.next != NIL {
            nodes.node(node.next).previous = node.previous;
        }
        if self.heads[level][bucket] == NIL {
            self.occupied[level] &= !(1 << bucket);
        }
        nodes.node(key).bucket = UNARMED;
    }

    /// Returns the level of the highest bits in which `due` differs from the wheel's time, and the
    /// bucket there.
    fn place(&self, due: u64) -> (usize, usize) {
        let differing = (self.elapsed ^ due | 1).ilog2();
        let level = ((differing / BUCKET_BITS) as usize).min(LEVELS - 1);
        (level, bucket_at(due, level))
    }

    /// Returns the first bucket that is not empty, and the tick at which it starts.
    fn next_bucket(&self) -> Option<(usize, usize, u64)> {
        (0..LEVELS).find_map(|level| {
            let shift = level as u32 * BUCKET_BITS;
            let here = bucket_at(self.elapsed, level) as u32;
            let ahead = self.occupied[level].rotate_right(here);
            if ahead == 0 {
                return None;
            }
            let distance = u64::from(ahead.trailing_zeros());
            let start = ((self.elapsed >> shift) + distance) << shift;
            Some((level, (start >> shift) as usize % BUCKETS, start))
        })
    }

    fn move_down(&mut self, nodes: &mut impl Nodes, level: usize, bucket: usize) {
        let mut key = std::mem::replace(&mut self.heads[level][bucket], NIL);
        self.occupied[level] &= !(1 << bucket);
        while key != NIL {
            let node = *nodes.node(key);
            self.insert(nodes, key, self.due(&node));
            key = node.next;
        }
    }
}

fn bucket_at(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * BUCKET_BITS)) as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Store(Vec<Node>);

    impl Nodes for Store {
        fn node(&mut self, key: u32) -> &mut Node {
            &mut self.0[key as usize]
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Returns the next number of a deterministic generator, so that failures are reproducible.
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    }

    #[test]
    fn agrees_with_a_sorted_list_under_random_arming_moving_and_cancelling() {
        for mut seed in 1..40_u64 {
            let mut wheel = Wheel::default();
            let mut store = Store(vec![Node::default(); 64]);
            let mut model = [None::<u64>; 64];
            let mut now = next(&mut seed) << (seed % 12);
            assert_eq!(wheel.expire(&mut store, ms(now)), None);
            for _ in 0..3_000 {
                let key = (next(&mut seed) % 64) as usize;
                match next(&mut seed) % 4 {
                    0 => {
                        wheel.cancel(&mut store, key as u32);
                        model[key] = None;
                    }
                    1 => {
                        now += next(&mut seed) >> (next(&mut seed) % 32);
                        while let Some(fired) = wheel.expire(&mut store, ms(now)) {
                            let due = model[fired as usize].take().expect("only armed timers fire");
                            assert!(due <= now, "fired {} ms early", due - now);
                            assert!(model.iter().flatten().all(|other| *other >= due), "out of order");
                        }
                        assert!(model.iter().flatten().all(|due| *due > now), "one was left behind");
                    }
                    _ => {
                        let delay = next(&mut seed) >> (next(&mut seed) % 32);
                        wheel.arm(&mut store, key as u32, ms(now), ms(delay));
                        model[key] = Some(now + delay.clamp(1, DELAY_MAX_MS));
                    }
                }
                assert_eq!(wheel.armed(), model.iter().flatten().count());
                if let Some(wait) = wheel.next_wait(ms(now)) {
                    let first = model.iter().flatten().min().expect("something is armed");
                    assert!(ms(now) + wait <= ms(*first), "would sleep past the first timer");
                } else {
                    assert_eq!(wheel.armed(), 0);
                }
            }
        }
    }

    #[test]
    fn timers_armed_while_others_expire_wait_for_the_next_turn() {
        let mut wheel = Wheel::default();
        let mut store = Store(vec![Node::default(); 1]);
        wheel.arm(&mut store, 0, ms(5), Duration::ZERO);
        assert_eq!(wheel.expire(&mut store, ms(6)), Some(0));
        wheel.arm(&mut store, 0, ms(6), Duration::ZERO);
        assert_eq!(wheel.expire(&mut store, ms(6)), None);
        assert_eq!(wheel.expire(&mut store, ms(7)), Some(0));
    }
}
