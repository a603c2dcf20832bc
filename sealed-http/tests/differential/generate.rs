//! Requests as clients send them, then spoilt: every input is determined by its seed.

#![allow(dead_code)] // the test of responses uses a part of it

use sealed::sim::Random;

use crate::common::latin1;

const METHODS: &[&str] = &["GET", "GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "BREW"];
const TARGETS: &[&str] =
    &["/", "/a", "/a/b?c=d", "/a%20b?", "//h/a", "/?a?b", "http://h/a", "http://h", "https://[::1]:80/?a", "/a;b=c,d"];
const HOSTS: &[&str] = &["h", "example.org:8100", "127.0.0.1", "[::1]:80"];
const FIELDS: &[&str] = &[
    "Accept: */*",
    "X:",
    "X: a\tb ",
    "X:\u{e9}\u{ff}",
    "Cookie: a=b; c=d",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: Upgrade, close",
    "Upgrade: websocket",
    "TE: trailers",
    "Trailer: X",
    "Expect: 100-continue",
    "Content-Type: text/plain",
];
pub(crate) const BODIES: &[&str] =
    &["", "x", "hello", "\r\n", "0\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "0123456789abcdef"];
const EXTENSIONS: &[&str] = &["", "", "", ";a", ";a=b", "; a=\"b;c\""];
const TRAILERS: &[&str] = &["", "", "", "X: y\r\n", "X:\r\nY: z\r\n", "Content-Length: 3\r\n"];

/// The fragments that requests are spoilt with: readers are known to disagree about all of them.
pub(crate) const TOKENS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    " ",
    "\t",
    "\r\n ",
    ":",
    ",",
    ";",
    "+",
    "-",
    "_",
    "0",
    "1",
    "f",
    "0x",
    "\0",
    "\u{b}",
    "\u{7f}",
    "\u{a0}",
    "\u{e9}",
    "\"",
    "\\",
    "#",
    "?",
    "%",
    "@",
    "*",
    "close",
    "keep-alive",
    "chunked",
    "identity",
    "gzip, ",
    "HTTP/1.0",
    "HTTP/1.2",
    "http://",
    "CONNECT",
    "Host: h\r\n",
    "Host:\r\n",
    "Content-Length: 2\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: tea\r\n",
    "0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
];

/// Returns the bytes of a connection: one to three requests, spoilt in up to three places.
pub(crate) fn input(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    for _ in 0..random.within(1..=3) {
        bytes.extend(request(&mut random));
    }
    for _ in 0..random.below(4) {
        spoil(&mut random, &mut bytes, TOKENS);
    }
    bytes
}

pub(crate) fn pick(random: &mut Random, from: &[&'static str]) -> &'static str {
    random.pick(from).expect("there are some")
}

fn request(random: &mut Random) -> Vec<u8> {
    let front = if random.chance(0.1) { "\r\n" } else { "" };
    let minor = u8::from(random.chance(0.85));
    let mut text = format!("{front}{} {} HTTP/1.{minor}\r\n", pick(random, METHODS), pick(random, TARGETS));
    let mut fields = vec![format!("Host: {}", pick(random, HOSTS))];
    for _ in 0..random.below(3) {
        fields.push(pick(random, FIELDS).to_owned());
    }
    let body = match random.below(3) {
        0 => String::new(),
        1 => {
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
    latin1(&(text + "\r\n" + &body))
}

pub(crate) fn chunks(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(3) {
        let (data, extension) = (pick(random, &BODIES[1..]), pick(random, EXTENSIONS));
        text.extend([&format!("{:x}{extension}", data.len()), "\r\n", data, "\r\n"]);
    }
    text + "0" + pick(random, EXTENSIONS) + "\r\n" + pick(random, TRAILERS) + "\r\n"
}

pub(crate) fn spoil(random: &mut Random, bytes: &mut Vec<u8>, tokens: &[&'static str]) {
    // Most readers disagree near the ends of lines.
    let ends: Vec<usize> = (0..bytes.len()).filter(|at| b"\r\n:".contains(&bytes[*at])).collect();
    let at = match random.pick(&ends) {
        Some(at) if random.chance(0.5) => (at + random.below(3)).min(bytes.len()),
        _ => random.below(bytes.len() + 1),
    };
    let end = (at + 1 + random.below(4)).min(bytes.len());
    let token = latin1(pick(random, tokens));
    match random.below(7) {
        0 | 1 => drop(bytes.splice(at..at, token)),
        2 => drop(bytes.splice(at..end, token)),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.below(256) as u8),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
    }
}
