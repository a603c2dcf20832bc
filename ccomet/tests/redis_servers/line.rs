//! A connection on which anything may fail: each call returns an error then.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use testing::http::{Part, Reply, Responses, request};

/// The time in which a server answers, whatever happens to Redis.
const ANSWER_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Line {
    stream: TcpStream,
    responses: Responses,
}

impl Line {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, responses: Responses::default() })
    }

    pub(crate) fn send(&mut self, method: &str, target: &str, fields: &str, body: &str) -> io::Result<()> {
        self.responses.ask(method);
        self.stream.write_all(request(method, target, fields, body).as_bytes())
    }

    /// Waits for a whole reply. The error has the kind `TimedOut` only if the server lives and does
    /// not answer.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.head()?;
        let end = Instant::now() + ANSWER_MAX;
        loop {
            match self.part(end)?.ok_or(ErrorKind::TimedOut)? {
                Part::Data(data) => reply.body.extend(data),
                Part::End => return Ok(reply),
                Part::Head(_) => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Waits for the head of a reply, in the same way.
    pub(crate) fn head(&mut self) -> io::Result<Reply> {
        match self.part(Instant::now() + ANSWER_MAX)?.ok_or(ErrorKind::TimedOut)? {
            Part::Head(reply) => Ok(reply),
            Part::Data(_) | Part::End => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Waits for the next part. Returns `None` if it does not come until then.
    pub(crate) fn part(&mut self, end: Instant) -> io::Result<Option<Part>> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            if let Some(part) = self.responses.next().map_err(|_| ErrorKind::InvalidData)? {
                return Ok(Some(part));
            }
            if Instant::now() > end {
                return Ok(None);
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.responses.push(&bytes[..count]),
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns whether nothing came in the time of a read.
pub(crate) fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
