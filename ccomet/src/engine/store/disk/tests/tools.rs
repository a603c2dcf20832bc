//! The tools, on a simulated disk: `check` finds each change, and `salvage` and `backup` make
//! stores that a server opens.

use sealed::disk::Directory;

use super::super::opening::lock_index;
use super::super::tools::view::View;
use super::super::tools::{Damage, Salvaged, StoreStats, backup, check, dump, salvage, stats};
use super::*;

impl Bench {
    fn directory(&self, path: &str) -> Directory {
        self.disk.disk().open_dir(path).expect("a directory")
    }

    fn check(&self) -> Vec<Damage> {
        check::check(&self.directory("data"), &mut |_| {}).expect("a check")
    }

    fn stats(&self) -> StoreStats {
        stats::stats(&self.directory("data"), &mut |_| {}).expect("a whole store")
    }

    fn dump(&self, path: &str) -> String {
        let view = View::open(&self.directory(path)).expect("a whole store");
        let mut lines = Vec::new();
        dump::dump(&view, None, &mut lines, &mut |_| {}).expect("a whole store");
        String::from_utf8(lines).expect("text")
    }

    /// Salvages to another directory, which must be whole.
    fn salvage(&self, to: &str) -> Salvaged {
        let (old, new) = (self.directory("data"), self.directory(to));
        let salvaged = salvage::salvage(&old, &new, false, &mut |_| {}).expect("messages");
        let damages = check::check(&new, &mut |_| {}).expect("a check");
        assert_eq!(damages, [], "{salvaged:?}");
        salvaged
    }

    /// Creates a store with a part behind the checkpoint, and stops it.
    fn filled() -> Self {
        let mut bench = Self::new();
        for round in 0..40 {
            let texts: Vec<String> = (0..5).map(|number| format!("{round}-{number}-{}", "x".repeat(40))).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            for channel in ["a", "b", "c"] {
                assert!(bench.publish(channel, &texts));
            }
            if round % 15 == 14 {
                bench.checkpoint();
            }
        }
        let (now, index) = (bench.now(), bench.store("a"));
        bench.stores[index].trim(now, &name("a"), &HistoryLimits { messages_max: 150, ..LIMITS });
        bench.tick();
        assert_eq!(bench.submit("c", StoreChange::Clear), Submitted::Later);
        assert!(bench.is_kept());
        assert!(bench.publish("c", &["after"]) && bench.publish("d", &["new"]));
        bench.stop();
        bench
    }
}

fn lines_of(dump: &str, channel: &str) -> Vec<String> {
    let begin = format!("{{\"channel\":\"{channel}\"");
    dump.lines().filter(|line| line.starts_with(&begin)).map(str::to_owned).collect()
}

/// Returns what a line has besides its position.
fn content(line: &str) -> &str {
    line.split_once("\"time\"").expect("a time").1
}

fn assert_same_content(before: &str, after: &str) {
    assert_eq!(before.lines().count(), after.lines().count());
    for (before, after) in before.lines().zip(after.lines()) {
        let channel = |line: &str| line.split_once("\"position\"").expect("a position").0.to_owned();
        assert!(channel(before) == channel(after) && content(before) == content(after), "{before} {after}");
    }
}

#[test]
fn a_whole_store_has_no_damage_and_is_counted() {
    let bench = Bench::filled();
    assert_eq!(bench.check(), []);
    let stats = bench.stats();
    assert_eq!(stats.channels, 4);
    // The trim is not in the index yet, and not in the log either.
    assert_eq!(stats.messages, 200 + 200 + 1 + 1);
    assert!(stats.bytes_behind_checkpoint > 0 && stats.bytes_on_disk > stats.bytes_kept, "{stats:?}");
    let dump = bench.dump("data");
    assert_eq!(dump.lines().count(), 402);
    assert!(lines_of(&dump, "c")[0].ends_with("\"data\":\"after\"}"), "{dump}");
}

#[test]
fn the_tools_change_nothing() {
    let mut bench = Bench::filled();
    let log = |bench: &Bench| -> Vec<_> { (1..4).map(|id| bench.contents(&segment_name(id))).collect() };
    let before = log(&bench);
    bench.check();
    bench.dump("data");
    assert!(log(&bench) == before);
    bench.start().expect("the store of before");
    assert!(bench.open("d").is_some());
    assert_eq!(bench.all("d"), numbered(&["new"]));
}

#[test]
fn each_changed_byte_is_found_and_the_rest_is_salvaged() {
    let bench = Bench::filled();
    let whole = bench.dump("data");
    let index = bench.contents("index.redb");
    let last = bench.stats().segments.len() as u32;
    let mut round = 0;
    for id in [1, last - 1] {
        let file = segment_name(id);
        let contents = bench.contents(&file);
        let used = contents.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
        for place in (0..used).step_by(37) {
            let mut changed = contents.clone();
            changed[place] ^= 1 << (place % 8);
            bench.replace(&file, &changed);
            bench.replace("index.redb", &index);
            match check::check(&bench.directory("data"), &mut |_| {}) {
                Ok(damages) => assert!(damages.iter().any(|damage| damage.file == file), "byte {place}: {damages:?}"),
                // The version has changed.
                Err(error) => assert!((8..12).contains(&place), "byte {place}: {error:?}"),
            }
            if (8..12).contains(&place) {
                continue;
            }
            round += 1;
            let to = format!("new{round}");
            let salvaged = bench.salvage(&to);
            let kept = bench.dump(&to);
            assert!(!salvaged.lost.is_empty() || kept == whole, "byte {place}");
            // If the clearing of channel c is lost, its messages are there again.
            for channel in ["a", "b", "d"] {
                let (before, after) = (lines_of(&whole, channel), lines_of(&kept, channel));
                // Each message is one that was there, in order; only those of one commit are
                // missing.
                let mut rest = before.iter();
                for line in &after {
                    assert!(rest.any(|other| content(other) == content(line)), "byte {place}: {line}");
                }
                assert!(before.len() - after.len() <= 5, "byte {place}: {channel}");
                // A channel that lost something has a new epoch.
                assert!(before.len() == after.len() || before[0][..35] != after[0][..35], "byte {place}: {channel}");
            }
        }
        bench.replace(&file, &contents);
    }
}

#[test]
fn the_index_is_made_again_from_the_log() {
    let mut bench = Bench::filled();
    let whole = bench.dump("data");
    bench.directory("data").remove("index.redb").expect("an index");
    assert!(!bench.check().is_empty());
    let salvaged = bench.salvage("new");
    assert_eq!(salvaged.lost.len(), 1, "{:?}", salvaged.lost);
    assert_same_content(&whole, &bench.dump("new"));
    bench.settings.path = "new".into();
    bench.start().expect("the new store");
    assert_eq!(bench.open("d").expect("channel d").window.entries.len(), 1);
    assert!(bench.publish("d", &["newer"]));
}

#[test]
fn all_channels_get_new_epochs_on_request() {
    let bench = Bench::filled();
    let whole = bench.dump("data");
    let salvaged = salvage::salvage(&bench.directory("data"), &bench.directory("new"), true, &mut |_| {});
    assert_eq!(salvaged.expect("messages").lost, [""; 0]);
    let new = bench.dump("new");
    assert_eq!(whole.lines().count(), new.lines().count());
    for (before, after) in whole.lines().zip(new.lines()) {
        let epoch = |line: &str| line.split_once("\"position\":\"").expect("a position").1[..13].to_owned();
        assert!(content(before) == content(after) && epoch(before) < epoch(after), "{before} {after}");
    }
}

#[test]
fn a_damaged_index_is_found_and_replaced() {
    let bench = Bench::filled();
    let whole = bench.dump("data");
    let index = bench.contents("index.redb");
    let mut found = 0;
    for (round, place) in (0..index.len()).step_by(index.len() / 60).enumerate() {
        let mut changed = index.clone();
        changed[place] ^= 0x55;
        bench.replace("index.redb", &changed);
        found += usize::from(!bench.check().is_empty());
        let to = format!("new{round}");
        bench.salvage(&to);
        assert_same_content(&whole, &bench.dump(&to));
    }
    // Most of the file is pages that are not in use.
    assert!(found > 0);
}

#[test]
fn a_missing_segment_is_found() {
    let bench = Bench::filled();
    let before = bench.dump("data");
    bench.directory("data").remove(&segment_name(2)).expect("a segment");
    let damages = bench.check();
    assert!(damages.iter().any(|damage| damage.file == segment_name(2)), "{damages:?}");
    let salvaged = bench.salvage("new");
    assert!(salvaged.messages < 402 && salvaged.messages > 200 && !salvaged.lost.is_empty(), "{salvaged:?}");
    assert_ne!(lines_of(&before, "a")[0], lines_of(&bench.dump("new"), "a")[0]);
}

#[test]
fn a_copy_of_a_store_in_use_has_all_that_was_accepted() {
    let mut bench = Bench::new();
    for (round, text) in ["one", "two", "three", "four", "five", "six"].into_iter().enumerate() {
        assert!(bench.publish("a", &[text]));
        if round % 2 == 1 {
            bench.checkpoint();
        }
        let to = format!("copy{round}");
        backup::backup(&bench.directory("data"), &bench.directory(&to), &mut |_| {}).expect("a copy");
        assert_eq!(bench.dump(&to).lines().count(), round + 1);
    }
    bench.stop();
    bench.settings.path = "copy4".into();
    bench.start().expect("the copy");
    let kept = bench.open("a").expect("channel a");
    assert_eq!(kept.window.epoch, bench.place("a").0);
    assert_eq!(bench.all("a"), numbered(&["one", "two", "three", "four", "five"]));
}

#[test]
fn checkpoints_wait_while_the_index_is_copied() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["one"]));
    let lock = lock_index(&bench.directory("data")).expect("the lock");
    let before = bench.contents("index.redb");
    bench.checkpoint();
    assert!(bench.publish("a", &["two"]));
    bench.checkpoint();
    assert!(bench.contents("index.redb") == before, "the index has changed");
    drop(lock);
    bench.checkpoint();
    assert!(bench.contents("index.redb") != before, "the checkpoint is made up for");
    bench.restart();
    assert!(bench.open("a").is_some());
    assert_eq!(bench.all("a"), numbered(&["one", "two"]));
}
