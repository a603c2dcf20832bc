//! Uploads of any length to files: a body is streamed, each piece is written on another thread, and
//! the client sends no faster than the disk takes the bytes.
//!
//! Try it: `cargo run -p examples --example upload -- 127.0.0.1:7777 /tmp`, then
//! `curl -T Cargo.lock 127.0.0.1:7777/`. The answer is the name of the file.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealed::{CloseReason, Config, ConnectionId, EventLoop, Workers};
use sealed_http::server::{Intake, Piece};
use sealed_http::{Handler, Http, Method, Problem, Request, RequestHead, Response, Server, Settings};

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
    /// The file is being opened, or a piece is being written.
    is_busy: bool,
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
    /// Reads no more of a body until another thread is done.
    fn wait(http: &mut Http<'_, Self>, id: ConnectionId) {
        http.pause(id);
        if let Some(upload) = http.state_mut(id) {
            upload.is_busy = true;
        }
    }

    /// Goes on with a body, or responds if it is complete.
    fn go_on(&self, http: &mut Http<'_, Self>, id: ConnectionId, outcome: io::Result<()>) {
        let Some(upload) = http.state_mut(id) else { return };
        upload.is_busy = false;
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
            *upload = Upload { name, ..Upload::default() };
        }
        Self::wait(http, id);
        Intake::Stream
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: &Request<'_>) {
        http.respond(id, &Problem::new(400).detail("The request has no body.").into());
    }

    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {
        let Some(upload) = http.state_mut(id) else { return };
        let Piece::Data(data) = piece else {
            // The end can come while the last piece is still being written.
            upload.has_all = true;
            if !upload.is_busy {
                self.go_on(http, id, Ok(()));
            }
            return;
        };
        let Some(partial) = upload.partial.clone() else { return };
        let data = data.to_vec();
        let written = http.offload_for(id, &self.workers, move |_| Done::Written(id, (&partial.file).write_all(&data)));
        Self::wait(http, id);
        if written.is_err() {
            self.go_on(http, id, Err(ErrorKind::WouldBlock.into()));
        }
    }

    fn message(&mut self, http: &mut Http<'_, Self>, done: Done) {
        match done {
            Done::Opened(id, Ok(partial)) => {
                if let Some(upload) = http.state_mut(id) {
                    upload.partial = Some(Arc::new(partial));
                }
                self.go_on(http, id, Ok(()));
            }
            Done::Opened(id, Err(error)) => self.go_on(http, id, Err(error)),
            Done::Written(id, outcome) => self.go_on(http, id, outcome),
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
    let uploads = Uploads { workers: Workers::new(4, 1_000), folder };
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), uploads))?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}
