//! Parts of a store that a disk has lost or changed: what was accepted is there, or its loss is
//! noticed, and no position comes to mean another message.

use super::super::tools::{Salvaged, check, salvage};
use super::*;

/// Returns the channels of the benches here.
fn channels() -> impl Iterator<Item = String> {
    (0..20).map(|number| format!("channel.{number}"))
}

impl Bench {
    /// Creates a store that was killed: its newest segment has a checkpoint, and messages after it.
    fn killed() -> Self {
        let mut bench = Self::with_seed(1);
        bench.settings.segment_bytes = 1 << 20;
        bench.start().expect("a new store");
        for text in ["one", "two"] {
            channels().for_each(|channel| assert!(bench.publish(&channel, &[text])));
        }
        bench.checkpoint();
        channels().for_each(|channel| assert!(bench.publish(&channel, &["three"])));
        bench.stop();
        bench
    }

    /// Salvages the store to another one, and opens that.
    fn salvaged(&mut self) -> Salvaged {
        let (old, new) = (self.disk.disk().open_dir("data"), self.disk.disk().open_dir("new"));
        let (old, new) = (old.expect("a directory"), new.expect("a directory"));
        let salvaged = salvage::salvage(&old, &new, false, &mut |_| {}).expect("messages");
        self.settings.path = "new".into();
        self.start().expect("the new store");
        salvaged
    }

    fn is_refused(&mut self) -> bool {
        let started = self.start();
        self.stop();
        matches!(started, Err(StoreError::Damaged { .. }))
    }
}

/// Returns newest segments whose end is lost, with what was done to them: `None` for one that is
/// gone.
fn lost_ends(whole: &[u8]) -> [(&'static str, Option<Vec<u8>>); 6] {
    // The checkpoint is behind this.
    let begin = 500;
    let mut zeros_behind = whole.to_vec();
    zeros_behind[begin..].fill(0);
    let used = whole.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    let mut headless = vec![0; whole.len()];
    headless[36..used / 2].copy_from_slice(&whole[36..used / 2]);
    [
        ("removed", None),
        ("empty", Some(Vec::new())),
        ("cut", Some(whole[..begin].to_vec())),
        ("zeros", Some(vec![0; whole.len()])),
        ("zeros behind a place", Some(zeros_behind)),
        ("without a header", Some(headless)),
    ]
}

#[test]
fn a_lost_end_of_the_log_renews_all_channels_when_it_is_salvaged() {
    for case in 0..6 {
        let mut bench = Bench::killed();
        let (what, contents) = lost_ends(&bench.contents(&segment_name(1)))[case].clone();
        match contents {
            Some(contents) => bench.replace(&segment_name(1), &contents),
            None => bench.disk.disk().open_dir("data").and_then(|data| data.remove(&segment_name(1))).expect("removed"),
        }
        let salvaged = bench.salvaged();
        assert!(salvaged.lost.iter().any(|line| line.starts_with(&segment_name(1))), "{what}: {:?}", salvaged.lost);
        for channel in channels() {
            let known = bench.places[&channel].0;
            let kept = bench.open(&channel);
            assert!(kept.is_none_or(|kept| kept.window.epoch > known), "{what}: {channel} has its old positions");
            let begin = format!("channel {channel}: ");
            assert!(salvaged.lost.iter().any(|line| line.starts_with(&begin)), "{what}: {:?}", salvaged.lost);
        }
    }
}

#[test]
fn a_whole_end_of_the_log_keeps_all_positions_when_it_is_salvaged() {
    let mut bench = Bench::killed();
    assert_eq!(bench.salvaged().lost, [""; 0]);
    for channel in channels() {
        let known = bench.places[&channel].0;
        assert_eq!(bench.open(&channel).expect("the channel").window.epoch, known);
        assert_eq!(bench.all(&channel), numbered(&["one", "two", "three"]));
    }
}

#[test]
fn a_store_whose_log_ends_before_the_checkpoint_is_not_opened() {
    let mut bench = Bench::killed();
    let whole = bench.contents(&segment_name(1));
    let index = bench.contents("index.redb");
    for (what, contents) in lost_ends(&whole) {
        match contents {
            Some(contents) => bench.replace(&segment_name(1), &contents),
            None => bench.disk.disk().open_dir("data").and_then(|data| data.remove(&segment_name(1))).expect("removed"),
        }
        let damages = check::check(&bench.disk.disk().open_dir("data").expect("a directory"), &mut |_| {});
        assert!(!damages.expect("a check").is_empty(), "{what}");
        assert!(bench.is_refused(), "{what}");
        bench.replace(&segment_name(1), &whole);
        bench.replace("index.redb", &index);
    }
    bench.start().expect("it is whole again");
    for channel in channels() {
        assert!(bench.open(&channel).is_some());
        assert_eq!(bench.all(&channel), numbered(&["one", "two", "three"]));
    }
}

#[test]
fn a_cut_of_the_log_is_noticed_also_if_nothing_before_the_checkpoint_is_kept() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["one", "two"]));
    assert_eq!(bench.submit("a", StoreChange::Clear), Submitted::Later);
    assert!(bench.is_kept());
    bench.checkpoint();
    assert!(bench.publish("a", &["three"]));
    bench.stop();
    let whole = bench.contents(&segment_name(1));
    bench.replace(&segment_name(1), &whole[..40]);
    assert!(bench.is_refused());
}
