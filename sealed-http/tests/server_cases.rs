//! Every case through a complete server: a request is handed over in the same way however it
//! arrives; a refused request is answered, its connection is closed, and nothing behind it reaches
//! the handler.

mod common;
#[path = "differential/generate.rs"]
mod generate;

use std::cell::RefCell;
use std::rc::Rc;

use common::cases::{Table, tables};
use common::{decode_pieces, latin1};
use sealed::sim::Peer;
use sealed::{Config, ConnectionId};
use sealed_http::codec::{DecodeError, Limits};
use sealed_http::{Handler, Http, Problem, Request, Response, Settings};
use testing::sim::Served;

/// A request that no server would refuse.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: h\r\n\r\n";

/// The minimum number of refused cases.
const CASES_MIN: usize = 150;

/// The number of spoilt requests that are sent.
const SEEDS: u64 = 3_000;

/// A handler that answers every request, and records the requests that it gets.
struct Note {
    requests: Rc<RefCell<Vec<String>>>,
}

impl Handler for Note {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        let (head, body) = (&request.head, request.body.escape_ascii());
        let fields: Vec<_> = head.headers().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect();
        let note = format!("{} {} {:?} {fields:?} {body}", head.method_name(), head.path(), head.query());
        self.requests.borrow_mut().push(note);
        http.respond(id, &Response::new(200));
    }
}

struct Cases {
    site: Served<Note>,
    requests: Rc<RefCell<Vec<String>>>,
}

impl Cases {
    fn new(table: &Table) -> Self {
        let requests = Rc::default();
        let settings = Settings { limits: table.limits, ..Settings::default() };
        let site = Served::new(1, Config::default(), settings, Note { requests: Rc::clone(&requests) });
        Self { site, requests }
    }

    /// Sends the pieces, each of which arrives alone.
    fn send(&self, pieces: &[&[u8]]) -> Peer {
        self.requests.borrow_mut().clear();
        let mut client = self.site.connect();
        for piece in pieces {
            client.send(piece);
            self.site.sim.settle();
        }
        client
    }

    /// Sends the pieces, and returns the output of the server until the end of the connection.
    fn send_to_the_end(&self, pieces: &[&[u8]]) -> String {
        let mut client = self.send(pieces);
        let start = self.site.sim.now();
        let answer = String::from_utf8(client.expect_end()).expect("text");
        assert!(self.site.sim.now().saturating_sub(start).as_secs() < 1, "it was a deadline that closed it");
        answer
    }
}

/// Returns the cases of a table that are refused: name and reason, bytes, error.
fn refused(table: &Table) -> impl Iterator<Item = (String, Vec<u8>, DecodeError)> {
    table.cases.iter().filter_map(|(name, why, input, expected)| {
        let error = expected.err()?;
        Some((format!("{}: {name}: {why}", table.name), latin1(input), error))
    })
}

#[test]
fn accepted_cases_are_handed_over_in_the_same_way_however_they_are_split() {
    for table in tables() {
        let site = Cases::new(&table);
        for (name, why, input, _) in table.cases.iter().filter(|case| case.3.is_ok()) {
            let (name, input) = (format!("{}: {name}: {why}", table.name), latin1(input));
            let outcome = decode_pieces(&[&input], &table.limits);
            // After a request that closes the connection no further request is handed over.
            let closing = outcome.requests.split(" + ").position(|request| request.contains(" close"));
            let expected = closing.map_or(outcome.whole, |at| outcome.whole.min(at + 1));
            site.send(&[&input]);
            let whole = site.requests.borrow().clone();
            assert_eq!(whole.len(), expected, "{name}: {whole:?}");
            site.send(&input.chunks(1).collect::<Vec<_>>());
            assert_eq!(*site.requests.borrow(), whole, "{name}: a byte at a time");
        }
    }
}

#[test]
fn refused_cases_are_answered_and_closed_and_nothing_behind_them_is_handed_over() {
    let mut cases = 0;
    for table in tables() {
        let site = Cases::new(&table);
        for (name, input, error) in refused(&table) {
            cases += 1;
            // Requests in front of the malformed one are answered.
            let before = decode_pieces(&[&input], &table.limits).whole;
            let input = [&input, BEHIND.as_bytes()].concat();
            let whole: Vec<&[u8]> = vec![&input];
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            for (way, pieces) in [("whole", whole), ("a byte at a time", bytes)] {
                let answer = site.send_to_the_end(&pieces);
                let at = format!("{name}, {way}: {answer:?}");
                assert_eq!(answer.matches("HTTP/1.1 200 ").count(), before, "answers to {at}");
                assert!(!answer.contains("HTTP/1.1 100 "), "leave to send what is refused: {at}");
                let refusal = answer.find(&format!("HTTP/1.1 {} ", error.status()));
                let refusal = &answer[refusal.unwrap_or_else(|| panic!("status of {at}"))..];
                let (head, body) = refusal.split_once("\r\n\r\n").expect("a head");
                assert!(head.contains("\r\nConnection: close\r\n"), "head of {at}");
                assert_eq!(body.as_bytes(), Problem::from(error).to_json(), "body, and nothing behind it, of {at}");
                assert_eq!(site.requests.borrow().len(), before, "handed over by {at}");
                assert!(!site.requests.borrow().concat().contains("/behind"), "handed over by {at}");
            }
        }
    }
    assert!(cases >= CASES_MIN, "{cases} cases, not {CASES_MIN}");
    println!("{cases} refused cases, whole and a byte at a time");
}

#[test]
fn spoilt_requests_have_the_same_result_however_they_are_split() {
    let table = Table { name: "spoilt", cases: &[], limits: Limits::default() };
    let site = Cases::new(&table);
    for seed in 0..SEEDS {
        let input = generate::input(seed);
        let mut ways = [vec![&input[..]], input.chunks(1).collect(), input.chunks(7).collect()].map(|pieces| {
            let answer = site.send(&pieces).take();
            let answer = String::from_utf8(answer).expect("text").replace("HTTP/1.1 100 Continue\r\n\r\n", "");
            let undated: Vec<_> =
                answer.lines().filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect();
            (site.requests.borrow().clone(), undated)
        });
        ways.sort();
        assert_eq!(ways[0], ways[2], "seed {seed}: {}", input.escape_ascii());
    }
}
