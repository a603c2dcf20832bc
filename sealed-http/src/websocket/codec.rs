//! The messages of one connection, however their bytes are split, and the rules of pings and
//! closes.

// The crate tungstenite encodes and decodes frames. Its connection type can work on memory instead
// of a socket, but is not used: it allocates by the length that a frame announces, returns a frame
// only when the frame is complete, does not limit fragments, and keeps a buffer while nothing
// arrives, ten times the size of the state here. It is the reference in a differential test.

use std::fmt;
use std::io::Cursor;

use sealed::Input;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frame::{self, CONTROL_BYTES_MAX, CloseCode, Kind, apply_mask};
use super::violation::Violation;

/// Size limits of messages. A message that exceeds a limit is refused as soon as this is known: by
/// the header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of a message in bytes. Beyond: 1009. Default 1 MiB.
    pub message_bytes_max: usize,
    /// Maximum size of the payload of a frame in bytes. Beyond: 1009. Default 1 MiB.
    pub frame_bytes_max: usize,
    /// Maximum number of fragments of a message, including empty ones. Beyond: 1009. Default 1,024.
    pub fragments_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes_max: 1024 * 1024, frame_bytes_max: 1024 * 1024, fragments_max: 1_024 }
    }
}

/// A decoded event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// More bytes are needed.
    Incomplete,
    /// A text message, which is valid UTF-8.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping. The codec has answered it, unless this side has closed.
    Ping(Vec<u8>),
    /// A pong: the answer to a ping of this side, or an unsolicited pong.
    Pong(Vec<u8>),
    /// The peer closes, or answers the close of this side. The codec has appended an answer if one
    /// was needed, and no more events follow. A server now closes the connection; a client leaves
    /// this to the server.
    Close {
        /// The code; `None` if the peer sent none.
        code: Option<CloseCode>,
        /// A text for logs, often empty.
        reason: String,
    },
}

/// The state of one connection: the message that is being received, and whether the connection is
/// closed. The codec does no input or output of its own.
///
/// Between messages the codec of a server is three words long and holds nothing on the heap; that
/// of a client holds its masks. A message is collected as it arrives: a length that is only
/// announced costs no memory.
#[derive(Debug, Default)]
pub struct Codec {
    partial: Option<Box<Partial>>,
    /// The client's state; `None` on a server.
    client: Option<Box<Client>>,
    state: State,
}

const _: () = assert!(size_of::<Codec>() <= 24, "every idle subscriber has one");

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// This side has sent its close; the peer may still send.
    Closing,
    /// The peer's close has arrived, or the peer broke the protocol.
    Closed,
}

/// State that only a client has.
struct Client {
    masks: Box<dyn FnMut() -> [u8; 4] + Send>,
}

/// A message that is being received.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    message: Vec<u8>,
    /// Number of bytes that are known to be UTF-8.
    checked: usize,
    fragments: u32,
    /// The frame that is being received; `None` between two frames.
    frame: Option<Frame>,
    is_whole: bool,
}

#[derive(Debug)]
struct Frame {
    is_final: bool,
    left: usize,
    /// The mask, rotated so that it begins with the next byte.
    mask: [u8; 4],
}

impl Codec {
    /// Creates the codec of a server's side.
    pub const fn server() -> Self {
        Self { partial: None, client: None, state: State::Open }
    }

    /// Creates the codec of a client's side. Each call of `masks` returns the mask of a frame.
    /// Masks should be unpredictable, so that intermediaries cannot take the payload for something
    /// else (RFC 6455, 10.3).
    pub fn client(masks: impl FnMut() -> [u8; 4] + Send + 'static) -> Self {
        Self { partial: None, client: Some(Box::new(Client { masks: Box::new(masks) })), state: State::Open }
    }

    /// Decodes the next bytes. Returns how many bytes were used, and the event. Pass the remaining
    /// bytes again to the next call, in front of those that follow. Call until the event is
    /// [`Event::Incomplete`].
    ///
    /// Answers to pings and closes are appended to `out`. Send `out` even after an error: it then
    /// holds the close frame that reports the error to the peer. After a close or an error all
    /// further input is consumed and ignored.
    ///
    /// An incomplete frame header or control frame is left in the input: at most 130 bytes.
    ///
    /// # Errors
    /// If the peer breaks the protocol or exceeds a limit.
    pub fn decode(&mut self, input: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<(usize, Event), Violation> {
        if self.state == State::Closed {
            return Ok((input.len(), Event::Incomplete));
        }
        let decoded = self.advance(input, limits, out);
        if let Err(violation) = decoded {
            self.close(violation.close_code(), &violation.to_string(), out);
            (self.state, self.partial) = (State::Closed, None);
        }
        decoded
    }

    /// Decodes the next event from the input of a connection, as [`decode`](Self::decode) does, and
    /// consumes the bytes that were used. Returns `None` if more bytes are needed.
    ///
    /// # Errors
    /// If the peer breaks the protocol or exceeds a limit.
    pub fn read(
        &mut self,
        input: &mut Input<'_>,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, Violation> {
        let (used, event) = self.decode(input.bytes(), limits, out)?;
        input.take(used);
        Ok(Some(event).filter(|event| *event != Event::Incomplete))
    }

    /// Appends a frame, masked on a client's side. Appends nothing and returns false if this side
    /// or the peer has closed.
    ///
    /// A server's frames depend only on their payload: if many clients receive the same message,
    /// [`text_frame`](super::text_frame) makes its frame once. The payload of a [`Kind::Text`] has
    /// to be UTF-8.
    ///
    /// # Panics
    /// If the payload of a ping or pong is longer than [`CONTROL_BYTES_MAX`].
    pub fn encode(&mut self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> bool {
        kind.check(payload.len());
        if self.is_open() {
            self.write(kind.op_code(), payload, out);
        }
        self.is_open()
    }

    /// Appends a close frame. Appends nothing and returns false if either side has closed before.
    /// After a close this side sends nothing more. Messages that the peer sent before receiving the
    /// close still arrive, and at last the peer's close. That close may never arrive: set a
    /// deadline for it.
    ///
    /// The reason is truncated at a character boundary to 123 bytes.
    pub fn close(&mut self, code: CloseCode, reason: &str, out: &mut Vec<u8>) -> bool {
        let is_first = self.is_open();
        if is_first {
            self.write(OpCode::Control(Control::Close), &frame::close_payload(code, reason), out);
            self.state = State::Closing;
        }
        is_first
    }

    /// Returns whether this side may send: neither side has closed.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Returns whether a message has begun and is incomplete. If this takes too long, the
    /// application may close the connection.
    pub fn is_receiving(&self) -> bool {
        self.partial.is_some()
    }

    /// Returns the length, in bytes, of the message that is being received, as far as the headers
    /// of its frames have announced it; 0 if none is being received. An application that bounds the
    /// memory of all its connections can count these bytes before they come.
    pub fn announced_len(&self) -> usize {
        let Some(partial) = &self.partial else { return 0 };
        partial.message.len() + partial.frame.as_ref().map_or(0, |frame| frame.left)
    }

    fn advance(&mut self, input: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<(usize, Event), Violation> {
        let mut used = 0;
        loop {
            if let Some(partial) = &mut self.partial {
                if partial.frame.is_some() {
                    used += partial.take(&input[used..])?;
                }
                if partial.frame.is_some() {
                    return Ok((used, Event::Incomplete));
                }
                if partial.is_whole {
                    let whole = self.partial.take().map_or(Ok(Event::Incomplete), |partial| partial.finish())?;
                    return Ok((used, whole));
                }
            }
            let rest = &input[used..];
            let Some((header, length, header_bytes)) = parse(rest)? else { return Ok((used, Event::Incomplete)) };
            self.check(&header, length)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            match header.opcode {
                OpCode::Control(control) => {
                    let Some(payload) = rest[header_bytes..].get(..length) else {
                        return Ok((used, Event::Incomplete));
                    };
                    let mut payload = payload.to_vec();
                    apply_mask(&mut payload, header.mask.unwrap_or_default());
                    return Ok((used + header_bytes + length, self.control(control, payload, out)?));
                }
                OpCode::Data(data) => self.begin(data, &header, length, limits)?,
            }
            used += header_bytes;
        }
    }

    /// Checks the rules that apply to every frame.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<(), Violation> {
        match (&self.client, header.mask) {
            (None, None) => return Err(Violation::Unmasked),
            (Some(_), Some(_)) => return Err(Violation::Masked),
            _ => {}
        }
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBit);
        }
        if matches!(header.opcode, OpCode::Control(_)) {
            if !header.is_final {
                return Err(Violation::FragmentedControl);
            }
            if length > CONTROL_BYTES_MAX as u64 {
                return Err(Violation::LongControl);
            }
        }
        Ok(())
    }

    /// Starts a data frame after its header has arrived.
    fn begin(&mut self, data: Data, header: &FrameHeader, length: usize, limits: &Limits) -> Result<(), Violation> {
        match (data, &self.partial) {
            (Data::Continue, None) => return Err(Violation::NothingToContinue),
            (Data::Text | Data::Binary, Some(_)) => return Err(Violation::MessageWithinMessage),
            (Data::Reserved(_), _) => return Err(Violation::ReservedOpcode),
            _ => {}
        }
        if length > limits.frame_bytes_max {
            return Err(Violation::FrameTooBig);
        }
        let partial = self.partial.get_or_insert_with(|| {
            Box::new(Partial {
                is_text: data == Data::Text,
                message: Vec::new(),
                checked: 0,
                fragments: 0,
                frame: None,
                is_whole: false,
            })
        });
        if length > limits.message_bytes_max.saturating_sub(partial.message.len()) {
            return Err(Violation::MessageTooBig);
        }
        partial.fragments += 1;
        if partial.fragments > limits.fragments_max.max(1) {
            return Err(Violation::TooManyFragments);
        }
        let mask = header.mask.unwrap_or_default();
        partial.frame = Some(Frame { is_final: header.is_final, left: length, mask });
        Ok(())
    }

    /// Processes a complete control frame.
    fn control(&mut self, control: Control, payload: Vec<u8>, out: &mut Vec<u8>) -> Result<Event, Violation> {
        match control {
            Control::Ping => {
                if self.is_open() {
                    self.write(OpCode::Control(Control::Pong), &payload, out);
                }
                Ok(Event::Ping(payload))
            }
            Control::Pong => Ok(Event::Pong(payload)),
            Control::Close => {
                let (code, reason) = read_close(&payload)?;
                if self.is_open() {
                    // RFC 6455, 5.5.1: the answer repeats the code; it need not repeat the reason.
                    self.write(OpCode::Control(Control::Close), &payload[..payload.len().min(2)], out);
                }
                (self.state, self.partial) = (State::Closed, None);
                Ok(Event::Close { code, reason })
            }
            Control::Reserved(_) => Err(Violation::ReservedOpcode),
        }
    }

    fn write(&mut self, op_code: OpCode, payload: &[u8], out: &mut Vec<u8>) {
        let mask = self.client.as_mut().map(|client| (client.masks)());
        frame::write(out, op_code, payload, mask);
    }
}

impl Partial {
    /// Takes the available payload of the frame. Returns how many bytes were taken.
    fn take(&mut self, input: &[u8]) -> Result<usize, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(0) };
        let taken = frame.left.min(input.len());
        let start = self.message.len();
        self.message.extend_from_slice(&input[..taken]);
        apply_mask(&mut self.message[start..], frame.mask);
        frame.mask.rotate_left(taken % 4);
        frame.left -= taken;
        // Incomplete text is checked as it arrives, so that anything but UTF-8 is refused at once.
        self.is_whole = frame.left == 0 && frame.is_final;
        if frame.left == 0 {
            self.frame = None;
        }
        if self.is_text && !self.is_whole {
            self.check_text()?;
        }
        Ok(taken)
    }

    /// Checks that the bytes so far are UTF-8, except for an incomplete last character.
    fn check_text(&mut self) -> Result<(), Violation> {
        match std::str::from_utf8(&self.message[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::Text),
        }
        Ok(())
    }

    fn finish(self) -> Result<Event, Violation> {
        if self.is_text {
            String::from_utf8(self.message).map(Event::Text).map_err(|_| Violation::Text)
        } else {
            Ok(Event::Binary(self.message))
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// Parses the frame header at the start of the input. Returns the header, the length of the payload
/// and the length of the header; `None` if the header is incomplete.
fn parse(input: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Violation> {
    let mut cursor = Cursor::new(input);
    match FrameHeader::parse(&mut cursor) {
        Ok(None) => Ok(None),
        Ok(Some((header, length))) => {
            let header_bytes = cursor.position() as usize;
            if header.len(length) == header_bytes && length >> 63 == 0 {
                Ok(Some((header, length, header_bytes)))
            } else {
                Err(Violation::Length)
            }
        }
        // The parser returns no other error.
        Err(_) => Err(Violation::ReservedOpcode),
    }
}

fn read_close(payload: &[u8]) -> Result<(Option<CloseCode>, String), Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok((None, String::new())) } else { Err(Violation::Close) };
    };
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(Violation::Close)?;
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::Text)?;
    Ok((Some(code), reason.to_owned()))
}
