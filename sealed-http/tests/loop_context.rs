//! The features of its loop that a handler can use: timers, connections of other protocols, rates;
//! and what a panic costs.

use std::time::Duration;

use sealed::sim::Peer;
use sealed::{
    Address, Bytes, CloseReason, Config, ConnectionId, Input, Panic, Rate, Rates, Resolver, ResolverConfig, TimerId,
};
use sealed_http::{Handler, Http, Request, Response, Settings};
use testing::http::request;
use testing::sim::Served;

const SECOND: Duration = Duration::from_secs(1);

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

#[derive(Default)]
struct App {
    notes: Vec<String>,
    keeps: bool,
}

impl Handler for App {
    type Connection = u32;
    type Message = u32;
    type Timer = u32;

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        match request.head.path() {
            "/stream" => {
                http.start_stream(id, &Response::new(200));
                http.write(id, b"copied ");
                assert!(http.write_bytes(id, Bytes::from_static(b"shared")));
                assert!(http.write_bytes(id, Bytes::new()), "nothing is no end");
                http.end_stream(id);
            }
            "/panic" => panic!("a malformed request"),
            "/reset" => http.reset(id),
            _ => http.respond(id, &Response::new(200).body("fine")),
        }
    }

    fn connected(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        self.notes.push(format!("connected {:?}", http.state(id)));
        http.write_bytes(id, Bytes::from_static(b"raw question"));
    }

    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
        self.notes.push(String::from_utf8_lossy(input.take_all()).into_owned());
        http.close(id);
    }

    fn closed(&mut self, _: &mut Http<'_, Self>, _: ConnectionId, state: u32, reason: CloseReason) {
        self.notes.push(format!("closed {state} {reason:?}"));
    }

    fn message(&mut self, _: &mut Http<'_, Self>, message: u32) {
        self.notes.push(format!("message {message}"));
    }

    fn expired(&mut self, _: &mut Http<'_, Self>, _: TimerId, value: u32) {
        self.notes.push(format!("expired {value}"));
    }

    fn panicked(&mut self, _: &mut Http<'_, Self>, _: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        if self.keeps { Ok(()) } else { Err(payload) }
    }
}

fn stage(keeps: bool) -> Served<App> {
    Served::new(6, Config::default(), Settings::default(), App { keeps, ..App::default() })
}

fn notes(site: &Served<App>) -> Vec<String> {
    site.act(|app, _| std::mem::take(&mut app.notes))
}

fn ask(site: &Served<App>, path: &str) -> Peer {
    let mut peer = site.connect();
    peer.send(request("GET", path, "", ""));
    peer
}

#[test]
fn timers_are_moved_and_cancelled_and_work_is_deferred() {
    let stage = stage(false);
    let timers = stage.act(|_, http| [1, 2, 3].map(|value| http.set_timer(SECOND, value)));
    stage.act(|_, http| {
        assert_eq!(http.timers(), 3);
        assert_eq!(http.cancel_timer(timers[0]), Some(1));
        assert_eq!(http.cancel_timer(timers[0]), None);
        assert!(http.move_timer(timers[1], SECOND * 5));
        http.defer(9);
    });
    stage.sim.run_for(SECOND * 2);
    assert_eq!(notes(&stage), ["message 9", "expired 3"]);
    stage.sim.run_for(SECOND * 4);
    assert_eq!(notes(&stage), ["expired 2"]);
}

#[test]
fn work_on_other_threads_reports_to_the_handler_and_ends_with_its_connection() {
    let stage = stage(false);
    let workers = stage.sim.workers(1, 10);
    let host = stage.sim.listen(address("10.0.0.2:7")).expect("it is free");
    let id = stage.act(|_, http| http.connect(address("10.0.0.2:7"), 42).expect("started"));
    stage.sim.set_name("db.example", [[10, 0, 0, 3].into()]);
    let resolver = Resolver::new(&workers, ResolverConfig::default());
    stage.act(|_, http| {
        http.offload(&workers, |_| 1).expect("room");
        http.offload_for(id, &workers, |_| 2).expect("room");
        let cancelled = http.offload(&workers, |_| 3).expect("room");
        assert!(http.cancel_work(cancelled));
        assert_eq!(http.works(), 2);
        let count = |found: std::io::Result<Vec<_>>| found.map_or(90, |found| found.len() as u32 + 90);
        http.resolve(&resolver, "db.example", count).expect("room");
        http.run_future(async { 4 });
        http.run_future_for(id, std::future::pending()).expect("it is open");
        let cancelled = http.run_future(async { 5 });
        assert!(http.cancel_future(cancelled));
        assert_eq!(http.futures(), 2);
        http.abort(id);
    });
    stage.sim.settle();
    let mut notes = notes(&stage);
    notes.sort();
    assert_eq!(notes, ["closed 42 Aborted", "message 1", "message 4", "message 91"]);
    assert_eq!(stage.act(|_, http| http.futures()), 0);
    drop(host);
}

#[test]
fn a_connection_of_another_protocol_is_made_and_served_beside_http() {
    let stage = stage(false);
    let host = stage.sim.listen(address("10.0.0.2:7")).expect("it is free");
    stage.act(|_, http| http.connect(address("10.0.0.2:7"), 42).expect("started"));
    stage.sim.settle();
    let mut other = host.accept().expect("a call");
    other.expect("raw question");
    other.send("raw answer");
    other.expect_end();
    other.finish();
    stage.sim.settle();
    assert_eq!(notes(&stage), ["connected Some(42)", "raw answer", "closed 42 Closed"]);
    stage.act(|_, http| http.connect(address("10.0.0.2:8"), 43).expect("started"));
    stage.sim.run_for(SECOND);
    assert_eq!(notes(&stage), ["closed 43 NotConnected(ConnectionRefused)"]);
    ask(&stage, "/").expect("fine");
}

#[test]
fn shared_bytes_of_a_stream_are_framed_like_copied_bytes() {
    let stage = stage(false);
    let answer = ask(&stage, "/stream").expect("0\r\n\r\n");
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.ends_with("\r\n\r\n7\r\ncopied \r\n6\r\nshared\r\n0\r\n\r\n"), "{answer}");
}

#[test]
fn connections_can_be_inspected_reset_and_limited() {
    let stage = stage(false);
    let mut peer = ask(&stage, "/");
    peer.expect("fine");
    let id = stage.act(|_, http| http.connection_ids()[0]);
    let slow = Rate { bytes_per_second: 10, burst_bytes: 1 };
    stage.act(|_, http| {
        assert!(http.is_open(id) && http.has_room(id) && !http.is_paused(id) && http.input_len(id) == 0);
        let listener = http.listener(id).expect("it was accepted");
        assert_eq!((http.connections_of(listener), http.listen_addr(listener)), (1, http.local_addr(id)));
        let group = http.add_group(Rates { write: Some(slow), ..Rates::default() });
        http.set_group(id, Some(group));
        assert_eq!(http.members(group), 1);
    });
    let before = peer.count_received();
    peer.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    stage.sim.run_for(SECOND * 2);
    assert!(peer.count_received() - before < 30);
    let mut other = ask(&stage, "/reset");
    other.expect_end();
    assert!(other.failure().is_some());
    assert_eq!(notes(&stage), ["closed 0 Aborted"]);
}

#[test]
fn a_handler_may_keep_its_server_if_a_request_makes_it_panic() {
    let stage = stage(true);
    let mut bystander = ask(&stage, "/");
    bystander.expect("fine");
    let mut peer = ask(&stage, "/panic");
    peer.expect_end();
    assert_eq!(notes(&stage), ["closed 0 Panicked"]);
    bystander.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    bystander.expect("fine");
}
