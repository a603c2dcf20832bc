//! Responses as servers send them, then spoilt, and the requests that they answer: all of it is
//! determined by the seed.

use sealed::sim::Random;
use sealed_http::codec::Asked;

use crate::common::latin1;
use crate::requests::{BODIES, TOKENS, chunks, pick, spoil};

const STATUSES: &[&str] = &[
    "200 OK",
    "200 OK",
    "200",
    "200 ",
    "206 Partial",
    "204 No Content",
    "304 Not Modified",
    "404 N\u{f6}",
    "500 a\tb",
    "999 x",
    "301 a b",
];
const INTERIM: &[&str] = &["100 Continue", "103 Early Hints", "102", "199 x"];
const FIELDS: &[&str] = &[
    "Server: x",
    "X:",
    "X: a\tb ",
    "X:\u{e9}\u{ff}",
    "Date: now",
    "Set-Cookie: a=b",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: x, Close",
    "Upgrade: h2c",
    "Trailer: X",
];

/// The fragments that only responses are spoilt with, besides those of requests.
const MORE_TOKENS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n",
    "HTTP/1.1 ",
    "HTTP/2.0",
    "HTTP/1.1",
    "204",
    "304",
    "101",
    "099",
    "1000",
    "20",
    "Content-Length: 5\r\n",
];

/// Returns the bytes of a connection, and the kinds of the requests on it.
pub(crate) fn input(seed: u64) -> (Vec<Asked>, Vec<u8>) {
    let mut random = Random::new(seed);
    let (mut all, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..random.within(1..=3) {
        let asked = if random.chance(0.2) { Asked::Head } else { Asked::Other };
        all.push(asked);
        bytes.extend(response(&mut random, asked));
    }
    // One for the response that follows all inputs, and one more than there are responses.
    all.extend([Asked::Other; 2]);
    let tokens = [TOKENS, MORE_TOKENS].concat();
    for _ in 0..random.below(4) {
        spoil(&mut random, &mut bytes, &tokens);
    }
    (all, bytes)
}

fn response(random: &mut Random, asked: Asked) -> Vec<u8> {
    let mut text = String::new();
    while random.chance(0.1) {
        text.extend(["HTTP/1.1 ", pick(random, INTERIM), "\r\n", pick(random, &["", "Link: x\r\n"]), "\r\n"]);
    }
    let (minor, status) = (u8::from(random.chance(0.85)), pick(random, STATUSES));
    text.extend(["HTTP/1.", &minor.to_string(), " ", status, "\r\n"]);
    let has_none = asked == Asked::Head || status.starts_with("204") || status.starts_with("304");
    let mut fields = Vec::new();
    for _ in 0..random.below(3) {
        fields.push(pick(random, FIELDS).to_owned());
    }
    let body = match random.below(8) {
        0 if !has_none => pick(random, BODIES).to_owned(),
        0..4 => {
            let body = pick(random, BODIES);
            fields.push(format!("Content-Length: {}", body.len()));
            body.to_owned()
        }
        _ => {
            fields.push("Transfer-Encoding: chunked".to_owned());
            chunks(random)
        }
    };
    random.shuffle(&mut fields);
    for field in fields {
        text.extend([field.as_str(), "\r\n"]);
    }
    latin1(&(text + "\r\n" + if has_none { "" } else { &body }))
}
