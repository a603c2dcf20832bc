//! Sending a file piece by piece, as the client takes it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use sealed::{ConnectionId, WorkError, Workers, fault};

use crate::codec::response::Response;
use crate::server::http::Http;
use crate::site::connection::State;
use crate::site::directory::{Content, Directory, Found, Lookup};
use crate::site::problem::Problem;
use crate::site::{Site, Task};

/// The time after which a read is tried again if the queue of the workers is full.
const RETRY: Duration = Duration::from_millis(20);

/// A file that is being sent.
#[derive(Debug)]
pub(crate) struct Transfer {
    content: Content,
    workers: Workers,
    /// A piece is being read, or will be.
    is_reading: bool,
    /// Output that the client had not taken when this was last checked.
    queued: usize,
}

/// Answers a request for a file of a directory.
pub(crate) fn begin<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId, directory: &Directory, lookup: Lookup) {
    let workers = directory.workers.clone();
    let work = http.offload_for(id, &directory.workers, move |_| {
        let found = lookup.answer();
        Box::new(move |_: &mut S, http: &mut Http<'_, Site<S>>| send(http, id, found, workers)) as Task<S>
    });
    match work {
        Ok(_) | Err(WorkError::NotOpen) => {}
        Err(_) => {
            let problem = Problem::new(503).code("busy").detail("Too many files are being read.");
            http.respond(id, &Response::from(problem).header("Retry-After", "1"));
        }
    }
}

fn send<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId, found: Found, workers: Workers) {
    let (response, content) = match found {
        Found::Complete(response) => return http.respond(id, &response),
        Found::Streamed(response, content) => (response, content),
    };
    http.start_sized_stream(id, &response, content.left);
    // A response to HEAD is complete.
    if http.is_streaming(id) {
        if let Some(connection) = http.state_mut(id) {
            connection.begin(State::File(Transfer { content, workers, is_reading: false, queued: 0 }));
        }
        read(http, id);
    }
}

fn transfer<'a, S>(http: &'a mut Http<'_, Site<S>>, id: ConnectionId) -> Option<&'a mut Transfer> {
    http.state_mut(id)?.transfer()
}

/// Reads the next piece, unless one is being read.
pub(crate) fn read<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId) {
    let Some(transfer) = transfer(http, id).filter(|transfer| !transfer.is_reading) else { return };
    transfer.is_reading = true;
    let (content, workers) = (transfer.content.clone(), transfer.workers.clone());
    let work = http.offload_for(id, &workers, move |_| {
        let piece = content.read();
        Box::new(move |_: &mut S, http: &mut Http<'_, Site<S>>| write(http, id, piece)) as Task<S>
    });
    match work {
        Ok(_) => {}
        Err(WorkError::Full) if !fault!("full-workers-end-download") => {
            http.set_timer(RETRY, Box::new(move |_, http| read_again(http, id)));
        }
        Err(_) => http.reset(id),
    }
}

fn read_again<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId) {
    if let Some(transfer) = transfer(http, id) {
        transfer.is_reading = false;
        read(http, id);
    }
}

fn write<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId, piece: io::Result<Bytes>) {
    let Some(transfer) = transfer(http, id) else { return };
    transfer.is_reading = false;
    let piece = piece.unwrap_or_default();
    transfer.content.position += piece.len() as u64;
    transfer.content.left = transfer.content.left.saturating_sub(piece.len() as u64);
    let is_last = transfer.content.left == 0;
    if piece.is_empty() {
        // The file has become shorter, or cannot be read any more.
        return http.reset(id);
    }
    let has_room = http.write_bytes(id, piece) || fault!("file-read-ahead");
    if is_last {
        if let Some(connection) = http.state_mut(id) {
            connection.end();
        }
        return http.end_stream(id);
    }
    watch(http, id);
    if has_room {
        read(http, id);
    }
}

/// Sets the time within which the client has to take some of the output.
fn watch<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId) {
    let (queued, limit) = (http.queued(id), http.shared.settings.write_timeout);
    if let Some(transfer) = transfer(http, id) {
        transfer.queued = queued;
        http.set_deadline(id, limit);
    }
}

/// Ends a connection whose client has taken nothing of a file for too long.
pub(crate) fn timed_out<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId) {
    let queued = http.queued(id);
    match transfer(http, id) {
        // A client that has taken some of the output is slow, not dead.
        Some(transfer) if queued < transfer.queued || queued == 0 => {
            watch(http, id);
            if queued == 0 {
                read(http, id);
            }
        }
        _ => http.reset(id),
    }
}
