//! What a browser's `EventSource`, and its substitutes elsewhere, rely on: resuming by the id of
//! the last event, reconnecting after a lost connection, and giving up for good on any status but
//! 200.

mod common;

use std::time::Duration;

use common::stage::{LOOPBACK, Stage};
use common::{Client, Local, config};
use testing::http::request;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_last_event_id_is_accepted_in_the_query() {
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
    // The header field overrides the query: a polyfill's query is as old as its first request.
    let mut both = Client::connect(server.front)
        .events("/channels/news?lastEventId=nonsense", &format!("Last-Event-ID: {}\r\n", seen.id));
    assert_eq!(both.next().message(), "two");
}

#[test]
fn a_foreign_last_event_id_is_a_gap_and_the_stream_goes_on() {
    let server = Local::start(config(2));
    let mut publisher = Client::connect(server.front);
    publisher.publish("news", "kept");
    for foreign in [
        "42",
        "latest",
        "oldest",
        "urn:uuid:7f1e",
        "a b",
        "\u{ff}",
        "0000000000000-0000000000.0000000000000-0000000000",
    ] {
        let header = format!("Last-Event-ID: {foreign}\r\n");
        let mut stream = Client::connect(server.front).events("/channels/news", &header);
        let gap = stream.next();
        assert_eq!((gap.kind.as_str(), &gap.json()["missed"]), ("gap", &serde_json::Value::Null), "{foreign}");
        assert_eq!(stream.next().message(), "kept", "{foreign}");
    }
    // A malformed `after` is still an error, since the page itself writes it.
    assert_eq!(Client::connect(server.front).get("/channels/news?after=42").status, 400);
}

fn draining() -> Stage {
    Stage::new(|config| config.times.drain_s = 60)
}

const EVENTS: &str = "Accept: text/event-stream\r\n";

#[test]
fn a_shutdown_closes_the_connection_of_a_stream_after_its_goodbye() {
    let stage = draining();
    let mut stream = stage.begin(LOOPBACK, "GET", "/channels/news", EVENTS);
    stream.expect("event: hello");
    stage.server.stop();
    stream.expect("event: bye");
    stream.expect("0\r\n\r\n");
    assert!(stage.sim.run_until(SECOND, || stream.is_ended()), "nothing can be asked on it");
}

#[test]
fn a_shutdown_sends_no_event_source_a_status_that_ends_it_for_good() {
    let stage = draining();
    // A connection kept between two requests, and a stream that keeps the server from ending at
    // once.
    let mut stream = stage.begin(LOOPBACK, "GET", "/channels/news", EVENTS);
    stream.expect("event: hello");
    let mut kept = stage.begin(LOOPBACK, "GET", "/channels/news/history", "");
    kept.expect("200 OK");
    stage.sim.run_for(SECOND);
    kept.take();
    stage.server.stop();
    kept.send(request("GET", "/channels/news", EVENTS, ""));
    stage.sim.run_for(SECOND);
    assert!(kept.is_ended() && kept.take().is_empty(), "closed, without a word");
}
