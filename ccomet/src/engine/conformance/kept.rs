//! Channels that the store keeps and the shard does not have in memory.

use super::*;

/// A store that opens every channel late, or at once by chance.
fn slow() -> Box<dyn Store> {
    Box::new(UnreliableStore::new(SLOW))
}

fn name() -> ChannelName {
    ChannelName::new("a").expect("a name")
}

impl Bench {
    fn say(&mut self, on: usize, text: &str) {
        let draft = Draft { payload: text.to_owned().into(), key: Some(text.into()), ..Draft::default() };
        let message = draft.taken_at(self.tick().time);
        let request = Request::Publish { channel: name(), messages: OneOrMore::one(message), owner: Owner::default() };
        self.ask(on, request, Asked::Publish { channel: name(), payloads: vec![text.to_owned()] });
    }

    /// Returns where each of these messages was accepted, in that order.
    fn spots_of(&self, texts: &[&str]) -> Vec<Spot> {
        let spot = |text: &&str| self.accepted.iter().rev().find(|(.., payload)| payload == text).expect("accepted").1;
        texts.iter().map(spot).collect()
    }
}

/// Returns a bench whose store keeps three messages of a channel, which no shard has in memory, and
/// the spots after them.
fn with_kept(seed: u64) -> (Bench, Vec<Spot>) {
    let mut bench = Bench::new(seed, slow);
    ["one", "two", "three"].iter().for_each(|text| bench.say(0, text));
    bench.settle();
    let spots = bench.spots_of(&["one", "two", "three"]);
    bench.restart();
    (bench, spots)
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
        texts.iter().for_each(|text| bench.say(shard, text));
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
