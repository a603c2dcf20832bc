//! The comet server beside axum, in one program: axum serves the site, and ccomet serves the
//! clients that wait for news, each on a port of its own. The site publishes by a handle, and also
//! streams by it.
//!
//! Try it: `cargo run -p examples --example beside_axum`, then, with the address that it prints for
//! subscribers:
//!
//!     curl -N -H 'Accept: text/event-stream' ADDRESS/channels/orders.7
//!     curl -N 127.0.0.1:7777/orders/7/events
//!     curl -d paid 127.0.0.1:7777/orders/7
//!
//! Ctrl-C ends both servers.

use std::convert::Infallible;
use std::error::Error;
use std::thread;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Sse;
use axum::response::sse;
use axum::routing::{get, post};
use ccomet::handle::{Event, Message, Start};
use ccomet::{Action, Config, Decision, Handle, HandleError, Server};
use futures_util::Stream;
use futures_util::stream::poll_fn;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The number of events that wait for a slow client of axum. A slower client continues where it
/// was.
const EVENTS_MAX: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let mut config = Config::default();
    config.front.listen = "127.0.0.1:0".parse()?;
    config.admin.listen = "127.0.0.1:0".parse()?;
    config.front.demo = false;
    let mut server = Server::bind(config)?;
    server.stop_on_signals()?;
    // Clients of ccomet only read. The site publishes.
    server.on_call(|call| if call.action() == Action::Publish { Decision::Refuse } else { Decision::Allow });
    let (front, handle) = (server.front().clone(), server.handle());
    let (end_sender, end) = oneshot::channel();
    let running = thread::spawn(move || {
        let outcome = server.run();
        // If axum has ended already, nothing receives this.
        let _ = end_sender.send(());
        outcome
    });
    let stop = handle.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        println!("listening on {}", listener.local_addr()?);
        println!("subscribers at http://{front}");
        axum::serve(listener, site(handle)).with_graceful_shutdown(async { _ = end.await }).await
    });
    stop.stop();
    running.join().map_err(|_| "the comet server panicked")??;
    Ok(served?)
}

fn site(handle: Handle) -> Router {
    Router::new().route("/orders/{id}", post(publish)).route("/orders/{id}/events", get(stream)).with_state(handle)
}

/// Publishes an event of an order. Returns the position, from which a client can start.
async fn publish(
    State(handle): State<Handle>,
    Path(id): Path<u64>,
    news: String,
) -> Result<String, (StatusCode, String)> {
    let published = handle.publish(&channel(id), Message::new(news).event("order")).await;
    published.map(|position| position.to_string()).map_err(|error| refuse(&error))
}

/// Streams the events of an order, from the beginning.
async fn stream(
    State(handle): State<Handle>,
    Path(id): Path<u64>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, (StatusCode, String)> {
    let mut events = handle.events([channel(id)], &Start::Oldest, EVENTS_MAX).map_err(|error| refuse(&error))?;
    // The stream ends with the subscription, which ends with the comet server. If the client leaves
    // first, the subscription ends with the stream.
    let stream = poll_fn(move |cx| events.poll_next(cx).map(|event| event.map(|event| Ok(event_of(&event)))));
    Ok(Sse::new(stream))
}

fn event_of(event: &Event) -> sse::Event {
    match event {
        Event::Message(message) => sse::Event::default().data(String::from_utf8_lossy(&message.data)),
        Event::Gap { missed, .. } => sse::Event::default().event("gap").data(format!("{missed:?}")),
        other => sse::Event::default().comment(if other.is_last() { "over" } else { "begun" }),
    }
}

fn channel(id: u64) -> String {
    format!("orders.{id}")
}

fn refuse(error: &HandleError) -> (StatusCode, String) {
    let status = match error {
        HandleError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}
