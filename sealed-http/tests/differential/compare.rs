//! Compares what the readers understand from the same bytes, and lists the known differences. A
//! fuzz target includes this file too.

use std::collections::HashSet;

use sealed_http::codec::{DecodeError as E, Limits};

use crate::peers::{self, Seen};

/// A request that follows every input, so that a reader that consumes more or less of the input is
/// noticed.
pub(crate) const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: h\r\n\r\n";

/// A function that returns the requests that a reader understands from the bytes of a connection.
pub(crate) type Reader = fn(&[u8]) -> Vec<Seen>;

pub(crate) const PEERS: [(&str, Reader); 2] = [("hyper", peers::hyper), ("httparse", peers::httparse)];

/// A difference between a peer and this crate about input that this crate accepts.
#[derive(Debug)]
pub(crate) struct Difference<'a> {
    /// The last request on which both agree.
    before: Option<&'a Seen>,
    /// The request that this crate reads next; `None` if the connection is closed or more bytes are
    /// needed.
    here: Option<&'a Seen>,
    /// The request that the peer reads instead, if any.
    there: Option<&'a Seen>,
}

/// A difference that is intended, or that is a fault of the peer.
pub(crate) struct Known {
    pub(crate) peer: &'static str,
    pub(crate) why: &'static str,
    /// The bytes of a connection, as Latin-1, that show the difference.
    pub(crate) example: &'static str,
    pub(crate) is_it: fn(&Difference<'_>) -> bool,
}

pub(crate) const KNOWN: &[Known] = &[
    Known {
        peer: "hyper",
        why: "RFC 3986, 2 has no place for these bytes, but browsers send some of them; nobody takes them for an end",
        example: "GET /a\"<>\\^`{|} HTTP/1.1\r\nHost: h\r\n\r\n",
        is_it: |it| {
            it.there.is_none() && it.here.is_some_and(|here| target(here).contains(|c| "\"<>\\^`{|}".contains(c)))
        },
    },
    Known {
        peer: "hyper",
        why: "RFC 9110, 7.1: OPTIONS without a path asks about the server, which a URI of hyper's cannot say",
        example: "OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n",
        is_it: |it| match (it.here, it.there) {
            (Some(here), Some(there)) => {
                here.method == "OPTIONS" && here.path == "*" && *there == Seen { path: "/".to_owned(), ..here.clone() }
            }
            _ => false,
        },
    },
    Known {
        peer: "hyper",
        why: "RFC 9112, 9.6: the client says that it closes; hyper overlooks a Connection that is not ASCII throughout",
        example: "GET / HTTP/1.1\r\nHost: h\r\nConnection: \u{e9}, close\r\n\r\n",
        is_it: |it| {
            it.here.is_none() != it.there.is_none()
                && it.before.is_some_and(|before| {
                    before.fields.iter().any(|(name, value)| name == "connection" && !value.is_ascii())
                })
        },
    },
];

/// The errors of this crate where a peer goes on: this crate is stricter on purpose.
pub(crate) const STRICTER: &[(E, &str)] = &[
    (E::RequestLine, "9112 2.2: one empty line in front is forgiven, not any number"),
    (E::Target, "9112 3.2, 9110 4.2.4 and 7.1: no user, no fragment, no other scheme"),
    (E::Connect, "9110 9.3.6: there is no tunnel here"),
    (
        E::LineEnd,
        "9112 2.2: a bare LF may be taken for a line's end; a reader that does not do so reads another message",
    ),
    (E::Host, "9112 3.2: must be refused"),
    (E::ContentLength, "9112 6.3: the same length twice may be refused"),
    (E::TransferEncoding, "9112 6.1: a length beside chunks may be refused; hyper's rule is another one allowed"),
    (E::TransferCoding, "9112 6.1: a coding that is not understood; hyper passes the body on encoded"),
    (E::Chunk, "9112 7.1: no white space behind a size, and no control bytes in extensions"),
    (E::Expectation, "9110 10.1.1: may be answered 417"),
    (E::RequestLineTooLong, "9112 3: limits are each server's own"),
    (E::HeadTooLarge, "9112 5.4: limits are each server's own"),
    (E::BodyTooLarge, "9110 15.5.14: limits are each server's own"),
];

/// Compares the readers on one input. Returns whether a request was accepted. Adds the errors of
/// input that only peers accept to `stricter`.
pub(crate) fn compare(name: &str, input: &[u8], limits: &Limits, stricter: &mut HashSet<E>) -> bool {
    let input = [input, PROBE].concat();
    let (ours, error) = peers::sealed(&input, limits);
    for (peer, read) in PEERS {
        let theirs = read(&input);
        if let Some(difference) = difference(&ours, error, &theirs) {
            let is_known = KNOWN.iter().any(|known| known.peer == peer && (known.is_it)(&difference));
            assert!(is_known, "{name}: {peer}: {difference:?}\nin {}", input.escape_ascii());
        } else if theirs.len() > ours.len() {
            let error = error.expect("a difference otherwise");
            let is_meant = STRICTER.iter().any(|(meant, _)| *meant == error);
            assert!(is_meant, "{name}: {peer} goes on, here it is {error:?}\nin {}", input.escape_ascii());
            stricter.insert(error);
        }
    }
    !ours.is_empty()
}

/// Returns the first difference. It is no difference that a peer goes on where this crate has found
/// an error.
pub(crate) fn difference<'a>(ours: &'a [Seen], error: Option<E>, theirs: &'a [Seen]) -> Option<Difference<'a>> {
    let at = ours.iter().zip(theirs).take_while(|(our, their)| our == their).count();
    let (here, there) = (ours.get(at), theirs.get(at));
    let differs = here.is_some() || (there.is_some() && error.is_none());
    differs.then(|| Difference { before: at.checked_sub(1).map(|last| &ours[last]), here, there })
}

fn target(seen: &Seen) -> String {
    format!("{}?{}", seen.path, seen.query.as_deref().unwrap_or_default())
}
