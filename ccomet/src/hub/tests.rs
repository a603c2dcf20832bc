use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::rules::Rules;
use crate::core::message::Draft;
use crate::core::owner::Owner;
use crate::core::position::{Epoch, Spot};
use crate::engine::{Refusal, Window};
use crate::protocols::toy::{POLL, STREAM, TOYS};

const NOW: UnixMillis = UnixMillis::from_millis(0);

/// A sink that records what is sent to subscribers.
#[derive(Default)]
struct Recorder {
    opened: u32,
    ended: u32,
    /// How many writes are accepted before bytes are queued.
    room: Option<u32>,
    sent: String,
    /// The codes of the problems with which polls were refused.
    refused: Vec<&'static str>,
}

impl Sink for Recorder {
    fn open(&mut self, _: ConnectionId, _: Format, _: &str) {
        self.opened += 1;
    }

    fn stream(&mut self, _: ConnectionId, chunks: &[Bytes]) -> bool {
        self.sent.extend(chunks.iter().map(|chunk| String::from_utf8_lossy(chunk)));
        self.room = self.room.map(|room| room.saturating_sub(1));
        self.room != Some(0)
    }

    fn queued(&self, _: ConnectionId) -> usize {
        if self.room == Some(0) { usize::MAX } else { 0 }
    }

    fn refuse(&mut self, _: ConnectionId, Label(label): Label, problem: Problem) {
        let _ = writeln!(self.sent, "{label}: {}", problem.code());
    }

    fn end(&mut self, _: ConnectionId) {
        self.ended += 1;
    }

    fn answer(&mut self, _: ConnectionId, _: Format, reply: PollReply) {
        self.ended += 1;
        match reply {
            PollReply::Encoded(body) => self.sent.push_str(&String::from_utf8_lossy(&body.bytes)),
            PollReply::Refused { problem, .. } => self.refused.push(problem.code()),
        }
    }
}

impl Hub {
    /// Creates a hub for that table of protocols.
    pub(crate) fn for_tests(encoders: Encoders) -> Self {
        Self::new(HubLimits {
            rules: Arc::new(Rules::new(&crate::config::Config::default())),
            encoders,
            subscribers_max: 10,
            batch_bytes_max: 1_000,
            encoded_bytes_max: 1_000,
            linger: Duration::from_secs(1),
            heartbeat: Duration::from_secs(1),
            channel_silence_max: Duration::from_secs(1),
        })
    }
}

fn stream_of(channel: &ChannelName) -> SubscribeRequest {
    SubscribeRequest::new(vec![(channel.clone(), StartAt::Latest)], Delivery::new(STREAM))
}

fn opened() -> ChannelEvent {
    ChannelEvent::Opened(Window { epoch: Epoch(9), kept_from: 0, first: 0, entries: Vec::new() })
}

#[test]
fn a_gap_is_reported_even_if_no_message_follows() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    hub.subscribe(ConnectionId::default(), stream_of(&channel), NOW, &mut sink).expect("room");
    hub.event(&channel, opened(), NOW, &mut sink);
    // Five messages were dropped before this loop received them.
    hub.event(&channel, ChannelEvent::Truncated { kept_from: 5, window_from: 5 }, NOW, &mut sink);
    hub.flush(NOW, &mut sink);
    assert!(sink.sent.contains("lost Some(5) before #5"), "{}", sink.sent);
}

#[test]
fn readers_fetch_kept_messages_that_are_not_in_memory_even_if_no_message_follows() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    hub.subscribe(ConnectionId::default(), stream_of(&channel), NOW, &mut sink).expect("room");
    hub.event(&channel, opened(), NOW, &mut sink);
    // Of five messages, the last three are kept, and none is in memory.
    hub.event(&channel, ChannelEvent::Truncated { kept_from: 2, window_from: 5 }, NOW, &mut sink);
    hub.flush(NOW, &mut sink);
    assert!(sink.sent.contains("lost Some(2) before #2"), "{}", sink.sent);
    assert!(hub.orders.iter().any(|order| matches!(order, Order::Fetch { from: 2, .. })), "{:?}", hub.orders);
}

#[test]
fn a_restart_of_the_numbers_cancels_truncations_that_are_due() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    hub.subscribe(ConnectionId::default(), stream_of(&channel), NOW, &mut sink).expect("room");
    hub.event(&channel, opened(), NOW, &mut sink);
    let message = || Arc::new(Draft { payload: Bytes::from_static(b"x"), ..Draft::default() }.taken_at(NOW));
    let append = |hub: &mut Hub, sink: &mut Recorder, first: u64, count: usize, kept_from: u64| {
        let entries = (0..count).map(|_| message()).collect();
        let (announcements, window_from) = (Vec::new(), kept_from);
        let appended = ChannelEvent::Appended { first, entries, announcements, kept_from, window_from };
        hub.event(&channel, appended, NOW, sink);
    };
    append(&mut hub, &mut sink, 0, 6, 5);
    let window = Window { epoch: Epoch(10), kept_from: 1, first: 1, entries: Vec::new() };
    hub.event(&channel, ChannelEvent::Restarted(window), NOW, &mut sink);
    hub.flush(NOW, &mut sink);
    append(&mut hub, &mut sink, 1, 1, 1);
    sink.sent.clear();
    hub.flush(NOW, &mut sink);
    assert_eq!(sink.sent, "news#1 x\n");
}

#[test]
fn events_of_a_closed_channel_do_not_affect_its_successor() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    hub.subscribe(ConnectionId::default(), stream_of(&channel), NOW, &mut sink).expect("room");
    assert!(matches!(hub.orders[..], [Order::Open { .. }]));
    hub.flush(NOW, &mut sink);
    // Both events were in transit when this loop closed the channel and opened it again.
    let message = Arc::new(Draft { payload: Bytes::from_static(b"old"), ..Draft::default() }.taken_at(NOW));
    let entries = vec![message];
    let appended =
        ChannelEvent::Appended { first: 7, entries, announcements: Vec::new(), kept_from: 7, window_from: 7 };
    hub.event(&channel, appended, NOW, &mut sink);
    hub.event(&channel, ChannelEvent::Closed, NOW, &mut sink);
    assert_eq!((sink.opened, sink.ended, hub.is_dirty()), (0, 0, false));
    hub.event(&channel, opened(), NOW, &mut sink);
    assert_eq!((sink.opened, sink.ended), (1, 0));
    hub.event(&channel, ChannelEvent::Closed, NOW, &mut sink);
    assert_eq!((sink.ended, hub.channels(), hub.subscribers()), (1, 0, 0));
}

#[test]
fn readers_are_reported_when_the_channel_is_open() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    let subscription = |address: u8, start: StartAt| SubscribeRequest {
        owner: Owner::new(Some(address), None),
        channels: vec![(channel.clone(), start)],
        ..stream_of(&channel)
    };
    hub.subscribe(ConnectionId::default(), subscription(1, StartAt::Latest), NOW, &mut sink).expect("room");
    let mut other = subscription(2, StartAt::After(Spot { epoch: Epoch(1), next: 2 }));
    other.member = Some("bob".into());
    other.delivery.name = Some("bob".into());
    hub.subscribe(ConnectionId::default(), other, NOW, &mut sink).expect("room");
    hub.flush(NOW, &mut sink);
    // If the shard refuses to open the channel for the first client, it drops all other orders.
    assert!(matches!(hub.orders[..], [Order::Open { .. }]), "{:?}", hub.orders);
    hub.orders.clear();
    let refused = ChannelEvent::Refused { owner: Owner::new(Some(1_u8), None), why: Refusal::ClientLimit };
    hub.event(&channel, refused, NOW, &mut sink);
    hub.flush(NOW, &mut sink);
    assert!(matches!(hub.orders[..], [Order::Open { .. }]), "{:?}", hub.orders);
    hub.orders.clear();
    hub.event(&channel, opened(), NOW, &mut sink);
    hub.flush(NOW, &mut sink);
    let [
        Order::AcquireName { .. },
        Order::CatchUp { .. },
        Order::SetSubscribers { count: 1, .. },
        Order::SetMember { connections: 1, .. },
    ] = &hub.orders[..]
    else {
        panic!("{:?}", hub.orders)
    };
    assert_eq!((sink.opened, sink.ended), (0, 1), "the shard may know the position");
    hub.event(&channel, ChannelEvent::CaughtUp { first: 0, entries: Vec::new(), kept_from: 0 }, NOW, &mut sink);
    assert_eq!(sink.opened, 1);
}

#[test]
fn a_poll_has_no_position_before_its_channel_is_open() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    let subscription = SubscribeRequest::new(vec![(channel.clone(), StartAt::Latest)], Delivery::new(POLL));
    let poll = hub.subscribe(ConnectionId::default(), subscription, NOW, &mut sink).expect("room");
    assert!(hub.has_no_position(poll));
    hub.event(&channel, opened(), NOW, &mut sink);
    assert!(!hub.has_no_position(poll));
}

#[test]
fn a_poll_whose_message_is_dropped_while_it_waits_for_a_page_gets_the_oldest_kept() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    let message = || Arc::new(Draft { payload: Bytes::from_static(b"new"), ..Draft::default() }.taken_at(NOW));
    let subscription = SubscribeRequest::new(vec![(channel.clone(), StartAt::Oldest)], Delivery::new(POLL));
    hub.subscribe(ConnectionId::default(), subscription, NOW, &mut sink).expect("room");
    let window = Window { epoch: Epoch(9), kept_from: 3, first: 5, entries: vec![message()] };
    hub.event(&channel, ChannelEvent::Opened(window), NOW, &mut sink);
    assert!(hub.orders.iter().any(|order| matches!(order, Order::Fetch { from: 3, .. })), "{:?}", hub.orders);
    hub.event(&channel, ChannelEvent::Truncated { kept_from: 4, window_from: 5 }, NOW, &mut sink);
    hub.flush(NOW, &mut sink);
    let (entries, announcements) = (vec![message()], Vec::new());
    let appended = ChannelEvent::Appended { first: 6, entries, announcements, kept_from: 4, window_from: 5 };
    hub.event(&channel, appended, NOW, &mut sink);
    hub.flush(NOW, &mut sink);
    assert_eq!(sink.ended, 0, "message 4 is kept, and on its way");
    let (from, end, entries) = (3, 5, vec![(4, message())]);
    let page = ChannelEvent::Page { epoch: Epoch(9), from, readable_from: 3, end, kept_from: 4, entries };
    hub.event(&channel, page, NOW, &mut sink);
    hub.flush(NOW, &mut sink);
    assert_eq!(sink.ended, 1);
}

/// Opens a channel that has messages 3 to 5, of which only the last one is in memory, for a reader
/// from the oldest one on.
fn open_with_older(hub: &mut Hub, channel: &ChannelName, format: Format, sink: &mut Recorder) -> SubscriberKey {
    let subscription = SubscribeRequest::new(vec![(channel.clone(), StartAt::Oldest)], Delivery::new(format));
    let reader = hub.subscribe(ConnectionId::default(), subscription, NOW, sink).expect("room");
    if hub.channel_named(channel).is_some_and(|channel| !channel.is_attached()) {
        let message = Arc::new(Draft { payload: Bytes::from_static(b"new"), ..Draft::default() }.taken_at(NOW));
        let window = Window { epoch: Epoch(9), kept_from: 3, first: 5, entries: vec![message] };
        hub.event(channel, ChannelEvent::Opened(window), NOW, sink);
    }
    reader
}

#[test]
fn messages_that_cannot_be_read_are_a_gap_to_readers_that_wait_and_are_ordered_again_for_others() {
    for format in [STREAM, POLL] {
        let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
        let channel = ChannelName::new("news").expect("a name");
        open_with_older(&mut hub, &channel, format, &mut sink);
        let (epoch, entries) = (Epoch(9), Vec::new());
        let page = ChannelEvent::Page { epoch, from: 3, readable_from: 5, end: 5, kept_from: 3, entries };
        hub.event(&channel, page, NOW, &mut sink);
        hub.flush(NOW, &mut sink);
        // The polls of this protocol have no gaps.
        assert_eq!(sink.sent.contains("lost Some(2) before #5"), format == STREAM, "{}", sink.sent);
        assert!(sink.sent.contains("news#5 new"), "{}", sink.sent);
        // A later reader may be more fortunate.
        hub.sweep(NOW);
        hub.orders.clear();
        open_with_older(&mut hub, &channel, STREAM, &mut sink);
        assert!(hub.orders.iter().any(|order| matches!(order, Order::Fetch { from: 3, .. })), "{:?}", hub.orders);
    }
}

#[test]
fn very_many_readers_of_a_page_are_resumed_over_several_ticks() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    hub.limits.subscribers_max = 100;
    let channel = ChannelName::new("news").expect("a name");
    for _ in 0..100 {
        open_with_older(&mut hub, &channel, STREAM, &mut sink);
    }
    hub.orders.clear();
    let old = || Arc::new(Draft { payload: Bytes::from_static(b"old"), ..Draft::default() }.taken_at(NOW));
    let (epoch, entries) = (Epoch(9), vec![(3, old())]);
    let page = ChannelEvent::Page { epoch, from: 3, readable_from: 3, end: 4, kept_from: 3, entries };
    hub.event(&channel, page, NOW, &mut sink);
    let is_fetch = |order: &Order| matches!(order, Order::Fetch { from: 4, .. });
    let mut ticks = 0;
    while hub.is_resuming() {
        assert!(hub.is_dirty());
        assert!(!hub.orders.iter().any(is_fetch), "the page is in use: {:?}", hub.orders);
        hub.flush(NOW, &mut sink);
        ticks += 1;
    }
    assert!(ticks > 2, "{ticks} ticks");
    assert_eq!(sink.sent.matches("news#3 old").count(), 100);
    assert_eq!(hub.orders.iter().filter(|order| is_fetch(order)).count(), 1, "{:?}", hub.orders);
}

#[test]
fn a_poll_that_ends_while_its_history_is_being_read_is_refused() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    let poll = open_with_older(&mut hub, &channel, POLL, &mut sink);
    hub.time_out(poll, NOW, &mut sink);
    assert_eq!((sink.sent.as_str(), &*sink.refused), ("", &["unavailable"][..]));
}

#[test]
fn subscriptions_take_turns_if_their_connection_has_no_room_for_all() {
    let (mut hub, mut sink) = (Hub::for_tests(TOYS), Recorder::default());
    let channel = ChannelName::new("news").expect("a name");
    let peer = ConnectionId::default();
    let own = ChannelName::new("own").expect("a name");
    let first = hub.subscribe(peer, stream_of(&own), NOW, &mut sink).expect("room");
    for label in [1, 2] {
        let added = SubscribeRequest { label: Some(Label(label)), ..stream_of(&channel) };
        hub.subscribe(peer, added, NOW, &mut sink).expect("room");
    }
    hub.event(&own, opened(), NOW, &mut sink);
    hub.event(&channel, opened(), NOW, &mut sink);
    assert_eq!(std::mem::take(&mut sink.sent), "hello\n1: hello\n2: hello\n");
    hub.drained(first, NOW, &mut sink);
    let message = || Arc::new(Draft { payload: Bytes::from_static(b"x"), ..Draft::default() }.taken_at(NOW));
    let append = |hub: &mut Hub, sink: &mut Recorder, first: u64| {
        for channel in [&own, &channel] {
            let (entries, announcements) = (vec![message()], Vec::new());
            let appended = ChannelEvent::Appended { first, entries, announcements, kept_from: 0, window_from: 0 };
            hub.event(channel, appended, NOW, sink);
        }
        hub.flush(NOW, sink);
    };
    // Each time, there is room for one write.
    let mut turns = Vec::new();
    for number in 0..6 {
        sink.room = Some(0);
        append(&mut hub, &mut sink, number);
        sink.room = Some(1);
        hub.drained(first, NOW, &mut sink);
        let sent = std::mem::take(&mut sink.sent);
        let labels: std::collections::HashSet<_> = sent.lines().map(|line| &line[..1]).collect();
        assert_eq!(labels.len(), 1, "no more than there is room for: {sent}");
        turns.extend(sent.chars().next());
    }
    assert!(['o', '1', '2'].iter().all(|one| turns.contains(one)), "{turns:?}");
    sink.room = None;
    hub.drained(first, NOW, &mut sink);
    assert_eq!((hub.added(peer), sink.ended), (2, 0));
    assert_eq!(hub.added_channels(peer).collect::<Vec<_>>(), [&channel], "two subscriptions read it");
    // The connection outlasts a channel, and no subscription outlasts the connection.
    hub.event(&channel, ChannelEvent::Closed, NOW, &mut sink);
    assert_eq!((hub.added(peer), sink.ended, hub.subscribers()), (0, 0, 1));
    let added = SubscribeRequest { label: Some(Label(1)), ..stream_of(&channel) };
    hub.subscribe(peer, added, NOW, &mut sink).expect("room");
    hub.unsubscribe(first, NOW);
    assert_eq!((hub.added(peer), hub.subscribers()), (0, 0));
}
