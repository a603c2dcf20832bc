//! The smallest HTTP server: a handler that answers each request at once.
//!
//! Try it: `cargo run -p examples --example hello_http`, then `curl -i 127.0.0.1:7777/world`.

use sealed::{Config, ConnectionId, EventLoop};
use sealed_http::{Handler, Http, Request, Response, Server, Settings};

struct Hello;

impl Handler for Hello {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        let text = format!("{} {}\n", request.head.method_name(), request.head.path());
        http.respond(id, &Response::new(200).header("Content-Type", "text/plain").body(text));
    }
}

fn main() -> sealed::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Hello))?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
