//! Why a message is refused.

/// Why a request, or a response, cannot be decoded. The connection is to be closed: nothing behind the error can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The request line is not method, target and version with one space between.
    #[error("the request line is malformed")]
    RequestLine,
    /// The status line of a response is not version, status and reason.
    #[error("the status line is malformed")]
    StatusLine,
    /// The target is not in origin, absolute or asterisk form, or has bytes that a target cannot have.
    #[error("the request target is malformed")]
    Target,
    /// The version is well-formed, but neither 1.0 nor 1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    /// CONNECT is not served.
    #[error("CONNECT is not served here")]
    Connect,
    /// A line feed without carriage return, or the other way round.
    #[error("lines must end with CR LF, and neither may stand alone")]
    LineEnd,
    /// A header field is not `name: value`, is folded, or has control bytes.
    #[error("a header field is malformed")]
    Header,
    /// There is not exactly one Host, or it is not a host.
    #[error("the Host header field is missing, repeated or malformed")]
    Host,
    /// Content-Length is repeated, a list, or not a plain number.
    #[error("the Content-Length header field is malformed")]
    ContentLength,
    /// `chunked` is not the last transfer coding, is repeated or together with a length, or the version is 1.0.
    #[error("the Transfer-Encoding header field is not allowed here")]
    TransferEncoding,
    /// There is another transfer coding before `chunked`.
    #[error("the only transfer coding understood is chunked")]
    TransferCoding,
    /// A chunk's size, extension or end is malformed or too long, or a trailer field is malformed.
    #[error("the chunked body is malformed")]
    Chunk,
    /// Expect has another value than 100-continue.
    #[error("the expectation cannot be met")]
    Expectation,
    /// The request line is longer than the limit.
    #[error("the request line is too long")]
    RequestLineTooLong,
    /// The head is longer, or has more header fields, than the limits, or the trailer is longer.
    #[error("the header fields are too large")]
    HeadTooLarge,
    /// The body is longer than the limit.
    #[error("the body is too large")]
    BodyTooLarge,
    /// The connection ended within a message.
    #[error("the message was cut off")]
    Truncated,
    /// The request did not come in whole in time. The decoder never says this; servers do.
    #[error("the request took too long to arrive")]
    TimedOut,
    /// The decoder was used after it had refused a request.
    #[error("the connection carried a malformed request before")]
    Poisoned,
}

impl DecodeError {
    /// The status to answer with, for a server. A gateway answers 502 to what is wrong with a response.
    pub fn status(self) -> u16 {
        match self {
            Self::RequestLine
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

    /// A name that does not change, for whoever reads errors by program.
    pub fn code(self) -> &'static str {
        match self {
            Self::RequestLine => "bad_request_line",
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
