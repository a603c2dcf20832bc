//! A client: sends a request to a server, and prints the answer as it comes, or the events of an
//! event stream.
//!
//! Try it: `cargo run -p examples --example fetch -- 127.0.0.1:7777 /world` beside the example
//! `hello_http`, or `... -- 127.0.0.1:8100 /channels/news text/event-stream` beside a comet server
//! (`cargo run --release`).

use std::io::Write;
use std::time::Duration;

use sealed::{Config, ConnectionId, EventLoop};
use sealed_http::client::{EventStream, Fetch, FetchId, Fetched, Upstream};
use sealed_http::codec::ResponseHead;
use sealed_http::{Handler, Http, Request, Response, Server, Settings};

/// Maximum number of bytes of an event.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Prints an answer. A handler of a server has the same call, `fetched`, beside its `request`.
#[derive(Default)]
struct Printer {
    events: Option<EventStream>,
    failed: bool,
}

impl Printer {
    fn begin(&mut self, head: &ResponseHead<'_>) {
        eprintln!("{} {}", head.status(), head.reason());
        let is_stream = head.header_str("Content-Type").is_some_and(|value| value.starts_with("text/event-stream"));
        self.events = is_stream.then(|| EventStream::new(EVENT_BYTES_MAX));
        self.failed = !head.is_success();
    }

    fn print(&mut self, data: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        match &mut self.events {
            Some(events) => events.read(data, |event| println!("{}: {}", event.event, event.data))?,
            None => std::io::stdout().write_all(data)?,
        }
        Ok(())
    }
}

impl Handler for Printer {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: &Request<'_>) {
        // Never called: the program does not listen.
        http.respond(id, &Response::new(404));
    }

    fn fetched(&mut self, http: &mut Http<'_, Self>, _: FetchId, fetched: Fetched<'_>) {
        match fetched {
            Fetched::Head(head) => self.begin(&head),
            Fetched::Data(data) => {
                if let Err(error) = self.print(data) {
                    eprintln!("{error}");
                    self.failed = true;
                    http.stop();
                }
            }
            Fetched::Failed(error) => {
                eprintln!("{error}");
                self.failed = true;
                http.stop();
            }
            // Without `streamed`, the answer would come as `Whole`.
            Fetched::End | Fetched::Whole(..) => http.stop(),
            Fetched::Drained => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let target = arguments.next().unwrap_or_else(|| "/".to_owned());
    let accept = arguments.next().unwrap_or_else(|| "*/*".to_owned());
    let fetch = Fetch::get(target)?.try_header("Accept", accept)?;
    // A stream may last for as long as it is not silent.
    let fetch = fetch.streamed().limit(None).silence_max(Duration::from_secs(60));

    let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Printer::default()))?;
    let (server, cx) = event_loop.parts();
    let (_, mut http) = server.parts(cx);
    let upstream = http.add_upstream(Upstream::to(address));
    http.fetch(upstream, &fetch);
    event_loop.stop_on_signals()?;
    event_loop.run()?;
    std::process::exit(i32::from(event_loop.service().handler().failed))
}
