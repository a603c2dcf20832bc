//! TLS: the same echo service; only its listener differs.
//!
//! Try it: `cargo run -p examples --example tls_echo`, then
//! `openssl s_client -connect 127.0.0.1:7777`. With a certificate and a key of your own, as PEM
//! files: `… --example tls_echo -- 127.0.0.1:7777 certificate.pem key.pem`. On SIGHUP the files are
//! read again.

use std::error::Error;

use sealed::tls::{self, Acceptor};
use sealed::{Config, ConnectionId, Context, EventLoop, Input, Listen, Service};

struct Echo {
    acceptor: Acceptor,
    /// The paths of the certificate and the key.
    files: Option<(String, String)>,
}

impl Service for Echo {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        cx.write(id, input.take_all());
    }

    fn signalled(&mut self, _: &mut Context<Self>, _: i32) {
        // If the files cannot be read, the server keeps its certificate. Existing connections keep
        // theirs in any case.
        match read(self.files.as_ref()) {
            Ok((certificate, key)) => match tls::server_config(&certificate, &key) {
                Ok(config) => self.acceptor.replace(config),
                Err(error) => eprintln!("{error}"),
            },
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// Reads the certificate and its key, or generates new ones if no files are named; no client has a
/// reason to trust those.
fn read(files: Option<&(String, String)>) -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error>> {
    if let Some((certificate, key)) = files {
        return Ok((std::fs::read(certificate)?, std::fs::read(key)?));
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    Ok((made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes()))
}

fn main() -> Result<(), Box<dyn Error>> {
    const HANG_UP: i32 = 1;
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let files = arguments.next().zip(arguments.next());
    let (certificate, key) = read(files.as_ref())?;
    let acceptor = Acceptor::from_pem(&certificate, &key)?;
    let mut event_loop = EventLoop::new(Config::default(), Echo { acceptor: acceptor.clone(), files })?;
    println!("listening on {}", event_loop.listen(Listen::on(address).tls(acceptor))?.address);
    event_loop.deliver_signals(&[HANG_UP])?;
    event_loop.stop_on_signals()?;
    Ok(event_loop.run()?)
}
