//! One loop of the server: requests arrive, call hub and engine, and are answered.
//!
//! This file has the callbacks of [`Handler`], in one line each: [`Gateway::run`] processes what
//! they cause. The other files, in the order in which a call passes them:
//!
//! - `entering.rs`, `arriving.rs`: a connection, a request; the decisions before its body is read.
//! - `caller.rs`: the client behind a call. `judging.rs`, `hooks.rs`: questions to the embedder and
//!   the back end.
//! - `calling.rs`, `publishing.rs`, `subscribing.rs`, `socket.rs`, `socket_calls.rs`, `icomet.rs`:
//!   the execution of calls.
//! - `metering.rs`: the counts of this loop, for operators.
//! - `pending.rs`, `answers.rs`: replies of the engine, responses, and the output from the hub to
//!   subscribers.
//! - `tick.rs`, `ending.rs`, `token_expiry.rs`: timers, and the end of connections.
//! - `reloading.rs`: reloads of the settings. `key_set.rs`: the keys of `auth.jwks_url`.
//! - `inside.rs`: handles, and their readers. `reporting.rs`: reports to the back end.
//! - `setup.rs`: the construction of a loop. `redis.rs`: the service that connects it to Redis.

mod answers;
mod arriving;
mod caller;
mod calling;
mod console;
mod ending;
mod entering;
mod hooks;
mod icomet;
mod inside;
mod judging;
mod key_set;
mod metering;
mod pending;
mod publishing;
#[cfg(feature = "redis")]
mod redis;
mod reloading;
mod reporting;
mod setup;
mod socket;
mod socket_calls;
mod subscribing;
mod tick;
mod token_expiry;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use answers::{Answering, Out, problem_response};
use arriving::Arrival;
use caller::Caller;
use hooks::Site;
use inside::Readers;
use key_set::KeySetFetches;
use metering::Meter;
use pending::Asker;
use publishing::PendingBatch;
use reloading::Reloads;
use sealed::{Address, CloseReason, ConnectionId, Input, ListenerId, Resolver, TimerId, fault};
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
use crate::config::tls::TlsConnector;
use crate::core::problem::Problem;
use crate::core::time::{LoopTime, UnixMillis};
#[cfg(feature = "redis")]
use crate::engine::Link;
#[cfg(feature = "disk")]
use crate::engine::SharedStore;
use crate::engine::{ChannelEvent, Engine, Output, Tick};
use crate::handle::{LoopMessage, LoopThread};
use crate::hub::{Hub, SubscriberKey};
use crate::on_call::Judge;
use crate::ops::counters::LoopCounters;
use crate::ops::health::{Listener, LoopWatchdog};
use crate::ops::metrics::Metrics;
use crate::ops::signals;
use crate::ops::static_files::StaticFiles;
use crate::protocols::call::Door;
use token_expiry::TokenExpirations;

#[cfg(feature = "redis")]
pub(crate) use redis::RedisParts;
pub(crate) use reloading::{Acceptors, ReloadParts, Taken};
#[cfg(feature = "disk")]
pub(crate) use setup::store_times;
pub(crate) use setup::{ServerParts, http_settings};

/// The state of each connection.
#[derive(Debug, Default)]
pub(crate) struct Client {
    session: SessionState,
    door: Door,
    /// Whether its address may not connect.
    barred: bool,
    /// The number of its page's origin among the listed origins, counted from 1, those of the front
    /// first; 0 if it is not listed.
    origin: u16,
}

/// The event that a connection waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum SessionState {
    #[default]
    Nothing,
    /// Messages on a stream.
    Subscribed(SubscriberKey),
    /// Messages for a poll.
    Polling(SubscriberKey),
    /// The engine's reply.
    Asking,
    /// The engine's replies about several messages.
    Publishing,
    /// The back end's answer to the question with this index.
    Hooked(u32),
    /// Changes of the channels in use.
    Watching,
    /// Messages, on the WebSocket with this index.
    Socket(u32),
    /// The close of the WebSocket with this index, which has ended.
    SocketOver(u32),
}

#[derive(Debug)]
pub(crate) struct Gateway {
    config: Arc<Config>,
    /// The index of this loop.
    index: usize,
    hub: Hub,
    engine: Engine<Asker, LoopMessage>,
    batches: HashMap<ConnectionId, PendingBatch>,
    site: Site,
    /// Resolves the host name of the back end.
    resolver: Resolver,
    reloads: Reloads,
    key_set: KeySetFetches,
    /// For the fetches of the key set, if its URL has `https`.
    key_set_tls: Option<TlsConnector>,
    /// The store on disk, if there is one.
    #[cfg(feature = "disk")]
    disk_store: Option<Arc<SharedStore>>,
    /// The link to Redis, until it is started.
    #[cfg(feature = "redis")]
    link: Option<Box<Link>>,
    answering: Answering,
    preflight: Cors,
    admin_preflight: Cors,
    admin_keys: AdminKeys,
    authorizer: Authorizer,
    rules: Arc<Rules>,
    client_tracker: ClientTracker,
    /// Requests whose bodies have not arrived completely.
    arrivals: HashMap<ConnectionId, Arrival>,
    token_expirations: TokenExpirations,
    files: StaticFiles,
    counters: Arc<[LoopCounters]>,
    metrics: Arc<Metrics>,
    /// The listener for the health of the loops; on the first loop only.
    life: Option<Listener>,
    watchdog: LoopWatchdog,
    /// Connections that are notified of channels in use.
    watchers: Vec<ConnectionId>,
    /// Readers in this process.
    readers: Readers,
    /// The embedder's decision on calls, if the embedder makes any.
    judge: Option<Judge>,
    sockets: Slab<Socket>,
    /// WebSockets with an incomplete message, and the time at which it must be complete.
    unfinished: HashMap<ConnectionId, LoopTime>,
    slow_since: console::SlowSince,
    is_sweeping: bool,
    /// The time at which the engine is woken, and the timer for that.
    wake: Option<(LoopTime, TimerId)>,
    /// The time over which the ends of streams are spread, during a shutdown.
    draining: Option<Duration>,
    _thread: LoopThread,
}

/// The reason for `tls_failed` in the log.
const TLS_FAILED: &str = "TLS with a client failed: it spoke plain HTTP, offered no version or protocol (ALPN) of the \
                          server, or did not accept the certificate.";

/// The memory of an idle connection of the server, over all layers.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(sealed::slot_bytes::<sealed_http::Server<Gateway>>() <= 128);

impl Gateway {
    /// Runs a callback, then [processes](Self::pump) what it has caused.
    fn run<R>(&mut self, http: &mut Http<'_, Self>, callback: impl FnOnce(&mut Self, &mut Http<'_, Self>) -> R) -> R {
        let result = callback(self, http);
        self.pump(http);
        result
    }

    /// Passes the hub's orders to the engine, and the engine's output to hub and askers, until
    /// there is no more.
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
                        // Earlier publications must reach their readers first.
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

    #[cfg(feature = "redis")]
    fn started(&mut self, http: &mut Http<'_, Self>) {
        self.start_link(http);
    }

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
            self.answering.refusals.note_unlogged(Problem::BodyTooLarge.code());
            return problem_response(Problem::BodyTooLarge).with(&self.answering.fields[0]);
        }
        if error == DecodeError::Tls {
            let reason = "A client speaks TLS to a listener of plain HTTP: its URL should begin with http://.";
            self.answering.refusals.note_silent(error.code(), reason, false, String::new());
        } else {
            self.answering.refusals.note_unlogged(error.code());
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
        if why == CloseReason::Failed(ErrorKind::InvalidData) {
            self.answering.refusals.note_silent("tls_failed", TLS_FAILED, false, String::new());
        }
        self.run(http, |gateway, http| gateway.forget_connection(http, id, &client));
    }

    fn fetched(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: Fetched<'_>) {
        self.run(http, |gateway, http| {
            if !gateway.key_set_answered(http, id, &fetched) {
                gateway.site_answered(http, id, &fetched);
            }
        });
    }

    fn message(&mut self, http: &mut Http<'_, Self>, message: LoopMessage) {
        self.run(http, |gateway, http| match message {
            LoopMessage::Engine(mail) => gateway.engine.receive(now(http), mail),
            LoopMessage::Handle(request) => gateway.hear_handle(http, *request),
            LoopMessage::Reload(mail) => gateway.take_reload_mail(http, *mail),
            // The results are processed at the end of this tick.
            LoopMessage::StoreReady => {}
        });
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: TimerId, chore: Chore) {
        self.run(http, |gateway, http| gateway.do_chore(http, chore));
    }

    fn signalled(&mut self, http: &mut Http<'_, Self>, signal: i32) {
        if signals::is_reload(signal) {
            return self.run(http, |gateway, http| gateway.reload(http, None));
        }
        tracing::info!("{} received: it has no effect. SIGHUP reloads the settings", signals::name(signal));
    }

    /// Ends the tick. This is the only callback that calls [`pump`](Self::pump) itself, since it
    /// needs further steps in between.
    fn turned(&mut self, http: &mut Http<'_, Self>) {
        self.end_tick(http);
    }

    fn draining(&mut self, http: &mut Http<'_, Self>, limit: Duration) {
        self.run(http, |gateway, http| gateway.go_down(http, limit));
    }
}

/// Resets a connection: it waits for nothing.
fn done(http: &mut Http<'_, Gateway>, id: ConnectionId, meter: &Meter) {
    set_session(http, id, SessionState::Nothing, meter);
}

/// Sets the event that a connection waits for.
fn set_session(http: &mut Http<'_, Gateway>, id: ConnectionId, session: SessionState, meter: &Meter) {
    if let Some(client) = http.state_mut(id) {
        meter.change_transport(client.door, client.session, session);
        client.session = session;
    }
}

/// Returns the time of the calendar.
fn unix_time(http: &Http<'_, Gateway>) -> UnixMillis {
    UnixMillis::since_1970(http.unix_time())
}

/// Returns the time of the loop's own clock, which is never set.
fn loop_time(http: &Http<'_, Gateway>) -> LoopTime {
    LoopTime::since_start(http.now())
}

fn now(http: &mut Http<'_, Gateway>) -> Tick {
    Tick { time: unix_time(http), loop_time: loop_time(http), random: http.random() }
}
