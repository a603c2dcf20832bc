//! Protocol violations of the peer.

use super::frame::CloseCode;

/// A violation of the protocol, or of a limit, by the peer. Unless this side had closed before, the
/// codec has appended a close frame that reports the violation. Close the connection: no bytes
/// after the violation can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A client's frame is not masked, but must be.
    #[error("a frame from a client is not masked")]
    Unmasked,
    /// A server's frame is masked, but must not be.
    #[error("a frame from a server is masked")]
    Masked,
    /// A reserved bit is set, although no extension was negotiated that defines it.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// The opcode of the frame is not defined.
    #[error("a frame has a reserved opcode")]
    ReservedOpcode,
    /// The length is not in the shortest form, or has its highest bit set.
    #[error("a frame's length is malformed")]
    Length,
    /// A ping, pong or close is fragmented.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A ping, pong or close has more than 125 bytes.
    #[error("a control frame is too long")]
    LongControl,
    /// A continuation frame arrived, but no message had begun.
    #[error("a fragment continues nothing")]
    NothingToContinue,
    /// A message begins before the previous message is complete.
    #[error("a message begins within another")]
    MessageWithinMessage,
    /// A close frame has a payload of one byte, or a code that must not be sent.
    #[error("a close frame is malformed")]
    Close,
    /// A text message, or the reason of a close, is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// The payload of a frame exceeds its limit.
    #[error("a frame is too big")]
    FrameTooBig,
    /// A message exceeds its size limit.
    #[error("a message is too big")]
    MessageTooBig,
    /// A message exceeds its limit of fragments.
    #[error("a message has too many fragments")]
    TooManyFragments,
}

impl Violation {
    /// Returns the code with which the connection is closed.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::BAD_DATA,
            Self::FrameTooBig | Self::MessageTooBig | Self::TooManyFragments => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}
