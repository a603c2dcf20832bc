//! One loop of the server: requests in, calls to hub and engine, answers out.
//!
//! Here is what [`Handler`] calls, one line each: [`Gateway::run`] drains what follows. The rest by the way of a call:
//!
//! - `entering.rs`, `arriving.rs`: a connection, a request; what is decided before its body is read.
//! - `caller.rs`: the client behind a call. `judging.rs`, `hooks.rs`: the embedder and the back end are asked.
//! - `calling.rs`, `publishing.rs`, `subscribing.rs`, `socket.rs`, `socket_calls.rs`, `icomet.rs`: what is done for it.
//! - `pending.rs`, `answers.rs`: replies of the engine, responses, and the hub's way to subscribers.
//! - `tick.rs`, `ending.rs`, `token_expiry.rs`: what the clock brings, and how connections end.
//! - `inside.rs`: handles, and their readers. `telling.rs`: reports for the back end.
//! - `setup.rs`: how a loop is made.

mod answers;
mod arriving;
mod caller;
mod calling;
mod ending;
mod entering;
mod hooks;
mod icomet;
mod inside;
mod judging;
mod pending;
mod publishing;
mod setup;
mod socket;
mod socket_calls;
mod subscribing;
mod telling;
mod tick;
mod token_expiry;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use answers::{Answering, Out, problem_response};
use arriving::Arrival;
use caller::Caller;
use hooks::Site;
use inside::Readers;
use pending::Asker;
use publishing::Batch;
use sealed::{Address, CloseReason, ConnectionId, Input, ListenerId, TimerId, fault};
use sealed_http::client::{FetchId, Fetched};
use sealed_http::codec::DecodeError;
use sealed_http::server::{Intake, Preface};
use sealed_http::site::Cors;
use sealed_http::{Handler, Http, Problem as Details, Request, RequestHead, Response};
use slab::Slab;
use socket::Socket;
use tick::Chore;

use crate::access::Authorizer;
use crate::access::client::ClientTracker;
use crate::access::token::AdminKeys;
use crate::config::Config;
use crate::config::rules::Rules;
use crate::core::problem::Problem;
use crate::core::time::{LoopTime, UnixMillis};
use crate::engine::{ChannelEvent, Engine, Output, Tick};
use crate::handle::{LoopMessage, LoopThread};
use crate::hub::{Hub, SubscriberKey};
use crate::on_call::Judge;
use crate::ops::counters::LoopCounters;
use crate::ops::health::{Listener, LoopWatchdog};
use crate::ops::signals;
use crate::ops::static_files::StaticFiles;
use crate::protocols::call::Door;
use token_expiry::TokenExpirations;

pub(crate) use setup::Shared;

/// What the server keeps with each connection.
#[derive(Debug, Default)]
pub(crate) struct Client {
    session: SessionState,
    door: Door,
    /// Its address is not one that may come in.
    barred: bool,
    /// Which of the listed origins its page has, counted from 1, those of the front first; 0: none of them.
    origin: u16,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum SessionState {
    #[default]
    Nothing,
    /// Messages.
    Subscribed(SubscriberKey),
    /// The engine's reply.
    Asking,
    /// The engine's replies about several messages.
    Publishing,
    /// The back end's leave: the place of its question.
    Hooked(u32),
    /// Channels that come into use, or go out of it.
    Watching,
    /// Messages, on a WebSocket: its place among them.
    Socket(u32),
    /// The end of one that is over.
    SocketOver(u32),
}

#[derive(Debug)]
pub(crate) struct Gateway {
    config: Arc<Config>,
    /// Which of the loops it is.
    index: usize,
    hub: Hub,
    engine: Engine<Asker, LoopMessage>,
    batches: HashMap<ConnectionId, Batch>,
    site: Site,
    answering: Answering,
    preflight: Cors,
    admin_preflight: Cors,
    admin_keys: AdminKeys,
    authorizer: Authorizer,
    rules: Arc<Rules>,
    client_tracker: ClientTracker,
    /// Requests whose bodies are still coming.
    arrivals: HashMap<ConnectionId, Arrival>,
    token_expirations: TokenExpirations,
    files: StaticFiles,
    counters: Arc<[LoopCounters]>,
    /// The listener for the health of the loops: on the first loop only.
    life: Option<(Listener, LoopWatchdog)>,
    /// Connections that are notified of channels in use.
    watchers: Vec<ConnectionId>,
    /// Readers in this process.
    readers: Readers,
    /// The embedder's decision on calls, if it makes any.
    judge: Option<Judge>,
    sockets: Slab<Socket>,
    /// WebSockets of which a message has begun, and when it has to be whole.
    unfinished: HashMap<ConnectionId, LoopTime>,
    is_sweeping: bool,
    /// How soon the engine is woken, if a timer is set for that.
    wakes_in: Option<Duration>,
    /// Over how long the ends of streams are spread, once the server goes down.
    draining: Option<Duration>,
    _thread: LoopThread,
}

/// What a connection of the server costs while it waits, on all layers.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(sealed::slot_bytes::<sealed_http::Server<Gateway>>() <= 128);

impl Gateway {
    /// Runs what a callback does, then [drains](Self::pump) what follows from it.
    fn run<R>(&mut self, http: &mut Http<'_, Self>, callback: impl FnOnce(&mut Self, &mut Http<'_, Self>) -> R) -> R {
        let result = callback(self, http);
        self.pump(http);
        result
    }

    /// Takes the hub's orders to the engine, and what comes of them to hub and askers, until there is no more.
    fn pump(&mut self, http: &mut Http<'_, Self>) {
        loop {
            for order in std::mem::take(&mut self.hub.orders) {
                self.engine.order(now(http), order);
            }
            match self.engine.next_output() {
                Some(Output::Reply(asker, outcome)) => self.complete(http, asker, outcome),
                Some(Output::Channel(channel, event)) => {
                    let is_end = matches!(event, ChannelEvent::Cleared { .. } | ChannelEvent::Closed);
                    if is_end && !fault!("cleared-before-read-inside") {
                        // What was published before gets to its readers.
                        self.feed_readers(http);
                    }
                    let now = unix_time(http);
                    self.hub.event(&channel, event, now, &mut Out { http, answering: &self.answering });
                }
                Some(Output::NameTaken(claim)) => {
                    let now = unix_time(http);
                    self.hub.name_taken(claim, now, &mut Out { http, answering: &self.answering });
                }
                Some(Output::Presence { channel, id, movement }) => self.note_movement(http, channel, id, movement),
                Some(Output::Activity { channel, in_use }) => self.tell_watchers(http, &channel, in_use),
                None if self.hub.orders.is_empty() => break,
                None => {}
            }
        }
    }
}

impl Handler for Gateway {
    type Connection = Client;
    type Message = LoopMessage;
    type Timer = Chore;

    fn accepted(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {
        self.run(http, |gateway, http| gateway.come(http, id, listener, peer));
    }

    fn preface(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) -> Preface {
        self.run(http, |gateway, http| gateway.read_preface(http, id, input))
    }

    fn intake(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
        self.run(http, |gateway, http| gateway.look_ahead(http, id, head))
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        self.run(http, |gateway, http| gateway.take_request(http, id, request));
    }

    fn answered(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        self.run(http, |gateway, _| gateway.end_exchange(id));
    }

    fn refusal(&mut self, error: DecodeError) -> Response {
        if error == DecodeError::BodyTooLarge {
            return problem_response(Problem::BodyTooLarge).with(&self.answering.fields[0]);
        }
        Details::from(error).into()
    }

    fn ended(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        self.run(http, |gateway, http| gateway.read_end(http, id));
    }

    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
        self.run(http, |gateway, http| gateway.hear_socket(http, id, input));
    }

    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        self.run(http, |gateway, http| gateway.resume_output(http, id));
    }

    fn timed_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        self.run(http, |gateway, http| gateway.reach_deadline(http, id));
    }

    fn closed(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, client: Client, why: CloseReason) {
        tracing::trace!(?id, ?why, "connection closed");
        self.run(http, |gateway, http| gateway.forget_connection(http, id, &client));
    }

    fn fetched(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: Fetched<'_>) {
        self.run(http, |gateway, http| gateway.site_answered(http, id, &fetched));
    }

    fn message(&mut self, http: &mut Http<'_, Self>, message: LoopMessage) {
        self.run(http, |gateway, http| match message {
            LoopMessage::Engine(mail) => gateway.engine.receive(now(http), mail),
            LoopMessage::Handle(request) => gateway.hear_handle(http, *request),
        });
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: TimerId, chore: Chore) {
        self.run(http, |gateway, http| gateway.do_chore(http, chore));
    }

    fn signalled(&mut self, _: &mut Http<'_, Self>, signal: i32) {
        let signal = signals::name(signal);
        tracing::info!("{signal} received: settings are read at the start only, and nothing was reloaded");
    }

    /// Needs steps of its own between what it drains, and is the one callback that calls [`pump`](Self::pump) itself.
    fn turned(&mut self, http: &mut Http<'_, Self>) {
        self.end_tick(http);
    }

    fn draining(&mut self, http: &mut Http<'_, Self>, limit: Duration) {
        self.run(http, |gateway, http| gateway.go_down(http, limit));
    }
}

/// The connection waits for nothing any more.
fn done(http: &mut Http<'_, Gateway>, id: ConnectionId) {
    if let Some(client) = http.state_mut(id) {
        client.session = SessionState::Nothing;
    }
}

/// Looks at the calendar.
fn unix_time(http: &Http<'_, Gateway>) -> UnixMillis {
    UnixMillis::since_1970(http.unix_time())
}

/// Looks at the loop's own clock, which nobody sets.
fn loop_time(http: &Http<'_, Gateway>) -> LoopTime {
    LoopTime::since_start(http.now())
}

fn now(http: &mut Http<'_, Gateway>) -> Tick {
    Tick { time: unix_time(http), loop_time: loop_time(http), random: http.random() }
}
