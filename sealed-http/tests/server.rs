//! The server on the simulated network: exchanges in order, in time, and complete, however slow or
//! broken a client is.

use std::time::Duration;

use sealed::sim::{Faults, Link};
use sealed::{Config, ConnectionId, TimerId};
use sealed_http::{Handler, Http, Request, Response, Settings};
use testing::http::{Reply, request};
use testing::sim::Served;

const SECOND: Duration = Duration::from_secs(1);

/// A handler that answers `/now` at once, `/later` a second later, `/stream` in three pieces, a
/// second apart, `/big` at once with a long body, and `/never` never. The answer contains the path,
/// the query and the body of the request.
struct Stage;

const BIG: usize = 200_000;

impl Handler for Stage {
    type Connection = ();
    type Message = ();
    /// The connection that gets a later answer, the text, and the number of further pieces.
    type Timer = (ConnectionId, String, u32);

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        let (path, query) = (request.head.path(), request.head.query().unwrap_or_default());
        let text = format!("{path}?{query} {}", String::from_utf8_lossy(request.body));
        match path {
            "/now" => http.respond(id, &Response::new(200).body(text)),
            "/big" => http.respond(id, &Response::new(200).body("b".repeat(BIG))),
            "/later" => {
                http.set_timer(SECOND, (id, text, 0));
            }
            "/stream" => {
                http.start_stream(id, &Response::new(200));
                http.set_timer(SECOND, (id, text, 3));
            }
            _ => http.set_deadline(id, SECOND * 30),
        }
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: TimerId, (id, text, pieces): Self::Timer) {
        match pieces {
            0 => http.respond(id, &Response::new(200).body(text)),
            1 => {
                http.write(id, b"last");
                http.end_stream(id);
            }
            _ => {
                http.write(id, b"piece,");
                http.set_timer(SECOND, (id, text, pieces - 1));
            }
        }
    }
}

fn site(seed: u64) -> Served<Stage> {
    Served::new(seed, Config::default(), Settings::default(), Stage)
}

/// Returns how long `act` takes, in whole seconds.
fn seconds(site: &Served<Stage>, act: impl FnOnce()) -> u64 {
    let start = site.sim.now();
    act();
    site.sim.now().saturating_sub(start).as_secs()
}

fn get(target: &str) -> String {
    request("GET", target, "", "")
}

fn post(target: &str, body: &str) -> String {
    request("POST", target, "", body)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

/// Returns the body of an answer.
fn body(answer: &[u8]) -> String {
    let reply = Reply::decode("GET", answer);
    assert_eq!(reply.status, 200, "{reply}");
    reply.text().to_owned()
}

#[test]
fn a_connection_is_kept_for_further_requests() {
    let site = site(1);
    let mut client = site.connect();
    for n in 0..5 {
        client.send(get(&format!("/now?{n}")));
        assert_eq!(body(&client.expect(format!("/now?{n} "))), format!("/now?{n} "));
        site.sim.run_for(SECOND * 30);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_however_long_each_takes() {
    for seed in 0..50 {
        let site = site(seed);
        let mut random = site.sim.random(0);
        site.sim.set_faults(Faults { reset: 0.0, vanish: 0.0, refuse: 0.0, jump: 0.0, ..Faults::any(&mut random) });
        let mut client = site.connect();
        let requests =
            [get("/later?1"), post("/now?2", "two"), get("/stream?3"), get("/now?4"), post("/later?5", "five")];
        client.send(requests.concat());
        let mut answer = text(client.expect("/later?5 five"));
        for mark in [
            "/later?1 ",
            "/now?2 two",
            "6\r\npiece,\r\n6\r\npiece,\r\n4\r\nlast\r\n0\r\n\r\n",
            "/now?4 ",
            "/later?5 five",
        ] {
            let at = answer.find(mark).unwrap_or_else(|| panic!("seed {seed}: {mark:?} in its turn: {answer:?}"));
            answer = answer.split_off(at + mark.len());
        }
        assert_eq!(answer, "");
    }
}

#[test]
fn a_head_request_gets_only_the_head_and_the_connection_goes_on() {
    let site = site(1);
    let mut client = site.connect();
    client.send("HEAD /now HTTP/1.1\r\nHost: sim\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: sim\r\n\r\n");
    client.send(get("/now?after"));
    let answer = text(client.expect("/now?after "));
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3);
    assert!(
        answer.contains("Content-Length: 6\r\n\r\nHTTP/1.1 200") || answer.contains("\r\n\r\nHTTP/1.1 200"),
        "{answer}"
    );
    assert_eq!(answer.matches("/now?").count(), 1, "no body before: {answer}");
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    let site = site(1);
    let mut client = site.connect();
    client.send("POST /now HTTP/1.1\r\nHost: sim\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    client.expect("/now? hello");
    // A client that does not wait gets no `100 Continue`.
    client.send("POST /now HTTP/1.1\r\nHost: sim\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert!(!text(client.expect("/now? hello")).contains("100 Continue"));
}

#[test]
fn a_request_that_is_not_complete_in_time_gets_408() {
    let site = site(1);
    for part in ["GET /no", "POST /now HTTP/1.1\r\nHost: sim\r\nContent-Length: 5\r\n\r\nhel"] {
        let mut client = site.connect();
        client.send(part);
        let took = seconds(&site, || assert!(text(client.expect_end()).starts_with("HTTP/1.1 408 ")));
        assert!((20..=21).contains(&took), "{took} s");
    }
    // One byte now and then does not help.
    let mut client = site.connect();
    let took = seconds(&site, || {
        for byte in get("/now").as_bytes() {
            client.send([*byte]);
            site.sim.run_for(SECOND * 2);
        }
    });
    assert!(took > 30 && text(client.expect_end()).starts_with("HTTP/1.1 408 "));
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let site = site(1);
    let mut client = site.connect();
    let took = seconds(&site, || assert!(client.expect_end().is_empty()));
    assert!((20..=21).contains(&took), "before the first request: {took} s");
    let mut client = site.connect();
    client.send(get("/now"));
    client.expect("/now? ");
    let took = seconds(&site, || assert!(client.expect_end().is_empty()));
    assert!((75..=76).contains(&took), "between two: {took} s");
}

#[test]
fn a_slow_client_gets_all_of_a_long_answer() {
    let site = site(1);
    let slow = Link { bandwidth: Some(5_000), buffer_bytes: 4_000, ..Link::default() };
    for closing in ["", "Connection: close\r\n"] {
        let mut client = site.sim.connect_over(slow.clone(), &site.address);
        client.send(format!("GET /big HTTP/1.1\r\nHost: sim\r\n{closing}\r\n"));
        let took = seconds(&site, || {
            assert!(site.sim.run_until(SECOND * 100, || client.count_received() > BIG as u64));
        });
        assert!(took >= 30, "{took} s");
        assert_eq!(body(&client.take()).len(), BIG);
    }
}

#[test]
fn an_exchange_may_have_a_deadline_of_its_own() {
    let site = site(1);
    let mut client = site.connect();
    client.send(get("/never"));
    let took = seconds(&site, || assert!(client.expect_end().is_empty()));
    assert!((30..=31).contains(&took), "{took} s");
}

#[test]
fn a_malformed_request_is_refused_after_the_requests_before_it_are_answered() {
    let site = site(1);
    let mut client = site.connect();
    client.send(get("/later?good"));
    client.send("GET  /bad HTTP/1.1\r\n\r\n");
    client.send(get("/now?never"));
    let answer = text(client.expect_end());
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    assert!(answer.contains("/later?good") && answer.contains("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_shutdown_answers_pending_requests_and_closes() {
    let site = site(1);
    let (mut idle, mut asking, mut streaming) = (site.connect(), site.connect(), site.connect());
    idle.send(get("/now"));
    idle.expect("/now? ");
    asking.send(get("/later"));
    streaming.send(get("/stream"));
    streaming.expect("\r\n\r\n");
    site.stopper.stop();
    let took = seconds(&site, || assert!(idle.expect_end().is_empty()));
    assert_eq!(took, 0, "soon");
    let answer = text(asking.expect_end());
    assert!(answer.contains("Connection: close") && answer.ends_with("/later? "), "{answer}");
    streaming.expect("4\r\nlast\r\n0\r\n\r\n");
    let took = seconds(&site, || assert!(streaming.expect_end().is_empty()));
    assert_eq!(took, 0, "nothing more can be asked on it");
    let mut late = site.connect();
    late.expect_end();
    assert_eq!(late.failure(), Some(std::io::ErrorKind::ConnectionRefused));
    drop((idle, asking, streaming));
    site.sim.settle();
    assert!(!site.sim.is_running(site.id));
}
