//! What is dropped, and that the disk gets its space back.

use super::*;

impl Bench {
    /// Writes checkpoints until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..6 {
            self.shared.as_ref().expect("a store").force_checkpoint();
            self.checkpoint();
        }
    }

    pub(super) fn log_bytes(&self) -> u64 {
        let files = self.disk.files();
        files
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "log"))
            .map(|(_, length)| length)
            .sum()
    }

    fn trim(&mut self, channel: &str, limits: &HistoryLimits) -> u64 {
        let mut kept_from = 0;
        for _ in 0..3 {
            let (now, index) = (self.now(), self.store(channel));
            kept_from = self.stores[index].trim(now, &name(channel), limits).expect("a number");
            self.tick();
        }
        kept_from
    }

    fn unload(&mut self, channel: &str) {
        let index = self.store(channel);
        self.stores[index].unload(&name(channel));
    }
}

#[test]
fn a_log_that_is_too_large_loses_its_oldest_messages() {
    let mut bench = Bench::new();
    bench.settings.bytes_max = 8 * 4_096;
    bench.restart();
    let text = "x".repeat(400);
    assert!(bench.publish("old", &["only"]));
    bench.unload("old");
    for round in 0..60 {
        assert!(bench.publish(["a", "b"][round % 2], &[text.as_str(); 3]));
        if round % 4 == 0 {
            bench.checkpoint();
        }
    }
    bench.settle();
    assert!(bench.log_bytes() <= 8 * 4_096, "{} bytes", bench.log_bytes());
    for channel in ["a", "b"] {
        let numbers: Vec<u64> = bench.all(channel).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, (numbers[0]..90).collect::<Vec<_>>(), "channel {channel}");
        assert!((30..80).contains(&numbers[0]), "channel {channel} begins with {}", numbers[0]);
    }
    let kept = bench.open("old").expect("its numbers are kept");
    assert_eq!((kept.window.kept_from, kept.window.first, kept.window.entries.len()), (1, 1, 0));
    bench.restart();
    assert_eq!(bench.open("old").expect("its numbers are kept").window.kept_from, 1);
}

#[test]
fn a_segment_of_which_little_is_kept_is_written_again() {
    let mut bench = Bench::new();
    let text = "x".repeat(400);
    for round in 0..20 {
        assert!(bench.publish("rare", &[&format!("rare {round}")]));
        assert!(bench.publish("busy", &[text.as_str(); 12]));
    }
    bench.checkpoint();
    let limits = HistoryLimits { messages_max: 1, ..LIMITS };
    for _ in 0..20 {
        bench.trim("busy", &limits);
    }
    assert!(bench.segments() > 15);
    for _ in 0..6 {
        bench.settle();
    }
    assert!(bench.segments() <= 4, "{} segments", bench.segments());
    let rare: Vec<String> = (0..20).map(|round| format!("rare {round}")).collect();
    let rare: Vec<&str> = rare.iter().map(String::as_str).collect();
    assert_eq!(bench.all("rare"), numbered(&rare));
    bench.restart();
    bench.open("rare").expect("the channel");
    assert_eq!(bench.all("rare"), numbered(&rare));
    assert!(bench.publish("rare", &["another"]));
    assert_eq!(bench.all("rare").len(), 21);
}

#[test]
fn messages_that_are_kept_for_long_survive_many_that_are_not() {
    let mut bench = Bench::with_seed(1);
    bench.settings.bytes_max = 64 << 10;
    bench.start().expect("a new store");
    let (text, limits) = ("x".repeat(400), HistoryLimits { messages_max: 1, ..LIMITS });
    let mut largest = 0;
    for round in 0..240 {
        assert!(bench.publish("rare", &[&format!("rare {round}")]));
        assert!(bench.publish("busy", &[text.as_str(); 3]));
        bench.trim("busy", &limits);
        // A checkpoint comes after several segments.
        if round % 24 == 23 {
            bench.checkpoint();
            bench.checkpoint();
            largest = largest.max(bench.log_bytes());
        }
    }
    assert_eq!(bench.all("rare").len(), 240, "the log needs {largest} bytes");
    assert!(largest < 128 << 10, "{largest}");
}

#[test]
fn channels_that_nobody_uses_lose_what_is_too_old_and_end() {
    let mut bench = Bench::new();
    for channel in ["a", "b"] {
        assert!(bench.publish(channel, &["one", "two"]));
        bench.trim(channel, &LIMITS);
        bench.unload(channel);
    }
    bench.checkpoint();
    bench.restart();
    bench.millis += 3_700_000;
    assert!(bench.publish("c", &["new"]));
    bench.settle();
    let kept = bench.open("a").expect("its numbers are kept");
    assert_eq!((kept.window.kept_from, kept.window.first), (2, 2));
    bench.unload("a");
    bench.millis += 7_300_000;
    bench.settle();
    assert!(bench.open("a").is_none() && bench.open("b").is_none());
    bench.settle();
    bench.restart();
    assert!(bench.open("a").is_none() && bench.open("b").is_none());
    assert!(bench.open("c").is_some());
}

#[test]
fn a_disk_that_the_store_has_filled_has_room_once_its_messages_are_too_old() {
    for room in [300, 500, 700, 900] {
        let mut bench = Bench::new();
        bench.settings.segment_bytes = 256 << 10;
        bench.restart();
        bench.disk.set_capacity(Some(bench.disk.bytes_used() + (room << 10)));
        let text = "x".repeat(2_000);
        let mut kept = 0;
        while bench.publish("a", &[text.as_str(); 3]) {
            kept += 3;
        }
        assert!(kept > 0, "{room} KiB");
        let limits =
            HistoryLimits { messages_max: usize::MAX, bytes_max: usize::MAX, kept_for: Duration::from_secs(1) };
        bench.millis += 10_000;
        assert_eq!(bench.trim("a", &limits), kept);
        for _ in 0..3 {
            bench.shared.as_ref().expect("a store").look_for_room();
            bench.tick();
            bench.settle();
        }
        assert!(bench.publish("a", &[text.as_str()]), "{room} KiB");
        bench.settle();
        bench.restart();
        assert_eq!(bench.open("a").expect("channel a").window.kept_from, kept);
    }
}
