//! A client whose server may be killed at any moment: each call returns an error then.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use testing::PATIENCE;
use testing::http::{EventQueue, Part, Reply, Responses, request};

pub(crate) struct Wire {
    stream: TcpStream,
    responses: Responses,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, responses: Responses::default() })
    }

    /// Sends a request, and waits for the whole reply.
    pub(crate) fn ask(&mut self, method: &str, target: &str, fields: &str, body: &str) -> io::Result<Reply> {
        self.send(method, target, fields, body)?;
        let Part::Head(mut reply) = self.part()? else { panic!("no head") };
        loop {
            match self.part()? {
                Part::Data(data) => reply.body.extend(data),
                Part::End => return Ok(reply),
                Part::Head(reply) => panic!("a head in a body: {reply}"),
            }
        }
    }

    /// Reads a stream of events until `take` returns false or the connection ends.
    pub(crate) fn events(mut self, target: &str, mut take: impl FnMut(&str, &str) -> bool) -> io::Result<()> {
        self.send("GET", target, "Accept: text/event-stream\r\n", "")?;
        let Part::Head(reply) = self.part()? else { panic!("no head") };
        assert_eq!(reply.status, 200, "{reply}");
        let mut events = EventQueue::default();
        loop {
            match self.part()? {
                Part::Data(data) => events.push(&data),
                Part::End | Part::Head(_) => return Ok(()),
            }
            while let Some(event) = events.pop() {
                if !take(&event.event, &event.data) {
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, method: &str, target: &str, fields: &str, body: &str) -> io::Result<()> {
        self.responses.ask(method);
        self.stream.write_all(request(method, target, fields, body).as_bytes())
    }

    fn part(&mut self) -> io::Result<Part> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            if let Some(part) = self.responses.next().expect("HTTP") {
                return Ok(part);
            }
            match self.stream.read(&mut bytes)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.responses.push(&bytes[..count]),
            }
        }
    }
}
