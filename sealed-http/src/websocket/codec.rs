//! One connection's messages, however their bytes are split, and the rules of pings and closes.

use std::fmt;
use std::io::Cursor;

use sealed::Input;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frame::{self, CONTROL_BYTES_MAX, CloseCode, Kind, apply_mask};
use super::violation::Violation;

/// How large a message may be. What passes a limit is refused as soon as that can be known: by the header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message. Beyond: 1009. Default 1 MiB.
    pub message_bytes_max: usize,
    /// Bytes of one frame's payload. Beyond: 1009. Default 1 MiB.
    pub frame_bytes_max: usize,
    /// Fragments of a message, of which some may be empty. Beyond: 1009. Default 1,024.
    pub fragments_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes_max: 1024 * 1024, frame_bytes_max: 1024 * 1024, fragments_max: 1_024 }
    }
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// More has to come first.
    Incomplete,
    /// A message of text, which is UTF-8.
    Text(String),
    /// A message of bytes.
    Binary(Vec<u8>),
    /// A ping. It has been answered, unless this side has closed.
    Ping(Vec<u8>),
    /// A pong: the answer to a ping of this side, or one that nobody asked for.
    Pong(Vec<u8>),
    /// The other side closes, or answers that this side does. It has been answered where it had to be, and nothing more
    /// comes: a server closes the connection now, a client lets the server do it.
    Close {
        /// `None` where it gave none.
        code: Option<CloseCode>,
        /// Words for a log; often there are none.
        reason: String,
    },
}

/// One connection's state: what was received in part, and whether it is closed. It does no input or output of its own.
///
/// While nothing is half-received it is three words, and holds nothing on the heap. A message that comes in pieces is
/// collected as it comes: a length that is only announced costs nothing.
#[derive(Debug, Default)]
pub struct Codec {
    partial: Option<Box<Partial>>,
    /// `None` on a server.
    client: Option<Box<Client>>,
    state: State,
}

const _: () = assert!(size_of::<Codec>() <= 24, "every idle subscriber has one");

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// This side has sent its close; the other one may still send.
    Closing,
    /// The other side's close has come, or it broke the protocol.
    Closed,
}

/// What only a client has.
struct Client {
    masks: Box<dyn FnMut() -> [u8; 4] + Send>,
}

/// A message that is still coming.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    message: Vec<u8>,
    /// Bytes of it that are known to be UTF-8.
    checked: usize,
    fragments: u32,
    /// The frame that is being received; `None` between two.
    frame: Option<Frame>,
    is_whole: bool,
}

#[derive(Debug)]
struct Frame {
    is_final: bool,
    left: usize,
    /// Turned so that it begins with the next byte.
    mask: [u8; 4],
}

impl Codec {
    /// A server's side of a connection.
    pub const fn server() -> Self {
        Self { partial: None, client: None, state: State::Open }
    }

    /// A client's side. Each call of `masks` gives the mask of a frame: it should not be possible to guess it, lest what is
    /// sent is taken for something else by what is between (RFC 6455, 10.3).
    pub fn client(masks: impl FnMut() -> [u8; 4] + Send + 'static) -> Self {
        Self { partial: None, client: Some(Box::new(Client { masks: Box::new(masks) })), state: State::Open }
    }

    /// Goes on with what comes next. Returns how many bytes were used up, and what they were; the rest is to be shown again,
    /// in front of what comes behind it. Until it is [`Event::Incomplete`] there may be more.
    ///
    /// What has to be answered, pings and closes, is appended to `out`, which is to be sent, after an error too: it tells the
    /// other side why. Behind a close and behind an error everything is used up and means nothing.
    ///
    /// Less than a frame's header, or than a whole control frame, is left in the input: at most 130 bytes.
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

    /// The same on a connection's input, of which what is used up is taken. `None` where more has to come first.
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

    /// Appends a frame of this side, masked if it is a client's. Nothing, and false, where this side has closed.
    ///
    /// A server's frames depend on nothing: where many get the same, [`text_frame`](super::text_frame) makes it once.
    /// `payload` of a [`Kind::Text`] has to be UTF-8.
    ///
    /// # Panics
    /// Where the payload of a ping or pong is longer than [`CONTROL_BYTES_MAX`].
    pub fn encode(&mut self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> bool {
        kind.check(payload.len());
        if self.is_open() {
            self.write(kind.op_code(), payload, out);
        }
        self.is_open()
    }

    /// Appends a close; nothing, and false, where there was one before. Behind it this side sends nothing more: what the other
    /// one has sent before it learnt of that still comes, and at last its close. That may never come: give it a deadline.
    ///
    /// Of the reason, as many characters are sent as fit into 123 bytes.
    pub fn close(&mut self, code: CloseCode, reason: &str, out: &mut Vec<u8>) -> bool {
        let is_first = self.is_open();
        if is_first {
            self.write(OpCode::Control(Control::Close), &frame::close_payload(code, reason), out);
            self.state = State::Closing;
        }
        is_first
    }

    /// Whether this side may send: neither has closed.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether a message has begun and is not whole: one that takes too long may be cut off.
    pub fn is_receiving(&self) -> bool {
        self.partial.is_some()
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

    /// What holds for every frame.
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

    /// The header of a data frame has come.
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

    /// A control frame has come whole.
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
                    // RFC 6455, 5.5.1: the code is sent back; the reason need not be.
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
    /// Takes what there is of the frame's payload. Returns how many bytes that was.
    fn take(&mut self, input: &[u8]) -> Result<usize, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(0) };
        let taken = frame.left.min(input.len());
        let start = self.message.len();
        self.message.extend_from_slice(&input[..taken]);
        apply_mask(&mut self.message[start..], frame.mask);
        frame.mask.rotate_left(taken % 4);
        frame.left -= taken;
        // What is not whole yet is looked at as it comes, so that who sends anything else is refused at once.
        self.is_whole = frame.left == 0 && frame.is_final;
        if frame.left == 0 {
            self.frame = None;
        }
        if self.is_text && !self.is_whole {
            self.check_text()?;
        }
        Ok(taken)
    }

    /// Bytes so far are UTF-8, but for a character that is not whole.
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

/// The header that the input begins with, the length of the payload, and its own. `None` where it has not come whole.
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
        // It refuses nothing else.
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
