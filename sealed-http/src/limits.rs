//! How large a request may be.

/// Header fields that a head can hold at most, whatever the limits say.
pub const HEADERS_MAX: usize = 64;

/// What a request may be. What passes a limit is refused as soon as that can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line, its end not counted. Beyond, or where it alone fills the head: 414. Default 8 KiB.
    pub request_line_bytes_max: usize,
    /// Bytes of the head, request line and ends of lines included. Beyond: 431. More than 4 GiB counts as 4 GiB.
    /// Default 16 KiB.
    pub head_bytes_max: usize,
    /// Header fields, at most [`HEADERS_MAX`]. Beyond: 431. Default 64.
    pub headers_max: usize,
    /// Bytes of the body, chunk framing not counted. Beyond: 413. Default 1 MiB.
    pub body_bytes_max: u64,
    /// Bytes of one chunk's line, its size and extensions. Beyond: 400. Default 256.
    pub chunk_line_bytes_max: u16,
    /// Bytes of the extensions of all chunks of a body together, which nobody reads. Beyond: 400. Default 4 KiB.
    pub chunk_extension_bytes_max: u16,
    /// Bytes of the trailer fields behind the last chunk, ends of lines included. Beyond: 431. Default 4 KiB.
    pub trailer_bytes_max: u16,
    /// Whether CONNECT is let through, for whoever makes a tunnel of the connection. Otherwise: 501. Default false.
    pub connect_allowed: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line_bytes_max: 8 * 1024,
            head_bytes_max: 16 * 1024,
            headers_max: HEADERS_MAX,
            body_bytes_max: 1024 * 1024,
            chunk_line_bytes_max: 256,
            chunk_extension_bytes_max: 4 * 1024,
            trailer_bytes_max: 4 * 1024,
            connect_allowed: false,
        }
    }
}
