//! Errors for which a message is refused.

/// The reason why a request or a response cannot be decoded. Close the connection: no bytes after
/// the error can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The request line is not a method, a target and a version, separated by single spaces.
    #[error("the request line is malformed")]
    RequestLine,
    /// The client speaks TLS, and the server reads plain HTTP.
    #[error("this is a TLS handshake, and plain HTTP is served here: use a URL with http://")]
    Tls,
    /// The status line of a response is not a version, a status and a reason.
    #[error("the status line is malformed")]
    StatusLine,
    /// The target is not in origin, absolute or asterisk form, or has bytes that no target may
    /// have.
    #[error("the request target is malformed")]
    Target,
    /// The version is well-formed, but neither 1.0 nor 1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are supported")]
    Version,
    /// The method is CONNECT, which is not served.
    #[error("CONNECT is not served here")]
    Connect,
    /// A line feed without a carriage return before it, or a carriage return without a line feed
    /// after it.
    #[error("lines must end with CR LF, and neither may stand alone")]
    LineEnd,
    /// A header field is not `name: value`, is folded, or has control bytes.
    #[error("a header field is malformed")]
    Header,
    /// The Host field is missing or repeated, or its value is not a host.
    #[error("the Host header field is missing, repeated or malformed")]
    Host,
    /// The Content-Length field is repeated, a list, or not a plain number.
    #[error("the Content-Length header field is malformed")]
    ContentLength,
    /// `chunked` is not the last transfer coding, is repeated, or is combined with Content-Length;
    /// or the version is 1.0.
    #[error("the Transfer-Encoding header field is not allowed here")]
    TransferEncoding,
    /// Another transfer coding precedes `chunked`.
    #[error("the only transfer coding understood is chunked")]
    TransferCoding,
    /// The size, extension or end of a chunk is malformed or too long, or a trailer field is
    /// malformed.
    #[error("the chunked body is malformed")]
    Chunk,
    /// The Expect field has another value than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
    /// The request line exceeds its limit.
    #[error("the request line is too long")]
    RequestLineTooLong,
    /// The head or the trailer section exceeds its limit, or the head has too many header fields.
    #[error("the header fields are too large")]
    HeadTooLarge,
    /// The body exceeds its limit.
    #[error("the body is too large")]
    BodyTooLarge,
    /// The connection ended within a message. Only
    /// [`ResponseDecoder::end`](crate::codec::ResponseDecoder::end) reports this.
    #[error("the message was cut off")]
    Truncated,
    /// The request did not arrive completely in time. Servers report this error; the decoder never
    /// does.
    #[error("the request took too long to arrive")]
    TimedOut,
    /// The decoder was called again after an error.
    #[error("the connection carried a malformed request before")]
    Poisoned,
}

impl DecodeError {
    /// Returns the status with which a server answers. A gateway answers 502 to a malformed
    /// response.
    pub fn status(self) -> u16 {
        match self {
            Self::RequestLine
            | Self::Tls
            | Self::StatusLine
            | Self::Truncated
            | Self::Target
            | Self::LineEnd
            | Self::Header
            | Self::Host
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::Chunk
            | Self::Poisoned => 400,
            Self::TimedOut => 408,
            Self::BodyTooLarge => 413,
            Self::RequestLineTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge => 431,
            Self::Connect | Self::TransferCoding => 501,
            Self::Version => 505,
        }
    }

    /// Returns a stable name of the error, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::RequestLine => "bad_request_line",
            Self::Tls => "tls_not_served",
            Self::StatusLine => "bad_status_line",
            Self::Truncated => "truncated",
            Self::Target => "bad_target",
            Self::LineEnd => "bad_line_end",
            Self::Header => "bad_header",
            Self::Host => "bad_host",
            Self::ContentLength => "bad_content_length",
            Self::TransferEncoding => "bad_transfer_encoding",
            Self::Chunk => "bad_chunk",
            Self::Poisoned => "bad_request",
            Self::TimedOut => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::RequestLineTooLong => "request_line_too_long",
            Self::Expectation => "bad_expectation",
            Self::HeadTooLarge => "head_too_large",
            Self::Connect => "connect_not_served",
            Self::TransferCoding => "unknown_transfer_coding",
            Self::Version => "unknown_version",
        }
    }
}
