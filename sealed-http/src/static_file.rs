//! Files that are part of the program, and answers that spare a client what it has already.

use bytes::Bytes;

use crate::head::RequestHead;
use crate::problem::Problem;
use crate::response::Response;

/// A file that is part of the program, with all that its answers need made once.
///
/// It has a strong `ETag`, so that who asks again with `If-None-Match` is told 304 for as long as it has not changed,
/// and `X-Content-Type-Options: nosniff`. It is sent whole and as it is: ranges are not offered, and compression is a
/// proxy's.
///
/// # Example
/// ```
/// use sealed_http::{Response, Routes, StaticFile};
///
/// let style = StaticFile::new("style.css", b"body { color: black }").cache_control("public, max-age=3600");
/// assert_eq!(style.content_type(), "text/css; charset=utf-8");
/// // In a program: StaticFile::new("style.css", include_bytes!("style.css"))
/// let routes = Routes::new().get("/style.css", style);
/// ```
#[derive(Debug, Clone)]
pub struct StaticFile {
    content_type: &'static str,
    cache_control: &'static str,
    etag: String,
    bytes: &'static [u8],
}

impl StaticFile {
    /// A file of these bytes. Its type goes by what is behind the last dot of its name, in any case; text is taken for
    /// UTF-8, and what is not known for `application/octet-stream`. A client is to ask each time whether it has changed.
    pub fn new(name: &str, bytes: &'static [u8]) -> Self {
        Self { content_type: type_of(name), cache_control: "no-cache", etag: etag_of(bytes), bytes }
    }

    /// Sets the type.
    #[must_use]
    pub fn with_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    /// Sets `Cache-Control`, at first `no-cache`. A file whose name changes with its bytes can be
    /// `public, max-age=31536000, immutable`.
    #[must_use]
    pub fn cache_control(mut self, directives: &'static str) -> Self {
        self.cache_control = directives;
        self
    }

    /// Its type.
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// Its strong entity tag, quotes included. The same bytes have the same one in every build.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The answer to GET or HEAD: 200 with the file, 304 where the client has it, 412 where it wants another one
    /// (`If-Match`). It does not look at the method: see [`Routes`](crate::Routes).
    pub fn answer(&self, head: &RequestHead<'_>) -> Response {
        // RFC 9110, 13.2.2. There is no date of change, so that conditions by date do not count.
        if names(head, "if-match", |tag| tag == self.etag) == Some(false) {
            return Problem::new(412).code("precondition_failed").detail("The file is not the one in If-Match.").into();
        }
        let is_known = names(head, "if-none-match", |tag| tag.strip_prefix("W/").unwrap_or(tag) == self.etag);
        let tag = [("ETag", self.etag.clone())];
        if is_known == Some(true) {
            return Response::new(304).with(&tag).header("Cache-Control", self.cache_control);
        }
        Response::new(200)
            .header("Content-Type", self.content_type)
            .header("Cache-Control", self.cache_control)
            .with(&tag)
            .header("Accept-Ranges", "none")
            .header("X-Content-Type-Options", "nosniff")
            .body(Bytes::from_static(self.bytes))
    }
}

/// Whether header fields of that name have `*` or a tag that is wanted; `None` where there are none. What stands
/// behind something malformed is not looked at.
fn names(head: &RequestHead<'_>, field: &str, is_wanted: impl Fn(&str) -> bool) -> Option<bool> {
    let mut found = None;
    for (_, value) in head.headers().filter(|(name, _)| name.eq_ignore_ascii_case(field)) {
        let any = value.trim_ascii() == b"*";
        let hit = any || tags(value).any(|tag| std::str::from_utf8(tag).is_ok_and(&is_wanted));
        found = Some(found.unwrap_or(false) || hit);
    }
    found
}

/// The entity tags of a list, with `W/` and quotes. There may be commas within quotes.
fn tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let opening = if list.starts_with(b"W/") { 2 } else { 0 };
        let inside = list.get(opening..)?.strip_prefix(b"\"")?;
        let length = inside.iter().position(|byte| *byte == b'"')?;
        let (tag, rest) = list.split_at(opening + length + 2);
        // Only a comma separates two.
        list = match rest.trim_ascii_start() {
            rest @ ([] | [b',', ..]) => rest,
            _ => &[],
        };
        Some(tag)
    })
}

/// Length and FNV-1a of the bytes. The program's own files are not made to collide, so that it needs no cryptography;
/// it is the same in every build, unlike the standard library's hashes; and of two files of one length that differ in
/// one byte, it always differs, for each of its steps can be undone.
fn etag_of(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("\"{:x}-{hash:016x}\"", bytes.len())
}

fn type_of(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}
