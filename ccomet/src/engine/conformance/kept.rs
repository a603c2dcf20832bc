//! Channels that the store keeps and the shard does not have in memory.

use super::*;
use crate::core::pattern::Pattern;
use crate::engine::{BroadcastOrder, Listed, Listing};

/// Returns a store that opens channels late, or at once by chance.
fn slow() -> Box<dyn Store> {
    Box::new(UnreliableStore::new(SLOW))
}

fn name() -> ChannelName {
    ChannelName::new("a").expect("a name")
}

impl Bench {
    fn say(&mut self, on: usize, text: &str) {
        self.say_in(on, &name(), text);
    }

    fn say_in(&mut self, on: usize, channel: &ChannelName, text: &str) {
        let draft = Draft { payload: text.to_owned().into(), key: Some(text.into()), ..Draft::default() };
        let messages = OneOrMore::one(draft.taken_at(self.tick().time));
        let request = Request::Publish { channel: channel.clone(), messages, owner: Owner::default() };
        self.ask(on, request, Asked::Publish { channel: channel.clone(), payloads: vec![text.to_owned()] });
    }

    /// Returns where each of these messages was accepted, in that order.
    fn spots_of(&self, texts: &[&str]) -> Vec<Spot> {
        let spot = |text: &&str| self.accepted.iter().rev().find(|(.., payload)| payload == text).expect("accepted").1;
        texts.iter().map(spot).collect()
    }

    fn sweep(&mut self) {
        let now = self.tick();
        self.engines.iter_mut().for_each(|engine| engine.sweep(now));
    }

    fn channels(&self) -> usize {
        self.engines.iter().map(|engine| engine.tally().channels).sum()
    }

    /// Takes all channels out of memory: by their idle time, or by another process.
    fn clear_memory(&mut self) {
        if self.below(2) == 0 {
            self.restart();
        } else {
            self.sweep();
        }
        assert_eq!(self.channels(), 0);
    }

    fn reply_to(&mut self, request: Request) -> Reply {
        self.replies.clear();
        self.ask(0, request, Asked::Any);
        self.settle();
        self.replies.pop().expect("a reply").expect("is carried out")
    }

    fn list(&mut self, pattern: &str, after: &str, limit: usize) -> (Vec<Listed>, bool) {
        let pattern = Pattern::new(pattern).expect("a pattern");
        match self.reply_to(Request::List { listing: Listing { pattern, after: after.into(), limit } }) {
            Reply::List { channels, has_more } => (channels, has_more),
            other => panic!("{other:?}"),
        }
    }

    fn broadcast(&mut self, text: &str, reach_max: usize) -> (u64, Option<Refusal>) {
        let draft = Draft { payload: text.to_owned().into(), ..Draft::default() };
        let (message, pattern) = (draft.taken_at(self.tick().time), Pattern::all());
        let order = BroadcastOrder { pattern, message, reach_max, owner: Owner::default() };
        match self.reply_to(Request::Broadcast(order)) {
            Reply::Broadcast { channels, refused } => (channels, refused),
            other => panic!("{other:?}"),
        }
    }
}

/// Returns a bench whose store keeps three messages of a channel, which no shard has in memory, and
/// the spots after them.
fn with_kept(seed: u64) -> (Bench, Vec<Spot>) {
    let mut bench = Bench::new(seed, slow);
    for text in ["one", "two", "three"] {
        bench.say(0, text);
    }
    bench.settle();
    let spots = bench.spots_of(&["one", "two", "three"]);
    bench.clear_memory();
    (bench, spots)
}

/// Returns a bench with two channels in memory, and more that only the store keeps.
fn with_many(seed: u64) -> Bench {
    let mut bench = Bench::new(seed, slow);
    for number in 0..8 {
        let channel = ChannelName::new(&format!("n{number}")).expect("a name");
        bench.say_in(0, &channel, &format!("to {number}"));
    }
    bench.settle();
    bench.clear_memory();
    for channel in ["n3", "n9"] {
        bench.open_or_close(1, ChannelName::new(channel).expect("a name"));
    }
    bench.settle();
    assert_eq!(bench.channels(), 2);
    bench
}

#[test]
fn a_kept_channel_has_its_epoch_numbers_and_messages() {
    for seed in 0..20 {
        let (mut bench, spots) = with_kept(seed);
        bench.read(1, name(), Edge::Begin, 10);
        bench.settle();
        let (_, page) = bench.pages.pop().expect("a page");
        assert_eq!(page.end, spots[2]);
        assert_eq!(page.entries.iter().map(|(_, message)| text(message)).collect::<Vec<_>>(), ["one", "two", "three"]);
        bench.say(1, "four");
        bench.settle();
        assert_eq!(bench.spots_of(&["four"]), [Spot { next: 4, ..spots[2] }]);
    }
}

#[test]
fn a_kept_channel_has_its_keys() {
    for seed in 0..20 {
        let (mut bench, spots) = with_kept(seed);
        bench.say(1, "two");
        bench.say(0, "four");
        bench.settle();
        assert_eq!(bench.spots_of(&["two"]), [spots[1]]);
        assert_eq!(bench.spots_of(&["four"])[0].next, 4);
    }
}

#[test]
fn messages_that_wait_for_a_channel_stay_in_order() {
    for seed in 0..20 {
        let (mut bench, spots) = with_kept(seed);
        let texts: Vec<String> = (4..20).map(|number| number.to_string()).collect();
        let shard = name().shard(2);
        for text in &texts {
            bench.say(shard, text);
        }
        bench.open_or_close(shard, name());
        bench.settle();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let expected: Vec<Spot> = (4..20).map(|next| Spot { next, ..spots[0] }).collect();
        assert_eq!(bench.spots_of(&texts), expected);
        assert_eq!(bench.replicas[shard][&name()].next, 19);
    }
}

#[test]
fn a_kept_channel_is_deleted_and_cleared_like_any_other() {
    for seed in 0..20 {
        let (mut bench, spots) = with_kept(seed);
        bench.ask(0, Request::Clear { channel: name() }, Asked::Other);
        bench.settle();
        bench.read(0, name(), Edge::Begin, 10);
        bench.settle();
        let (_, page) = bench.pages.pop().expect("a page");
        assert!(page.entries.is_empty() && page.end == spots[2], "{page:?}");

        let (mut bench, spots) = with_kept(seed);
        bench.ask(0, Request::Delete { channel: name() }, Asked::Other);
        bench.say(0, "anew");
        bench.settle();
        let anew = bench.spots_of(&["anew"])[0];
        assert!(anew.next == 1 && anew.epoch > spots[2].epoch, "{anew:?} {spots:?}");
    }
}

#[test]
fn a_new_channel_of_a_name_has_an_epoch_of_its_own() {
    for seed in 0..20 {
        let (mut bench, spots) = with_kept(seed);
        bench.millis += 100 * 24 * 3_600_000;
        bench.say(0, "anew");
        bench.settle();
        let anew = bench.spots_of(&["anew"])[0];
        assert!(anew.next == 1 && anew.epoch > spots[2].epoch, "{anew:?} {spots:?}");
    }
}

#[test]
fn a_channel_with_a_change_in_progress_stays_in_memory() {
    let faults = StoreFaults { delay_max: Duration::from_secs(2), idle_max: Duration::ZERO, ..SLOW };
    for seed in 0..20 {
        let mut bench = Bench::new(seed, || Box::new(UnreliableStore::new(faults)));
        for number in 0..20 {
            bench.say(0, &number.to_string());
            bench.turn();
            bench.sweep();
        }
        bench.settle();
        assert_eq!(bench.accepted.len(), 20);
        bench.check();
        bench.sweep();
        assert_eq!(bench.channels(), 0);
    }
}

#[test]
fn unloaded_channels_make_room_at_the_limit() {
    let mut config = Config::default();
    config.limits.channels_max = 4;
    let faults = StoreFaults { idle_max: Duration::from_secs(10_000), ..SLOW };
    for seed in 0..20 {
        let mut bench = Bench::with(config.clone(), seed, || Box::new(UnreliableStore::new(faults)));
        for round in 0..2 {
            for number in 0..12 {
                let channel = ChannelName::new(&format!("n{number}")).expect("a name");
                bench.say_in(0, &channel, &format!("{round} to {number}"));
                bench.settle();
                bench.sweep();
            }
        }
        let numbers = bench.accepted.iter().map(|(_, spot, _)| spot.next).collect::<Vec<_>>();
        assert_eq!(numbers, [[1; 12], [2; 12]].concat());
    }
}

#[test]
fn a_list_has_channels_in_memory_and_in_the_store() {
    for seed in 0..20 {
        let mut bench = with_many(seed);
        let (rows, has_more) = bench.list("*", "", 100);
        let names: Vec<&str> = rows.iter().map(|row| row.channel.as_str()).collect();
        assert_eq!(names, ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n9"]);
        assert!(!has_more && rows[..8].iter().all(|row| row.info.messages == 1 && row.info.spot.next == 1), "{rows:?}");
        let (rows, has_more) = bench.list("n*", "n1", 3);
        assert!(has_more && rows.iter().map(|row| row.channel.as_str()).eq(["n2", "n3", "n4"]), "{rows:?}");
        let (rows, has_more) = bench.list("*7", "n1", 3);
        assert!(!has_more && rows.iter().map(|row| row.channel.as_str()).eq(["n7"]), "{rows:?}");
        assert!(bench.channels() <= 2, "a list opens no channel");
        // The state of a channel is the same once it is in memory.
        for row in rows {
            let Reply::Info(info) = bench.reply_to(Request::Inspect { channel: row.channel }) else { panic!() };
            let info = info.expect("exists");
            assert_eq!((info.spot, info.messages, info.in_use), (row.info.spot, row.info.messages, false));
            assert!(info.bytes > 0 && info.bytes == row.info.bytes, "{info:?}");
        }
    }
}

#[test]
fn a_broadcast_reaches_channels_in_memory_and_in_the_store() {
    for seed in 0..20 {
        let mut bench = with_many(seed);
        let (channels, refused) = bench.broadcast("too wide", 1);
        assert_eq!((channels, refused), (0, Some(Refusal::BroadcastTooWide)));
        assert_eq!(bench.broadcast("to all", 100), (9, None));
        for number in [0, 1, 2, 3, 4, 5, 6, 7, 9] {
            bench.pages.clear();
            bench.read(0, ChannelName::new(&format!("n{number}")).expect("a name"), Edge::Begin, 10);
            bench.settle();
            let (_, page) = bench.pages.pop().expect("a page");
            let texts: Vec<String> = page.entries.iter().map(|(_, message)| text(message)).collect();
            let before = format!("to {number}");
            assert!(texts == [&before, "to all"] || number == 9 && texts == ["to all"], "{texts:?}");
        }
    }
}

#[test]
fn a_page_that_cannot_be_read_at_once_is_read_later() {
    let faults = StoreFaults { window_max: 3, refusals: 500, ..SLOW };
    for seed in 0..20 {
        let mut bench = Bench::new(seed, || Box::new(UnreliableStore::new(faults)));
        while bench.accepted.len() < 10 {
            bench.say(0, &bench.last.to_string());
            bench.settle();
        }
        bench.open_or_close(0, name());
        bench.settle();
        let epoch = bench.accepted[0].1.epoch;
        let now = bench.tick();
        bench.engines[0].order(now, Order::Fetch { channel: name(), epoch, from: 0 });
        for _ in 0..30 {
            bench.settle();
            bench.sweep();
        }
        assert_eq!(bench.fetched, [(0, bench.accepted.len())]);
    }
}
