//! Parts of a store that a disk has lost or changed: what was accepted is there, or its loss is
//! noticed, and no position comes to mean another message.

use redb::ReadableTable;

use super::super::backend::Backend;
use super::super::index::{BLOCKS, Index, KEYS, META};
use super::super::log::segments;
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

    /// Opens a channel that may be unreadable.
    fn try_open(&mut self, channel: &str) -> Result<Option<KeptChannel>, Unreadable> {
        let (now, index) = (self.now(), self.store(channel));
        assert!(matches!(self.stores[index].open(now, &name(channel), false), Opened::Later));
        match self.tick().pop() {
            Some(Outcome::Opened { kept, .. }) => kept,
            other => panic!("an opened channel, not {other:?}"),
        }
    }

    /// Changes the index of a store that is closed.
    fn change_index(&self, change: impl FnOnce(&redb::WriteTransaction)) {
        let index = self.disk.disk().open_dir("data").and_then(|data| data.open("index.redb")).expect("an index");
        let database = redb::Database::builder().create_with_backend(Backend(index)).expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        change(&transaction);
        transaction.commit().expect("written");
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

/// Returns all places of some bytes in others.
fn places_of(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    (0..bytes.len() - wanted.len()).filter(|place| bytes[*place..].starts_with(wanted)).collect()
}

#[test]
fn a_changed_bit_in_the_row_of_a_channel_makes_it_unreadable_and_no_other() {
    for has_tail in [false, true] {
        let mut bench = Bench::new();
        let texts = ["zero", "one", "two", "three"];
        assert!(bench.publish("channel", &texts[..3]) && bench.publish("other", &["text"]));
        bench.checkpoint();
        if has_tail {
            assert!(bench.publish("channel", &texts[3..]));
        }
        bench.stop();
        let count = if has_tail { 4 } else { 3 };
        let (log, index) = (bench.contents(&segment_name(1)), bench.contents("index.redb"));
        let epoch = bench.place("channel").0;
        let numbers = [epoch.0, 0, 3].map(u64::to_le_bytes).concat();
        let rows = places_of(&index, &numbers);
        assert!(!rows.is_empty());
        let length = 48 + "channel".len();
        for bit in (0..length * 8).step_by(3) {
            let mut changed = index.clone();
            for row in &rows {
                changed[row + bit / 8] ^= 1 << (bit % 8);
            }
            bench.replace("index.redb", &changed);
            bench.replace(&segment_name(1), &log);
            let data = bench.disk.disk().open_dir("data").expect("a directory");
            for id in segments(&data).expect("segments").into_iter().filter(|id| *id > 1) {
                data.remove(&segment_name(id)).expect("a segment of the last round");
            }
            match bench.start() {
                Err(StoreError::Index { source, .. }) => {
                    assert!(has_tail && source.to_string().contains("channel"), "bit {bit}: {source}");
                }
                Err(other) => panic!("bit {bit}: {other:?}"),
                Ok(()) => {
                    assert!(!has_tail, "bit {bit}");
                    for _ in 0..2 {
                        assert!(bench.try_open("channel").is_err(), "bit {bit}");
                        assert!(bench.try_open("other").is_ok_and(|kept| kept.is_some()), "bit {bit}");
                        assert!(bench.publish("other", &["more"]));
                        bench.checkpoint();
                    }
                    bench.places.get_mut("other").expect("a place").1 = 1;
                }
            }
            bench.stop();
        }
        bench.replace("index.redb", &index);
        bench.replace(&segment_name(1), &log);
        let _ = bench.disk.disk().open_dir("data").and_then(|data| data.remove(&segment_name(2)));
        bench.start().expect("it is whole again");
        assert!(bench.open("channel").is_some());
        assert_eq!(bench.all("channel"), numbered(&texts[..count]));
    }
}

#[test]
fn a_changed_bit_in_the_places_of_messages_makes_them_unreadable() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["zero", "one", "two"]) && bench.publish("other", &["text"]));
    bench.checkpoint();
    bench.stop();
    let (index, mut bits) = (bench.contents("index.redb"), 8);
    let mut bit = 0;
    while bit < bits {
        bench.change_index(|transaction| {
            let mut blocks = transaction.open_table(BLOCKS).expect("a table");
            let key = (1, 0);
            let mut block = blocks.get(key).expect("a read").expect("a block").value().to_vec();
            bits = block.len() * 8;
            block[bit / 8] ^= 1 << (bit % 8);
            blocks.insert(key, block.as_slice()).expect("a write");
        });
        bench.start().expect("the rows are whole");
        assert!(bench.try_open("a").is_err(), "bit {bit}");
        assert!(bench.try_open("other").is_ok_and(|kept| kept.is_some()), "bit {bit}");
        bench.stop();
        bench.replace("index.redb", &index);
        bit += 1;
    }
    assert!(bits > 100);
    bench.start().expect("it is whole again");
    assert!(bench.open("a").is_some());
    assert_eq!(bench.all("a"), numbered(&["zero", "one", "two"]));
}

#[test]
fn a_changed_bit_in_an_idempotency_key_never_makes_another_answer_of_it() {
    let mut bench = Bench::new();
    let time = bench.now().time;
    let draft = Draft { payload: "text".into(), key: Some("key".into()), ..Draft::default() };
    let message = Arc::new(draft.taken_at(time));
    assert!(bench.publish_all("a", std::slice::from_ref(&message)));
    bench.checkpoint();
    bench.stop();
    let index = bench.contents("index.redb");
    for bit in 0..64 {
        for part in 0..3 {
            bench.change_index(|transaction| {
                let mut keys = transaction.open_table(KEYS).expect("a table");
                let (digest, next, time, sum) = keys.get((1, "key")).expect("a read").expect("a key").value();
                let flip = |index: u64, value: u64| if index == part { value ^ 1 << bit } else { value };
                keys.insert((1, "key"), (flip(0, digest), flip(1, next), flip(2, time), sum)).expect("a write");
            });
            bench.start().expect("the rows are whole");
            assert_eq!(bench.open("a").expect("channel a").keys, [], "bit {bit} of part {part}");
            bench.stop();
            bench.replace("index.redb", &index);
        }
    }
    bench.start().expect("it is whole again");
    assert_eq!(bench.open("a").expect("channel a").keys, [key_of(&message, 1).expect("a key")]);
}

#[test]
fn a_changed_bit_in_the_state_of_the_index_is_noticed_at_the_start() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["one"]));
    bench.checkpoint();
    bench.stop();
    let index = bench.contents("index.redb");
    // Keys and values are each together in a page.
    let pages: Vec<usize> = index
        .chunks(4096)
        .enumerate()
        .filter_map(|(number, page)| {
            let has = |text: &str| page.windows(text.len()).any(|bytes| bytes == text.as_bytes());
            (has("last epoch") && has("sequence")).then_some(number)
        })
        .collect();
    assert!(!pages.is_empty());
    let epoch = bench.place("a").0.0.to_le_bytes();
    let mut found = 0;
    for page in pages {
        for place in places_of(&index[page * 4096..][..4096], &epoch) {
            let mut changed = index.clone();
            changed[page * 4096 + place + 5] ^= 1;
            bench.replace("index.redb", &changed);
            found += usize::from(matches!(bench.start(), Err(StoreError::Index { .. })));
            bench.stop();
        }
    }
    assert!(found > 0);
}

#[test]
fn a_changed_bit_in_the_row_of_a_segment_is_noticed_at_the_start() {
    let mut bench = Bench::killed();
    bench.start().expect("the store of before");
    bench.stop();
    let index = bench.contents("index.redb");
    let counts = Index::open_existing(&bench.disk.disk().open_dir("data").expect("a directory"));
    let counts = counts.expect("an index").expect("an index").segments().expect("counts");
    let places = places_of(&index, &counts[&1].to_le_bytes());
    for bit in 0..64 {
        let mut changed = index.clone();
        for place in &places {
            changed[place + bit / 8] ^= 1 << (bit % 8);
        }
        bench.replace("index.redb", &changed);
        assert!(matches!(bench.start(), Err(StoreError::Index { .. })), "bit {bit}");
        bench.stop();
    }
    bench.replace("index.redb", &index);
    bench.start().expect("it is whole again");
}

#[test]
fn an_index_of_an_earlier_format_is_refused_by_name_and_can_be_salvaged() {
    let mut bench = Bench::killed();
    bench.start().expect("the store of before");
    bench.stop();
    bench.change_index(|transaction| {
        transaction.open_table(META).expect("a table").remove("version").expect("removed");
    });
    let error = bench.start().expect_err("it has no version");
    assert!(matches!(error, StoreError::Older { found: 1, known: 2, .. }), "{error}");
    bench.stop();
    assert!(bench.salvaged().lost[0].contains("format 1"));
    for channel in channels() {
        let epoch = bench.open(&channel).expect("a channel").window.epoch;
        let (before, _) = bench.places.insert(channel.clone(), (epoch, 3)).expect("a place");
        assert!(epoch > before);
        assert_eq!(bench.all(&channel), numbered(&["one", "two", "three"]));
    }
}

#[test]
fn a_server_starts_on_a_full_disk_with_the_help_of_the_reserve() {
    let mut bench = Bench::with_seed(1);
    bench.settings.segment_bytes = 1 << 20;
    bench.start().expect("a new store");
    assert!(bench.publish("a", &["one"]));
    bench.checkpoint();
    bench.disk.set_capacity(Some(bench.disk.bytes_used()));
    let channels: Vec<String> = (0..300).map(|number| format!("{number:0120}")).collect();
    assert!(channels.iter().all(|channel| bench.publish(channel, &["x"])));
    bench.stop();
    bench.start().expect("a store on a full disk");
    bench.disk.set_capacity(Some(bench.disk.bytes_used()));
    assert!(!bench.publish("b", &["two"]));
    assert!(channels.iter().all(|channel| bench.open(channel).is_some()));
    bench.disk.set_capacity(None);
    bench.look();
    assert!(bench.publish("b", &["two"]));
}

#[test]
fn a_disk_without_any_room_is_the_reason_why_a_server_does_not_start() {
    let mut bench = Bench::with_seed(1);
    bench.settings.segment_bytes = 1 << 20;
    bench.start().expect("a new store");
    assert!(bench.publish("a", &["one"]));
    bench.checkpoint();
    bench.disk.set_capacity(Some(bench.disk.bytes_used() - (256 << 10)));
    let channels: Vec<String> = (0..300).map(|number| format!("{number:0120}")).collect();
    assert!(channels.iter().all(|channel| bench.publish(channel, &["x"])));
    bench.stop();
    let error = bench.start().expect_err("there is no room");
    assert!(error.to_string().contains("is full"), "{error}");
    bench.stop();
    bench.disk.set_capacity(None);
    bench.start().expect("there is room again");
    assert!(channels.iter().all(|channel| bench.open(channel).is_some()));
}
