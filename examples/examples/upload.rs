//! Uploads of any length to files: a body is streamed, each piece is written on another thread, and
//! the client sends no faster than the disk takes the bytes.
//!
//! Try it: `cargo run -p examples --example upload -- 127.0.0.1:7777 /tmp`, then
//! `curl -T Cargo.lock 127.0.0.1:7777/`. The answer is the name of the file.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use sealed::{CloseReason, Config, ConnectionId, EventLoop, Workers};
use sealed_http::server::{Intake, Piece};
use sealed_http::{Handler, Http, Method, Problem, RequestHead, Response, Server, Settings};

struct Uploads {
    workers: Workers,
    folder: PathBuf,
    last: u64,
}

/// The upload of a connection.
#[derive(Default)]
struct Upload {
    name: String,
    file: Option<Arc<File>>,
    /// The file is being opened, or a piece is being written.
    is_busy: bool,
    /// The whole body has come.
    is_complete: bool,
}

/// What a thread has done.
enum Done {
    Opened(ConnectionId, io::Result<File>),
    Written(ConnectionId, io::Result<()>),
    Removed,
}

impl Uploads {
    /// Reads no more of a body until another thread is done.
    fn wait(http: &mut Http<'_, Self>, id: ConnectionId) {
        http.pause(id);
        if let Some(upload) = http.state_mut(id) {
            upload.is_busy = true;
        }
    }

    /// Removes a file that is incomplete.
    fn remove(&self, http: &mut Http<'_, Self>, upload: &Upload) {
        if upload.file.is_some() {
            let path = self.folder.join(&upload.name);
            let removed = http.offload(&self.workers, move |_| {
                if let Err(error) = std::fs::remove_file(&path) {
                    eprintln!("cannot remove {}: {error}", path.display());
                }
                Done::Removed
            });
            if removed.is_err() {
                eprintln!("{} is incomplete and stays", upload.name);
            }
        }
    }

    /// Goes on with a body, or responds if it is complete.
    fn go_on(&self, http: &mut Http<'_, Self>, id: ConnectionId, outcome: io::Result<()>) {
        let Some(upload) = http.state_mut(id) else { return };
        upload.is_busy = false;
        match outcome {
            Err(error) => {
                let upload = std::mem::take(upload);
                self.remove(http, &upload);
                let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                http.respond(id, &Problem::new(if full { 507 } else { 500 }).into());
            }
            Ok(()) if upload.is_complete => {
                let response = Response::new(201).body(format!("{}\n", upload.name));
                *upload = Upload::default();
                http.respond(id, &response);
            }
            Ok(()) => http.resume(id),
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
        self.last += 1;
        let name = format!("upload-{}", self.last);
        let path = self.folder.join(&name);
        let opened = http.offload_for(id, &self.workers, move |_| Done::Opened(id, File::create_new(path)));
        if opened.is_err() {
            return Intake::Refuse(Problem::new(503).into());
        }
        if let Some(upload) = http.state_mut(id) {
            *upload = Upload { name, ..Upload::default() };
        }
        Self::wait(http, id);
        Intake::Stream
    }

    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {
        let Some(upload) = http.state_mut(id) else { return };
        let Piece::Data(data) = piece else {
            // The end can come while the last piece is still being written.
            upload.is_complete = true;
            if !upload.is_busy {
                self.go_on(http, id, Ok(()));
            }
            return;
        };
        let Some(file) = upload.file.clone() else { return };
        let data = data.to_vec();
        let written = http.offload_for(id, &self.workers, move |_| Done::Written(id, (&*file).write_all(&data)));
        Self::wait(http, id);
        if written.is_err() {
            self.go_on(http, id, Err(io::ErrorKind::WouldBlock.into()));
        }
    }

    fn message(&mut self, http: &mut Http<'_, Self>, done: Done) {
        match done {
            Done::Opened(id, Ok(file)) => {
                if let Some(upload) = http.state_mut(id) {
                    upload.file = Some(Arc::new(file));
                }
                self.go_on(http, id, Ok(()));
            }
            Done::Opened(id, Err(error)) => self.go_on(http, id, Err(error)),
            Done::Written(id, outcome) => self.go_on(http, id, outcome),
            Done::Removed => {}
        }
    }

    fn closed(&mut self, http: &mut Http<'_, Self>, _: ConnectionId, upload: Upload, _: CloseReason) {
        // The client is gone before its upload was complete.
        self.remove(http, &upload);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let uploads = Uploads { workers: Workers::new(4, 1_000), folder, last: 0 };
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), uploads))?;
    println!("listening on {}", event_loop.listen(address)?);
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}
