//! Clients that read slowly, end early, or expect the server to wait: what the server guarantees to
//! them, and what not.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sealed::sim::Link;
use sealed::{CloseReason, Config, ConnectionId, TimerId};
use sealed_http::codec::Limits;
use sealed_http::server::{Intake, Piece};
use sealed_http::{Handler, Http, Request, RequestHead, Response, Settings};
use testing::http::request;
use testing::sim::Served;

const SECOND: Duration = Duration::from_secs(1);
const BIG: usize = 600_000;
type Notes = Rc<RefCell<Vec<String>>>;

struct Stage(Notes);

impl Handler for Stage {
    type Connection = ();
    type Message = ();
    type Timer = (ConnectionId, bool);

    fn intake(&mut self, _: &mut Http<'_, Self>, _: ConnectionId, head: &RequestHead<'_>) -> Intake {
        if head.path() == "/collect" { Intake::Collect } else { Intake::Stream }
    }

    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {
        match piece {
            Piece::Data(_) => {
                http.pause(id);
                http.set_timer(SECOND, (id, true));
            }
            Piece::End => http.respond(id, &Response::new(200).body("all")),
        }
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        self.0.borrow_mut().push(request.head.path().to_owned());
        match request.head.path() {
            "/big" => http.respond(id, &Response::new(200).body("b".repeat(BIG))),
            _ => drop(http.set_timer(SECOND, (id, false))),
        }
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: TimerId, (id, resume): Self::Timer) {
        if resume { http.resume(id) } else { http.respond(id, &Response::new(200).body("later")) }
    }

    fn closed(&mut self, _: &mut Http<'_, Self>, _: ConnectionId, (): (), reason: CloseReason) {
        self.0.borrow_mut().push(format!("{reason:?}"));
    }
}

fn site() -> (Served<Stage>, Notes) {
    let notes = Notes::default();
    let limits = Limits { connect_allowed: true, ..Limits::default() };
    let settings = Settings { limits, ..Settings::default() };
    (Served::new(1, Config::default(), settings, Stage(Rc::clone(&notes))), notes)
}

fn get(target: &str, fields: &str) -> String {
    request("GET", target, fields, "")
}

#[test]
fn requests_of_a_client_that_reads_no_answers_are_not_read_without_end() {
    let (site, notes) = site();
    let mut client = site.sim.connect_over(Link { buffer_bytes: 4_000, ..Link::default() }, &site.address);
    client.stall();
    client.send(get("/big", "").repeat(1_000));
    site.sim.run_for(SECOND * 10);
    assert!(notes.borrow().len() <= 2, "{} requests were answered: {:?}", notes.borrow().len(), notes.borrow().last());
}

#[test]
fn all_requests_before_the_end_of_the_client_are_answered() {
    let (site, _) = site();
    let mut client = site.connect();
    client.send(get("/later", "").repeat(3));
    client.finish();
    let answer = String::from_utf8(client.expect_end()).expect("text");
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 3);
}

#[test]
fn a_slow_client_gets_all_of_an_answer_that_closes_its_connection() {
    let (site, notes) = site();
    let link = Link { bandwidth: Some(20_000), buffer_bytes: 4_000, ..Link::default() };
    let mut client = site.sim.connect_over(link, &site.address);
    client.send(get("/big", "Connection: close\r\n"));
    for _ in 0..20 {
        site.sim.run_for(SECOND);
        client.stall();
        site.sim.run_for(SECOND * 10);
        client.unstall();
    }
    assert!(site.sim.run_until(SECOND * 300, || client.is_over()));
    assert!(client.count_received() > BIG as u64, "{} bytes: {:?}", client.count_received(), notes.borrow());
}

#[test]
fn a_body_paused_at_its_last_piece_still_ends() {
    let (site, _) = site();
    let mut client = site.connect();
    client.send("POST / HTTP/1.1\r\nHost: sim\r\nContent-Length: 5\r\n\r\nhello");
    assert!(site.sim.run_until(SECOND * 10, || client.count_received() > 0), "no end was reported");
}

#[test]
fn the_limit_on_the_first_head_runs_from_the_connection() {
    let (site, _) = site();
    let start = site.sim.now();
    let mut client = site.connect();
    site.sim.run_for(SECOND * 15);
    client.send("GET /");
    client.expect_end();
    let took = site.sim.now().saturating_sub(start).as_secs();
    assert!(took <= 21, "{took} s");
}

#[test]
fn a_fast_beginning_does_not_extend_the_limit_without_end() {
    let (site, _) = site();
    let mut client = site.connect();
    client.send(
        "POST /collect HTTP/1.1\r\nHost: sim\r\nContent-Length: 600000\r\n\r\n".to_owned() + &"x".repeat(500_000),
    );
    let start = site.sim.now();
    assert!(String::from_utf8(client.expect_end()).expect("text").starts_with("HTTP/1.1 408 "));
    let took = site.sim.now().saturating_sub(start).as_secs();
    assert!(took <= 21, "{took} s");
}

#[test]
fn bytes_behind_a_refused_tunnel_are_no_request() {
    let (site, notes) = site();
    let mut client = site.connect();
    client.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n".to_owned() + &get("/smuggled", ""));
    site.sim.run_for(SECOND * 5);
    assert!(!notes.borrow().contains(&"/smuggled".to_owned()), "{:?}", notes.borrow());
    drop(client.take());
}
