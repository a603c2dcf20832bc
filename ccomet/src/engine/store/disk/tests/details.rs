//! Checkpoints that overlap with changes, limits, and a disk that is full or damaged.

use super::*;

#[test]
fn keys_are_known_while_a_checkpoint_is_written() {
    let mut bench = Bench::new();
    let time = bench.now().time;
    let draft = Draft { payload: "keyed".into(), key: Some("key".into()), ..Draft::default() };
    assert!(bench.publish_all("a", &[Arc::new(draft.taken_at(time))]));
    bench.shared.as_ref().expect("a store").begin_checkpoint();
    let (now, index) = (bench.now(), bench.store("a"));
    for store in &mut bench.stores {
        assert!(store.next_outcome(now).is_none());
    }
    // The changes are handed over, and not in the index yet.
    bench.stores[index].unload(&name("a"));
    let Opened::Later = bench.stores[index].open(now, &name("a"), false) else { panic!("the store has channel a") };
    let outcome = bench.tick().pop();
    assert!(
        matches!(&outcome, Some(Outcome::Opened { kept: Ok(Some(kept)), .. }) if kept.keys.len() == 1),
        "{outcome:?}"
    );
    for _ in 0..2 {
        assert_eq!(bench.open("a").expect("channel a").keys.len(), 1);
        bench.checkpoint();
        bench.stores[index].unload(&name("a"));
    }
    bench.restart();
    assert_eq!(bench.open("a").expect("channel a").keys.len(), 1);
}

#[test]
fn a_channel_removed_twice_around_a_checkpoint_stays_removed() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["first"]));
    assert_eq!(bench.submit("a", StoreChange::Remove), Submitted::Later);
    assert!(bench.is_kept());
    bench.places.remove("a");
    assert!(bench.publish("a", &["second"]));
    bench.shared.as_ref().expect("a store").begin_checkpoint();
    let (now, index) = (bench.now(), bench.store("a"));
    for store in &mut bench.stores {
        assert!(store.next_outcome(now).is_none());
    }
    bench.stores[index].forget(&name("a"));
    bench.tick();
    assert!(bench.open("a").is_none());
    bench.checkpoint();
    assert!(bench.open("a").is_none());
    bench.restart();
    assert!(bench.open("a").is_none());
}

#[test]
fn pages_end_where_the_places_of_their_messages_end() {
    let mut bench = Bench::with_seed(1);
    bench.settings.places_at_once = 3;
    bench.start().expect("a new store");
    assert!(bench.publish("a", &["0", "1", "2", "3"]));
    bench.checkpoint();
    for text in ["4", "5", "6", "7", "8", "9", "10", "11"] {
        assert!(bench.publish("a", &[text]));
    }
    for is_backward in [false, true] {
        let (mut found, mut pages, mut begin) = (Vec::new(), 0, if is_backward { 12 } else { 0 });
        loop {
            let part = bench.page("a", range(begin, is_backward, 100));
            found.extend(part.entries.iter().map(|(number, _)| *number));
            (begin, pages) = (part.end, pages + 1);
            if !part.has_more {
                break;
            }
        }
        if is_backward {
            found.reverse();
        }
        assert_eq!(found, (0..12).collect::<Vec<_>>());
        assert!(pages > 2, "{pages} pages");
    }
}

#[test]
fn a_channel_is_not_deleted_once_the_disk_has_failed() {
    let mut bench = Bench::new();
    bench.disk.set_faults(DiskFaults { failed_sync: 1.0, ..DiskFaults::default() });
    assert!(!bench.publish("a", &["one"]));
    bench.disk.set_faults(DiskFaults::default());
    // The log may have the message, although nothing was accepted.
    for change in [StoreChange::Clear, StoreChange::Remove] {
        assert_eq!(bench.submit("a", change), Submitted::Refused(NotKept::Failed));
    }
}

#[test]
fn what_is_kept_is_read_while_the_disk_is_full() {
    let mut bench = Bench::new();
    bench.settings.segment_bytes = 1 << 20;
    bench.restart();
    assert!(bench.publish("a", &["one", "two"]));
    bench.checkpoint();
    let mut channels = Vec::new();
    // The index has no room for the names of these, not even with the reserve.
    bench.disk.set_capacity(Some(bench.disk.bytes_used() - (256 << 10)));
    for number in 0..200 {
        let channel = format!("{number:0120}");
        if bench.publish(&channel, &["x"]) {
            channels.push(channel);
        }
    }
    for _ in 0..3 {
        bench.shared.as_ref().expect("a store").begin_checkpoint();
        (0..5).for_each(|_| drop(bench.tick()));
        assert_eq!(bench.all("a"), numbered(&["one", "two"]));
    }
    bench.disk.set_capacity(None);
    bench.checkpoint();
    assert!(!channels.is_empty() && bench.publish("a", &["three"]));
    bench.restart();
    assert!(bench.open("a").is_some());
    assert_eq!(bench.all("a"), numbered(&["one", "two", "three"]));
    assert!(channels.iter().all(|channel| bench.open(channel).is_some()));
}

#[test]
fn a_changed_byte_of_a_message_in_the_index_is_a_gap_and_never_another_message() {
    let mut bench = Bench::new();
    for text in ["one", "two", "three"] {
        assert!(bench.publish("a", &[text]));
    }
    bench.checkpoint();
    let (file, texts) = (segment_name(1), ["one", "two", "three"]);
    let whole = bench.contents(&file);
    let used = whole.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    let mut gaps = 0;
    for bit in 0..used as u64 * 8 {
        bench.disk.flip_bit(bench.settings.path.join(&file), bit);
        let found = bench.all("a");
        assert!(found.iter().all(|(number, text)| texts[*number as usize] == text), "bit {bit}: {found:?}");
        gaps += u32::from(found.len() < 3);
        bench.disk.flip_bit(bench.settings.path.join(&file), bit);
    }
    assert!(gaps > 100, "{gaps} gaps");
    assert_eq!(bench.all("a"), numbered(&texts));
}

#[test]
fn what_is_before_the_end_of_a_cut_segment_is_read() {
    let mut bench = Bench::new();
    let texts: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    for text in &texts {
        assert!(bench.publish("a", &[text]));
    }
    bench.checkpoint();
    let whole = bench.contents(&segment_name(1));
    let used = whole.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    bench.replace(&segment_name(1), &whole[..used - 1]);
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(bench.all("a"), numbered(&all[..8]));
}

#[test]
fn history_from_new_to_old_goes_past_a_message_that_cannot_be_read() {
    let mut bench = Bench::new();
    let texts: Vec<String> = (0..9).map(|number| format!("message {number}")).collect();
    for text in &texts {
        assert!(bench.publish("a", &[text]));
    }
    bench.checkpoint();
    let whole = bench.contents(&segment_name(1));
    let place = whole.windows(9).position(|bytes| bytes == b"message 4").expect("the message");
    bench.disk.flip_bit(bench.settings.path.join(segment_name(1)), place as u64 * 8);
    let (mut numbers, mut begin) = (Vec::new(), 9);
    loop {
        let part = bench.page("a", range(begin, true, 100));
        numbers.extend(payloads(&part).into_iter().map(|(number, _)| number));
        begin = part.end;
        if !part.has_more {
            break;
        }
    }
    assert_eq!(numbers, [8, 7, 6, 5, 3, 2, 1, 0]);
}

#[test]
fn a_store_that_lacks_a_segment_is_not_opened() {
    let mut bench = Bench::new();
    let text = "x".repeat(700);
    assert!((0..10).all(|_| bench.publish("a", &[text.as_str()])));
    bench.checkpoint();
    bench.stop();
    let whole = bench.contents(&segment_name(1));
    bench.replace(&segment_name(1), &[]);
    assert!(matches!(bench.start(), Err(StoreError::Damaged { .. })));
    bench.replace(&segment_name(1), &whole);
    bench.start().expect("it is whole again");
}

#[test]
fn a_checkpoint_puts_the_log_on_the_disk_first() {
    for seed in 0..20 {
        let mut bench = Bench::with_seed(seed);
        bench.settings.sync = LogSync::Never;
        bench.start().expect("a new store");
        let text = "x".repeat(700);
        assert!(bench.publish("a", &[text.as_str(); 3]));
        bench.checkpoint();
        bench.stores.clear();
        bench.shared = None;
        bench.disk.power_cut();
        bench.start().expect("the store of before");
        assert_eq!(bench.open("a").expect("channel a").window.entries.len(), 3);
        assert_eq!(bench.all("a"), numbered(&[text.as_str(); 3]), "seed {seed}");
    }
}

#[test]
fn what_the_log_and_the_index_have_is_kept_once() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["one"]));
    bench.shared.as_ref().expect("a store").begin_checkpoint();
    let time = bench.now().time;
    let message = Arc::new(Draft { payload: "two".into(), ..Draft::default() }.taken_at(time));
    assert_eq!(bench.submit("a", StoreChange::Append(&[message])), Submitted::Later);
    let (now, index) = (bench.now(), bench.store("a"));
    bench.stores[index].flush(now);
    // The message is in the log before the loops hand over their changes.
    bench.sim.run_for(Duration::from_millis(5));
    assert!(bench.is_kept());
    for _ in 0..2 {
        bench.restart();
        assert_eq!(bench.open("a").expect("channel a").window.entries.len(), 2);
        assert_eq!(bench.all("a"), numbered(&["one", "two"]));
    }
}

#[test]
fn bytes_limit_the_history() {
    let mut bench = Bench::new();
    let text = "x".repeat(500);
    assert!(bench.publish("a", &[text.as_str(); 9]));
    let (now, index) = (bench.now(), bench.store("a"));
    let limits = HistoryLimits { bytes_max: 2_000, ..LIMITS };
    let kept_from = bench.stores[index].trim(now, &name("a"), &limits).expect("the number of the oldest message");
    assert!((5..9).contains(&kept_from), "kept from {kept_from}");
}

#[test]
fn a_checkpoint_frees_memory() {
    let mut bench = Bench::new();
    let time = bench.now().time;
    let message = |number: u32| {
        let key = Some(format!("key {number}").into());
        Arc::new(Draft { payload: "keyed".into(), key, ..Draft::default() }.taken_at(time))
    };
    let messages: Vec<_> = (0..100).map(message).collect();
    assert!(bench.publish_all("a", &messages));
    bench.checkpoint();
    let index = bench.store("a");
    let known = bench.stores[index].channels[&name("a")].known();
    assert_eq!((known.tail.len(), known.keys.len()), (0, 0));
    assert_eq!(bench.all("a").len(), 100);
    bench.stores[index].unload(&name("a"));
    assert!(bench.stores[index].channels.is_empty());
}

#[test]
fn a_change_that_waited_for_another_one_is_kept_without_another_tick() {
    let mut bench = Bench::new();
    let time = bench.now().time;
    let message = Arc::new(Draft { payload: "text".into(), ..Draft::default() }.taken_at(time));
    assert_eq!(bench.submit("a", StoreChange::Append(std::slice::from_ref(&message))), Submitted::Later);
    let (now, index) = (bench.now(), bench.store("a"));
    bench.stores[index].flush(now);
    for next in 1..4 {
        bench.sim.run_for(Duration::from_millis(5));
        let outcome = bench.stores[index].next_outcome(now);
        assert!(matches!(outcome, Some(Outcome::Changed { kept: Ok(()), .. })), "{outcome:?}");
        bench.places.insert("a".to_owned(), (bench.places["a"].0, next));
        assert_eq!(bench.submit("a", StoreChange::Append(std::slice::from_ref(&message))), Submitted::Later);
        assert!(bench.stores[index].next_outcome(now).is_none());
    }
}

#[test]
fn old_messages_are_dropped_as_soon_as_a_channel_is_opened() {
    let mut bench = Bench::new();
    assert!(bench.publish("a", &["old", "older"]));
    bench.restart();
    bench.millis += 60_000;
    assert!(bench.open("a").is_some());
    let (now, index) = (bench.now(), bench.store("a"));
    let limits = HistoryLimits { kept_for: Duration::from_secs(10), ..LIMITS };
    assert_eq!(bench.stores[index].trim(now, &name("a"), &limits), Some(2));
}

#[test]
fn an_index_whose_sync_failed_is_written_again_as_a_whole() {
    for seed in 0..10 {
        let mut bench = Bench::with_seed(seed);
        bench.start().expect("a new store");
        for number in 0..60 {
            assert!(bench.publish(&format!("channel.{number}"), &["text"; 200]));
        }
        bench.disk.set_faults(DiskFaults { failed_sync: 1.0, ..DiskFaults::default() });
        bench.checkpoint();
        bench.disk.set_faults(DiskFaults::default());
        if seed % 2 == 0 {
            bench.checkpoint();
        } else {
            // The next process sees what the failed sync has given up.
            bench.restart();
        }
        bench.stores.clear();
        bench.shared = None;
        bench.disk.power_cut();
        bench.start().expect("the store of before");
        for number in 0..60 {
            let channel = format!("channel.{number}");
            assert!(bench.open(&channel).is_some(), "seed {seed}: {channel}");
            assert_eq!(bench.all(&channel).len(), 200, "seed {seed}: {channel}");
        }
    }
}

#[test]
fn reads_that_wait_begin_when_others_end_without_another_tick() {
    let mut bench = Bench::with_seed(1);
    bench.settings.reads_at_once = 1;
    bench.start().expect("a new store");
    assert!(bench.publish("a", &["one", "two"]));
    let ((epoch, next), now, index) = (bench.place("a"), bench.now(), bench.store("a"));
    for read in 0..3 {
        let place = ChannelPlace { channel: &name("a"), epoch, next };
        bench.stores[index].read(now, read, place, range(0, false, 10));
    }
    for expected in 0..3 {
        bench.sim.run_for(Duration::from_millis(5));
        let outcome = bench.stores[index].next_outcome(now);
        assert!(matches!(outcome, Some(Outcome::Page { read, .. }) if read == expected), "{outcome:?}");
        assert!(bench.stores[index].next_outcome(now).is_none());
    }
}

/// Submits a message to each loop, so large that each gets a frame of its own. Returns the channels
/// whose message is kept.
fn publish_in_two_frames(bench: &mut Bench, channels: &[String; 2]) -> Vec<String> {
    let time = bench.now().time;
    let large = Draft { payload: vec![b'x'; 5 << 20].into(), ..Draft::default() }.taken_at(time);
    let large = Arc::new(large);
    for channel in channels {
        assert_eq!(bench.submit(channel, StoreChange::Append(std::slice::from_ref(&large))), Submitted::Later);
    }
    let kept = |outcome| match outcome {
        Outcome::Changed { channel, kept: Ok(()) } => Some(channel.as_str().to_owned()),
        _ => None,
    };
    bench.tick().into_iter().filter_map(kept).collect()
}

#[test]
fn nothing_is_accepted_behind_a_frame_whose_sync_has_failed() {
    let mut failed = 0;
    for seed in 0..12 {
        let mut bench = Bench::with_seed(seed);
        (bench.settings.segment_bytes, bench.settings.waiting_bytes_max) = (32 << 20, 64 << 20);
        bench.start().expect("a new store");
        let of_loop =
            |wanted| (0..64).map(|n| format!("c{n}")).find(|text| name(text).shard(2) == wanted).expect("one");
        let channels = [of_loop(0), of_loop(1)];
        assert!(channels.iter().all(|channel| bench.publish(channel, &["before"])));
        bench.disk.set_faults(DiskFaults { failed_sync: 0.5, ..DiskFaults::default() });
        let kept = publish_in_two_frames(&mut bench, &channels);
        failed += usize::from(kept.len() < 2);
        bench.disk.set_faults(DiskFaults::default());
        bench.stores.clear();
        bench.shared = None;
        bench.disk.power_cut();
        bench.start().expect("the store of before");
        for channel in channels {
            bench.open(&channel).expect("a channel");
            let expected = 1 + usize::from(kept.contains(&channel));
            assert!(bench.all(&channel).len() >= expected, "seed {seed}: {channel} of {kept:?}");
        }
    }
    assert!((1..12).contains(&failed), "{failed} of 12");
}

#[test]
fn a_commit_that_was_refused_is_not_found_by_the_next_process() {
    for seed in 0..20 {
        let mut bench = Bench::with_seed(seed);
        bench.start().expect("a new store");
        assert!(bench.publish("a", &["one"]));
        bench.disk.set_faults(DiskFaults { failed_sync: 1.0, ..DiskFaults::default() });
        assert!(!bench.publish("a", &["two"]));
        bench.disk.set_faults(DiskFaults::default());
        bench.restart();
        bench.open("a").expect("the channel");
        assert_eq!(bench.all("a"), numbered(&["one"]), "seed {seed}");
    }
}
