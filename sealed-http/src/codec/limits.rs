//! Size limits of requests and responses.

/// Maximum number of header fields in a head, whatever the limits are.
pub const HEADERS_MAX: usize = 64;

/// Size limits of a message. A message that exceeds a limit is refused as soon as this is known.
/// Take the fields that you do not set from [`Default`]: a minor version may add fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of the request line in bytes, without the line end. Beyond, or if the request
    /// line alone fills the head: 414. The status line of a response has the same limit. Default
    /// 8 KiB.
    pub request_line_bytes_max: usize,
    /// Maximum size of the head in bytes, including the request line and line ends. Beyond: 431.
    /// More than 4 GiB counts as 4 GiB. Default 16 KiB.
    pub head_bytes_max: usize,
    /// Maximum number of header fields, at most [`HEADERS_MAX`]. Beyond: 431. Default 64.
    pub headers_max: usize,
    /// Maximum size of the body in bytes, without chunk framing. Beyond: 413. Default 1 MiB.
    pub body_bytes_max: u64,
    /// Maximum size in bytes of a chunk line: the chunk size and extensions. Beyond: 400. Default
    /// 256.
    pub chunk_line_bytes_max: u16,
    /// Maximum size in bytes of the chunk extensions of a whole body, which are ignored. Beyond:
    /// 400. Default 4 KiB.
    pub chunk_extension_bytes_max: u16,
    /// Maximum size in bytes of the trailer section after the last chunk, including line ends.
    /// Beyond: 431. Default 4 KiB.
    pub trailer_bytes_max: u16,
    /// Whether CONNECT is passed to the handler, which can then turn the connection into a tunnel.
    /// Otherwise: 501. Default false.
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
