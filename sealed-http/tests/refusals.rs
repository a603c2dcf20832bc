//! Every refused case through a whole server: what the client gets, and that nothing behind it reaches the handler.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::cases::{Table, tables};
use common::{decode_pieces, latin1};
use sealed::sim::Simulation;
use sealed::{Address, Config, ConnectionId};
use sealed_http::{DecodeError, Handler, Http, Request, Response, Server, Settings};

/// A request that nobody would refuse.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: h\r\n\r\n";

/// How many cases there are at least.
const CASES_MIN: usize = 150;

/// Answers every request, and notes what it was handed.
struct Note {
    paths: Rc<RefCell<Vec<String>>>,
}

impl Handler for Note {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        self.paths.borrow_mut().push(request.head.path().to_owned());
        http.respond(id, &Response::new(200));
    }
}

struct Site {
    sim: Simulation,
    address: Address,
    paths: Rc<RefCell<Vec<String>>>,
}

impl Site {
    fn new(table: &Table) -> Self {
        let sim = Simulation::new(1);
        let paths = Rc::default();
        let settings = Settings { limits: table.limits, ..Settings::default() };
        let server = Server::new(settings, Note { paths: Rc::clone(&paths) });
        let mut event_loop = sim.event_loop(Config::default(), server).expect("a loop");
        let address = event_loop.listen("10.0.0.1:80").expect("an address");
        sim.start(event_loop);
        Self { sim, address, paths }
    }

    /// Sends the pieces, each of which arrives alone, and returns what was answered until the connection's end.
    fn exchange(&self, pieces: &[&[u8]]) -> String {
        self.paths.borrow_mut().clear();
        let start = self.sim.now();
        let mut client = self.sim.connect(&self.address);
        for piece in pieces {
            client.send(piece);
            self.sim.settle();
        }
        let answer = String::from_utf8(client.expect_end()).expect("text");
        // The server ended it, and did not wait for a deadline to do so.
        assert!(self.sim.now().saturating_sub(start).as_secs() < 15, "closed late");
        answer
    }
}

/// The cases of a table that are refused: name and reason, bytes, error.
fn refused(table: &Table) -> impl Iterator<Item = (String, Vec<u8>, DecodeError)> {
    table.cases.iter().filter_map(|(name, why, input, expected)| {
        let error = expected.err()?;
        Some((format!("{}: {name}: {why}", table.name), latin1(input), error))
    })
}

#[test]
fn every_refused_case_is_answered_and_closed_and_nothing_behind_it_is_handed_over() {
    let mut cases = 0;
    for table in tables() {
        let site = Site::new(&table);
        for (name, input, error) in refused(&table) {
            cases += 1;
            // Requests in front of the malformed one are answered.
            let before = decode_pieces(&[&input], &table.limits).whole;
            let input = [&input, BEHIND.as_bytes()].concat();
            let whole: Vec<&[u8]> = vec![&input];
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            for (way, pieces) in [("whole", whole), ("a byte at a time", bytes)] {
                let answer = site.exchange(&pieces);
                let at = format!("{name}, {way}: {answer:?}");
                assert_eq!(answer.matches("HTTP/1.1 200 ").count(), before, "answers to {at}");
                assert!(!answer.contains("HTTP/1.1 100 "), "leave to send what is refused: {at}");
                let refusal = answer.find(&format!("HTTP/1.1 {} ", error.status()));
                let refusal = &answer[refusal.unwrap_or_else(|| panic!("status of {at}"))..];
                let (head, body) = refusal.split_once("\r\n\r\n").expect("a head");
                assert!(head.contains("\r\nConnection: close\r\n"), "head of {at}");
                assert_eq!(body, format!("{error}\n"), "body, and nothing behind it, of {at}");
                assert_eq!(site.paths.borrow().len(), before, "handed over by {at}");
                assert!(!site.paths.borrow().iter().any(|path| path == "/behind"), "handed over by {at}");
            }
        }
    }
    assert!(cases >= CASES_MIN, "{cases} cases, not {CASES_MIN}");
    println!("{cases} refused cases, whole and a byte at a time");
}
