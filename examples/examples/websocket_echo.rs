//! A WebSocket echo: the opening handshake with a check of the origin, messages, pings that detect
//! clients that are gone, and a close by either side.
//!
//! Try it: `cargo run -p examples --example websocket_echo`, then
//! `python3 -m websockets ws://127.0.0.1:7777` (after `pip install websockets`), or the console of
//! a browser on a page that is not from the web, such as `about:blank`, whose origin is `null`:
//!
//!     s = new WebSocket("ws://127.0.0.1:7777")
//!     s.onmessage = e => console.log(e.data)
//!     s.onopen = () => s.send("hello")

use std::time::Duration;

use sealed::{Config, ConnectionId, EventLoop, Input};
use sealed_http::websocket::{self, CloseCode, Codec, Event, Kind, Limits};
use sealed_http::{Handler, Http, Request, Response, Server, Settings};

/// A client that is silent for this long gets a ping, and has the same time again to answer.
const SILENCE: Duration = Duration::from_secs(20);

/// The origins of pages that are accepted. Programs send no origin, and are always accepted. Any
/// page can obtain the origin `null`: only an echo may be so generous.
const ORIGINS: [&str; 2] = ["null", "http://127.0.0.1:7777"];

struct Echo;

#[derive(Default)]
struct Client {
    socket: Codec,
    is_asked: bool,
}

impl Handler for Echo {
    type Connection = Client;
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        match websocket::accept(&request.head, &[]) {
            Ok(accepted) if accepted.origin.is_some_and(|origin| !ORIGINS.contains(&origin)) => {
                http.respond(id, &Response::new(403).body("This page may not ask here.\n"));
            }
            Ok(accepted) => {
                if http.upgrade(id, &accepted.response) {
                    http.set_deadline(id, SILENCE);
                }
            }
            Err(refusal) => http.respond(id, &refusal.into()),
        }
    }

    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
        http.set_deadline(id, SILENCE);
        let Some(client) = http.state_mut(id) else { return };
        client.is_asked = false;
        let mut out = Vec::new();
        let is_over = loop {
            match client.socket.read(input, &Limits::default(), &mut out) {
                Ok(Some(Event::Text(text))) => {
                    client.socket.encode(Kind::Text, text.as_bytes(), &mut out);
                }
                Ok(Some(Event::Binary(bytes))) => {
                    client.socket.encode(Kind::Binary, &bytes, &mut out);
                }
                Ok(Some(Event::Close { .. })) | Err(_) => break true,
                Ok(Some(_)) => {} // the codec answers pings, and a pong is a sign of life
                Ok(None) => break false,
            }
        };
        // A client that does not read its answers is not read from until it does.
        if !http.write(id, &out) {
            http.pause(id);
        }
        if is_over {
            http.close(id);
        }
    }

    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        http.resume(id);
    }

    fn timed_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        let Some(client) = http.state_mut(id) else { return };
        // A client that is silent again, or does not answer a close, is gone.
        if std::mem::replace(&mut client.is_asked, true) || !client.socket.is_open() {
            return http.abort(id);
        }
        http.write(id, &websocket::ping_frame(b""));
        http.set_deadline(id, SILENCE);
    }

    fn draining(&mut self, http: &mut Http<'_, Self>, limit: Duration) {
        for id in http.connection_ids() {
            let mut out = Vec::new();
            if http.state_mut(id).is_some_and(|client| client.socket.close(CloseCode::GOING_AWAY, "", &mut out)) {
                http.write(id, &out);
                http.set_deadline(id, limit);
            }
        }
    }
}

fn main() -> sealed::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Echo))?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
