//! One loop of the server: requests in, calls to hub and engine, answers out.
//!
//! A message's way leads through [`Gateway::request`], the engine, and [`Gateway::turned`], where everyone gets what is new.

mod answers;
mod arriving;
mod caller;
mod calling;
mod entering;
mod hooks;
mod icomet;
mod inside;
mod judging;
mod pending;
mod publishing;
mod setup;
mod socket;
mod subscribing;
mod telling;
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
use sealed_http::{
    Cors, DecodeError, FetchId, Fetched, Handler, Http, Intake, Preface, Problem as Details, Request, RequestHead,
    Response,
};
use slab::Slab;
use socket::Socket;

use crate::auth::{AdminKeys, Gate};
use crate::config::Config;
use crate::core::time::{LoopTime, UnixMillis};
use crate::doorkeeper::Doorkeeper;
use crate::engine::{ChannelEvent, Engine, Output, Tick};
use crate::files::Files;
use crate::handle::{LoopMessage, LoopThread};
use crate::hub::{Hub, SubscriberKey};
use crate::on_call::Judge;
use crate::protocols::call::Door;
use crate::pulse::{Life, Listener, Pulse};
use crate::rules::Rules;
use crate::signals;
use crate::tally::Tally;
use crate::wire::problem::Problem;
use token_expiry::TokenExpirations;

pub(crate) use setup::Shared;

/// How often old messages and idle channels are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How much longer a poll waits whose channel has not come in time.
const POLL_EXTENSION: Duration = Duration::from_secs(1);

/// The least time after which streams are told to come back when the server goes down, in milliseconds.
const RETRY_MIN_MS: u64 = 1_000;

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
    /// Its replies about several messages: the place among those.
    Publishing(u32),
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
    engine: Engine<Asker>,
    batches: Slab<Batch>,
    site: Site,
    last_serial: u32,
    answering: Answering,
    preflight: Cors,
    admin_preflight: Cors,
    admin_keys: AdminKeys,
    gate: Gate,
    rules: Arc<Rules>,
    doorkeeper: Doorkeeper,
    /// Requests whose bodies are still coming.
    arrivals: HashMap<ConnectionId, Arrival>,
    token_expirations: TokenExpirations,
    files: Files,
    tallies: Arc<[Tally]>,
    /// Who wants to know whether the loops go on: on the first of them.
    life: Option<(Listener, Pulse)>,
    /// Who hears of channels in use.
    watchers: Vec<ConnectionId>,
    /// Who reads channels from inside.
    readers: Readers,
    /// Who is asked about calls.
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

    /// This loop goes on; the first one tells where all of them do.
    fn show_life(&mut self) {
        self.tallies[self.index].beat();
        if let Some((Listener(tell), pulse)) = &mut self.life
            && pulse.is_felt(&self.tallies)
        {
            tell(Life::Alive);
        }
    }
}

/// What a timer is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chore {
    /// To look for old messages and idle channels.
    Sweep,
    /// To go on with what the engine could not finish in a tick.
    WakeEngine,
    /// To tell the back end again what it did not hear.
    TellSite,
    /// To look for questions to the back end that have waited for too long.
    LookAtQuestions,
}

impl Handler for Gateway {
    type Connection = Client;
    type Message = LoopMessage;
    type Timer = Chore;

    fn accepted(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {
        self.come(http, id, listener, peer);
    }

    fn preface(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) -> Preface {
        self.read_preface(http, id, input)
    }

    fn intake(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
        self.look_ahead(http, id, head)
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        self.take_request(http, id, request);
        self.pump(http);
    }

    fn answered(&mut self, _: &mut Http<'_, Self>, id: ConnectionId) {
        self.end_arrival(id);
        if !fault!("proxied-connection-outlasts-answer") {
            self.doorkeeper.answered(id);
        }
    }

    fn refusal(&mut self, error: DecodeError) -> Response {
        if error == DecodeError::BodyTooLarge {
            return problem_response(Problem::MessageTooLarge).with(&self.answering.fields[0]);
        }
        Details::from(error).into()
    }

    fn ended(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        // A browser that leaves looks just like this; a client that publishes and hangs up at once still gets its answer.
        let is_left = match http.state(id).map(|client| client.session) {
            None | Some(SessionState::Nothing | SessionState::Asking | SessionState::Publishing(_)) => false,
            Some(SessionState::Hooked(_)) if fault!("lost-subscriber-waited-for") => false,
            Some(SessionState::Hooked(question)) => self.site.is_about_subscribing(question),
            Some(_) => true,
        };
        if is_left {
            http.abort(id);
        }
    }

    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
        self.hear_socket(http, id, input);
        self.pump(http);
    }

    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        if let Some(key) = self.subscriber_of(http.state(id)) {
            let now = unix_time(http);
            self.hub.drained(key, now, &mut Out { http, answering: &self.answering });
        }
        if let Some(SessionState::Socket(key)) = http.state(id).map(|client| client.session) {
            self.socket_drained(http, id, key);
        }
    }

    fn timed_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        let Some(key) = self.subscriber_of(http.state(id)) else { return http.abort(id) };
        let now = unix_time(http);
        if let (Some(spread), true) = (self.draining, self.hub.is_stream(key)) {
            let spread_ms = (spread.as_millis() as u64).max(4_000);
            let retry_ms = RETRY_MIN_MS + http.random() % spread_ms;
            self.hub.shut_down(key, retry_ms, now, &mut Out { http, answering: &self.answering });
        } else if self.hub.is_stream(key) {
            self.look_after(http, id, key);
        } else if self.draining.is_none() && self.hub.has_no_position(key) {
            // Its channel is on its way; without it there is nothing to answer.
            http.set_deadline(id, POLL_EXTENSION);
        } else {
            self.hub.time_out(key, now, &mut Out { http, answering: &self.answering });
        }
        self.pump(http);
    }

    fn closed(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, client: Client, why: CloseReason) {
        tracing::trace!(?id, ?why, "connection closed");
        self.doorkeeper.closed(id);
        self.answering.refusals.closed(id);
        self.end_arrival(id);
        self.unfinished.remove(&id);
        // Whatever became of its stream: one that was refused, or whose channel was closed, has had an expiration too.
        if !fault!("lease-outlives-connection") {
            self.token_expirations.forget(id);
        }
        match client.session {
            SessionState::Subscribed(key) => {
                self.hub.unsubscribe(key, unix_time(http));
                self.pump(http);
            }
            SessionState::Publishing(key) => {
                self.batches.try_remove(key as usize);
            }
            SessionState::Hooked(_) if fault!("question-outlives-asker") => {}
            SessionState::Hooked(question) => self.forget_question(http, question),
            SessionState::Watching => {
                self.unwatch(http, id);
                self.pump(http);
            }
            SessionState::Socket(key) => {
                let socket = self.sockets.remove(key as usize);
                if let Some(question) = socket.question {
                    self.forget_question(http, question);
                }
                self.hub.unsubscribe(socket.subscriber, unix_time(http));
                self.pump(http);
            }
            SessionState::SocketOver(key) => {
                if let Some(question) = self.sockets.remove(key as usize).question {
                    self.forget_question(http, question);
                }
            }
            SessionState::Nothing | SessionState::Asking => {}
        }
    }

    fn fetched(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: Fetched<'_>) {
        self.site_answered(http, id, &fetched);
        self.pump(http);
    }

    fn message(&mut self, http: &mut Http<'_, Self>, message: LoopMessage) {
        match message {
            LoopMessage::Engine(mail) => self.engine.receive(now(http), mail),
            LoopMessage::Handle(request) => self.hear_handle(http, *request),
        }
        self.pump(http);
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: TimerId, chore: Chore) {
        match chore {
            Chore::Sweep => {
                self.hub.sweep(unix_time(http));
                self.doorkeeper.sweep(loop_time(http));
                if !fault!("pieces-take-for-ever") {
                    self.end_unfinished(http);
                }
                self.engine.sweep(now(http));
                self.site.sweep(loop_time(http));
                self.sweep_readers(http);
                self.show_life();
                self.answering.refusals.note_pauses(http.stats().accept_pauses);
                if !fault!("refusals-not-logged") {
                    self.answering.refusals.write_due(unix_time(http));
                }
                self.pump(http);
            }
            // It goes on at the end of this tick.
            Chore::WakeEngine => self.wakes_in = None,
            // Told at the end of this tick.
            Chore::TellSite => self.site_has_rested(),
            Chore::LookAtQuestions => {
                self.look_at_questions(http);
                self.pump(http);
            }
        }
    }

    fn signalled(&mut self, _: &mut Http<'_, Self>, signal: i32) {
        let signal = signals::name(signal);
        tracing::info!("{signal} received: settings are read at the start only, and nothing was reloaded");
    }

    fn turned(&mut self, http: &mut Http<'_, Self>) {
        // A loop to which nobody ever connects may have channels on its shard all the same.
        let is_unvisited = fault!("unvisited-loop-unswept") && http.connections() == 0;
        if !is_unvisited && !std::mem::replace(&mut self.is_sweeping, true) {
            http.set_interval(SWEEP_INTERVAL, Chore::Sweep);
        }
        self.engine.end_tick(now(http));
        self.pump(http);
        // Ahead of the flush, after which what the shard has dropped is gone.
        self.feed_readers(http);
        if self.hub.is_dirty() {
            let now = unix_time(http);
            self.hub.flush(now, &mut Out { http, answering: &self.answering });
            self.pump(http);
        }
        let delay = self.engine.post(now(http));
        let delay = if self.hub.has_ready_followers() { Some(Duration::ZERO) } else { delay };
        if let Some(delay) = delay
            && self.wakes_in.is_none_or(|wakes_in| delay < wakes_in)
        {
            http.set_timer(delay, Chore::WakeEngine);
            self.wakes_in = Some(delay);
        }
        self.tell_site(http);
        self.tallies[self.index].set(self.engine.channels(), self.hub.subscribers());
    }

    fn draining(&mut self, http: &mut Http<'_, Self>, limit: Duration) {
        tracing::info!(
            index = self.index,
            connections = http.connections(),
            subscribers = self.hub.subscribers(),
            channels = self.hub.channels(),
            "going down"
        );
        if let Some((Listener(tell), _)) = &self.life {
            tell(Life::Stopping);
        }
        // The rest of the limit is for the last of them to get its last bytes.
        let spread = limit.mul_f32(0.6);
        self.draining = Some(spread);
        self.dismiss_readers(http);
        for id in http.connection_ids() {
            let key = match http.state(id).map(|client| client.session) {
                Some(SessionState::Subscribed(_) | SessionState::Socket(_)) => match self.subscriber_of(http.state(id))
                {
                    Some(key) => key,
                    None => continue,
                },
                Some(SessionState::Watching) => {
                    done(http, id);
                    self.unwatch(http, id);
                    http.end_stream(id);
                    continue;
                }
                _ => continue,
            };
            if self.hub.is_stream(key) {
                let delay = Duration::from_millis(http.random() % (spread.as_millis() as u64 + 1));
                http.set_deadline(id, delay);
            } else {
                let now = unix_time(http);
                self.hub.time_out(key, now, &mut Out { http, answering: &self.answering });
            }
        }
        self.pump(http);
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
