//! What the other side may not do.

use super::frame::CloseCode;

/// How the other side broke the protocol, or passed a limit. It has been told, and the connection is to be closed: nothing
/// behind it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A client has to mask its frames.
    #[error("a frame of a client's is not masked")]
    Unmasked,
    /// A server must not mask its frames.
    #[error("a frame of a server's is masked")]
    Masked,
    /// A reserved bit is set, and no extension was agreed upon that would give it a meaning.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// The frame is of a kind that is not defined.
    #[error("a frame has a reserved opcode")]
    ReservedOpcode,
    /// The length is not in the shortest form, or has its highest bit set.
    #[error("a frame's length is malformed")]
    Length,
    /// A ping, pong or close in fragments.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A ping, pong or close of more than 125 bytes.
    #[error("a control frame is too long")]
    LongControl,
    /// A fragment continues a message that was not begun.
    #[error("a fragment continues nothing")]
    NothingToContinue,
    /// A message begins where a fragment of another was due.
    #[error("a message begins within another")]
    MessageWithinMessage,
    /// A close frame has one byte, or a code that is not to be sent.
    #[error("a close frame is malformed")]
    Close,
    /// Text, or the reason of a close, is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// The payload of a frame is longer than its limit.
    #[error("a frame is too big")]
    FrameTooBig,
    /// A message is longer than its limit.
    #[error("a message is too big")]
    MessageTooBig,
    /// A message has more fragments than its limit.
    #[error("a message has too many fragments")]
    TooManyFragments,
}

impl Violation {
    /// The code that the connection is closed with.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::BAD_DATA,
            Self::FrameTooBig | Self::MessageTooBig | Self::TooManyFragments => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}
