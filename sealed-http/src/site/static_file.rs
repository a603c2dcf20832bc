//! Files that are compiled into the program, and conditional requests for them.

use bytes::Bytes;

use crate::codec::head::RequestHead;
use crate::codec::response::Response;
use crate::site::conditions::{Conditions, Wanted};
use crate::site::problem::Problem;

/// A file that is compiled into the program. Everything that its responses need is computed once.
///
/// The file has a strong `ETag`: a client that sends it in `If-None-Match` receives 304 while the
/// file is unchanged. Responses carry `X-Content-Type-Options: nosniff`. The file is sent
/// completely and unmodified: ranges are not offered, and compression is left to a proxy.
///
/// # Example
/// ```
/// use sealed_http::Response;
/// use sealed_http::site::{Routes, StaticFile};
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
    /// Creates a file from these bytes. The type depends on the extension of `name`, in any case;
    /// text files count as UTF-8, and unknown extensions as `application/octet-stream`. By default,
    /// clients must revalidate the file on each use.
    pub fn new(name: &str, bytes: &'static [u8]) -> Self {
        Self { content_type: type_of(name), cache_control: "no-cache", etag: etag_of(bytes), bytes }
    }

    /// Sets the media type.
    ///
    /// # Panics
    /// If the type has control characters.
    #[must_use]
    pub fn with_type(mut self, content_type: &'static str) -> Self {
        self.content_type = checked("Content-Type", content_type);
        self
    }

    /// Sets the value of `Cache-Control`. Default `no-cache`. A file whose name changes with its
    /// content can use `public, max-age=31536000, immutable`.
    ///
    /// # Panics
    /// If the value has control characters.
    #[must_use]
    pub fn cache_control(mut self, directives: &'static str) -> Self {
        self.cache_control = checked("Cache-Control", directives);
        self
    }

    /// Returns the media type.
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// Returns the strong entity tag, including quotes. Files with the same bytes have the same tag
    /// in every build.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Returns the response to GET or HEAD: 200 with the file, 304 if the client already has it, or
    /// 412 if the client requires another version (`If-Match`). The method is not checked: see
    /// [`Routes`](crate::site::Routes).
    pub fn answer(&self, head: &RequestHead<'_>) -> Response {
        // RFC 9110, 13.2.2. The file has no modification date, so that conditions by date do not
        // apply.
        let wanted = Conditions::of(head).judge(Some(&self.etag), None, self.bytes.len() as u64);
        let tag = [("ETag", self.etag.clone())];
        match wanted {
            Wanted::Failed => {
                let problem = Problem::new(412).code("precondition_failed");
                return problem.detail("The file is not the one in If-Match.").into();
            }
            Wanted::NotModified => return Response::new(304).with(&tag).header("Cache-Control", self.cache_control),
            Wanted::Whole | Wanted::Part { .. } | Wanted::Unsatisfiable => {}
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

/// Returns the value of a header field that is fixed in the program.
///
/// # Panics
/// If the value has control characters: now, and not at each request.
pub(crate) fn checked(name: &'static str, value: &'static str) -> &'static str {
    drop(Response::new(200).header(name, value));
    value
}

/// Returns a tag made of the length and the FNV-1a hash of the bytes. The program's own files are
/// not made to collide, so that no cryptographic hash is needed. Unlike the standard library's
/// hashes, FNV-1a is the same in every build. The hashes of two files of equal length that differ
/// in one byte always differ, because each step of FNV-1a is reversible.
fn etag_of(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("\"{:x}-{hash:016x}\"", bytes.len())
}

pub(crate) fn type_of(name: &str) -> &'static str {
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
