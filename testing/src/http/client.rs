use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Events, Part, Reply, Responses, connect, head, request};
use crate::PATIENCE;

/// A blocking client on one connection: TCP, or any other stream.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    stream: S,
    responses: Responses,
    /// A part that was decoded and not returned yet.
    ahead: Option<Part>,
}

impl Client {
    /// Connects to a server.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(connect(address))
    }

    /// Returns the connection, to change its settings.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Waits for 50 ms, and returns whether no byte came and the connection did not end meanwhile.
    pub fn is_silent(&mut self) -> bool {
        self.socket().set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
        self.look_ahead();
        let waits = self.ahead.is_none()
            && matches!(self.fill(), Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        self.socket().set_read_timeout(Some(PATIENCE)).expect("a limit");
        waits
    }
}

impl<S: Read + Write> Client<S> {
    /// Creates a client of a connection on which nothing has been sent.
    pub fn over(stream: S) -> Self {
        Self { stream, responses: Responses::default(), ahead: None }
    }

    /// Sends any bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// Sends a request without a body, and does not wait for the answer. Each of the further
    /// `fields` ends with CRLF.
    pub fn ask(&mut self, method: &str, target: &str, fields: &str) {
        self.responses.ask(method);
        self.send(head(method, target, fields, None));
    }

    /// Sends a GET request, and waits for the reply.
    pub fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, "");
        self.reply()
    }

    /// Sends a POST request with this body, and waits for the reply.
    pub fn post(&mut self, target: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        self.responses.ask("POST");
        self.send([head("POST", target, "", Some(body.len())).as_bytes(), body].concat());
        self.reply()
    }

    /// Sends a POST request, and waits for the reply. Returns `None` if the connection is closed
    /// without an answer.
    pub fn try_post(&mut self, target: &str, body: &str) -> Option<Reply> {
        self.stream.write_all(request("POST", target, "", body).as_bytes()).ok()?;
        let begins = self.fill().is_ok_and(|count| count > 0);
        begins.then(|| self.reply())
    }

    /// Publishes, and returns the position. Panics if the status is not 200.
    pub fn publish(&mut self, channel: &str, body: impl AsRef<[u8]>) -> String {
        let reply = self.post(&format!("/channels/{channel}"), body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.position()
    }

    /// Waits for a complete response.
    pub fn reply(&mut self) -> Reply {
        let mut reply = self.begun();
        loop {
            match self.part() {
                Part::Data(data) => reply.body.extend(data),
                Part::End => return reply,
                Part::Head(reply) => panic!("a head in a body: {reply}"),
            }
        }
    }

    /// Waits for the head of a response; [`Self::chunk`] then reads its body.
    pub fn head(&mut self) -> (u16, String) {
        let Reply { status, head, .. } = self.begun();
        (status, head)
    }

    /// Waits, and returns whether the connection is closed before any byte comes.
    pub fn is_closed(&mut self) -> bool {
        self.look_ahead();
        self.ahead.is_none() && matches!(self.fill(), Ok(0))
    }

    /// Subscribes by Server-Sent Events, and waits for the hello of the stream.
    pub fn events(mut self, target: &str, fields: &str) -> Events<S> {
        self.ask("GET", target, &format!("Accept: text/event-stream\r\n{fields}"));
        let (status, head) = self.head();
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("text/event-stream") && head.contains("chunked"), "{head}");
        let mut events = Events::of(self);
        let hello = events.next();
        assert_eq!(hello.kind, "hello", "{hello:?}");
        events
    }

    /// Reads exactly as many bytes as fit, after a head: bytes of another protocol.
    pub fn read_exact(&mut self, bytes: &mut [u8]) {
        while self.responses.bytes.len() < bytes.len() {
            assert!(self.fill().expect("bytes") > 0, "closed too early");
        }
        let rest = self.responses.bytes.split_off(bytes.len());
        bytes.copy_from_slice(&std::mem::replace(&mut self.responses.bytes, rest));
    }

    /// Waits for a piece of a body of text. Returns `None` if the body or the connection ends.
    pub fn chunk(&mut self) -> Option<String> {
        let mut text = Vec::new();
        loop {
            match self.try_part()? {
                Part::Data(data) => text.extend(data),
                Part::Head(_) | Part::End => return None,
            }
            // The piece may be cut in the middle of a character.
            if let Ok(text) = std::str::from_utf8(&text) {
                return Some(text.to_owned());
            }
        }
    }

    fn begun(&mut self) -> Reply {
        match self.part() {
            Part::Head(reply) => reply,
            Part::Data(data) => panic!("no head, but {:?}", String::from_utf8_lossy(&data)),
            Part::End => panic!("no head, but the end of a body"),
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes)?;
        self.responses.push(&bytes[..count]);
        Ok(count)
    }

    fn part(&mut self) -> Part {
        let part = self.try_part();
        part.unwrap_or_else(|| panic!("closed in the middle of a response: {}", self.responses))
    }

    /// Waits for the next part of a response. Returns `None` if the connection ends.
    fn try_part(&mut self) -> Option<Part> {
        loop {
            self.look_ahead();
            if let Some(part) = self.ahead.take() {
                return Some(part);
            }
            if self.fill().expect("a response") == 0 {
                return self.responses.end().then_some(Part::End);
            }
        }
    }

    /// Decodes the next part, if it has arrived.
    fn look_ahead(&mut self) {
        if self.ahead.is_none() {
            self.ahead = self.responses.next().expect("a response");
        }
    }
}
