use std::fmt::{self, Display};

use sealed_http::codec::{Asked, DecodeError, Limits, ResponseDecoder, ResponseEvent};
use serde_json::Value;

/// A response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The status line and the header fields, each with its CRLF.
    pub head: String,
    /// The body that has arrived so far, without chunk framing.
    pub body: Vec<u8>,
}

impl Reply {
    /// Decodes the response at the beginning of `bytes`, as far as it has arrived, and ignores the
    /// bytes behind it. `method` is that of the request. Panics if the head is incomplete.
    pub fn decode(method: &str, bytes: &[u8]) -> Self {
        let mut responses = Responses::default();
        responses.ask(method);
        responses.push(bytes);
        let mut next = || responses.next().unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()));
        let Some(Part::Head(mut reply)) = next() else { panic!("a head: {}", bytes.escape_ascii()) };
        while let Some(Part::Data(data)) = next() {
            reply.body.extend(data);
        }
        reply
    }

    /// Returns the body. Panics if it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// Returns the body as JSON. Panics if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the value of the first header field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (held, value) = line.split_once(':')?;
            held.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Returns whether the head or the body contains a text.
    pub fn contains(&self, text: &str) -> bool {
        self.head.contains(text) || String::from_utf8_lossy(&self.body).contains(text)
    }

    /// Returns whether the response has this status and contains this text.
    pub fn is(&self, status: u16, text: &str) -> bool {
        self.status == status && self.contains(text)
    }

    /// Returns the data of the messages in the reply to a poll. Data that is not a text is returned
    /// as JSON. Panics if this is not the reply to a poll.
    pub fn messages(&self) -> Vec<String> {
        let reply = self.json();
        let items = reply["items"].as_array().unwrap_or_else(|| panic!("items: {self:?}"));
        items.iter().map(|item| item["data"].as_str().unwrap_or(&item.to_string()).to_owned()).collect()
    }

    /// Returns the position in the reply to a poll, or in the answer to a publication. Panics if
    /// there is none.
    pub fn position(&self) -> String {
        self.json()["position"].as_str().expect("a position").to_owned()
    }
}

impl Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\r\n{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

/// The parts of a response, in order.
#[derive(Debug)]
pub enum Part {
    /// The head. The body of the reply is empty.
    Head(Reply),
    /// A piece of the body, or of another protocol after an upgrade.
    Data(Vec<u8>),
    /// The end.
    End,
}

/// A decoder of the responses of one connection, however the bytes are split.
#[derive(Debug)]
pub struct Responses {
    /// Bytes that have arrived and were not decoded yet.
    pub(crate) bytes: Vec<u8>,
    decoder: ResponseDecoder,
    asked: Asked,
}

/// Formats the beginning of the bytes that were not decoded yet.
impl Display for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes[..self.bytes.len().min(300)].escape_ascii())
    }
}

impl Default for Responses {
    fn default() -> Self {
        Self { bytes: Vec::new(), decoder: ResponseDecoder::new(), asked: Asked::Other }
    }
}

impl Responses {
    /// Sets the method of the request that the next response answers: a response to `HEAD` has no
    /// body.
    pub fn ask(&mut self, method: &str) {
        self.asked = if method == "HEAD" { Asked::Head } else { Asked::Other };
    }

    /// Adds bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the bytes that have arrived and were not decoded yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes
    }

    /// Decodes the next part, if it has arrived. A body may have any length.
    ///
    /// # Errors
    ///
    /// Returns an error if the response is malformed.
    ///
    /// # Panics
    ///
    /// Panics if the response is interim, such as 100, because these tests never request one.
    #[allow(clippy::should_implement_trait)] // an iterator would end where more may come
    pub fn next(&mut self) -> Result<Option<Part>, DecodeError> {
        let limits = Limits { body_bytes_max: u64::MAX, ..Limits::default() };
        let (used, event) = self.decoder.decode(&self.bytes, self.asked, &limits)?;
        let part = match event {
            ResponseEvent::Incomplete => None,
            ResponseEvent::Switched if self.bytes.is_empty() => None,
            ResponseEvent::Switched => return Ok(Some(Part::Data(std::mem::take(&mut self.bytes)))),
            ResponseEvent::Interim(head) => panic!("nobody asked for that: {head:?}"),
            ResponseEvent::Head(head) => {
                let text = String::from_utf8_lossy(&self.bytes[..used - 2]).into_owned();
                Some(Part::Head(Reply { status: head.status(), head: text, body: Vec::new() }))
            }
            ResponseEvent::Data(data) => Some(Part::Data(data.to_vec())),
            ResponseEvent::End => Some(Part::End),
        };
        self.bytes.drain(..used);
        Ok(part)
    }

    /// Returns whether a response ends with the connection. Call it when the connection has ended.
    pub fn end(&mut self) -> bool {
        self.decoder.end().is_ok_and(|is_end| is_end)
    }
}
