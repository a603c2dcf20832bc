use std::fmt::{self, Display};

use sealed_http::codec::{Asked, DecodeError, Limits, ResponseDecoder, ResponseEvent};
use serde_json::Value;

/// A response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The status line and the header fields, each with CRLF behind it.
    pub head: String,
    /// The body, out of its chunks, as far as it has come.
    pub body: Vec<u8>,
}

impl Reply {
    /// Decodes the response that bytes begin with, as far as it has come; what is behind it is not looked at. The
    /// method is that of the request. Panics without a whole head.
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

    /// Returns the body as JSON. Panics if it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the value of the first header field of that name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (held, value) = line.split_once(':')?;
            held.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Returns whether a text is in the head or in the body.
    pub fn contains(&self, text: &str) -> bool {
        self.head.contains(text) || String::from_utf8_lossy(&self.body).contains(text)
    }

    /// Returns whether it is a refusal, or a success, with this status, and has this text in it.
    pub fn is(&self, status: u16, text: &str) -> bool {
        self.status == status && self.contains(text)
    }

    /// Returns the data of the messages in a poll's reply. Data that is no text is written as JSON. Panics if it is
    /// another's reply.
    pub fn messages(&self) -> Vec<String> {
        let reply = self.json();
        let items = reply["items"].as_array().unwrap_or_else(|| panic!("items: {self:?}"));
        items.iter().map(|item| item["data"].as_str().unwrap_or(&item.to_string()).to_owned()).collect()
    }

    /// Returns the position in a poll's reply, or in the answer to a publication. Panics if there is none.
    pub fn position(&self) -> String {
        self.json()["position"].as_str().expect("a position").to_owned()
    }
}

impl Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\r\n{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

/// What comes of a response, one after the other.
#[derive(Debug)]
pub enum Part {
    /// Its head; the reply has no body yet.
    Head(Reply),
    /// A piece of its body, or of another protocol after an upgrade.
    Data(Vec<u8>),
    /// Its end.
    End,
}

/// Decodes the responses of one connection, however the bytes come.
#[derive(Debug)]
pub struct Responses {
    /// What has come and was not decoded yet.
    pub(crate) bytes: Vec<u8>,
    decoder: ResponseDecoder,
    asked: Asked,
}

/// Shows the beginning of what has come and was not decoded yet.
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
    /// Notes with what method the next response is asked for: one to `HEAD` has no body.
    pub fn ask(&mut self, method: &str) {
        self.asked = if method == "HEAD" { Asked::Head } else { Asked::Other };
    }

    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns what has come and was not decoded yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes
    }

    /// Decodes what comes next, if it is there. A body may be of any length.
    ///
    /// # Errors
    ///
    /// If the response is malformed.
    ///
    /// # Panics
    ///
    /// If the response is an interim one, such as 100, which nobody asks for here.
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

    /// Returns whether a response ends with the connection. To be called when that has ended.
    pub fn end(&mut self) -> bool {
        self.decoder.end().is_ok_and(|is_end| is_end)
    }
}
