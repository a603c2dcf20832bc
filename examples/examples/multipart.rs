//! Forms with files (`multipart/form-data`), parsed while they arrive. The crate `multer` has only
//! futures, but needs no runtime: a future on the loop parses each form, and gets the pieces of the
//! body through a queue.
//!
//! Try it: `cargo run -p examples --example multipart -- 127.0.0.1:7777`, then
//! `curl -F title=tea -F file=@Cargo.lock 127.0.0.1:7777/`. The answer lists the parts of the form.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::{Stream, StreamExt};
use multer::{Constraints, Error, Multipart, SizeLimit};
use sealed::{Bytes, Config, ConnectionId, EventLoop};
use sealed_http::server::{Intake, Piece};
use sealed_http::{Handler, Http, Problem, RequestHead, Response, Server, Settings};

/// Maximum length of a form. `multer` collects the header of a part until it is complete, so a
/// client can make it keep this much in memory.
const FORM_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Maximum number of parts in an answer.
const PARTS_MAX: usize = 100;

/// The body of a request, on its way from the connection to the future. The future takes all of it
/// in each tick, so no more waits than the loop reads in a tick
/// ([`Config::read_bytes_per_tick`]).
#[derive(Clone, Default)]
struct Body(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    is_complete: bool,
    waker: Option<Waker>,
}

impl Body {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece, or the end, and wakes the future.
    fn push(&self, piece: Option<Bytes>) {
        let mut queue = self.lock();
        queue.is_complete = piece.is_none();
        queue.pieces.extend(piece);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = self.lock();
        match queue.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(piece))),
            None if queue.is_complete => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Reads a form, and returns the list of its parts. A server that keeps the files sends each chunk
/// to another thread, as the example `upload` does.
async fn read(mut body: Body, boundary: String) -> Result<String, Error> {
    let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(FORM_BYTES_MAX));
    let mut form = Multipart::with_constraints(body.clone(), boundary, limits);
    let (mut list, mut parts) = (String::new(), 0);
    while let Some(mut part) = form.next_field().await? {
        let mut bytes = 0;
        while let Some(chunk) = part.chunk().await? {
            bytes += chunk.len();
        }
        parts += 1;
        if parts <= PARTS_MAX {
            let (name, file) = (part.name().unwrap_or_default(), part.file_name().unwrap_or_default());
            // Writing to a string never fails.
            let _ = writeln!(list, "{name:?} {file:?} {bytes}");
        }
    }
    // What follows the last part is ignored. Only after it can the connection be used again.
    while body.next().await.is_some() {}
    Ok(list)
}

fn problem(error: &Error) -> Problem {
    let status = if matches!(error, Error::StreamSizeExceeded { .. }) { 413 } else { 400 };
    Problem::new(status).detail(error.to_string())
}

struct Forms;

impl Handler for Forms {
    type Connection = Body;
    type Message = (ConnectionId, Result<String, Error>);
    type Timer = ();

    fn intake(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
        let boundary = head.header_str("Content-Type").and_then(|value| multer::parse_boundary(value).ok());
        let Some(boundary) = boundary else { return Intake::Refuse(Problem::new(415).into()) };
        let body = Body::default();
        if let Some(held) = http.state_mut(id) {
            *held = body.clone();
        }
        http.run_future_for(id, async move { (id, read(body, boundary).await) });
        Intake::Stream
    }

    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {
        let piece = match piece {
            Piece::Data(data) => Some(http.share(data)),
            Piece::End => None,
        };
        if let Some(body) = http.state(id) {
            body.push(piece);
        }
    }

    fn message(&mut self, http: &mut Http<'_, Self>, (id, outcome): Self::Message) {
        let response = outcome.map_or_else(|error| problem(&error).into(), |list| Response::new(200).body(list));
        http.respond(id, &response);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Forms))?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealed::sim::{Faults, Simulation};
    use testing::sim::Served;

    use super::*;

    const FIELDS: &str = "Content-Type: multipart/form-data; boundary=tea\r\n";

    fn form(file: &str) -> String {
        format!(
            "--tea\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\ngreen\r\n\
             --tea\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n{file}\r\n--tea--\r\n"
        )
    }

    fn post(fields: &str, body: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
    }

    fn served(sim: &Simulation) -> Served<Forms> {
        Served::on(sim, Config::default(), Settings::default(), Forms)
    }

    #[test]
    fn a_form_is_read_however_its_bytes_are_split() {
        sealed::sim::check(0..50, |sim| {
            sim.set_faults(Faults { short_read: 0.5, delay_max: Duration::from_millis(2), ..Faults::default() });
            let (forms, mut random) = (served(sim), sim.random(1));
            let mut peer = forms.connect();
            // Two on one connection. Line ends and dashes look like the beginning of a boundary.
            for length in [random.below(10), random.below(300_000)] {
                let file = "\r\n--te".repeat(length / 6 + 1);
                let request = post(FIELDS, &form(&file));
                let mut rest = request.as_bytes();
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at((1 + random.below(30_000)).min(rest.len()));
                    peer.send(piece);
                    sim.run_for(random.time(Duration::from_millis(3)));
                    rest = after;
                }
                peer.expect(format!("\r\n\r\n\"title\" \"\" 5\n\"file\" \"a.txt\" {}\n", file.len()));
            }
            drop(peer);
            sim.run_for(Duration::from_secs(10));
            assert_eq!(forms.act(|_, http| (http.connections(), http.futures())), (0, 0));
        });
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let sim = Simulation::new(1);
        let forms = served(&sim);
        let wrong_end = form("x").replace("--tea--\r\n", "");
        for (fields, body, status) in [
            (FIELDS, wrong_end.as_str(), 400),
            (FIELDS, &form(&"x".repeat(FORM_BYTES_MAX as usize)), 413),
            ("Content-Type: text/plain\r\n", "x", 415),
        ] {
            let mut peer = forms.connect();
            peer.send(post(fields, body));
            let answer = peer.expect("\r\n\r\n");
            assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{status}");
        }
    }
}
