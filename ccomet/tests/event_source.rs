//! What a browser's `EventSource`, and what stands in for it elsewhere, relies on: it resumes by the id of the last event,
//! comes back after a lost connection, and gives up for good on any status but 200.

mod common;

use std::time::Duration;

use ccomet::{Config, Simulated};
use common::{Client, Local, config};
use sealed::sim::Simulation;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_last_events_id_may_stand_in_the_query() {
    let server = Local::start(config(2));
    let mut publisher = Client::connect(server.front);
    publisher.publish("news", "one");
    let mut stream = Client::connect(server.front).events("/channels/news?after=oldest", "");
    let seen = stream.next();
    assert_eq!(seen.message(), "one");
    publisher.publish("news", "two");
    for name in ["lastEventId", "last_event_id", "Last-Event-ID"] {
        let target = format!("/channels/news?{name}={}&after=latest", seen.id);
        let mut resumed = Client::connect(server.front).events(&target, "");
        assert_eq!(resumed.next().message(), "two", "{name}");
    }
    // The header field is nearer to the truth: a polyfill's query is as old as its first request.
    let mut both = Client::connect(server.front)
        .events("/channels/news?lastEventId=nonsense", &format!("Last-Event-ID: {}\r\n", seen.id));
    assert_eq!(both.next().message(), "two");
}

#[test]
fn a_last_events_id_from_elsewhere_is_a_gap_and_the_stream_goes_on() {
    let server = Local::start(config(2));
    let mut publisher = Client::connect(server.front);
    publisher.publish("news", "kept");
    for foreign in ["42", "urn:uuid:7f1e", "a b", "\u{ff}", "0000000000000-0000000000.0000000000000-0000000000"] {
        let header = format!("Last-Event-ID: {foreign}\r\n");
        let mut stream = Client::connect(server.front).events("/channels/news", &header);
        let gap = stream.next();
        assert_eq!((gap.kind.as_str(), &gap.json()["missed"]), ("gap", &serde_json::Value::Null), "{foreign}");
        assert_eq!(stream.next().message(), "kept", "{foreign}");
    }
    // A position that the page itself names is still one that it has to get right.
    assert_eq!(Client::connect(server.front).get("/channels/news?after=42").status, 400);
}

struct Draining {
    sim: Simulation,
    server: Simulated,
}

impl Draining {
    fn new() -> Self {
        let sim = Simulation::new(1);
        let mut config = Config::default();
        config.times.drain_s = 60;
        let server = Simulated::start(&sim, config).expect("it starts");
        Self { sim, server }
    }
}

const ASKS_FOR_EVENTS: &str = "GET /channels/news HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";

#[test]
fn the_connection_of_a_stream_that_ends_at_a_shutdown_is_closed_behind_its_goodbye() {
    let stage = Draining::new();
    let mut stream = stage.sim.connect(stage.server.front());
    stream.send(ASKS_FOR_EVENTS);
    stream.expect("event: hello");
    stage.server.stop();
    stream.expect("event: bye");
    stream.expect("0\r\n\r\n");
    assert!(stage.sim.run_until(SECOND, || stream.is_ended()), "nothing can be asked on it");
}

#[test]
fn a_server_that_goes_down_answers_no_event_source_with_a_status_that_would_end_it_for_good() {
    let stage = Draining::new();
    // A connection that is kept between two requests, and a stream that keeps the server from going at once.
    let mut stream = stage.sim.connect(stage.server.front());
    stream.send(ASKS_FOR_EVENTS);
    stream.expect("event: hello");
    let mut kept = stage.sim.connect(stage.server.front());
    kept.send("GET /channels/news/history HTTP/1.1\r\nHost: x\r\n\r\n");
    kept.expect("200 OK");
    stage.sim.run_for(SECOND);
    kept.take();
    stage.server.stop();
    kept.send(ASKS_FOR_EVENTS);
    stage.sim.run_for(SECOND);
    assert!(kept.is_ended() && kept.take().is_empty(), "closed, without a word");
}
