//! The readers that are compared: this crate's decoder, hyper's server, and a plain reader that
//! uses httparse for tokens. A fuzz target includes this file too.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use sealed_http::RequestHead;
use sealed_http::codec::{DecodeError, Event, Limits, RequestDecoder};

use crate::chunks;

/// A complete request, as a reader understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) version_minor: u8,
    /// Names in lower case, sorted; fields of one name in their order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// Returns the requests that this crate understands from the bytes of a connection: the complete
/// requests until one closes the connection, the bytes end, or an error occurs.
pub(crate) fn sealed(mut input: &[u8], limits: &Limits) -> (Vec<Seen>, Option<DecodeError>) {
    let mut decoder = RequestDecoder::new();
    let (mut whole, mut coming, mut keep_alive) = (Vec::new(), None, true);
    while keep_alive || coming.is_some() {
        let (taken, event) = match decoder.decode(input, limits) {
            Ok(found) => found,
            Err(error) => return (whole, Some(error)),
        };
        input = &input[taken..];
        match event {
            Event::Incomplete => break,
            Event::Head(head) => {
                keep_alive = head.keep_alive();
                coming = Some(seen(&head));
            }
            Event::Data(data) => coming.as_mut().expect("data behind a head").body.extend_from_slice(data),
            Event::End => whole.extend(coming.take()),
        }
    }
    (whole, None)
}

fn seen(head: &RequestHead<'_>) -> Seen {
    Seen {
        method: head.method_name().to_owned(),
        path: head.path().to_owned(),
        query: head.query().map(str::to_owned),
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

/// Returns the requests that hyper's server understands. There is no network, and nothing to wait
/// for: the server is polled until it is done.
pub(crate) fn hyper(input: &[u8]) -> Vec<Seen> {
    let whole = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request| {
        let whole = Arc::clone(&whole);
        async move {
            let seen = collect(request).await?;
            whole.lock().expect("one thread").push(seen);
            Ok::<_, hyper::Error>(Response::new(Nothing))
        }
    });
    let wire = Wire(input.iter().copied().collect());
    let mut server = http1::Builder::new();
    // hyper's limit of 100 fields also holds for trailer fields; this crate limits only the bytes
    // of those.
    server.half_close(true).max_headers(1024);
    let mut connection = pin!(server.serve_connection(wire, service));
    let mut context = Context::from_waker(Waker::noop());
    let is_over = (0..10_000).any(|_| connection.as_mut().poll(&mut context).is_ready());
    assert!(is_over, "hyper waits for something");
    std::mem::take(&mut *whole.lock().expect("one thread"))
}

async fn collect(request: Request<Incoming>) -> Result<Seen, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        bytes.extend(frame?.into_data().into_iter().flatten());
    }
    Ok(Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        version_minor: u8::from(head.version == Version::HTTP_11),
        fields: sorted(head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))),
        body: bytes,
    })
}

/// A client that has sent everything, and reads whatever comes.
struct Wire(VecDeque<u8>);

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let length = to.remaining().min(self.0.len());
        let bytes: Vec<u8> = self.0.drain(..length).collect();
        to.put_slice(&bytes);
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

/// The body of every answer.
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

/// Returns the requests that a plain reader understands: it accepts every token that httparse
/// accepts, and trusts the rest in the same way.
pub(crate) fn httparse(mut input: &[u8]) -> Vec<Seen> {
    let mut whole = Vec::new();
    while let Some((seen, keep_alive, length)) = parse_request(input) {
        input = &input[length..];
        whole.push(seen);
        if !keep_alive {
            break;
        }
    }
    whole
}

/// Parses a request. Returns the request, whether another may follow, and its length.
fn parse_request(input: &[u8]) -> Option<(Seen, bool, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head_length) = request.parse(input).ok()? else { return None };
    let target = request.path?;
    let local = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => &rest[rest.find(['/', '?']).unwrap_or(rest.len())..],
        _ => target,
    };
    let (path, query) = local.split_once('?').map_or((local, None), |(path, query)| (path, Some(query.to_owned())));
    let path = match request.method? {
        // RFC 9110, 7.1.
        "OPTIONS" if path.is_empty() && query.is_none() => "*",
        _ if path.is_empty() => "/",
        _ => path,
    };
    let field = |name: &'static str| {
        let named = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value)
    };
    let behind = &input[head_length..];
    let (body, body_length) = if field("Transfer-Encoding").next().is_some() {
        chunks::parse(behind)?
    } else if let Some(length) = field("Content-Length").next() {
        let length = std::str::from_utf8(length).ok()?.parse().ok()?;
        (behind.get(..length)?.to_vec(), length)
    } else {
        (Vec::new(), 0)
    };
    let connection = field("Connection").collect::<Vec<_>>().join(&b',').to_ascii_lowercase();
    let has = |token: &[u8]| connection.split(|byte| *byte == b',').any(|held| held.trim_ascii() == token);
    let version_minor = request.version?;
    let seen = Seen {
        method: request.method?.to_owned(),
        path: path.to_owned(),
        query,
        version_minor,
        fields: sorted(request.headers.iter().map(|field| (field.name, field.value))),
        body,
    };
    Some((seen, !has(b"close") && (version_minor > 0 || has(b"keep-alive")), head_length + body_length))
}
