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
use crate::site::query::decode_segment;
use crate::site::static_file::{checked, type_of};

/// A file up to this size is read when it is opened, and sent at once; a larger one is read piece
/// by piece, as the client takes it.
const PIECE_BYTES_MAX: u64 = 64 * 1024;

/// The beginning of the year 10000.
const YEAR_10000_S: u64 = 253_402_300_800;

/// The codings of precompressed files, with the extensions of their names, best first.
const CODINGS: [(&str, &str); 3] = [("br", "br"), ("zstd", "zst"), ("gzip", "gz")];

/// A directory whose files a [`Site`](crate::Site) serves: see [`Site::directory`]. Requires the
/// feature `files`.
///
/// Files are opened and read on the threads of [`Workers`], never on the loop. At most 64 KiB of a
/// file are in memory for each response beyond what waits to be sent.
///
/// - **Paths.** A path names a regular file below the directory, also through symbolic links if
///   they lead to a place below it. Everything else is 404: `..`, names that begin with a dot
///   (except `/.well-known/`), pipes and devices. A file that the process may not read is 403, and
///   one that cannot be read for another reason 500. An escaped `/`, and escapes of characters that
///   need none, are 404 too, so that no other spelling of a path evades a route for a part of the
///   directory. A path that ends in `/` names the [index](Self::index) of that directory; a
///   directory without the `/` is redirected to it, so that relative links work. There are no
///   listings. Nothing outside is opened even while links or directories are being replaced,
///   except on Windows.
/// - **Conditions and ranges.** Responses have a strong `ETag` made of size and time of change, and
///   `Last-Modified`; the conditions of RFC 9110 apply. A single range of bytes is 206 or 416;
///   several ranges, and a date in `If-Range`, get the whole file.
/// - **Types** depend on the extension, as for [`StaticFile`](super::StaticFile), with
///   `X-Content-Type-Options: nosniff`.
/// - **Precompressed files**, with [`precompressed`](Self::precompressed): for a client that
///   accepts it, `app.js.br`, `app.js.zst` or `app.js.gz` is sent in place of `app.js`, the first
///   of these that exists. `app.js` itself need not exist.
///
/// A route for another method does not hide the files: with a page for POST at `/api` beside a
/// directory at `/{path...}`, GET of `/api` is answered from the directory.
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
    /// Makes the files below a directory available. Blocks while the file system resolves the path.
    ///
    /// # Errors
    /// If there is no such directory. The error names it.
    pub fn new(root: impl AsRef<Path>, workers: &Workers) -> io::Result<Self> {
        let name = root.as_ref().display();
        let root = fs::canonicalize(&root).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        if !root.is_dir() {
            return Err(io::Error::new(ErrorKind::NotADirectory, format!("{name}: not a directory")));
        }
        let (root, workers) = (root.into(), workers.clone());
        Ok(Self { root, workers, index: "index.html", cache_control: "no-cache", is_precompressed: false })
    }

    /// Sets the name of the file that is served for a path that ends in `/`. Default `index.html`.
    #[must_use]
    pub fn index(mut self, name: &'static str) -> Self {
        self.index = name;
        self
    }

    /// Sets the value of `Cache-Control`. Default `no-cache`: clients revalidate a file on each
    /// use.
    ///
    /// # Panics
    /// If the value has control characters.
    #[must_use]
    pub fn cache_control(mut self, directives: &'static str) -> Self {
        self.cache_control = checked("Cache-Control", directives);
        self
    }

    /// Sends precompressed files to clients that accept them.
    #[must_use]
    pub fn precompressed(mut self) -> Self {
        self.is_precompressed = true;
        self
    }

    /// Returns the lookup for a request. `path` is the part of the path below the directory, as it
    /// was sent.
    pub(crate) fn lookup(&self, head: &RequestHead<'_>, path: &str) -> Lookup {
        let codings = if self.is_precompressed { accepted(head) } else { [false; CODINGS.len()] };
        let query = head.query().map_or(String::new(), |query| format!("?{query}"));
        Lookup {
            directory: self.clone(),
            path: path.to_owned(),
            // It is relative: a path can contain characters that browsers take for a host.
            below: format!("./{}/{query}", path.rsplit_once('/').map_or(path, |(_, last)| last)),
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
        let place = relative(&self.path).map(|path| root.join(path)).ok_or(ErrorKind::NotFound)?;
        if self.path.is_empty() || self.path.ends_with('/') {
            return self.choose_coding(&place.join(index)).map(Some);
        }
        if let Ok(Opened::Directory) = open(root, &place) {
            return self.choose_coding(&place.join(index)).map(|_| None);
        }
        self.choose_coding(&place).map(Some)
    }

    /// Opens a file in the best coding that the client accepts.
    fn choose_coding(&self, place: &Path) -> io::Result<Chosen> {
        let root = &self.directory.root;
        let content_type = type_of(&place.to_string_lossy());
        for (coding, extension) in CODINGS.iter().zip(self.codings).filter_map(|(coding, is)| is.then_some(*coding)) {
            let mut compressed = place.as_os_str().to_owned();
            compressed.push(".");
            compressed.push(extension);
            if let Ok(Opened::File(file, metadata)) = open(root, Path::new(&compressed)) {
                return Ok(Chosen { file, metadata, coding: Some(coding), content_type });
            }
        }
        match open(root, place)? {
            Opened::File(file, metadata) => Ok(Chosen { file, metadata, coding: None, content_type }),
            Opened::Directory => Err(ErrorKind::NotFound.into()),
        }
    }

    fn respond(self, chosen: Chosen) -> Found {
        let Chosen { file, metadata, coding, content_type } = chosen;
        let length = metadata.len();
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let tag = changed.map(|changed| {
            let suffix = coding.map_or(String::new(), |coding| format!("-{coding}"));
            format!("\"{length:x}-{:x}{suffix}\"", changed.as_nanos())
        });
        // A date in HTTP has full seconds, and a year of four digits.
        let seconds = changed.map(|changed| changed.as_secs()).filter(|seconds| *seconds < YEAR_10000_S);
        let date = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
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
    if path.is_empty() {
        return Some(relative);
    }
    for (index, escaped) in path.strip_suffix('/').unwrap_or(path).split('/').enumerate() {
        let segment = decode_segment(escaped).ok()?;
        let is_hidden = segment.starts_with('.') && !(index == 0 && segment == ".well-known");
        let mut parts = Path::new(&*segment).components();
        // Some systems separate names by other characters too, or have names of devices.
        let is_name =
            matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == &*segment);
        let is_allowed = is_name && !is_hidden && !is_disguised(escaped) || fault!("path-not-checked");
        if !is_allowed || segment.contains('\0') {
            return None;
        }
        relative.push(&*segment);
    }
    Some(relative)
}

/// Returns whether a segment escapes a character that needs no escape (RFC 3986, 2.3).
fn is_disguised(escaped: &str) -> bool {
    escaped.split('%').skip(1).any(|rest| {
        let code = rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        code.is_none_or(|code| code.is_ascii_alphanumeric() || b"-._~".contains(&code))
    })
}

/// What is at a place.
enum Opened {
    File(File, Metadata),
    Directory,
}

/// Opens a regular file or a directory, if it is below `root` once all links are followed.
fn open(root: &Path, place: &Path) -> io::Result<Opened> {
    let is_forbidden = |kind| kind == ErrorKind::PermissionDenied;
    let place = fs::canonicalize(place)
        .map_err(|error| if is_forbidden(error.kind()) { error } else { ErrorKind::NotFound.into() })?;
    let below = match place.strip_prefix(root) {
        Ok(below) => below,
        Err(_) if fault!("links-lead-out") => &place,
        Err(_) => return Err(ErrorKind::NotFound.into()),
    };
    #[cfg(not(unix))]
    if fs::metadata(&place)?.is_dir() {
        // A directory cannot be opened there.
        return Ok(Opened::Directory);
    }
    let file = open_below(root, below)?;
    let metadata = file.metadata()?;
    match metadata.file_type() {
        kind if kind.is_file() => Ok(Opened::File(file, metadata)),
        kind if kind.is_dir() => Ok(Opened::Directory),
        _ => Err(ErrorKind::NotFound.into()),
    }
}

/// Opens what is at a path without links below `root`. A link on the way has just been put there,
/// and is not followed; a pipe does not block.
#[cfg(unix)]
fn open_below(root: &Path, below: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open, openat};

    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut found = open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    for name in below {
        found = openat(&found, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|error| match error {
            // A link, or a socket.
            rustix::io::Errno::LOOP | rustix::io::Errno::NXIO => ErrorKind::NotFound.into(),
            error => io::Error::from(error),
        })?;
    }
    Ok(found.into())
}

#[cfg(not(unix))]
fn open_below(root: &Path, below: &Path) -> io::Result<File> {
    File::open(root.join(below))
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
