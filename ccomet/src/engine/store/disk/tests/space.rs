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
    // Room for several publications, and the reserve.
    bench.disk.set_capacity(Some(bench.disk.bytes_used() + (124 << 10)));
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

/// The channels of the tests below.
const CHANNELS: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];

impl Bench {
    fn remove(&mut self, channel: &str) -> bool {
        match self.submit(channel, StoreChange::Remove) {
            Submitted::Later => self.is_kept(),
            submitted => submitted == Submitted::Kept,
        }
    }

    /// Opens a store with segments of 64 KiB and fills its disk with messages of all channels, in
    /// turn.
    fn with_full_disk() -> Self {
        let mut bench = Self::with_seed(1);
        bench.settings.segment_bytes = 64 << 10;
        bench.settings.checkpoint_bytes = 128 << 10;
        bench.start().expect("a new store");
        bench.disk.set_capacity(Some(bench.disk.bytes_used() + (1 << 20)));
        let text = "x".repeat(3_800);
        let kept = (0..1_000).take_while(|round| bench.publish(CHANNELS[round % 16], &[&text])).count();
        assert!(kept > 200, "{kept}");
        bench.look();
        assert!(!bench.publish("a", &[&text]));
        bench
    }
}

#[test]
fn a_disk_full_of_segments_of_which_little_is_kept_has_room_again() {
    for is_restarted in [false, true] {
        let mut bench = Bench::with_full_disk();
        let (last, others) = CHANNELS.split_last().expect("channels");
        let text = "x".repeat(3_800);
        if is_restarted {
            bench.restart();
            for channel in CHANNELS {
                assert!(bench.open(channel).is_some());
            }
            while bench.publish(last, &[&text]) {}
        }
        let before = bench.all(last);
        assert!(others.iter().all(|channel| bench.remove(channel)));
        for _ in 0..8 {
            bench.look();
        }
        assert_eq!(bench.problems(), [], "restarted: {is_restarted}");
        let log = bench.log_bytes();
        assert!(log < 400 << 10, "restarted: {is_restarted}, {log} bytes {:?}", bench.disk.files());
        let kept = (0..20).take_while(|_| bench.publish(last, &[&text])).count();
        assert!(kept >= 15, "{kept}");
        assert_eq!(bench.all(last)[..before.len()], before);
        bench.restart();
        assert!(others.iter().all(|channel| bench.open(channel).is_none()));
        assert!(bench.open(last).is_some());
        assert_eq!(bench.all(last)[..before.len()], before);
    }
}

#[test]
fn channels_are_cleared_and_removed_on_a_disk_that_was_full_at_the_start() {
    for looks in [0, 1] {
        let mut bench = Bench::with_full_disk();
        bench.restart();
        bench.disk.set_capacity(Some(bench.disk.bytes_used()));
        (0..looks).for_each(|_| bench.look());
        for channel in ["a", "b"] {
            assert!(bench.open(channel).is_some());
        }
        assert!(!bench.publish("a", &["x"]));
        assert!(bench.remove("a"));
        assert_eq!(bench.submit("b", StoreChange::Clear), Submitted::Later);
        assert!(bench.is_kept());
        bench.restart();
        assert!(bench.open("a").is_none());
        assert_eq!(bench.open("b").expect("channel b").window.entries, []);
    }
}

#[test]
fn a_removal_is_kept_on_a_full_disk_although_publications_of_its_tick_are_refused() {
    let mut bench = Bench::with_full_disk();
    let time = bench.now().time;
    let large = Arc::new(Draft { payload: "x".repeat(30_000).into(), ..Draft::default() }.taken_at(time));
    for channel in ["b", "c", "d"] {
        let change =
            if channel == "c" { StoreChange::Remove } else { StoreChange::Append(std::slice::from_ref(&large)) };
        assert_eq!(bench.submit(channel, change), Submitted::Later);
    }
    let mut kept: Vec<_> = bench
        .tick()
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Changed { channel, kept } => (channel.to_string(), kept.is_ok()),
            other => panic!("a change, not {other:?}"),
        })
        .collect();
    kept.sort();
    assert_eq!(kept, [("b".to_owned(), false), ("c".to_owned(), true), ("d".to_owned(), false)]);
}

#[test]
fn a_checkpoint_on_a_full_disk_is_tried_again_less_and_less_often() {
    let mut bench = Bench::with_seed(1);
    bench.settings.segment_bytes = 1 << 20;
    bench.settings.checkpoint_interval = Duration::from_secs(86_400);
    bench.start().expect("a new store");
    assert!(bench.publish("a", &["one"]));
    bench.checkpoint();
    bench.disk.set_capacity(Some(bench.disk.bytes_used() - (256 << 10)));
    let text = "x".repeat(2_000);
    let channels: Vec<String> = (0..).map(|number| format!("{number:0120}")).take(1_000).collect();
    let kept = channels.iter().take_while(|channel| bench.publish(channel, &[&text])).count();
    assert!((300..1_000).contains(&kept), "{kept}");
    let mut operations = Vec::new();
    for _ in 0..4 {
        let before = bench.disk.operations();
        (0..32).for_each(|_| bench.look());
        operations.push(bench.disk.operations() - before);
    }
    assert_eq!(bench.problems(), [HealthProblem::StoreFull, HealthProblem::CheckpointFails]);
    assert!(2 * operations[3] < operations[0], "{operations:?}");
    // Room ends the wait.
    bench.disk.set_capacity(None);
    bench.look();
    assert_eq!(bench.problems(), []);
}
