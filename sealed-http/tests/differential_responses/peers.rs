//! The readers that are compared: this crate's decoder, hyper's client, and a plain reader that
//! uses httparse for tokens.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Version};
use sealed_http::codec::{Asked, DecodeError, Limits, ResponseDecoder, ResponseEvent, ResponseHead};

use crate::chunks;

/// A complete response, as a reader understood it. Interim responses are skipped.
///
/// Trailer fields are not a part of it: this crate checks and skips them. But their end decides
/// where the next response begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) version_minor: u8,
    /// Names in lower case, sorted; fields of one name in their order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// Returns the responses that this crate understands from the bytes of a connection: the complete
/// responses until one closes the connection, the bytes end, or an error occurs.
pub(crate) fn sealed(asked: &[Asked], mut input: &[u8], limits: &Limits) -> (Vec<Seen>, Option<DecodeError>) {
    let mut decoder = ResponseDecoder::new();
    let (mut whole, mut coming, mut keep_alive) = (Vec::new(), None, true);
    while let Some(asked) = asked.get(whole.len()).filter(|_| keep_alive || coming.is_some()) {
        let (taken, event) = match decoder.decode(input, *asked, limits) {
            Ok(found) => found,
            Err(error) => return (whole, Some(error)),
        };
        input = &input[taken..];
        match event {
            ResponseEvent::Incomplete => match decoder.end() {
                Ok(is_whole) => {
                    whole.extend(coming.take().filter(|_| is_whole));
                    break;
                }
                Err(error) => return (whole, Some(error)),
            },
            ResponseEvent::Interim(_) => {}
            ResponseEvent::Head(head) => {
                keep_alive = head.keep_alive();
                coming = Some(seen(&head));
            }
            ResponseEvent::Data(data) => {
                coming.as_mut().expect("data behind a head").body.extend_from_slice(data);
            }
            ResponseEvent::End | ResponseEvent::Switched => whole.extend(coming.take()),
        }
    }
    (whole, None)
}

fn seen(head: &ResponseHead<'_>) -> Seen {
    Seen {
        status: head.status(),
        version_minor: head.version_minor(),
        fields: sorted(head.headers()),
        body: Vec::new(),
    }
}

fn sorted<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// Returns the responses that hyper's client understands. There is no network, and nothing to wait
/// for: the client is polled until it has its response, and gets no byte more, because it closes a
/// connection on which bytes arrive that answer no request.
pub(crate) fn hyper(asked: &[Asked], input: &[u8]) -> Vec<Seen> {
    let wire = Wire(Arc::new(Mutex::new(Line { input: input.to_vec(), at: 0, may_take: 0 })));
    let mut context = Context::from_waker(Waker::noop());
    let mut making = http1::Builder::new();
    // hyper's limit of 100 fields also holds for trailer fields; this crate limits only the bytes
    // of those.
    let mut making = pin!(making.max_headers(1024).handshake(wire.clone()));
    let Poll::Ready(Ok((mut sender, connection))) = making.as_mut().poll(&mut context) else { panic!("a handshake") };
    let mut connection = pin!(connection);
    let mut whole = Vec::new();
    for asked in asked {
        // hyper reports here whether it considers the connection kept.
        if connection.as_mut().poll(&mut context).is_ready() || !sender.is_ready() {
            break;
        }
        let method = if *asked == Asked::Head { "HEAD" } else { "GET" };
        let request = Request::builder().method(method).uri("/").header("Host", "h").body(Nothing).expect("a request");
        let mut answer = pin!(collect(sender.send_request(request)));
        // hyper sends first, then reads.
        let mut is_over = connection.as_mut().poll(&mut context).is_ready();
        let outcome = loop {
            if let Poll::Ready(outcome) = answer.as_mut().poll(&mut context) {
                break outcome;
            }
            assert!(!is_over, "hyper is done without an outcome");
            wire.line().may_take = 1;
            is_over = connection.as_mut().poll(&mut context).is_ready();
            wire.line().may_take = 0;
        };
        let Ok(seen) = outcome else { break };
        whole.push(seen);
        let is_switched = whole.last().is_some_and(|seen| seen.status == 101);
        if is_over || is_switched {
            break;
        }
    }
    whole
}

async fn collect(answer: impl Future<Output = hyper::Result<Response<Incoming>>>) -> hyper::Result<Seen> {
    let (head, body) = answer.await?.into_parts();
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        bytes.extend(frame?.into_data().into_iter().flatten());
    }
    Ok(Seen {
        status: head.status.as_u16(),
        version_minor: u8::from(head.version == Version::HTTP_11),
        fields: sorted(head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))),
        body: bytes,
    })
}

/// A server that takes everything it is sent, and whose answers arrive as fast as the test lets
/// them through.
#[derive(Clone)]
struct Wire(Arc<Mutex<Line>>);

struct Line {
    input: Vec<u8>,
    at: usize,
    may_take: usize,
}

impl Wire {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().expect("one thread")
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        if line.may_take == 0 {
            return Poll::Pending;
        }
        let end = line.input.len().min(line.at + line.may_take.min(to.remaining()));
        to.put_slice(&line.input[line.at..end]);
        // A read at the end returns nothing, as often as it is repeated.
        line.may_take -= end - line.at;
        line.at = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The body of every request.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// Returns the responses that a plain reader understands: it accepts every token that httparse
/// accepts, and trusts the rest in the same way.
pub(crate) fn httparse(asked: &[Asked], mut input: &[u8]) -> Vec<Seen> {
    let mut whole = Vec::new();
    for asked in asked {
        let Some((seen, keep_alive, length)) = parse_response(*asked, input) else { break };
        input = &input[length..];
        whole.push(seen);
        if !keep_alive {
            break;
        }
    }
    whole
}

/// Parses a response. Returns the response, whether another may follow, and its length including
/// all interim responses before it.
fn parse_response(asked: Asked, input: &[u8]) -> Option<(Seen, bool, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_length) = response.parse(input).ok()? else { return None };
    let (status, version_minor) = (response.code?, response.version?);
    let behind = &input[head_length..];
    if (100..200).contains(&status) && status != 101 {
        let (seen, keep_alive, length) = parse_response(asked, behind)?;
        return Some((seen, keep_alive, head_length + length));
    }
    let field = |name: &'static str| {
        let named = response.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value)
    };
    let (body, body_length, has_end) = if asked == Asked::Head || matches!(status, 101 | 204 | 304) {
        (Vec::new(), 0, status != 101)
    } else if field("Transfer-Encoding").next().is_some() {
        let (body, length) = chunks::parse(behind)?;
        (body, length, true)
    } else if let Some(length) = field("Content-Length").next() {
        let length = std::str::from_utf8(length).ok()?.parse().ok()?;
        (behind.get(..length)?.to_vec(), length, true)
    } else {
        (behind.to_vec(), behind.len(), false)
    };
    let connection = field("Connection").collect::<Vec<_>>().join(&b',').to_ascii_lowercase();
    let has = |token: &[u8]| connection.split(|byte| *byte == b',').any(|held| held.trim_ascii() == token);
    let keep_alive = has_end && !has(b"close") && (version_minor > 0 || has(b"keep-alive"));
    let fields = sorted(response.headers.iter().map(|field| (field.name, field.value)));
    Some((Seen { status, version_minor, fields, body }, keep_alive, head_length + body_length))
}
