//! A parser for Server-Sent Events, however their bytes are split.

use std::time::Duration;

/// Parses the body of a `text/event-stream`, as browsers do (WHATWG HTML, 9.2.6), with a limit on
/// the size of an event.
///
/// Send the request with [`Fetch::streamed`](crate::client::Fetch::streamed) and without a
/// [limit](crate::client::Fetch::limit), and pass each
/// [`Fetched::Data`](crate::client::Fetched::Data) to [`read`](Self::read). To go on after the end,
/// send [`last_event_id`](Self::last_event_id) as the field `Last-Event-ID`. The repository's
/// example `fetch` does so.
///
/// # Example
/// ```
/// use sealed_http::client::EventStream;
///
/// let mut stream = EventStream::new(1024);
/// let mut events = Vec::new();
/// stream.read(b"id: 7\ndata: hel", |event| events.push(event))?;
/// stream.read(b"lo\n\n: a comment\n", |event| events.push(event))?;
/// assert_eq!((&*events[0].event, &*events[0].data, stream.last_event_id()), ("message", "hello", "7"));
/// # Ok::<(), sealed_http::client::EventTooLong>(())
/// ```
#[derive(Debug)]
pub struct EventStream {
    bytes_max: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    event: String,
    id: String,
    last_event_id: String,
    retry: Option<Duration>,
    /// The previous byte was a carriage return: a line feed right after it ends no further line.
    after_return: bool,
    has_begun: bool,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamEvent {
    /// The type of the event: `message` if the stream names none.
    pub event: String,
    /// The lines of data, joined by line feeds. Invalid UTF-8 is replaced.
    pub data: String,
    /// The last event id at this event: the event's own id, or that of the last earlier event with
    /// an id.
    pub last_event_id: String,
}

/// An event exceeds the size limit. The stream cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is too long")]
pub struct EventTooLong;

impl EventStream {
    /// Creates a parser at the beginning of a stream. An event may have at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            event: String::new(),
            id: String::new(),
            last_event_id: String::new(),
            retry: None,
            after_return: false,
            has_begun: false,
        }
    }

    /// Parses the next bytes, and passes each event that they complete to `tell`.
    ///
    /// # Errors
    /// If an event exceeds the size limit.
    pub fn read(&mut self, bytes: &[u8], mut tell: impl FnMut(StreamEvent)) -> Result<(), EventTooLong> {
        let mut rest = bytes;
        while let Some((&first, behind)) = rest.split_first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                rest = behind;
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            self.line.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            if self.line.len() + self.data.len() > self.bytes_max {
                return Err(EventTooLong);
            }
            let Some(end) = end else { return Ok(()) };
            self.after_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            if let Some(event) = self.end_line(&line) {
                tell(event);
            }
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    /// Returns the id with which to resume, as `Last-Event-ID`; empty if the stream has sent none.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Returns how long to wait before reconnecting, if the stream has set this.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn end_line(&mut self, line: &[u8]) -> Option<StreamEvent> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let line = if is_first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch();
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.event = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.id = String::from_utf8_lossy(value).into_owned(),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let millis = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<StreamEvent> {
        self.last_event_id.clone_from(&self.id);
        let event = std::mem::take(&mut self.event);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let data = String::from_utf8_lossy(&self.data).into_owned();
        self.data.clear();
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(StreamEvent { event, data, last_event_id: self.last_event_id.clone() })
    }
}
