//! A program that uses the server it embeds, by a handle.

mod common;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ccomet::handle::{Event, Events, Message, Pending, Position, Received, Start};
use ccomet::{Config, Handle, HandleError, Pattern, Rule, Server};
use common::stage::{ANN, Stage};
use common::{Client, Local, PATIENCE, config};

/// Starts a server, and returns it with its handle.
fn start(loops: usize, change: impl FnOnce(&mut Config)) -> (Local, Handle) {
    let mut config = config(loops);
    change(&mut config);
    let server = Server::bind(config).expect("the server starts");
    let handle = server.handle();
    (Local::run(server), handle)
}

fn next(events: &mut Events) -> Event {
    events.recv_timeout(PATIENCE).expect("an event")
}

/// Subscribes to a channel, and takes the first event, `Started`.
fn read(handle: &Handle, channel: &str, start: &Start) -> (Events, Position) {
    let mut events = handle.events([channel], start, 16).expect("a subscription");
    match next(&mut events) {
        Event::Started { position } => (events, position),
        other => panic!("{other:?}"),
    }
}

fn message(event: Event) -> Received {
    match event {
        Event::Message(message) => message,
        other => panic!("no message: {other:?}"),
    }
}

fn text(received: &Received) -> &str {
    std::str::from_utf8(&received.data).expect("text")
}

/// Takes the events that have come.
fn drain(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv()).collect()
}

/// Runs the simulation, and returns the answer to a call.
fn answer<T>(stage: &Stage, mut pending: Pending<T>) -> Result<T, HandleError> {
    stage.sim.settle();
    pending.try_take().expect("an answer")
}

fn texts(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Message(message) => text(message).to_owned(),
        Event::Started { .. } => "started".to_owned(),
        Event::Gap { missed, .. } => format!("gap {missed:?}"),
        other => format!("{other:?}"),
    };
    events.iter().map(text).collect()
}

fn is_sendable<T: Send + Sync + Clone + 'static>(_: &T) {}

#[test]
fn messages_of_the_embedder_reach_clients_with_their_options() {
    let (server, handle) = start(2, |_| {});
    is_sendable(&handle);
    let mut stream = Client::connect(server.front).events("/channels/news", "");
    let published = handle.publish("news", Message::new("hello").event("greeting").key("k")).wait().expect("published");
    let event = stream.next();
    assert_eq!((event.message(), event.id), ("hello".to_owned(), published.to_string()));
    // A second publication under the same key is not kept.
    let again = handle.publish("news", Message::new("hello").event("greeting").key("k")).wait();
    assert_eq!(again, Ok(published));
    let other = handle.publish("news", Message::new("else").key("k")).wait();
    assert_eq!(other, Err(HandleError::Refused("key_reused")));
    handle.publish("news", vec![0xff, 0]).wait().expect("published");
    assert_eq!(stream.next().json()["data_base64"], "/wA=");
}

#[test]
fn the_embedder_reads_messages_of_clients_and_both_can_resume() {
    let (server, handle) = start(2, |_| {});
    let mut client = Client::connect(server.front);
    let (mut events, begin) = read(&handle, "news", &Start::Latest);
    let positions: Vec<String> = ["a", "b", "c"].map(|text| client.publish("news", text)).into();
    let first = message(next(&mut events));
    assert_eq!((&*first.channel, text(&first)), ("news", "a"));
    assert_eq!(first.position.to_string(), positions[0]);
    drop(events);
    // A subscription from the position of the message that was taken, and one from the latest.
    let (mut resumed, _) = read(&handle, "news", &Start::After(first.position));
    assert_eq!([next(&mut resumed), next(&mut resumed)].map(|event| text(&message(event)).to_owned()), ["b", "c"]);
    let (mut resumed, _) = read(&handle, "news", &Start::After(begin));
    assert_eq!(text(&message(next(&mut resumed))), "a");
    let position: Position = positions[1].parse().expect("a position");
    let (mut resumed, started) = read(&handle, "news", &Start::After(position.clone()));
    assert_eq!((text(&message(next(&mut resumed))), started), ("c", position));
    let (mut oldest, _) = read(&handle, "news", &Start::Oldest);
    assert_eq!(text(&message(next(&mut oldest))), "a");
}

#[test]
fn a_closure_is_called_in_order_until_its_subscription_is_dropped() {
    let (server, handle) = start(2, |_| {});
    let (sender, receiver) = mpsc::channel();
    let subscription = handle.subscribe(["b", "a"], &Start::Latest, move |event| {
        let _ = sender.send(event);
    });
    let subscription = subscription.expect("a subscription");
    let next = || receiver.recv_timeout(PATIENCE).expect("an event");
    assert!(matches!(next(), Event::Started { .. }));
    let mut client = Client::connect(server.front);
    for number in 0..20 {
        client.publish(if number % 2 == 0 { "a" } else { "b" }, number.to_string());
    }
    let all: Vec<Received> = (0..20).map(|_| message(next())).collect();
    for (channel, first) in [("a", 0), ("b", 1)] {
        let got = all.iter().filter(|message| &*message.channel == channel).map(|message| text(message).to_owned());
        assert!(got.eq((first..20).step_by(2).map(|number| number.to_string())), "{all:?}");
    }
    drop(subscription);
    // The subscription drops the closure, and with it the sender.
    assert_eq!(receiver.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn waiting_on_the_thread_of_a_loop_is_an_error() {
    let (server, handle) = start(1, |_| {});
    let (sender, receiver) = mpsc::channel();
    let inside = handle.clone();
    let subscription = handle.subscribe(["in"], &Start::Latest, move |event| {
        if let Event::Message(_) = event {
            let outcome = inside.publish("out", "waited for").wait();
            // A call without a wait succeeds.
            inside.publish("out", "later").then(|outcome| assert!(outcome.is_ok()));
            let _ = sender.send(outcome);
        }
    });
    let _subscription = subscription.expect("a subscription");
    let (mut out, _) = read(&handle, "out", &Start::Latest);
    Client::connect(server.front).publish("in", "x");
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(Err(HandleError::OnLoop)));
    // The first call takes effect all the same: only the wait is an error.
    assert_eq!([next(&mut out), next(&mut out)].map(|event| text(&message(event)).to_owned()), ["waited for", "later"]);
}

#[test]
fn a_handle_reports_that_its_server_has_ended() {
    let (server, handle) = start(2, |_| {});
    let (mut events, _) = read(&handle, "news", &Start::Latest);
    handle.stop();
    server.join();
    assert_eq!(next(&mut events), Event::ShuttingDown);
    assert_eq!((events.recv(), events.is_over()), (None, true));
    assert_eq!(handle.publish("news", "late").wait(), Err(HandleError::Stopped));
    assert_eq!(handle.info("news").wait(), Err(HandleError::Stopped));
    assert_eq!(handle.events(["news"], &Start::Latest, 1).map(|_| ()), Err(HandleError::Stopped));
}

#[test]
fn dropping_a_server_that_never_ran_answers_its_calls() {
    let server = Server::bind(config(1)).expect("the server starts");
    let handle = server.handle();
    let mut early = handle.publish("news", "early");
    let mut events = handle.events(["news"], &Start::Latest, 1).expect("a subscription");
    assert_eq!((early.try_take(), events.try_recv()), (None, None));
    drop(server);
    assert_eq!((early.wait(), events.recv()), (Err(HandleError::Stopped), None));
}

#[test]
fn a_wrong_call_is_answered_with_its_error() {
    let stage = Stage::new(|config| {
        config.limits.message_bytes_max = 100;
        config.limits.channels_per_subscription_max = 2;
        let short = Rule::new("short.*".parse().expect("a pattern"));
        config.rules = vec![Rule { message_bytes_max: Some(3), ..short }];
    });
    let handle = stage.server.handle();
    let publish = |channel: &str, message: Message| handle.publish(channel, message).try_take().expect("at once");
    assert_eq!(publish("a,b", Message::new("x")), Err(HandleError::BadChannel));
    assert_eq!(publish("news.*", Message::new("x")), Err(HandleError::IsPattern));
    assert_eq!(handle.info("news.*").try_take(), Some(Err(HandleError::IsPattern)));
    // An answer that was taken does not come again: waiting for it would never end.
    let mut taken = handle.info("news.*");
    assert!(taken.try_take().is_some());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| taken.wait())).is_err());
    assert_eq!(publish("a", Message::new("x".repeat(101))), Err(HandleError::TooLarge { bytes_max: 100 }));
    assert_eq!(publish("short.a", Message::new("four")), Err(HandleError::TooLarge { bytes_max: 3 }));
    assert_eq!(publish("a", Message::new("x").event("")), Err(HandleError::BadOption("event")));
    assert_eq!(publish("a", Message::new("x").key("a b")), Err(HandleError::BadOption("key")));
    assert_eq!(publish("a", Message::new("x").ttl(Duration::from_millis(999))), Err(HandleError::BadOption("ttl")));
    assert!(answer(&stage, handle.publish("short.a", "abc")).is_ok());
    let subscribe = |channels: &[&str], start| handle.events(channels, &start, 1).map(|_| ());
    assert_eq!(subscribe(&[], Start::Latest), Err(HandleError::BadChannelCount));
    assert_eq!(subscribe(&["a", "a"], Start::Latest), Err(HandleError::BadChannelCount));
    assert_eq!(subscribe(&["a", "b", "c"], Start::Latest), Err(HandleError::BadChannelCount));
    assert_eq!(subscribe(&["a,presence"], Start::Latest), Err(HandleError::BadChannel));
    let position = answer(&stage, handle.publish("a", "x")).expect("published");
    assert_eq!(subscribe(&["a", "b"], Start::After(position.clone())), Err(HandleError::BadPosition));
    assert_eq!("news".parse::<Position>(), Err(HandleError::BadPosition));
    assert_eq!(format!("{position:?}"), format!("Position({position})"));
}

#[test]
fn channels_are_listed_described_cleared_and_closed() {
    let stage = Stage::with(1, 3, |_| {});
    let handle = stage.server.handle();
    assert_eq!(answer(&stage, handle.info("a")), Ok(None));
    for channel in ["a", "b", "c"] {
        for data in ["1", "2", "3"] {
            answer(&stage, handle.publish(channel, data)).expect("published");
        }
    }
    let mut events = handle.events(["a"], &Start::Latest, 16).expect("a subscription");
    stage.sim.settle();
    let info = answer(&stage, handle.info("a")).expect("an answer").expect("a channel");
    assert_eq!((&*info.channel, info.messages, info.subscribers), ("a", 3, 1));
    let list = answer(&stage, handle.list(&Pattern::all(), Some("a"), 1)).expect("a list");
    assert_eq!((list.channels.len(), &*list.channels[0].channel, list.has_more), (1, "b", true));

    let page = answer(&stage, handle.history("a", &Start::Oldest, 2)).expect("an answer").expect("a channel");
    assert_eq!(page.messages.iter().map(text).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!((page.gap, page.has_more), (None, true));
    let rest = answer(&stage, handle.history("a", &Start::After(page.position), 2)).expect("an answer");
    let rest = rest.expect("a channel");
    assert_eq!((rest.messages.iter().map(text).collect::<Vec<_>>(), rest.has_more), (vec!["3"], false));
    assert_eq!(rest.position, info.position);

    assert_eq!(answer(&stage, handle.broadcast(&Pattern::all(), "4")), Ok(3));
    // Both run in one tick: the subscriber gets the message before the channel is cleared.
    let published = handle.publish("a", "5");
    assert_eq!(answer(&stage, handle.clear("a")), Ok(true));
    assert!(answer(&stage, published).is_ok());
    assert_eq!(answer(&stage, handle.info("a")).expect("an answer").expect("a channel").messages, 0);
    assert_eq!((answer(&stage, handle.close("a")), answer(&stage, handle.close("x"))), (Ok(true), Ok(false)));
    let seen = drain(&mut events);
    assert_eq!(texts(&seen), ["started", "4", "5", "Closed { channel: \"a\" }"]);
    assert_eq!((events.is_over(), answer(&stage, handle.info("a"))), (true, Ok(None)));
    let holdings = stage.server.holdings();
    assert_eq!((holdings.subscribers, holdings.asking), (0, 0));
}

#[test]
fn the_embedder_gets_gaps() {
    let stage = Stage::new(|config| config.history.messages_max = 2);
    let handle = stage.server.handle();
    let first = answer(&stage, handle.publish("news", "1")).expect("published");
    for data in ["2", "3", "4", "5"] {
        answer(&stage, handle.publish("news", data)).expect("published");
    }
    let mut events = handle.events(["news"], &Start::After(first.clone()), 16).expect("a subscription");
    stage.sim.settle();
    let seen = drain(&mut events);
    assert_eq!(texts(&seen), ["started", "gap Some(2)", "4", "5"]);
    assert_eq!(seen[0], Event::Started { position: first }, "no position covers the gap before the reader has it");
    // A position from before the channel was deleted: the size of the gap is unknown.
    stage.delete("news");
    let late = message(seen[3].clone()).position;
    answer(&stage, handle.publish("news", "6")).expect("published");
    let mut events = handle.events(["news"], &Start::After(late), 16).expect("a subscription");
    stage.sim.settle();
    assert_eq!(texts(&drain(&mut events)), ["started", "gap None", "6"]);
}

#[test]
fn the_queue_of_a_slow_reader_is_bounded_by_its_capacity() {
    let stage = Stage::with(1, 2, |config| config.history.messages_max = 8);
    let handle = stage.server.handle();
    let mut events = handle.events(["news"], &Start::Latest, 4).expect("a subscription");
    stage.sim.settle();
    assert_eq!(texts(&[events.try_recv().expect("an event")]), ["started"]);
    for number in 0..10 {
        answer(&stage, handle.publish("news", number.to_string())).expect("published");
        assert!(events.len() <= 4);
    }
    // Four events wait in the queue, and the channel keeps the eight messages after them, so that
    // none is lost.
    let mut got = Vec::new();
    while let Some(event) = events.try_recv() {
        got.push(event);
        stage.sim.settle();
        assert!(events.len() <= 4);
    }
    assert_eq!(texts(&got), (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    // The reader is slower than the channel drops messages.
    for number in 10..30 {
        answer(&stage, handle.publish("news", number.to_string())).expect("published");
    }
    assert_eq!((events.len(), stage.server.holdings().copied_messages), (4, 8));
    let mut got = Vec::new();
    while let Some(event) = events.try_recv() {
        got.push(event);
        stage.sim.settle();
    }
    let lost: Vec<String> = (10..14).map(|number| number.to_string()).chain(["gap Some(8)".to_owned()]).collect();
    assert_eq!(texts(&got), [lost, (22..30).map(|number| number.to_string()).collect()].concat());
}

/// The numbered messages that a reader has to get from each of its channels.
#[derive(Default)]
struct Expected {
    channels: BTreeMap<String, u64>,
    gaps: usize,
}

impl Expected {
    /// Takes an event, and returns the position after it.
    fn take(&mut self, event: Event) -> Position {
        match event {
            Event::Started { position } => position,
            Event::Message(message) => {
                let next = self.channels.entry(message.channel.to_string()).or_default();
                assert_eq!(text(&message), next.to_string(), "in {}", message.channel);
                *next += 1;
                message.position
            }
            Event::Gap { channel, missed, position } => {
                *self.channels.entry(channel.to_string()).or_default() += missed.expect("it is known");
                self.gaps += 1;
                position
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_embedder_gets_every_message_once_or_a_gap() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let mut gaps = 0;
    for seed in 0..30 {
        let stage = Stage::with(seed, 3, |config| config.history.messages_max = 20);
        let (handle, mut random) = (stage.server.handle(), stage.sim.random(7));
        let (mut published, mut expected) = (BTreeMap::<String, u64>::new(), Expected::default());
        let mut client = stage.connect(ANN);
        let mut events = handle.events(NAMES, &Start::Latest, 4).expect("a subscription");
        stage.sim.settle();
        let mut last = None;
        for _ in 0..500 {
            let name = *random.pick(&NAMES).expect("some");
            match random.below(20) {
                0..10 => {
                    let number: &mut u64 = published.entry(name.to_owned()).or_default();
                    handle.publish(name, number.to_string()).then(|outcome| assert!(outcome.is_ok()));
                    *number += 1;
                }
                10..13 => {
                    stage.sim.settle();
                    let number: &mut u64 = published.entry(name.to_owned()).or_default();
                    let target = format!("/channels/{name}");
                    let reply = stage.exchange(&mut client, "POST", &target, "", &number.to_string());
                    assert_eq!(reply.status, 200, "{reply}");
                    *number += 1;
                }
                13..17 => {
                    let taken = random.below(8);
                    last =
                        (0..taken).map_while(|_| events.try_recv()).map(|event| expected.take(event)).last().or(last);
                }
                17 => handle.clear(name).then(|outcome| assert!(outcome.is_ok())),
                18 => {
                    if let Some(position) = &last {
                        events = handle.events(NAMES, &Start::After(position.clone()), 4).expect("a subscription");
                    }
                }
                _ => stage.sim.run_for(random.time(Duration::from_millis(50))),
            }
        }
        stage.sim.settle();
        while let Some(event) = events.try_recv() {
            expected.take(event);
            stage.sim.settle();
        }
        assert_eq!(expected.channels, published, "seed {seed}");
        gaps += expected.gaps;
    }
    assert!(gaps > 0);
}

#[test]
fn a_long_history_is_delivered_over_several_ticks() {
    let stage = Stage::new(|config| config.history.messages_max = 2_000);
    let handle = stage.server.handle();
    for number in 0..2_000 {
        handle.publish("news", number.to_string()).then(|outcome| assert!(outcome.is_ok()));
    }
    stage.sim.settle();
    let got = Arc::new(Mutex::new(Vec::new()));
    let heard = got.clone();
    let subscription = handle.subscribe(["news"], &Start::Oldest, move |event| {
        heard.lock().expect("no panic").push(event);
    });
    subscription.expect("a subscription").detach();
    let turns = stage.sim.turns();
    stage.sim.settle();
    assert!(stage.sim.turns() - turns >= 2_000 / 256);
    let got = texts(&std::mem::take(&mut *got.lock().expect("no panic")));
    assert!(got.into_iter().skip(1).eq((0..2_000).map(|number| number.to_string())));
}

#[test]
fn channels_take_turns() {
    let stage = Stage::new(|_| {});
    let handle = stage.server.handle();
    for (channel, data) in [("a", "1"), ("a", "2"), ("a", "3"), ("b", "4")] {
        answer(&stage, handle.publish(channel, data)).expect("published");
    }
    let mut events = handle.events(["a", "b"], &Start::Oldest, 16).expect("a subscription");
    stage.sim.settle();
    assert_eq!(texts(&drain(&mut events)), ["started", "1", "4", "2", "3"]);
}

#[test]
fn the_embedder_reads_patterns_without_expired_messages() {
    let stage = Stage::with(3, 3, |_| {});
    let handle = stage.server.handle();
    let short = Message::new("gone").ttl(Duration::from_secs(5));
    answer(&stage, handle.publish("news.uk", short)).expect("published");
    stage.sim.run_for(Duration::from_secs(6));
    let mut events = handle.events(["news.*"], &Start::Oldest, 16).expect("a subscription");
    stage.sim.settle();
    let reply = stage.exchange(&mut stage.connect(ANN), "POST", "/channels/news.fr?event=e", "", "salut");
    assert_eq!(reply.status, 200, "{reply}");
    stage.sim.settle();
    let seen = drain(&mut events);
    assert_eq!(texts(&seen), ["started", "salut"]);
    let received = message(seen[1].clone());
    assert_eq!((&*received.channel, received.event.as_deref()), ("news.fr", Some("e")));
    let time = received.time.duration_since(std::time::SystemTime::UNIX_EPOCH).expect("after 1970");
    assert!(time <= stage.sim.unix_time() && time + Duration::from_secs(5) > stage.sim.unix_time());
}

#[test]
fn subscriptions_of_the_embedder_count_against_the_limits() {
    let stage = Stage::new(|config| config.limits.subscribers_per_channel_max = 1);
    let handle = stage.server.handle();
    let events = handle.events(["news"], &Start::Latest, 16).expect("a subscription");
    let mut other = handle.events(["news"], &Start::Latest, 16).expect("a subscription");
    stage.sim.settle();
    assert_eq!(drain(&mut other), [Event::Refused(HandleError::Refused("subscriber_limit"))]);
    drop(events);
    let mut other = handle.events(["news"], &Start::Latest, 16).expect("a subscription");
    stage.sim.settle();
    assert_eq!(texts(&drain(&mut other)), ["started"]);
    // A channel stays while only the embedding program reads it.
    stage.sim.run_for(Duration::from_secs(3_600));
    answer(&stage, handle.publish("news", "x")).expect("published");
    assert_eq!(texts(&drain(&mut other)), ["x"]);
}

#[test]
fn clients_and_the_embedder_share_the_places_of_a_channel() {
    let stage = Stage::new(|config| config.limits.subscribers_per_channel_max = 1);
    let handle = stage.server.handle();
    let _inside = handle.events(["a"], &Start::Latest, 16).expect("a subscription");
    let _client = stage.begin(ANN, "GET", "/channels/b?transport=sse", "");
    stage.sim.settle();
    let reply = stage.exchange(&mut stage.connect(ANN), "GET", "/channels/a?wait=0", "", "");
    assert!(reply.is(503, "subscriber_limit"), "{reply}");
    let mut events = handle.events(["b"], &Start::Latest, 16).expect("a subscription");
    stage.sim.settle();
    assert_eq!(drain(&mut events), [Event::Refused(HandleError::Refused("subscriber_limit"))]);
}

#[test]
fn a_refused_subscription_of_the_embedder_creates_no_channel() {
    let stage = Stage::new(|config| config.limits.subscribers_per_channel_max = 1);
    let handle = stage.server.handle();
    let _full = handle.events(["full"], &Start::Latest, 16).expect("a subscription");
    stage.sim.settle();
    let mut events = handle.events(["fresh", "full"], &Start::Latest, 16).expect("a subscription");
    stage.sim.settle();
    assert_eq!(drain(&mut events), [Event::Refused(HandleError::Refused("subscriber_limit"))]);
    let listed = stage.exchange(&mut stage.admin(), "GET", "/channels", "", "");
    assert!(listed.is(200, "full") && !listed.is(200, "fresh"), "{listed}");
}

#[test]
fn a_full_mailbox_is_busy_and_a_subscription_dropped_meanwhile_is_removed() {
    let stage = Stage::new(|_| {});
    let handle = stage.server.handle();
    let events = handle.events(["news"], &Start::Latest, 1).expect("a subscription");
    stage.sim.settle();
    let fill = || handle.publish("news", "x").try_take();
    assert_eq!(std::iter::repeat_with(fill).flatten().next(), Some(Err(HandleError::Busy)));
    assert_eq!(handle.events(["news"], &Start::Latest, 1).map(|_| ()), Err(HandleError::Busy));
    drop(events);
    stage.sim.run_for(Duration::from_secs(2));
    assert_eq!((stage.server.holdings().subscribers, fill()), (0, None));
}
