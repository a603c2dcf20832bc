//! A chat in a browser: a page, and WebSockets: each text from one is passed on to all.
//!
//! Try it: `cargo run -p examples --example web_chat`, then open <http://127.0.0.1:7777/> in two
//! windows.

use sealed::{Config, ConnectionId, EventLoop};
use sealed_http::site::{Message, StaticFile, WebSockets};
use sealed_http::websocket::text_frame;
use sealed_http::{Server, Settings, Site};

const PAGE: &[u8] = b"<!doctype html><title>Chat</title><form><input autofocus></form><pre></pre><script>
    const socket = new WebSocket(location.href.replace('http', 'ws') + 'chat')
    const [form, input, text] = ['form', 'input', 'pre'].map(name => document.querySelector(name))
    socket.onmessage = event => text.prepend(event.data + '\\n')
    form.onsubmit = event => { event.preventDefault(); socket.send(input.value); input.value = '' }
</script>";

fn main() -> sealed::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let chat = WebSockets::new(|members: &mut Vec<ConnectionId>, http, _, message| {
        let Message::Text(text) = message else { return };
        // The frame is made once, and shared.
        let frame = text_frame(&text);
        for member in members {
            http.send_frame(*member, &frame);
        }
    })
    .on_open(|members, _, id, _, _| members.push(id))
    .on_close(|members, _, id| members.retain(|member| *member != id))
    .allow_origin(format!("http://{address}"));
    let site = Site::new(Vec::new()).file("/", StaticFile::new("page.html", PAGE)).websocket("/chat", chat).log(
        |_, _, _, exchange| {
            eprintln!("{} {} {}", exchange.method, exchange.path, exchange.status.unwrap_or(0));
        },
    );
    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), site))?;
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
