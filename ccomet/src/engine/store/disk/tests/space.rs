//! A disk that is full, and becomes good again; segments that cannot be read.

use super::*;
use crate::core::health::HealthProblem;

impl Bench {
    /// Lets the time pass after which the store looks at the disk again.
    pub(super) fn look(&mut self) {
        for _ in 0..2 {
            self.millis += 1_000;
            self.tick();
        }
    }

    fn problems(&self) -> Vec<HealthProblem> {
        self.shared.as_ref().expect("a store").problems()
    }
}

#[test]
fn a_full_disk_refuses_until_it_has_space_again() {
    let mut bench = Bench::new();
    let text = "x".repeat(1_000);
    assert!(bench.publish("a", &[&text]));
    bench.disk.set_capacity(Some(bench.disk.bytes_used()));
    let kept = (0..10).filter(|_| bench.publish("a", &[&text])).count();
    assert!((1..10).contains(&kept), "{kept} fit into the segment");
    assert_eq!(bench.all("a").len(), 1 + kept);
    assert_eq!(bench.problems(), [HealthProblem::StoreFull]);
    bench.disk.set_capacity(None);
    // The publications do not look themselves: each would try to allocate a segment.
    assert!(!bench.publish("a", &[&text]));
    bench.look();
    assert_eq!(bench.problems(), []);
    assert!(bench.publish("a", &["more"]));
    bench.restart();
    assert!(bench.open("a").is_some());
    assert_eq!(bench.all("a").len(), 2 + kept);
}

#[test]
fn a_full_disk_stays_so_until_several_refused_publications_fit() {
    let mut bench = Bench::with_seed(1);
    bench.settings.segment_bytes = 64 << 10;
    bench.start().expect("a new store");
    let text = "x".repeat(3_000);
    assert!(bench.publish("a", &[&text]));
    bench.disk.set_capacity(Some(bench.disk.bytes_used()));
    assert!((0..50).any(|_| !bench.publish("a", &[&text])));
    // Room for a small segment, and one publication.
    bench.disk.set_capacity(Some(bench.disk.bytes_used() + (6 << 10)));
    bench.look();
    assert_eq!(bench.problems(), [HealthProblem::StoreFull]);
    bench.disk.set_capacity(Some(bench.disk.bytes_used() + (60 << 10)));
    bench.look();
    assert_eq!(bench.problems(), []);
    let kept = (0..50).take_while(|_| bench.publish("a", &[&text])).count();
    assert!(kept >= 15, "{kept}");
}

#[test]
fn smaller_segments_use_the_room_that_is_left() {
    let mut bench = Bench::with_seed(1);
    bench.settings.segment_bytes = 64 << 10;
    bench.start().expect("a new store");
    let text = "x".repeat(1_000);
    assert!(bench.publish("a", &[&text]));
    bench.disk.set_capacity(Some(bench.disk.bytes_used() + (40 << 10)));
    let kept = (0..200).take_while(|_| bench.publish("a", &[&text])).count();
    assert!(kept > 90, "{kept} publications of 100 KiB and more");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_seen_before_the_first_publication() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["one"]));
    bench.checkpoint();
    bench.restart();
    bench.disk.set_capacity(Some(bench.disk.bytes_used()));
    bench.look();
    assert_eq!(bench.problems(), [HealthProblem::StoreFull]);
    bench.disk.set_capacity(None);
    bench.look();
    assert_eq!(bench.problems(), []);
}

#[test]
fn a_segment_that_cannot_be_read_is_no_problem_of_the_index() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["one"]));
    bench.disk.set_faults(DiskFaults { failed_read: 1.0, ..DiskFaults::default() });
    let (epoch, next) = bench.place("a");
    let (now, index) = (bench.now(), bench.store("a"));
    let place = ChannelPlace { channel: &name("a"), epoch, next };
    bench.stores[index].read(now, 77, place, range(0, false, 10));
    let outcome = bench.tick().pop();
    assert!(matches!(outcome, Some(Outcome::Page { read: 77, part: Err(Unreadable) })), "{outcome:?}");
    assert_eq!(bench.problems(), []);
    bench.disk.set_faults(DiskFaults::default());
    assert_eq!(bench.all("a"), numbered(&["one"]));
}
