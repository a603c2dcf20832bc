//! Encodes frames. `tungstenite` encodes their headers and defines the close codes.

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode as Known, Control, Data, OpCode};

/// Maximum size in bytes of the payload of a ping, a pong or a close.
pub const CONTROL_BYTES_MAX: usize = 125;

/// Maximum size in bytes of a header without a mask.
const HEADER_BYTES_MAX: usize = 10;

/// The kind of a frame to send. Closes are separate: [`Codec::close`](super::Codec::close),
/// [`close_frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A complete text message.
    Text,
    /// A complete binary message.
    Binary,
    /// A ping: the peer returns its payload, of at most [`CONTROL_BYTES_MAX`] bytes.
    Ping,
    /// An unsolicited pong. It can serve as a keep-alive in one direction.
    Pong,
}

impl Kind {
    pub(crate) fn op_code(self) -> OpCode {
        match self {
            Self::Text => OpCode::Data(Data::Text),
            Self::Binary => OpCode::Data(Data::Binary),
            Self::Ping => OpCode::Control(Control::Ping),
            Self::Pong => OpCode::Control(Control::Pong),
        }
    }

    pub(crate) fn check(self, payload_bytes: usize) {
        let is_data = matches!(self, Self::Text | Self::Binary);
        assert!(is_data || payload_bytes <= CONTROL_BYTES_MAX, "{payload_bytes} bytes do not fit in a {self:?}");
    }
}

/// The reason for a close: a code that may occur in a close frame (RFC 6455, 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The connection has fulfilled its purpose.
    pub const NORMAL: Self = Self(1000);
    /// The server is shutting down, or the user leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Messages of this kind are not accepted: a binary message, for example, if text is expected.
    pub const UNSUPPORTED: Self = Self(1003);
    /// The payload does not match the kind of the message: text that is not UTF-8.
    pub const BAD_DATA: Self = Self(1007);
    /// A message violates a rule of the application.
    pub const POLICY: Self = Self(1008);
    /// A message is too big.
    pub const TOO_BIG: Self = Self(1009);
    /// The server encountered an unexpected condition.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server restarts: the client may reconnect.
    pub const RESTART: Self = Self(1012);
    /// The server is overloaded: the client may reconnect later.
    pub const TRY_AGAIN: Self = Self(1013);

    /// Returns the close code with this number: the codes that are defined to be sent, and 3000 to
    /// 4999, which libraries and applications may define. `None` for all others, including 1005,
    /// 1006 and 1015, which only report that there was no close frame.
    pub fn new(number: u16) -> Option<Self> {
        Known::from(number).is_allowed().then_some(Self(number))
    }

    /// Returns the number.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Appends the header of an unfragmented, unmasked frame from a server. The payload follows the
/// header.
///
/// # Panics
/// If the payload of a ping or pong would be longer than [`CONTROL_BYTES_MAX`].
pub fn encode_header(out: &mut Vec<u8>, kind: Kind, payload_bytes: usize) {
    kind.check(payload_bytes);
    write_header(out, kind.op_code(), payload_bytes, None);
}

/// Returns a complete text frame from a server. The frame depends only on its payload, so that it
/// can be sent to many clients.
///
/// # Example
/// ```
/// use sealed_http::websocket;
///
/// assert_eq!(&websocket::text_frame("hi")[..], b"\x81\x02hi");
/// ```
pub fn text_frame(text: &str) -> Bytes {
    whole(Kind::Text, text.as_bytes())
}

/// Returns a complete binary frame from a server. The frame depends only on its payload, so that it
/// can be sent to many clients.
pub fn binary_frame(bytes: &[u8]) -> Bytes {
    whole(Kind::Binary, bytes)
}

/// Returns a ping frame from a server.
///
/// # Panics
/// If the payload is longer than [`CONTROL_BYTES_MAX`].
pub fn ping_frame(payload: &[u8]) -> Bytes {
    whole(Kind::Ping, payload)
}

/// Returns a close frame from a server, for connections that are closed right after it. To wait for
/// the peer's answer, use [`Codec::close`](super::Codec::close), which follows the rules of the
/// closing handshake.
///
/// The reason is truncated at a character boundary to 123 bytes.
pub fn close_frame(code: CloseCode, reason: &str) -> Bytes {
    let mut out = Vec::with_capacity(2 + CONTROL_BYTES_MAX);
    write(&mut out, OpCode::Control(Control::Close), &close_payload(code, reason), None);
    out.into()
}

fn whole(kind: Kind, payload: &[u8]) -> Bytes {
    kind.check(payload.len());
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    write(&mut out, kind.op_code(), payload, None);
    out.into()
}

pub(crate) fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    [&code.number().to_be_bytes(), &reason.as_bytes()[..end]].concat()
}

/// Appends a complete message or control frame as one frame.
pub(crate) fn write(out: &mut Vec<u8>, op_code: OpCode, payload: &[u8], mask: Option<[u8; 4]>) {
    write_header(out, op_code, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

fn write_header(out: &mut Vec<u8>, opcode: OpCode, payload_bytes: usize, mask: Option<[u8; 4]>) {
    let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
    let written = header.format(payload_bytes as u64, out);
    debug_assert!(written.is_ok(), "there is always room in a vector");
}

/// Masks bytes, or removes the mask.
pub(crate) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}
