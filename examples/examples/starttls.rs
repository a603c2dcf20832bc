//! STARTTLS: a server that takes mail by SMTP, accepts it over TLS only, and prints its size.
//!
//! Try it: `cargo run -p examples --example starttls`, then
//! `openssl s_client -starttls smtp -connect 127.0.0.1:7777`, or Python's `smtplib`. With a
//! certificate and a key of your own, as PEM files: `… --example starttls -- 127.0.0.1:7777
//! certificate.pem key.pem`.

use std::error::Error;
use std::time::Duration;

use sealed::tls::Acceptor;
use sealed::{Address, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service};

const LINE_MAX: usize = 1_000;
const MAIL_BYTES_MAX: usize = 10 * 1024 * 1024;
const IDLE_MAX: Duration = Duration::from_secs(300);

struct Mail {
    acceptor: Acceptor,
}

/// What the server expects from a client.
#[derive(Debug, Default)]
enum State {
    #[default]
    Command,
    /// The lines of a mail, of which so many bytes have come.
    Data(usize),
}

impl Service for Mail {
    type Connection = State;
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.set_deadline(id, IDLE_MAX);
        cx.write(id, b"220 mail.test ready\r\n");
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        cx.set_deadline(id, IDLE_MAX);
        while let Some(line) = input.take_until(b'\n') {
            let line = line.trim_ascii_end();
            match cx.state(id) {
                Some(State::Data(bytes)) => {
                    let bytes = *bytes;
                    take_line(cx, id, line, bytes);
                }
                _ if line.eq_ignore_ascii_case(b"STARTTLS") => {
                    cx.write(id, b"220 go ahead\r\n");
                    if cx.start_tls_server(id, &self.acceptor).is_err() {
                        cx.write(id, b"454 TLS is not possible\r\n");
                    }
                    // Whatever the client has sent behind the command belongs to the handshake.
                    return;
                }
                _ => command(cx, id, line),
            }
            if !cx.is_open(id) {
                return;
            }
        }
        if input.len() > LINE_MAX {
            cx.write(id, b"500 line too long\r\n");
            cx.close(id);
        }
    }

    fn secured(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        // Nothing that was said before counts any more.
        set(cx, id, State::Command);
    }
}

/// Takes a line of a mail of which so many bytes have come.
fn take_line(cx: &mut Context<Mail>, id: ConnectionId, line: &[u8], bytes: usize) {
    if line == b"." {
        println!("a mail of {bytes} bytes");
        cx.write(id, b"250 accepted\r\n");
        return set(cx, id, State::Command);
    }
    let bytes = bytes + line.len() + 2;
    if bytes > MAIL_BYTES_MAX {
        cx.write(id, b"552 too large\r\n");
        return cx.close(id);
    }
    set(cx, id, State::Data(bytes));
}

fn set(cx: &mut Context<Mail>, id: ConnectionId, state: State) {
    if let Some(held) = cx.state_mut(id) {
        *held = state;
    }
}

fn command(cx: &mut Context<Mail>, id: ConnectionId, line: &[u8]) {
    let is_secure = cx.tls(id).is_some();
    let name = line.split(|byte| *byte == b' ').next().unwrap_or_default().to_ascii_uppercase();
    let answer: &[u8] = match &name[..] {
        b"EHLO" if is_secure => b"250 mail.test\r\n",
        b"EHLO" => b"250-mail.test\r\n250 STARTTLS\r\n",
        b"QUIT" => {
            cx.write(id, b"221 goodbye\r\n");
            return cx.close(id);
        }
        b"MAIL" | b"RCPT" | b"DATA" | b"RSET" if !is_secure => b"530 STARTTLS comes first\r\n",
        b"NOOP" | b"MAIL" | b"RCPT" | b"RSET" => b"250 fine\r\n",
        b"DATA" => {
            set(cx, id, State::Data(0));
            b"354 end with a dot\r\n"
        }
        _ => b"502 unknown\r\n",
    };
    cx.write(id, answer);
}

/// Reads the certificate and its key, or generates new ones if no files are named.
fn certificate(files: Option<(String, String)>) -> Result<Acceptor, Box<dyn Error>> {
    if let Some((certificate, key)) = files {
        return Ok(Acceptor::from_pem(&std::fs::read(certificate)?, &std::fs::read(key)?)?);
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    Ok(Acceptor::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let acceptor = certificate(arguments.next().zip(arguments.next()))?;
    let mut event_loop = EventLoop::new(Config::default(), Mail { acceptor })?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}

#[cfg(test)]
mod tests {
    use sealed::sim::Simulation;

    use super::*;

    #[test]
    fn mail_is_refused_before_tls_and_nothing_is_injected_into_it() -> Result<(), Box<dyn Error>> {
        let sim = Simulation::new(1);
        let mut event_loop = sim.event_loop(Config::default(), Mail { acceptor: certificate(None)? })?;
        let address = event_loop.listen("10.0.0.1:25")?.address;
        sim.start(event_loop);
        let mut peer = sim.connect(&address);
        peer.expect("220 mail.test ready\r\n");
        peer.send("EHLO a\r\nMAIL FROM:<a@test>\r\n");
        peer.expect("250-mail.test\r\n250 STARTTLS\r\n530 STARTTLS comes first\r\n");
        peer.send("STARTTLS\r\nMAIL FROM:<attacker@test>\r\n");
        peer.expect("220 go ahead\r\n");
        // The peer gets an alert about the failed handshake, and no answer to the command.
        let rest = peer.expect_end();
        assert!(!String::from_utf8_lossy(&rest).contains("250"), "{rest:?}");
        Ok(())
    }
}
