//! Uploads of any length to files: a body is streamed, its pieces are written on another thread
//! without being copied, and the client sends no faster than the disk takes the bytes.
//!
//! Try it: `cargo run -p examples --example upload -- 127.0.0.1:7777 /tmp`, then
//! `curl -T Cargo.lock 127.0.0.1:7777/`. The answer is the name of the file.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealed::{Bytes, CloseReason, Config, ConnectionId, EventLoop, Workers};
use sealed_http::server::{Intake, Piece};
use sealed_http::{Handler, Http, Method, Problem, Request, RequestHead, Response, Server, Settings};

/// With this many bytes waiting, no more of a body is read.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What a piece takes besides its bytes: a client may send them one by one.
const PIECE_BYTES: usize = 128;

struct Uploads {
    workers: Workers,
    folder: PathBuf,
}

/// A file that is being written. It is removed when it is dropped before it is complete, on
/// whichever thread has it.
struct Partial {
    file: File,
    path: PathBuf,
    is_complete: AtomicBool,
}

impl Partial {
    fn create(path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: File::create_new(&path)?, path, is_complete: AtomicBool::new(false) })
    }

    /// Writes pieces together: one large write costs the kernel less than several small ones.
    fn write(&self, pieces: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match (&self.file).write_vectored(left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut left, count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_complete.load(Ordering::Relaxed)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The upload of a connection.
#[derive(Default)]
struct Upload {
    name: String,
    partial: Option<Arc<Partial>>,
    /// The file is being opened, or pieces are being written.
    is_busy: bool,
    /// Pieces that are to be written next, together.
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    /// The whole body has come.
    has_all: bool,
}

/// What a thread has done.
enum Done {
    Opened(ConnectionId, io::Result<Partial>),
    Written(ConnectionId, io::Result<()>),
    Dropped,
}

impl Uploads {
    /// Writes the pieces that wait, unless others are being written. Responds if the body is
    /// complete.
    fn go_on(&self, http: &mut Http<'_, Self>, id: ConnectionId, mut outcome: io::Result<()>) {
        let Some(upload) = http.state_mut(id) else { return };
        if upload.is_busy && outcome.is_ok() {
            return;
        }
        if let Some(partial) = upload.partial.clone().filter(|_| outcome.is_ok() && !upload.waiting.is_empty()) {
            upload.is_busy = true;
            upload.waiting_bytes = 0;
            let pieces = std::mem::take(&mut upload.waiting);
            let written = http.offload_for(id, &self.workers, move |_| Done::Written(id, partial.write(&pieces)));
            match written {
                Ok(_) => return http.resume(id),
                Err(_) => outcome = Err(ErrorKind::WouldBlock.into()),
            }
        }
        let Some(upload) = http.state_mut(id) else { return };
        match outcome {
            Err(error) => {
                let upload = std::mem::take(upload);
                self.drop_elsewhere(http, upload);
                let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
                http.respond(id, &Problem::new(if is_full { 507 } else { 500 }).into());
            }
            Ok(()) if upload.has_all => {
                let upload = std::mem::take(upload);
                if let Some(partial) = &upload.partial {
                    partial.is_complete.store(true, Ordering::Relaxed);
                }
                http.respond(id, &Response::new(201).body(format!("{}\n", upload.name)));
            }
            Ok(()) => http.resume(id),
        }
    }

    /// Goes on with an upload for which another thread has done its work.
    fn done(&self, http: &mut Http<'_, Self>, id: ConnectionId, outcome: io::Result<()>) {
        if let Some(upload) = http.state_mut(id) {
            upload.is_busy = false;
        }
        self.go_on(http, id, outcome);
    }

    /// Removes an incomplete file without blocking the loop, if the workers have room.
    fn drop_elsewhere(&self, http: &mut Http<'_, Self>, upload: Upload) {
        let Some(partial) = upload.partial else { return };
        let dropped = http.offload(&self.workers, move |_| {
            drop(partial);
            Done::Dropped
        });
        if let Err(error) = dropped {
            eprintln!("{}: removed on the loop: {error}", upload.name);
        }
    }
}

impl Handler for Uploads {
    type Connection = Upload;
    type Message = Done;
    type Timer = ();

    fn intake(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
        if !matches!(head.method(), Method::Put | Method::Post) {
            return Intake::Refuse(Problem::new(405).into());
        }
        let name = format!("upload-{:016x}", http.random());
        let path = self.folder.join(&name);
        let opened = http.offload_for(id, &self.workers, move |_| Done::Opened(id, Partial::create(path)));
        if opened.is_err() {
            return Intake::Refuse(Problem::new(503).into());
        }
        if let Some(upload) = http.state_mut(id) {
            *upload = Upload { name, is_busy: true, ..Upload::default() };
        }
        Intake::Stream
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: &Request<'_>) {
        http.respond(id, &Problem::new(400).detail("The request has no body.").into());
    }

    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {
        let data = match piece {
            Piece::Data(data) => Some(http.share(data)),
            Piece::End => None,
        };
        let Some(upload) = http.state_mut(id) else { return };
        // The end can come while the last pieces are still being written.
        upload.has_all = data.is_none();
        upload.waiting_bytes += data.as_ref().map_or(0, |data| data.len() + PIECE_BYTES);
        upload.waiting.extend(data);
        if upload.waiting_bytes >= WAITING_BYTES_MAX {
            http.pause(id);
        }
        self.go_on(http, id, Ok(()));
    }

    fn message(&mut self, http: &mut Http<'_, Self>, done: Done) {
        match done {
            Done::Opened(id, opened) => {
                let outcome = opened.map(|partial| {
                    if let Some(upload) = http.state_mut(id) {
                        upload.partial = Some(Arc::new(partial));
                    }
                });
                self.done(http, id, outcome);
            }
            Done::Written(id, outcome) => self.done(http, id, outcome),
            Done::Dropped => {}
        }
    }

    fn closed(&mut self, http: &mut Http<'_, Self>, _: ConnectionId, upload: Upload, _: CloseReason) {
        // Nothing is left here if the upload was complete.
        self.drop_elsewhere(http, upload);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    serve(&address, folder)
}

/// Serves uploads until a signal. The benchmark `upload` calls this too.
pub(crate) fn serve(address: &str, folder: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let uploads = Uploads { workers: Workers::new(4, 1_000), folder };
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), uploads))?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}
