//! Frames that are sent. Their headers, and which close codes there are, are tungstenite's to say.

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode as Known, Control, Data, OpCode};

/// Bytes that the payload of a ping, a pong or a close can have at most.
pub const CONTROL_BYTES_MAX: usize = 125;

/// Bytes of a header without a mask, at most.
const HEADER_BYTES_MAX: usize = 10;

/// What a frame that is sent carries. Closes are apart: [`Codec::close`](super::Codec::close), [`close_frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message of text, whole.
    Text,
    /// A message of bytes, whole.
    Binary,
    /// A ping: the other side sends its payload back, of [`CONTROL_BYTES_MAX`] bytes at most.
    Ping,
    /// A pong that nobody asked for. It may be a sign of life in one direction.
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

/// Why a connection is closed: a code that may stand in a close frame (RFC 6455, 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// What the connection was for is done.
    pub const NORMAL: Self = Self(1000);
    /// The server goes down, or the page is left.
    pub const GOING_AWAY: Self = Self(1001);
    /// The other side broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Messages of this kind are not taken: binary ones where text is wanted.
    pub const UNSUPPORTED: Self = Self(1003);
    /// A message is not what its kind says: text that is not UTF-8.
    pub const BAD_DATA: Self = Self(1007);
    /// A message breaks rules of the application.
    pub const POLICY: Self = Self(1008);
    /// A message is too big.
    pub const TOO_BIG: Self = Self(1009);
    /// The server met with something that it did not expect.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server starts anew: come back.
    pub const RESTART: Self = Self(1012);
    /// The server has too much to do: come back later.
    pub const TRY_AGAIN: Self = Self(1013);

    /// One by its number: those that are defined to be sent, and 3000 to 4999, which libraries and applications may give a
    /// meaning. `None` for all others, 1005, 1006 and 1015 among them: they only say that there was no close frame.
    pub fn new(number: u16) -> Option<Self> {
        Known::from(number).is_allowed().then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Appends the header of a frame from a server: whole, unmasked. The payload follows it.
///
/// # Panics
/// Where the payload of a ping or pong would be longer than [`CONTROL_BYTES_MAX`].
pub fn encode_header(out: &mut Vec<u8>, kind: Kind, payload_bytes: usize) {
    kind.check(payload_bytes);
    write_header(out, kind.op_code(), payload_bytes, None);
}

/// A frame from a server, whole: a message of text. It depends on nothing else, so that one can be sent to many.
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

/// A frame from a server, whole: a message of bytes. It depends on nothing else, so that one can be sent to many.
pub fn binary_frame(bytes: &[u8]) -> Bytes {
    whole(Kind::Binary, bytes)
}

/// A ping from a server.
///
/// # Panics
/// Where the payload is longer than [`CONTROL_BYTES_MAX`].
pub fn ping_frame(payload: &[u8]) -> Bytes {
    whole(Kind::Ping, payload)
}

/// A close from a server, for connections that are given up right behind it. Where the other side's answer is to be waited
/// for, [`Codec::close`](super::Codec::close) keeps to the rules.
///
/// Of the reason, as many characters are sent as fit into 123 bytes.
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

/// Appends a frame that is a message, or a control frame, as a whole.
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

/// Masks bytes, or takes the mask off them.
pub(crate) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}
