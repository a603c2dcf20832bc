//! Tests of the parsing of a proxy's header field: single cases, and a comparison with a naive
//! reference.

use sealed_http::codec::Limits;

use super::*;
use ForwardedBy::{Forwarded, XForwardedFor};

const PROXY: &str = "10.0.0.1";
const UNREADABLE: &str = "unreadable";

/// Returns the client that these header lines name: an address, `itself`, or the proxy whose client
/// is unreadable.
fn named(by: ForwardedBy, lines: &[u8]) -> String {
    let head = [b"GET / HTTP/1.1\r\nHost: x\r\n", lines, b"\r\n"].concat();
    let head = RequestHead::parse(&head, &Limits::default()).expect("a head");
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
    match client(&head, PROXY.parse().expect("an address"), &trusted, by) {
        Named::Itself => "itself".to_owned(),
        Named::Client(client) => client.to_string(),
        Named::Unreadable(proxy) if proxy.to_string() == PROXY => UNREADABLE.to_owned(),
        Named::Unreadable(proxy) => format!("{UNREADABLE} of {proxy}"),
    }
}

fn field(by: ForwardedBy, value: &[u8]) -> Vec<u8> {
    let name: &[u8] = if by == XForwardedFor { b"X-Forwarded-For: " } else { b"Forwarded: " };
    [name, value, b"\r\n"].concat()
}

#[test]
fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
    for (value, client) in [
        ("192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6,192.0.2.1 , 10.0.0.2", "192.0.2.1"),
        ("192.0.2.1:5000", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.1, fd00::1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80, [fd00::1]:80", "192.0.2.1"),
        ("\t192.0.2.1\t,\t10.0.0.2\t", "192.0.2.1"),
        // All addresses are proxies': the first proxy sends the request for itself.
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        // Everything before the client's address is ignored.
        ("unknown, \"[, ,192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(named(XForwardedFor, &field(XForwardedFor, value.as_bytes())), client, "{value}");
    }
}

#[test]
fn an_invalid_address_is_unreadable() {
    let unreadable: [&[u8]; 21] = [
        b"",
        b" ",
        b",",
        b"192.0.2.66,",
        b"192.0.2.66, ",
        b"192.0.2.66, ,",
        b"nonsense",
        b"unknown",
        b"_hidden",
        b"192.0.2.66, unknown",
        b"\xff",
        b"192.0.2.66, \xff",
        b"\xc2\xa0192.0.2.66",
        b"192.0.2.66:",
        b"192.0.2.66:http",
        b"192.0.2.66:65536",
        b"[2001:db8::1",
        b"[2001:db8::1]:",
        b"[192.0.2.66]",
        b"\"192.0.2.66\"",
        b"192.0.2.66 192.0.2.67",
    ];
    for value in unreadable {
        let shown = value.escape_ascii();
        assert_eq!(named(XForwardedFor, &field(XForwardedFor, value)), UNREADABLE, "{shown}");
        let behind = [value, b", 10.0.0.2"].concat();
        assert_eq!(named(XForwardedFor, &field(XForwardedFor, &behind)), "unreadable of 10.0.0.2", "{shown}");
        // It does not matter in front of a valid address.
        let before = [value, b", 192.0.2.1"].concat();
        assert_eq!(named(XForwardedFor, &field(XForwardedFor, &before)), "192.0.2.1", "{shown}");
    }
}

#[test]
fn the_standard_field_may_have_quoted_strings() {
    for (value, client) in [
        ("for=192.0.2.1", "192.0.2.1"),
        ("for=6.6.6.6, For=192.0.2.1;proto=https;by=10.0.0.2", "192.0.2.1"),
        ("for=\"[2001:db8::1]:443\"", "2001:db8::1"),
        ("for=\"[2001:db8::1]\"", "2001:db8::1"),
        ("for=\"192.0.2.1:80\", for=10.0.0.2", "192.0.2.1"),
        ("proto=https;host=\"a,for=6.6.6.6;b\";for=192.0.2.1", "192.0.2.1"),
        ("for=192.0.2.1;host=\"a\\\",for=6.6.6.6;\\\\\"", "192.0.2.1"),
        ("by=_x; for=192.0.2.1 ;proto=http", "192.0.2.1"),
        // An open quote that a client sent does not affect the following elements.
        ("for=\"6.6.6.6, for=192.0.2.1", "192.0.2.1"),
        ("for=\"6.6.6.6, for=\"[2001:db8::1]\", for=10.0.0.2", "2001:db8::1"),
        ("for=6.6.6.6\\, for=192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(named(Forwarded, &field(Forwarded, value.as_bytes())), client, "{value}");
    }
    let unreadable: [&[u8]; 19] = [
        b"",
        b",",
        b"for=192.0.2.66,",
        b"for=",
        b"for",
        b"192.0.2.66",
        b"proto=https",
        b"for=6.6.6.6;for=192.0.2.66",
        b"for=6.6.6.6, for=_hidden",
        b"for=unknown",
        b"for=\"unknown\"",
        b"for=\xff",
        b"for=192.0.2.66;host=\xff\"",
        b"for=192.0.2.66, for=\"10.0.0.2",
        b"for=192.0.2.66\"",
        b"for=\"192.0.2.66\\\"",
        b"for=\"192.0.2.66\"x",
        b"for=\"192.0.2.66:\"",
        b"for=192.0.2.66;host=\\\"",
    ];
    for value in unreadable {
        let shown = value.escape_ascii();
        assert_eq!(named(Forwarded, &field(Forwarded, value)), UNREADABLE, "{shown}");
        let before = [value, b", for=192.0.2.1"].concat();
        assert_eq!(named(Forwarded, &field(Forwarded, &before)), "192.0.2.1", "{shown}");
    }
}

#[test]
fn several_lines_are_one_list() {
    let lines = |values: &[&str]| values.iter().flat_map(|value| field(XForwardedFor, value.as_bytes())).collect();
    let named = |values: &[&str]| -> String {
        let lines: Vec<u8> = lines(values);
        named(XForwardedFor, &lines)
    };
    assert_eq!(named(&["6.6.6.6", "192.0.2.1, 10.0.0.2"]), "192.0.2.1");
    assert_eq!(named(&["6.6.6.6, 192.0.2.1", "10.0.0.3", "10.0.0.2"]), "192.0.2.1");
    assert_eq!(named(&["192.0.2.66", ""]), UNREADABLE);
    assert_eq!(named(&["192.0.2.66", "", "10.0.0.2"]), "unreadable of 10.0.0.2");
}

#[test]
fn the_field_that_the_proxy_does_not_write_is_ignored() {
    assert_eq!(named(XForwardedFor, b"Forwarded: for=6.6.6.6\r\n"), "itself");
    assert_eq!(named(Forwarded, b"X-Forwarded-For: 6.6.6.6\r\n"), "itself");
    assert_eq!(named(XForwardedFor, b""), "itself");
}

/// A generator of pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }

    fn one_of<'a>(&mut self, all: &[&'a [u8]]) -> &'a [u8] {
        all[self.below(all.len())]
    }
}

const PIECES: [&[u8]; 24] = [
    b"192.0.2.1",
    b"10.0.0.2",
    b"2001:db8::1",
    b"fd00::1",
    b"[",
    b"]",
    b":",
    b"80",
    b",",
    b",",
    b" ",
    b"\t",
    b"\"",
    b"\\",
    b"=",
    b";",
    b"for=",
    b"For=",
    b"host=",
    b"unknown",
    b"_x",
    b"\xff",
    b"\xc3\xa9",
    b"::ffff:192.0.2.9",
];

/// Finds the client in the simplest way: splits the whole list, and then searches it from its end.
fn naive(value: &[u8]) -> String {
    let text: String = value.iter().map(|byte| char::from(*byte)).collect();
    let mut last = PROXY.to_owned();
    let mut last_named = None;
    let hops: Vec<&str> = text.split(',').map(|hop| hop.trim_matches([' ', '\t'])).collect();
    for hop in hops.into_iter().rev() {
        let without_port = |hop: &str| {
            let (host, port) = hop.rsplit_once(':')?;
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
            is_port.then(|| host.to_owned())
        };
        let in_brackets = |hop: &str| Some(hop.strip_prefix('[')?.strip_suffix(']')?.to_owned());
        let read = if hop.starts_with('[') {
            let inner = in_brackets(hop).or_else(|| in_brackets(&without_port(hop)?));
            inner.and_then(|inner| inner.parse().ok()).map(IpAddr::V6)
        } else if hop.matches(':').count() == 1 {
            without_port(hop).and_then(|host| host.parse().ok()).map(IpAddr::V4)
        } else {
            hop.parse().ok()
        };
        let Some(read) = read else {
            return if last == PROXY { UNREADABLE.to_owned() } else { format!("{UNREADABLE} of {last}") };
        };
        last = read.to_canonical().to_string();
        last_named = Some(last.clone());
        if !(last.starts_with("10.") || last.starts_with("fd00:")) {
            break;
        }
    }
    last_named.expect("a list has at least one element")
}

#[test]
fn any_list_gives_the_result_of_the_naive_reference() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        let pieces = 1 + dice.below(8);
        let value: Vec<u8> = (0..pieces).flat_map(|_| dice.one_of(&PIECES).to_vec()).collect();
        let expected = naive(&value);
        assert_eq!(named(XForwardedFor, &field(XForwardedFor, &value)), expected, "{}", value.escape_ascii());
    }
}

#[test]
fn the_part_that_a_client_sends_does_not_affect_the_part_of_the_proxies() {
    const CLIENTS: [&[u8]; 4] = [
        b"for=192.0.2.1",
        b"For=\"192.0.2.1:80\";proto=http",
        b"host=\"a,b;c\\\"\";for=192.0.2.1",
        b"for=\"192.0.2.1\"",
    ];
    const PROXIES: [&[u8]; 3] = [b", for=10.0.0.2", b",for=\"[fd00::1]:1\";by=_x", b" , proto=\"x,y\";for=10.9.9.9"];
    let mut dice = Dice(7);
    for _ in 0..20_000 {
        let sent: Vec<u8> = (0..dice.below(8)).flat_map(|_| dice.one_of(&PIECES).to_vec()).collect();
        let proxies = (0..dice.below(3)).flat_map(|_| dice.one_of(&PROXIES).to_vec()).collect::<Vec<u8>>();
        let added = [dice.one_of(&CLIENTS), &proxies].concat();
        // In the same line, or in a line of its own.
        let value = match dice.below(2) {
            0 => field(Forwarded, &[&sent[..], b",", &added].concat()),
            _ => [field(Forwarded, &sent), field(Forwarded, &added)].concat(),
        };
        assert_eq!(named(Forwarded, &value), "192.0.2.1", "{}", value.escape_ascii());
    }
}
