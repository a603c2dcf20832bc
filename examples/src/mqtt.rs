//! Packets of MQTT 3.1.1, with quality of service 0 and 1.

#![allow(missing_docs)] // the names are those of the specification

/// A packet with a longer body than this is refused.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// A packet from a client. It borrows from the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Publish(Publish<'a>),
    PubAck(u16),
    /// The number of the packet, and filters with the wanted quality of service.
    Subscribe(u16, Vec<(&'a str, u8)>),
    Unsubscribe(u16, Vec<&'a str>),
    Ping,
    Disconnect,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    pub client: &'a str,
    pub is_clean: bool,
    pub keep_alive_s: u16,
    pub will: Option<Publish<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub is_retained: bool,
    /// The number of the packet, if it is to be acknowledged.
    pub number: Option<u16>,
}

/// The bytes are not a packet that this module knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// Decodes the packet at the beginning of `bytes`, and returns it with its length. Returns `None`
/// if it is incomplete.
///
/// # Errors
/// If the bytes are not a packet that this module knows.
pub fn decode(bytes: &[u8]) -> Result<Option<(usize, Packet<'_>)>> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut length = 0;
    let mut head = 0;
    loop {
        let Some(byte) = rest.get(head) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * head);
        head += 1;
        match byte & 0x80 {
            0 => break,
            _ if head == 4 => return Err(Malformed),
            _ => {}
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(body) = rest.get(head..head + length) else { return Ok(None) };
    let packet = decode_body(first, &mut Reader(body))?;
    Ok(Some((1 + head + length, packet)))
}

fn decode_body<'a>(first: u8, body: &mut Reader<'a>) -> Result<Packet<'a>> {
    Ok(match (first >> 4, first & 0x0f) {
        (1, 0) => Packet::Connect(body.connect()?),
        (3, flags) => {
            let topic = body.topic()?;
            let number = match flags >> 1 & 3 {
                0 => None,
                1 => Some(body.number()?),
                _ => return Err(Malformed),
            };
            let payload = std::mem::take(&mut body.0);
            let packet = Publish { topic, payload, is_retained: flags & 1 != 0, number };
            Packet::Publish(packet)
        }
        (4, 0) => Packet::PubAck(body.number()?),
        (8, 2) => {
            let number = body.number()?;
            let mut filters = Vec::new();
            while !body.0.is_empty() {
                filters.push((body.filter()?, body.byte()?.min(1)));
            }
            Packet::Subscribe(number, filters)
        }
        (10, 2) => {
            let number = body.number()?;
            let mut filters = Vec::new();
            while !body.0.is_empty() {
                filters.push(body.filter()?);
            }
            Packet::Unsubscribe(number, filters)
        }
        (12, 0) => Packet::Ping,
        (14, 0) => Packet::Disconnect,
        _ => return Err(Malformed),
    })
}

/// The rest of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1)?.first().copied().ok_or(Malformed)
    }

    fn number(&mut self) -> Result<u16> {
        self.take(2)?.try_into().map(u16::from_be_bytes).map_err(|_| Malformed)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }

    fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    fn topic(&mut self) -> Result<&'a str> {
        let topic = self.text()?;
        if topic.is_empty() || topic.contains(['+', '#', '\0']) { Err(Malformed) } else { Ok(topic) }
    }

    fn filter(&mut self) -> Result<&'a str> {
        let filter = self.text()?;
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            let is_fine = match level {
                "#" => levels.peek().is_none(),
                "+" => true,
                level => !level.contains(['+', '#', '\0']),
            };
            if !is_fine {
                return Err(Malformed);
            }
        }
        if filter.is_empty() { Err(Malformed) } else { Ok(filter) }
    }

    fn connect(&mut self) -> Result<Connect<'a>> {
        if self.text()? != "MQTT" || self.byte()? != 4 {
            return Err(Malformed);
        }
        let (flags, keep_alive_s, client) = (self.byte()?, self.number()?, self.text()?);
        let will = if flags & 0x04 != 0 {
            let (topic, payload) = (self.topic()?, self.bytes()?);
            let number = (flags >> 3 & 3 > 0).then_some(0);
            Some(Publish { topic, payload, is_retained: flags & 0x20 != 0, number })
        } else {
            None
        };
        // A name and a password follow, if any, which nobody asks for here.
        Ok(Connect { client, is_clean: flags & 0x02 != 0, keep_alive_s, will })
    }
}

/// Returns whether a topic matches a filter.
pub fn matches(filter: &str, topic: &str) -> bool {
    // Topics of the server's own begin with `$`.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut wanted, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (wanted.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

pub fn connect_ack(is_known: bool, code: u8) -> [u8; 4] {
    [0x20, 2, u8::from(is_known), code]
}

pub fn publish_ack(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [0x40, 2, high, low]
}

pub fn subscribe_ack(number: u16, granted: &[u8]) -> Vec<u8> {
    packet(0x90, &[&number.to_be_bytes(), granted])
}

pub fn unsubscribe_ack(number: u16) -> Vec<u8> {
    packet(0xb0, &[&number.to_be_bytes()])
}

pub const PONG: [u8; 2] = [0xd0, 0];

/// Encodes a message. `is_again` marks one that may have arrived before.
pub fn publish(message: &Publish<'_>, is_again: bool) -> Vec<u8> {
    let first =
        0x30 | u8::from(is_again) << 3 | u8::from(message.number.is_some()) << 1 | u8::from(message.is_retained);
    let length = (message.topic.len() as u16).to_be_bytes();
    let number = message.number.map(u16::to_be_bytes);
    let number = number.as_ref().map_or(&[][..], |number| number);
    packet(first, &[&length, message.topic.as_bytes(), number, message.payload])
}

fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut left = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = vec![first];
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        out.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    out.extend(parts.concat());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_match_filters() {
        for (filter, topic, wanted) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("+/+", "/b", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("#", "a/b", true),
            ("#", "$SYS/load", false),
            ("$SYS/#", "$SYS/load", true),
        ] {
            assert_eq!(matches(filter, topic), wanted, "{filter} {topic}");
        }
    }

    #[test]
    fn packets_are_decoded_in_any_pieces_and_bad_ones_refused() {
        let whole = publish(&Publish { topic: "a/b", payload: &[7; 200], is_retained: true, number: Some(9) }, false);
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), Ok(None));
        }
        let wanted = Publish { topic: "a/b", payload: &[7; 200], is_retained: true, number: Some(9) };
        assert_eq!(decode(&whole), Ok(Some((whole.len(), Packet::Publish(wanted)))));
        for bad in [
            &b"\xff\x00"[..],
            b"\x30\xff\xff\xff\xff\x01",
            b"\x30\xff\xff\x7f",
            b"\x30\x03\x00\x05a",
            b"\x30\x03\x00\x01#",
            b"\x34\x05\x00\x01a\x00\x01",
            b"\x82\x06\x00\x01\x00\x02#/",
            b"\x10\x04\x00\x04MQ",
        ] {
            assert_eq!(decode(bad), Err(Malformed), "{}", bad.escape_ascii());
        }
    }
}
