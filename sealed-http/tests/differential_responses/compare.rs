//! Compares what the readers understand from the same bytes, and lists the known differences.

use std::collections::HashSet;

use sealed_http::codec::{Asked, DecodeError as E, Limits};

use crate::peers::{self, Seen};

/// A response that follows every input, so that a reader that consumes more or less of the input is
/// noticed.
pub(crate) const PROBE: &[u8] = b"HTTP/1.1 203 Probe\r\nContent-Length: 5\r\n\r\nprobe";

/// A function that returns the responses that a reader understands from the bytes of a connection,
/// given the requests on it.
pub(crate) type Reader = fn(&[Asked], &[u8]) -> Vec<Seen>;

pub(crate) const PEERS: [(&str, Reader); 2] = [("hyper", peers::hyper), ("httparse", peers::httparse)];

/// A difference between a peer and this crate about input that this crate accepts.
#[derive(Debug)]
pub(crate) struct Difference<'a> {
    /// The last response on which both agree.
    before: Option<&'a Seen>,
    /// The response that this crate reads next; `None` if the connection is closed.
    here: Option<&'a Seen>,
    /// The response that the peer reads instead, if any.
    there: Option<&'a Seen>,
}

/// A difference that is intended, or that is a fault of the peer.
pub(crate) struct Known {
    pub(crate) peers: &'static [&'static str],
    pub(crate) why: &'static str,
    /// The bytes of a connection on which GET was sent, as Latin-1, that show the difference.
    pub(crate) example: &'static str,
    pub(crate) is_it: fn(&Difference<'_>) -> bool,
}

pub(crate) const KNOWN: &[Known] = &[
    Known {
        peers: &["hyper", "httparse"],
        why: "RFC 9110, 8.6: 204 has no length; whether what it announces follows is anybody's guess, so no more is read",
        example: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        is_it: |it| it.here.is_none() && it.before.is_some_and(|before| before.status == 204 && announces_body(before)),
    },
    Known {
        peers: &["hyper"],
        why: "RFC 9112, 9.6: the server says that it closes; hyper overlooks a Connection that is not ASCII throughout",
        example: "HTTP/1.1 304 Not Modified\r\nConnection: \u{e9}, close\r\n\r\n",
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
    (E::StatusLine, "9112 2.2: a client need not forgive empty lines in front"),
    (
        E::LineEnd,
        "9112 2.2: a bare LF may be taken for a line's end; a reader that does not do so reads another message",
    ),
    (E::ContentLength, "9112 6.3: the same length twice may be refused"),
    (E::TransferEncoding, "9112 6.1: a length beside chunks may be refused; hyper's rule is another one allowed"),
    (E::TransferCoding, "9112 6.1: a coding that is not understood; hyper passes the body on encoded"),
    (E::Chunk, "9112 7.1: no white space behind a size, and no control bytes in extensions"),
];

/// Compares the readers on one input. Returns whether a response was accepted. Adds the errors of
/// input that only peers accept to `stricter`.
pub(crate) fn compare(name: &str, asked: &[Asked], input: &[u8], limits: &Limits, stricter: &mut HashSet<E>) -> bool {
    let input = [input, PROBE].concat();
    let (ours, error) = peers::sealed(asked, &input, limits);
    for (peer, read) in PEERS {
        let theirs = read(asked, &input);
        if let Some(difference) = difference(&ours, error, &theirs) {
            let is_known = KNOWN.iter().any(|known| known.peers.contains(&peer) && (known.is_it)(&difference));
            assert!(is_known, "{name}: {peer}: {difference:?}, {error:?}\nin {asked:?} {}", input.escape_ascii());
        } else if theirs.len() > ours.len() {
            let error = error.expect("a difference otherwise");
            let is_meant = STRICTER.iter().any(|(meant, _)| *meant == error);
            assert!(is_meant, "{name}: {peer} goes on, here it is {error:?}\nin {asked:?} {}", input.escape_ascii());
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

fn announces_body(seen: &Seen) -> bool {
    seen.fields.iter().any(|(name, _)| matches!(name.as_str(), "content-length" | "transfer-encoding"))
}
