//! A site made of pages: paths with parameters, a form, a file, errors as problem details, and an
//! answer that comes later.
//!
//! Try it: `cargo run -p examples --example site`, then open <http://127.0.0.1:7777/>, or:
//!
//!     curl -i -d 'text=milk' 127.0.0.1:7777/notes
//!     curl 127.0.0.1:7777/notes/0
//!     curl -i -X PUT 127.0.0.1:7777/notes
//!     curl 127.0.0.1:7777/wait/5

use std::time::Duration;

use sealed::{Config, EventLoop};
use sealed_http::site::{Params, StaticFile};
use sealed_http::{Method, Problem, Request, Response, Server, Settings, Site};

/// Maximum number of bytes of a note.
const NOTE_BYTES_MAX: usize = 1_000;

/// Maximum number of notes.
const NOTES_MAX: usize = 1_000;

const HOME: &[u8] =
    b"<!doctype html><title>Notes</title><form method=post action=/notes><input name=text autofocus></form>";

type Notes = Vec<String>;

fn list(notes: &Notes) -> String {
    let lines: Vec<_> = notes.iter().enumerate().map(|(number, note)| format!("{number}: {note}\n")).collect();
    lines.concat()
}

fn show(notes: &mut Notes, _: &Request<'_>, params: &Params<'_>) -> Result<String, Problem> {
    let note = params["number"].parse().ok().and_then(|number: usize| notes.get(number));
    note.map(|note| format!("{note}\n")).ok_or_else(|| Problem::new(404).detail("There is no note of that number."))
}

fn add(notes: &mut Notes, request: &Request<'_>, _: &Params<'_>) -> Result<Response, Problem> {
    let text = request.form()?.get("text")?.unwrap_or_default().into_owned();
    if text.is_empty() || text.len() > NOTE_BYTES_MAX {
        return Err(Problem::new(422).detail("A note is 1 to 1,000 bytes.").member("bytes_max", 1_000));
    }
    if notes.len() == NOTES_MAX {
        return Err(Problem::new(503).detail("There are as many notes as there may be."));
    }
    notes.push(text);
    Ok(Response::new(303).header("Location", "/notes"))
}

fn main() -> sealed::Result<()> {
    let site = Site::new(Notes::new())
        .file("/", StaticFile::new("home.html", HOME))
        .file("/source", StaticFile::new("site.txt", include_bytes!("site.rs")))
        .get("/notes", |notes, _, _| list(notes))
        .post("/notes", add)
        .get("/notes/{number}", show)
        .hold(Method::Get, "/wait/{seconds}", |_, http, id, _, params| {
            let seconds = params["seconds"].parse().unwrap_or(1).min(10);
            let wait = Duration::from_secs(seconds);
            http.set_timer(wait, Box::new(move |notes, http| http.respond(id, &list(notes).into())));
        });
    // `site.run("127.0.0.1:7777")` does the same, but does not report its address.
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), site))?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
