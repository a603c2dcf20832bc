//! Files of a directory: which file a path names, and which response a request for it gets.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sealed::{Workers, fault};

use crate::codec::head::{Method, RequestHead};
use crate::codec::response::Response;
use crate::site::conditions::{Conditions, Wanted};
use crate::site::problem::Problem;
use crate::site::static_file::type_of;

/// A file up to this size is read when it is opened, and sent at once; a larger one is read piece by
/// piece, as the client takes it.
const PIECE_BYTES_MAX: u64 = 64 * 1024;

/// The codings of precompressed files, with the extensions of their names, best first.
const CODINGS: [(&str, &str); 3] = [("br", "br"), ("zstd", "zst"), ("gzip", "gz")];

/// A directory whose files a [`Site`](crate::Site) serves: see [`Site::directory`].
///
/// Files are opened and read on the threads of [`Workers`], never on the loop. At most 64 KiB of a
/// file are in memory for each response beyond what waits to be sent.
///
/// - **Paths.** A path names a regular file below the directory, also through symbolic links if
///   they lead to a place below it. Everything else is 404: `..`, names that begin with a dot
///   (except `/.well-known/`), pipes and devices. A path that ends in `/` names the
///   [index](Self::index) of that directory; a directory without the `/` is redirected to it, so
///   that relative links work. There are no listings.
/// - **Conditions and ranges.** Responses have a strong `ETag` made of size and time of change, and
///   `Last-Modified`; the conditions of RFC 9110 apply. A single range of bytes is 206 or 416;
///   several ranges get the whole file.
/// - **Types** depend on the extension, as for [`StaticFile`](super::StaticFile), with
///   `X-Content-Type-Options: nosniff`.
/// - **Precompressed files**, with [`precompressed`](Self::precompressed): for a client that accepts
///   it, `app.js.br`, `app.js.zst` or `app.js.gz` is sent in place of `app.js`, the first of these
///   that exists.
///
/// Replace a file by renaming another one to its name. A file that becomes shorter while it is sent
/// ends its connection with a reset, so that the client does not take it for complete.
///
/// # Example
/// ```no_run
/// use sealed::Workers;
/// use sealed_http::{Site, site::Directory};
///
/// let files = Directory::new("public", &Workers::new(4, 1_000))?.precompressed().cache_control("max-age=60");
/// Site::new(()).directory("/{path...}", files).run("127.0.0.1:8080")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Site::directory`]: crate::Site::directory
#[derive(Debug, Clone)]
pub struct Directory {
    root: Arc<Path>,
    pub(crate) workers: Workers,
    index: &'static str,
    cache_control: &'static str,
    is_precompressed: bool,
}

impl Directory {
    /// Makes the files below a directory available. Blocks for the time of a system call.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn new(root: impl AsRef<Path>, workers: &Workers) -> io::Result<Self> {
        let root = fs::canonicalize(root)?;
        if !root.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        let (root, workers) = (root.into(), workers.clone());
        Ok(Self { root, workers, index: "index.html", cache_control: "no-cache", is_precompressed: false })
    }

    /// Sets the name of the file that a directory is shown by. Default `index.html`.
    #[must_use]
    pub fn index(mut self, name: &'static str) -> Self {
        self.index = name;
        self
    }

    /// Sets the value of `Cache-Control`. Default `no-cache`: clients revalidate a file on each use.
    #[must_use]
    pub fn cache_control(mut self, directives: &'static str) -> Self {
        self.cache_control = directives;
        self
    }

    /// Sends precompressed files to clients that accept them.
    #[must_use]
    pub fn precompressed(mut self) -> Self {
        self.is_precompressed = true;
        self
    }

    /// Returns the lookup for a request. `path` is the part of the path below the directory,
    /// decoded.
    pub(crate) fn lookup(&self, head: &RequestHead<'_>, path: &str) -> Lookup {
        let codings = if self.is_precompressed { accepted(head) } else { [false; CODINGS.len()] };
        let query = head.query().map_or(String::new(), |query| format!("?{query}"));
        Lookup {
            directory: self.clone(),
            path: path.to_owned(),
            below: format!("{}/{query}", head.path()),
            is_head: head.method() == Method::Head,
            conditions: Conditions::of(head),
            codings,
        }
    }
}

/// A request for a file. It can be sent to another thread, where it is answered.
#[derive(Debug)]
pub(crate) struct Lookup {
    directory: Directory,
    path: String,
    /// Where a directory is redirected to.
    below: String,
    is_head: bool,
    conditions: Conditions,
    /// Which of the codings the client accepts.
    codings: [bool; CODINGS.len()],
}

/// The answer to a request for a file.
#[derive(Debug)]
pub(crate) enum Found {
    Complete(Response),
    /// A response whose body is the next bytes of a file.
    Streamed(Response, Content),
}

/// The part of a file that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    file: Arc<File>,
    pub(crate) position: u64,
    pub(crate) left: u64,
}

impl Content {
    /// Reads the next piece, and blocks meanwhile. Returns an empty piece if the file has become
    /// shorter.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        let mut piece = Vec::new();
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(self.position))?;
        file.take(self.left.min(PIECE_BYTES_MAX)).read_to_end(&mut piece)?;
        Ok(piece.into())
    }
}

/// A file that was found, with the coding of its content.
struct Chosen {
    file: File,
    metadata: Metadata,
    coding: Option<&'static str>,
    content_type: &'static str,
}

impl Lookup {
    /// Finds and opens the file, and blocks meanwhile.
    pub(crate) fn answer(self) -> Found {
        match self.choose() {
            Ok(Some(chosen)) => self.respond(chosen),
            Ok(None) => {
                let moved = Response::new(301).try_header("Location", self.below);
                Found::Complete(moved.unwrap_or_else(|_| failure(ErrorKind::NotFound)))
            }
            Err(error) => Found::Complete(failure(error.kind())),
        }
    }

    /// Returns the file to send; `None` if the path is that of a directory and lacks its `/`.
    fn choose(&self) -> io::Result<Option<Chosen>> {
        let Directory { root, index, .. } = &self.directory;
        let is_index = self.path.is_empty() || self.path.ends_with('/');
        let mut place = relative(&self.path).map(|path| root.join(path)).ok_or(ErrorKind::NotFound)?;
        if is_index {
            place.push(index);
        } else if fs::metadata(&place)?.is_dir() {
            return if place.join(index).is_file() { Ok(None) } else { Err(ErrorKind::NotFound.into()) };
        }
        let content_type = type_of(&place.to_string_lossy());
        for (coding, extension) in CODINGS.iter().zip(self.codings).filter_map(|(coding, is)| is.then_some(*coding)) {
            let mut compressed = place.clone().into_os_string();
            compressed.push(".");
            compressed.push(extension);
            if let Ok((file, metadata)) = open(root, &PathBuf::from(compressed)) {
                return Ok(Some(Chosen { file, metadata, coding: Some(coding), content_type }));
            }
        }
        let (file, metadata) = open(root, &place)?;
        Ok(Some(Chosen { file, metadata, coding: None, content_type }))
    }

    fn respond(self, chosen: Chosen) -> Found {
        let Chosen { file, metadata, coding, content_type } = chosen;
        let length = metadata.len();
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let tag = changed.map(|changed| {
            let suffix = coding.map_or(String::new(), |coding| format!("-{coding}"));
            format!("\"{length:x}-{:x}{suffix}\"", changed.as_nanos())
        });
        // A date in HTTP has full seconds.
        let date = changed.map(|changed| SystemTime::UNIX_EPOCH + Duration::from_secs(changed.as_secs()));
        let fields: Vec<_> = tag
            .iter()
            .map(|tag| ("ETag", tag.clone()))
            .chain(date.map(|date| ("Last-Modified", httpdate::fmt_http_date(date))))
            .collect();
        let with_fields = |response: Response| {
            let response = response.with(&fields).header("Cache-Control", self.directory.cache_control);
            if self.directory.is_precompressed { response.header("Vary", "Accept-Encoding") } else { response }
        };
        let wanted = self.conditions.judge(tag.as_deref(), date, length);
        let (status, first, count) = match wanted {
            Wanted::NotModified => return Found::Complete(with_fields(Response::new(304))),
            Wanted::Failed => {
                return Found::Complete(failure_with(412, "precondition_failed", "The file has changed."));
            }
            Wanted::Unsatisfiable if !self.is_head => {
                let response = failure_with(416, "range_not_satisfiable", "The file ends before the range.");
                return Found::Complete(response.with(&[("Content-Range", format!("bytes */{length}"))]));
            }
            Wanted::Part { first, last } if !self.is_head => (206, first, last - first + 1),
            _ => (200, 0, length),
        };
        let mut response = with_fields(Response::new(status))
            .header("Content-Type", content_type)
            .header("Accept-Ranges", "bytes")
            .header("X-Content-Type-Options", "nosniff");
        if let Some(coding) = coding {
            response = response.header("Content-Encoding", coding);
        }
        if status == 206 && !fault!("range-not-named") {
            response = response.with(&[("Content-Range", format!("bytes {first}-{}/{length}", first + count - 1))]);
        }
        let content = Content { file: Arc::new(file), position: first, left: count };
        if count > PIECE_BYTES_MAX || self.is_head {
            return Found::Streamed(response, content);
        }
        match content.read() {
            Ok(bytes) if bytes.len() as u64 == count => Found::Complete(response.body(bytes)),
            Ok(_) => Found::Complete(failure(ErrorKind::UnexpectedEof)),
            Err(error) => Found::Complete(failure(error.kind())),
        }
    }
}

/// Returns the path of a file relative to the directory; `None` if no such file is served.
fn relative(path: &str) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(relative);
    }
    for (index, segment) in path.split('/').enumerate() {
        let is_hidden = segment.starts_with('.') && !(index == 0 && segment == ".well-known");
        let mut parts = Path::new(segment).components();
        // Some systems separate names by other characters too, or have names of devices.
        let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == segment);
        let is_allowed = is_name && !is_hidden || fault!("path-not-checked");
        if !is_allowed || segment.contains('\0') {
            return None;
        }
        relative.push(segment);
    }
    Some(relative)
}

/// Opens a regular file, if it is below `root` once all links are followed.
fn open(root: &Path, place: &Path) -> io::Result<(File, Metadata)> {
    let place = fs::canonicalize(place)?;
    // Opening a pipe would block until somebody writes to it.
    let is_served = place.starts_with(root) || fault!("links-lead-out");
    if !is_served || !fs::metadata(&place)?.is_file() {
        return Err(ErrorKind::NotFound.into());
    }
    let file = File::open(place)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// Returns which of the codings a client accepts.
fn accepted(head: &RequestHead<'_>) -> [bool; CODINGS.len()] {
    let mut accepted = [false; CODINGS.len()];
    let fields = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("accept-encoding"));
    for item in fields.filter_map(|(_, value)| std::str::from_utf8(value).ok()).flat_map(|value| value.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.split_once('=').map_or(Some(1.0), |(_, weight)| weight.trim().parse::<f32>().ok());
        for (is_accepted, (coding, _)) in accepted.iter_mut().zip(CODINGS) {
            if name.trim().eq_ignore_ascii_case(coding) {
                *is_accepted = weight.is_some_and(|weight| weight > 0.0);
            }
        }
    }
    accepted
}

/// Returns the response for a file that cannot be opened or read.
fn failure(kind: ErrorKind) -> Response {
    match kind {
        ErrorKind::PermissionDenied => failure_with(403, "forbidden", "The file cannot be read."),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            failure_with(404, "not_found", "There is nothing at this path.")
        }
        _ => failure_with(500, "unreadable", "The file could not be read."),
    }
}

fn failure_with(status: u16, code: &'static str, detail: &'static str) -> Response {
    Problem::new(status).code(code).detail(detail).into()
}
