//! A client for any protocol of lines, as `nc` is: the standard input is a source of the loop,
//! beside the connection. Works on Unix.
//!
//! Try it: `cargo run -p examples --example line_client -- 127.0.0.1:7777`, with `line_chat` at the
//! other end. The end of the input half-closes the connection; the program ends with the server's
//! output.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;

use sealed::{
    Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, Interest, Ready, Service, Source, SourceId,
};

/// Number of bytes of input that are read at a time.
const CHUNK: usize = 16 * 1024;

struct Client<W> {
    input: Arc<File>,
    /// `None` if the input is a regular file, which is always ready.
    source: Option<Source<Arc<File>>>,
    /// Whether reading waits until the server has taken more.
    is_held: bool,
    output: W,
    server: Address,
    connection: ConnectionId,
    /// Why the connection has ended.
    ended: Option<CloseReason>,
}

impl<W: Write + 'static> Client<W> {
    fn new(server: Address, input: File, output: W) -> Self {
        let connection = ConnectionId::default();
        Self { input: Arc::new(input), source: None, is_held: false, output, server, connection, ended: None }
    }

    /// Requests a call for the next piece of input.
    fn wait_for_input(&mut self, cx: &mut Context<Self>) {
        match &mut self.source {
            // The terminal stays in blocking mode, because the shell and others share it: the
            // program reads once for each report, and has the rest reported again.
            Some(source) => {
                if source.set_interest(Interest::READABLE).is_err() {
                    cx.stop();
                }
            }
            None => cx.defer(()),
        }
    }

    /// Sends the next piece of input, which is there.
    fn read_input(&mut self, cx: &mut Context<Self>) {
        let mut chunk = [0; CHUNK];
        match (&*self.input).read(&mut chunk) {
            Ok(count) if count > 0 => {
                if cx.write(self.connection, &chunk[..count]) {
                    self.wait_for_input(cx);
                } else {
                    self.is_held = true;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.wait_for_input(cx);
            }
            // An input that fails ends like one that is complete.
            _ => {
                self.source = None;
                cx.half_close(self.connection);
            }
        }
    }
}

impl<W: Write + 'static> Service for Client<W> {
    type Connection = ();
    /// Requests a piece of input that needs no waiting.
    type Message = ();
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        match cx.connect(&self.server, ()) {
            Ok(id) => self.connection = id,
            Err(error) => {
                eprintln!("{error}");
                cx.stop();
            }
        }
    }

    fn connected(&mut self, cx: &mut Context<Self>, _: ConnectionId) {
        match cx.add_source(self.input.clone(), Interest::READABLE) {
            Ok(source) => self.source = Some(source),
            // A regular file cannot be waited for, and does not have to be.
            Err(_) => cx.defer(()),
        }
    }

    fn ready(&mut self, cx: &mut Context<Self>, _: SourceId, _: Ready) {
        // While the server has enough, there may be more input, which is reported all the same.
        if !self.is_held {
            self.read_input(cx);
        }
    }

    fn message(&mut self, cx: &mut Context<Self>, (): ()) {
        self.read_input(cx);
    }

    fn drained(&mut self, cx: &mut Context<Self>, _: ConnectionId) {
        if mem::take(&mut self.is_held) {
            self.wait_for_input(cx);
        }
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        // The program has nothing else to do while its output waits.
        if self.output.write_all(input.take_all()).and_then(|()| self.output.flush()).is_err() {
            cx.abort(id);
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        self.ended = Some(reason);
        cx.stop();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned()).parse()?;
    // A descriptor of its own, without the buffer of `io::stdin`, whose content no loop knows.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut event_loop = EventLoop::new(Config::default(), Client::new(server, input, io::stdout()))?;
    event_loop.stop_on_signals()?;
    event_loop.run()?;
    match event_loop.service().ended {
        Some(CloseReason::Ended | CloseReason::Closed) => Ok(()),
        Some(reason) => Err(format!("the connection ended: {reason}").into()),
        None => Err("there was no connection".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::thread;

    use super::*;

    /// Runs a client with this input, at a server that sends everything back after the client's
    /// end. Returns the client's output.
    fn converse(input: File) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("an address").into();
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            stream.write_all(&bytes)
        });
        let client = Client::new(server, input, Vec::new());
        let mut event_loop = EventLoop::new(Config::default(), client).expect("a loop");
        event_loop.run().expect("it ends");
        echo.join().expect("it ends").expect("the server gets all");
        let client = event_loop.parts().0;
        assert_eq!(client.ended, Some(CloseReason::Ended));
        std::mem::take(&mut client.output)
    }

    #[test]
    fn input_from_a_pipe_is_sent_up_to_its_end() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let text = b"0123456789abcdef".repeat(1 << 16);
        let sent = text.clone();
        let typing = thread::spawn(move || writer.write_all(&sent));
        assert!(converse(File::from(OwnedFd::from(reader))) == text);
        typing.join().expect("it ends").expect("the client reads all");
    }

    #[test]
    fn a_regular_file_is_sent_too() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
        let text = std::fs::read(path).expect("it can be read");
        assert!(text.len() > CHUNK && converse(File::open(path).expect("it can be read")) == text);
    }
}
