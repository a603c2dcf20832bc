//! One loop of the server: requests in, calls to hub and broker, answers out.
//!
//! A message's way leads through [`App::request`], the broker, and [`App::turned`], where everyone gets what is new.

mod icomet;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealed::{Address, CloseReason, ConnectionId, Input, ListenerId, Place, PostError, TimerId};
use sealed_http::websocket::CloseCode;
use sealed_http::{
    Cors, DecodeError, Field, Handler, Http, Origins, Problem as Details, Request, RequestHead, Response,
};
use slab::Slab;
use socket::Socket;

use crate::auth::{Gate, Grant, Verifier, callback_of};
use crate::broker::{Broker, Command, Event, HomeLimits, Mail, MemoryBroker, Now, Ticket};
use crate::config::Config;
use crate::doorkeeper::{Asking, Doorkeeper, Entrance};
use crate::files::Files;
use crate::hub::{Hub, HubLimits, Reply, Sink, Style, SubscriberKey, Subscription};
use crate::lease::{Leases, Notice};
use crate::log::HistoryLimits;
use crate::message::Message;
use crate::position::Spot;
use crate::tally::Tally;
use crate::wire::problem::Problem;
use crate::wire::request::{self, Call, Door, Refused, ReplyTo};
use crate::wire::voice::{Tongue, Transport, Voice};
use crate::wire::{self, classic, native};

/// How often old messages and idle channels are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How soon mail that another loop had no room for is posted again.
const POST_RETRY: Duration = Duration::from_millis(1);

/// The least time after which streams are told to come back when the server goes down, in milliseconds.
const RETRY_MIN_MS: u64 = 1_000;

/// What the server keeps with each connection.
#[derive(Debug, Default)]
pub(crate) struct Client {
    doing: Doing,
    door: Door,
    /// Its address is not one that may come in.
    barred: bool,
    /// Which of the listed origins its page has, counted from 1; 0: none of them.
    origin: u8,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Doing {
    #[default]
    Nothing,
    /// Messages.
    Subscribed(SubscriberKey),
    /// The broker's answer, by its place among those who wait for one.
    Asking(u32),
    /// Channels that come into use, or go out of it.
    Watching,
    /// Messages, on a WebSocket: its place among them.
    Socket(u32),
    /// The end of one that is over.
    SocketOver(u32),
}

/// Who asks for something: what he may do, if that is not everything.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    grant: Option<Arc<Grant>>,
    asking: Asking,
}

impl Caller {
    /// When that ends, in seconds since 1970.
    fn expires_s(&self) -> Option<u64> {
        self.grant.as_ref().and_then(|grant| grant.expires_s)
    }
}

/// Who waits for the broker's answer.
#[derive(Debug)]
struct Asker {
    serial: u32,
    peer: ConnectionId,
    reply: ReplyTo,
}

#[derive(Debug)]
pub(crate) struct App {
    config: Arc<Config>,
    place: Place<Mail>,
    hub: Hub,
    broker: MemoryBroker,
    askers: Slab<Asker>,
    last_serial: u32,
    /// What pages of other origins are told, by the number that a connection keeps of its origin: 0 for any other.
    cross_origin: Vec<Vec<Field>>,
    preflight: Cors,
    gate: Gate,
    doorkeeper: Doorkeeper,
    leases: Leases,
    files: Files,
    tallies: Arc<[Tally]>,
    /// Who hears of channels in use.
    watchers: Vec<ConnectionId>,
    sockets: Slab<Socket>,
    is_sweeping: bool,
    will_repost: bool,
    /// Over how long the ends of streams are spread, once the server goes down.
    draining: Option<Duration>,
}

/// What a connection of the server costs while it waits, on all layers.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(sealed::slot_bytes::<sealed_http::Server<App>>() <= 128);

impl App {
    pub(crate) fn new(config: Arc<Config>, verifier: Arc<Verifier>, tallies: Arc<[Tally]>, place: Place<Mail>) -> Self {
        let loops = place.mailboxes.len();
        let share = |whole: usize| whole.div_ceil(loops);
        let history = HistoryLimits {
            messages_max: config.history.messages_max,
            bytes_max: config.history.bytes_max,
            age_max_ms: config.history.age_max_s * 1_000,
        };
        let hub = Hub::new(HubLimits {
            history,
            subscribers_max: share(config.limits.subscribers_max),
            subscribers_per_channel_max: config.limits.subscribers_per_channel_max,
            batch_bytes_max: config.limits.batch_bytes_max,
            linger_ms: config.times.channel_linger_s * 1_000,
            heartbeat_ms: config.times.heartbeat_s * 1_000,
            noop_ms: config.icomet.polling_timeout_s * 1_000,
        });
        let home = HomeLimits {
            history,
            channels_max: share(config.limits.channels_max),
            deliveries_max: config.limits.deliveries_under_way_max,
            history_bytes_max: share(config.history.total_bytes_max),
            idle_max_ms: config.times.channel_idle_s * 1_000,
            patterns_max: share(config.limits.patterns_max),
            use_max_ms: config.icomet.channel_timeout_s * 1_000,
        };
        let any = config.front.origins.iter().any(|origin| origin == "*");
        let cors = Cors {
            origins: if any { Origins::Any } else { Origins::Listed(config.front.origins.clone()) },
            methods: "GET, HEAD, POST, OPTIONS",
            headers: "Authorization, Content-Type, Last-Event-ID, Cache-Control",
            max_age_s: "86400",
        };
        let origins = std::iter::once(None).chain(config.front.origins.iter().map(|origin| Some(origin.as_str())));
        // Only those who are listed by name may have their users' cookies sent along.
        let with_credentials = |origin: Option<&str>| {
            let mut fields = cors.response_fields(origin);
            if origin.is_some() && !any {
                fields.push(allow_credentials());
            }
            fields
        };
        let cross_origin = origins.map(with_credentials).collect();
        Self {
            broker: MemoryBroker::new(place.index, loops, home),
            place,
            hub,
            askers: Slab::new(),
            last_serial: 0,
            cross_origin,
            preflight: cors,
            leases: Leases::new(config.auth.warning_s),
            doorkeeper: Doorkeeper::new(&config, loops),
            gate: Gate::new(verifier, &config),
            config,
            files: Files::new(),
            tallies,
            watchers: Vec::new(),
            sockets: Slab::new(),
            is_sweeping: false,
            will_repost: false,
            draining: None,
        }
    }

    /// Adds what this loop holds to what others do.
    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::simulated::Holdings) {
        all.asking += self.askers.len();
        all.leases += self.leases.count();
        self.hub.add_to(all);
        self.broker.add_to(all);
    }

    /// Whether the call is allowed, and what else is. Who comes by the admin listener may do anything.
    fn admit(
        &mut self,
        http: &Http<'_, Self>,
        door: Door,
        asking: Asking,
        head: &RequestHead<'_>,
        call: &Call,
    ) -> Result<Caller, Problem> {
        let grant = match door {
            Door::Admin => None,
            Door::Front => {
                // First: to look at a token costs more.
                self.doorkeeper.charge(asking, call, now_ms(http))?;
                Some(self.gate.admit(head, call, http.unix_time().as_secs())?)
            }
        };
        Ok(Caller { grant, asking })
    }

    fn call(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        call: Call,
        caller: &Caller,
    ) {
        match call {
            Call::Publish { channel, payload, sender, reply } => {
                let message = Message { payload, sender, time_ms: unix_ms(http), extra: None };
                let ticket = self.ask(http, id, reply);
                self.broker.command(now(http), Command::Publish { channel, message, ticket });
            }
            Call::Subscribe { subscription, wait_s } => {
                self.subscribe(http, id, subscription, wait_s, caller.expires_s());
            }
            Call::Socket { subscription, response } => self.open_socket(http, id, subscription, &response, caller),
            Call::Sign { channel, name, callback } => {
                self.broker.command(now(http), Command::Sign { channel, name });
                let script = classic::envelope_fixed(&callback, classic::SIGNED_IN);
                http.respond(id, &script_response(script));
            }
            Call::Delete { channel } => {
                let ticket = self.ask(http, id, ReplyTo::Delete);
                self.broker.command(now(http), Command::Delete { channel, ticket });
            }
            Call::File { path } => {
                let door = http.state(id).map_or(Door::Front, |client| client.door);
                let response = self.file(&path, head, door);
                http.respond(id, &response);
            }
            Call::Preflight { allow } => {
                let response = Response::new(204).header("Allow", allow);
                // No page of another origin has any business with the admin listener.
                let is_front = http.state(id).is_some_and(|client| client.door == Door::Front);
                let origin = head.header_str("origin").filter(|_| is_front);
                let mut fields = origin.map_or(Vec::new(), |origin| self.preflight.preflight_fields(Some(origin)));
                let is_listed =
                    self.preflight.origins != Origins::Any && http.state(id).is_some_and(|client| client.origin > 0);
                if is_front && is_listed {
                    fields.push(allow_credentials());
                }
                http.respond(id, &response.with(&fields));
            }
            Call::Nothing => {
                let fields = fields_for(&self.cross_origin, http.state(id));
                http.respond(id, &json_response(Bytes::new()).with(fields));
            }
            Call::Icomet(call) => self.icomet(http, id, call),
        }
    }

    fn subscribe(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        subscription: Subscription,
        wait_s: u64,
        expires_s: Option<u64>,
    ) {
        let now_ms = unix_ms(http);
        if self.draining.is_some() {
            return self.refuse(http, id, subscription, Problem::ShuttingDown);
        }
        let is_icomet = subscription.style.is_icomet();
        let is_stream = subscription.style.is_stream();
        let at_once = subscription.answer_at_once;
        if let Style::Stream { voice, .. } = &subscription.style {
            self.leases.begin(id, *voice, expires_s);
        }
        // Noted before the hub is asked: it may answer at once, and the note is cleared with the answer.
        let key = self.hub.next_key();
        if let Some(client) = http.state_mut(id).filter(|client| client.doing == Doing::Nothing) {
            client.doing = Doing::Subscribed(key);
        }
        let outcome = self.hub.subscribe(id, subscription, now_ms, &mut Out { http, cross_origin: &self.cross_origin });
        match outcome {
            Ok(given) => debug_assert_eq!(given, key),
            Err(reply) => return Out { http, cross_origin: &self.cross_origin }.answer(id, reply),
        }
        let delay = if is_stream && !is_icomet {
            // Spread, so that streams that came together do not all beat together.
            let beat_ms = self.config.times.heartbeat_s * 1_000;
            let beat = Duration::from_millis(beat_ms / 2 + http.random() % (beat_ms / 2 + 1));
            self.leases.next_look(id, now_ms, beat)
        } else {
            let wait = Duration::from_secs(if at_once { self.config.times.poll_wait_s } else { wait_s });
            // A poll does not outlast its token: the next one is told.
            let left_ms = expires_s.map(|expires_s| expires_s.saturating_mul(1_000).saturating_sub(now_ms));
            left_ms.map_or(wait, |left_ms| wait.min(Duration::from_millis(left_ms)))
        };
        if self.subscriber_of(http.state(id)) == Some(key) {
            http.set_deadline(id, delay);
        }
    }

    /// Answers who cannot have what he wants to subscribe to.
    fn refuse(&self, http: &mut Http<'_, Self>, id: ConnectionId, subscription: Subscription, problem: Problem) {
        let reply = Hub::refuse(subscription, problem);
        Out { http, cross_origin: &self.cross_origin }.answer(id, reply);
    }

    /// A stream's deadline has come: it is told what there is to tell of its token, or that the server lives.
    fn look_after(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, key: SubscriberKey) {
        let now_ms = unix_ms(http);
        match self.leases.notice(id, now_ms) {
            Some(Notice::End(event, voice)) => {
                let mut out = Out { http, cross_origin: &self.cross_origin };
                // It may have waited for its channel until now.
                out.open(id, voice);
                out.stream(id, &[event]);
                self.hub.unsubscribe(key, now_ms);
                self.leases.end(id);
                return out.end(id);
            }
            Some(Notice::Warning(event)) => {
                Out { http, cross_origin: &self.cross_origin }.stream(id, &[event]);
            }
            None => {
                if let Some(Doing::Socket(socket)) = http.state(id).map(|client| client.doing)
                    && !self.ping_socket(http, id, socket)
                {
                    return;
                }
            }
        }
        let beat = self.hub.beat(key, now_ms, &mut Out { http, cross_origin: &self.cross_origin });
        let beat = Duration::from_millis(beat);
        http.set_deadline(id, self.leases.next_look(id, now_ms, beat));
    }

    /// Notes who waits for the broker's answer.
    fn ask(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, reply: ReplyTo) -> Ticket {
        let ticket = self.note_asker(id, reply);
        if let Some(client) = http.state_mut(id) {
            client.doing = Doing::Asking(ticket.0 as u32);
        }
        ticket
    }

    /// The same of one that does not only wait for that.
    fn note_asker(&mut self, id: ConnectionId, reply: ReplyTo) -> Ticket {
        self.last_serial = self.last_serial.wrapping_add(1);
        let serial = self.last_serial;
        let key = self.askers.insert(Asker { serial, peer: id, reply }) as u32;
        Ticket(u64::from(serial) << 32 | u64::from(key))
    }

    fn subscriber_of(&self, client: Option<&Client>) -> Option<SubscriberKey> {
        match client?.doing {
            Doing::Subscribed(key) => Some(key),
            Doing::Socket(key) => self.sockets.get(key as usize).map(|socket| socket.subscriber),
            _ => None,
        }
    }

    /// Answers who waited for the broker's answer, if he is still there.
    fn settle(&mut self, http: &mut Http<'_, Self>, ticket: Ticket, outcome: Result<Settled, Problem>) {
        let key = ticket.0 as u32 as usize;
        if self.askers.get(key).is_none_or(|asker| u64::from(asker.serial) != ticket.0 >> 32) {
            return;
        }
        let Asker { peer, reply, .. } = self.askers.remove(key);
        if let ReplyTo::Socket { channel, reference } = reply {
            let outcome = outcome.map(|settled| match settled {
                Settled::Published(spot) => Some(spot),
                Settled::Icomet(_) => None,
            });
            return self.settle_socket(http, peer, &channel, reference, outcome);
        }
        done(http, peer);
        let fields = fields_for(&self.cross_origin, http.state(peer));
        match (outcome, reply) {
            (Ok(Settled::Published(spot)), ReplyTo::Native { channel, callback }) => {
                let mut json = Vec::with_capacity(128);
                native::write_published(&channel, spot, &mut json);
                let body = native::wrap(callback.as_deref(), json);
                let response = if callback.is_some() { script_response(body) } else { json_response(body) };
                let response = response.with(fields);
                http.respond(peer, &response);
            }
            (Ok(_), ReplyTo::Classic { callback }) => {
                http.respond(peer, &script_response(classic::envelope_fixed(&callback, classic::PUBLISHED)));
            }
            (outcome, ReplyTo::Icomet(reply)) => {
                let outcome = outcome.map(|settled| match settled {
                    Settled::Published(_) => icomet::Outcome::Published,
                    Settled::Icomet(outcome) => outcome,
                });
                self.icomet_settled(http, peer, reply, outcome);
            }
            (Ok(Settled::Icomet(icomet::Outcome::Ended(None))), _) => {
                respond_problem(http, peer, Problem::UnknownChannel, None, &self.cross_origin);
            }
            (Ok(_), ReplyTo::Native { .. } | ReplyTo::Delete | ReplyTo::Socket { .. }) => {
                http.respond(peer, &Response::new(204));
            }
            (Err(problem), reply) => {
                let callback = match &reply {
                    ReplyTo::Native { callback, .. } => callback.as_deref(),
                    _ => None,
                };
                respond_problem(http, peer, problem, callback, &self.cross_origin);
            }
        }
    }

    /// Takes hub's commands to the broker, and its events to hub and askers, until there are no more.
    fn pump(&mut self, http: &mut Http<'_, Self>) {
        loop {
            for command in std::mem::take(&mut self.hub.commands) {
                self.broker.command(now(http), command);
            }
            match self.broker.next_event() {
                Some(Event::Accepted { ticket, spot }) => self.settle(http, ticket, Ok(Settled::Published(spot))),
                Some(Event::Refused { ticket, why }) => self.settle(http, ticket, Err(why.into())),
                Some(Event::Ended { ticket, next }) => {
                    self.settle(http, ticket, Ok(Settled::Icomet(icomet::Outcome::Ended(next))));
                }
                Some(Event::Signed { ticket, first, token }) => {
                    self.settle(http, ticket, Ok(Settled::Icomet(icomet::Outcome::Signed(first, token))));
                }
                Some(Event::Admitted { ticket, is_right }) => {
                    self.settle(http, ticket, Ok(Settled::Icomet(icomet::Outcome::Admitted(is_right))));
                }
                Some(Event::Inspected { ticket, info }) => {
                    self.settle(http, ticket, Ok(Settled::Icomet(icomet::Outcome::Inspected(info))));
                }
                Some(Event::Use { channel, in_use }) => self.tell_watchers(http, &channel, in_use),
                Some(event) => {
                    let now_ms = unix_ms(http);
                    self.hub.event(event, now_ms, &mut Out { http, cross_origin: &self.cross_origin });
                }
                None if self.hub.commands.is_empty() => break,
                None => {}
            }
        }
    }

    /// Posts what was gathered for the other loops.
    fn post(&mut self, http: &mut Http<'_, Self>) {
        for to in 0..self.place.mailboxes.len() {
            let Some(mail) = self.broker.take_mail(to) else { continue };
            match self.place.mailboxes[to].post(mail) {
                // Gone: that loop broke down, and the server with it.
                Ok(()) | Err(PostError::Gone(_)) => {}
                Err(PostError::Full(mail)) => {
                    self.broker.return_mail(to, mail);
                    if !std::mem::replace(&mut self.will_repost, true) {
                        http.set_timer(POST_RETRY, Chore::Repost);
                    }
                }
            }
        }
    }

    fn file(&self, path: &str, head: &RequestHead<'_>, door: Door) -> Response {
        let demo = self.config.front.demo && door == Door::Front;
        if demo && path == "/" {
            return Response::new(302).header("Location", "/chat.html");
        }
        let file = self.files.find(path).filter(|_| demo);
        file.map_or_else(|| problem_response(Problem::NotFound), |file| file.answer(head))
    }
}

/// What the broker did for an asker.
enum Settled {
    Published(Spot),
    Icomet(icomet::Outcome),
}

/// What a timer is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chore {
    /// To look for old messages and idle channels.
    Sweep,
    /// To try again what a full mailbox did not take.
    Repost,
}

impl Handler for App {
    type Connection = Client;
    type Message = Mail;
    type Timer = Chore;

    fn accepted(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {
        let door = if listener.index() == 0 { Door::Front } else { Door::Admin };
        let entrance = self.doorkeeper.accepted(id, door, peer.ip(), now_ms(http));
        if entrance == Entrance::Shut {
            return http.abort(id);
        }
        if let Some(client) = http.state_mut(id) {
            (client.door, client.barred) = (door, entrance == Entrance::Barred);
        }
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        let origin = request.head.header_str("origin").map_or(0, |origin| {
            let listed = &self.config.front.origins;
            listed.iter().position(|held| held == origin).map_or(0, |index| index as u8 + 1)
        });
        let Some(client) = http.state_mut(id) else { return };
        client.origin = origin;
        let (door, barred) = (client.door, client.barred);
        if barred {
            return http.respond(id, &problem_response(Problem::Forbidden).closing());
        }
        let asking = match self.doorkeeper.asks(id, &request.head, now_ms(http)) {
            Ok(asking) => asking,
            Err((problem, closes)) => {
                let response = problem_response(problem).with(fields_for(&self.cross_origin, http.state(id)));
                return http.respond(id, &if closes { response.closing() } else { response });
            }
        };
        match request::read(door, request, &self.config) {
            Ok(call) => match self.admit(http, door, asking, &request.head, &call) {
                Ok(caller) => self.call(http, id, &request.head, call, &caller),
                Err(problem) => {
                    let callback = callback_of(&call);
                    respond_problem(http, id, problem, callback.as_deref(), &self.cross_origin);
                }
            },
            Err(Refused::Native { problem, callback, allow }) => {
                if problem == Problem::MethodNotAllowed {
                    let fields = fields_for(&self.cross_origin, http.state(id));
                    let response = problem_response(problem).header("Allow", allow).with(fields);
                    return http.respond(id, &response);
                }
                respond_problem(http, id, problem, callback.as_deref(), &self.cross_origin);
            }
            Err(Refused::Socket(refusal)) => http.respond(id, &refusal.into()),
            Err(Refused::Icomet(refused)) => Self::icomet_refused(http, id, refused),
            Err(Refused::Classic { callback: Some(callback) }) => {
                let script = classic::envelope_fixed(&callback, classic::BAD_PARAMETERS);
                http.respond(id, &script_response(script));
            }
            Err(Refused::Classic { callback: None }) => {
                let response = Response::new(400).header("Content-Type", JSON).header("Cache-Control", "no-store");
                http.respond(id, &response.header("X-Content-Type-Options", "nosniff").body(classic::BAD_PARAMETERS));
            }
        }
        self.pump(http);
    }

    fn refusal(&mut self, error: DecodeError) -> Response {
        if error == DecodeError::BodyTooLarge {
            return problem_response(Problem::MessageTooLarge).with(&self.cross_origin[0]);
        }
        Details::from(error).into()
    }

    fn ended(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        // A browser that leaves looks just like this; whoever publishes and hangs up at once still gets his answer.
        if http.state(id).is_some_and(|client| !matches!(client.doing, Doing::Nothing | Doing::Asking(_))) {
            http.abort(id);
        }
    }

    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
        self.hear_socket(http, id, input);
        self.pump(http);
    }

    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        if let Some(key) = self.subscriber_of(http.state(id)) {
            self.hub.drained(key, &mut Out { http, cross_origin: &self.cross_origin });
        }
    }

    fn timed_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        let Some(key) = self.subscriber_of(http.state(id)) else { return http.abort(id) };
        let now_ms = unix_ms(http);
        if let (Some(spread), true) = (self.draining, self.hub.is_stream(key)) {
            let spread_ms = (spread.as_millis() as u64).max(4_000);
            let retry_ms = RETRY_MIN_MS + http.random() % spread_ms;
            self.hub.dismiss(key, retry_ms, now_ms, &mut Out { http, cross_origin: &self.cross_origin });
        } else if self.hub.is_stream(key) {
            self.look_after(http, id, key);
        } else {
            self.hub.time_out(key, now_ms, &mut Out { http, cross_origin: &self.cross_origin });
        }
        self.pump(http);
    }

    fn closed(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, client: Client, why: CloseReason) {
        tracing::trace!(?id, ?why, "connection closed");
        self.doorkeeper.closed(id);
        match client.doing {
            Doing::Subscribed(key) => {
                self.hub.unsubscribe(key, unix_ms(http));
                self.leases.end(id);
                self.pump(http);
            }
            Doing::Asking(key) => {
                self.askers.remove(key as usize);
            }
            Doing::Watching => {
                self.unwatch(http, id);
                self.pump(http);
            }
            Doing::Socket(key) => {
                let socket = self.sockets.remove(key as usize);
                self.hub.unsubscribe(socket.subscriber, unix_ms(http));
                self.leases.end(id);
                self.pump(http);
            }
            Doing::SocketOver(key) => {
                self.leases.end(id);
                self.sockets.remove(key as usize);
            }
            Doing::Nothing => {}
        }
    }

    fn message(&mut self, http: &mut Http<'_, Self>, mail: Mail) {
        self.broker.receive(now(http), mail);
        self.pump(http);
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: TimerId, chore: Chore) {
        match chore {
            Chore::Sweep => {
                self.hub.sweep(unix_ms(http));
                self.doorkeeper.sweep(now_ms(http));
                self.broker.sweep(now(http));
                self.pump(http);
            }
            // What is left is posted at the end of this tick.
            Chore::Repost => self.will_repost = false,
        }
    }

    fn turned(&mut self, http: &mut Http<'_, Self>) {
        // A loop to which nobody ever connects may be the home of channels all the same.
        if !std::mem::replace(&mut self.is_sweeping, true) {
            http.set_interval(SWEEP_INTERVAL, Chore::Sweep);
        }
        self.broker.flush(now(http));
        self.pump(http);
        if self.hub.is_dirty() {
            let now_ms = unix_ms(http);
            self.hub.flush(now_ms, &mut Out { http, cross_origin: &self.cross_origin });
            self.pump(http);
        }
        self.post(http);
        self.tallies[self.place.index].set(self.broker.channels(), self.hub.subscribers());
    }

    fn draining(&mut self, http: &mut Http<'_, Self>, limit: Duration) {
        tracing::info!(
            index = self.place.index,
            connections = http.connections(),
            subscribers = self.hub.subscribers(),
            channels = self.hub.channels(),
            "going down"
        );
        // The rest of the limit is for the last of them to get its last bytes.
        let spread = limit.mul_f32(0.6);
        self.draining = Some(spread);
        for id in http.connection_ids() {
            let key = match http.state(id).map(|client| client.doing) {
                Some(Doing::Subscribed(_) | Doing::Socket(_)) => match self.subscriber_of(http.state(id)) {
                    Some(key) => key,
                    None => continue,
                },
                Some(Doing::Watching) => {
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
                let now_ms = unix_ms(http);
                self.hub.time_out(key, now_ms, &mut Out { http, cross_origin: &self.cross_origin });
            }
        }
        self.pump(http);
    }
}

/// The hub's way to its subscribers.
struct Out<'a, 'b> {
    http: &'a mut Http<'b, App>,
    cross_origin: &'a [Vec<Field>],
}

impl Sink for Out<'_, '_> {
    fn open(&mut self, peer: ConnectionId, voice: Voice) {
        // It was opened as it was handed over.
        if voice.transport == Transport::Socket {
            return;
        }
        if voice.tongue == Tongue::Icomet {
            self.http.start_stream(peer, &icomet::head(Some(voice)));
            return;
        }
        let response = Response::new(200)
            .header("Content-Type", voice.content_type())
            .header("Cache-Control", "no-cache, no-transform")
            .header("X-Accel-Buffering", "no")
            .header("X-Content-Type-Options", "nosniff")
            .with(fields_for(self.cross_origin, self.http.state(peer)));
        self.http.start_stream(peer, &response);
    }

    fn stream(&mut self, peer: ConnectionId, chunks: &[Bytes]) -> bool {
        self.http.write_framed(peer, chunks)
    }

    fn end(&mut self, peer: ConnectionId) {
        if let Some(Doing::Socket(key)) = self.http.state(peer).map(|client| client.doing) {
            let code = if self.http.is_draining() { CloseCode::GOING_AWAY } else { CloseCode::NORMAL };
            return socket::end(self.http, peer, key, code);
        }
        done(self.http, peer);
        self.http.end_stream(peer);
    }

    fn answer(&mut self, peer: ConnectionId, reply: Reply) {
        if let Some(Doing::Socket(key)) = self.http.state(peer).map(|client| client.doing) {
            // It cannot have what it wants: nothing else is answered to one who reads a stream.
            let problem = if let Reply::Problem(problem, _) = reply { problem } else { Problem::ShuttingDown };
            socket::write_text(self.http, peer, &wire::socket::refused(problem, None));
            let code = if problem.details().status() == 503 { CloseCode::TRY_AGAIN } else { CloseCode::POLICY };
            return socket::end(self.http, peer, key, code);
        }
        done(self.http, peer);
        let fields = fields_for(self.cross_origin, self.http.state(peer));
        let response = match reply {
            Reply::Json(body) => json_response(body).with(fields),
            Reply::Script(body) => script_response(body),
            // Whole, but empty: a connection that just closed would make the browser ask again by itself.
            Reply::Nothing => script_response(Bytes::new()).closing(),
            Reply::Icomet(voice, body) => {
                self.http.start_stream(peer, &icomet::head(voice));
                self.http.write(peer, &body);
                return self.http.end_stream(peer);
            }
            Reply::Problem(problem, callback) => {
                return respond_problem(self.http, peer, problem, callback.as_deref(), self.cross_origin);
            }
        };
        self.http.respond(peer, &response);
    }
}

const JSON: &str = "application/json; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

fn json_response(body: impl Into<Bytes>) -> Response {
    answer(JSON, body)
}

fn script_response(body: impl Into<Bytes>) -> Response {
    answer(SCRIPT, body)
}

fn answer(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    Response::new(200)
        .header("Content-Type", content_type)
        .header("Cache-Control", "no-store")
        .header("X-Content-Type-Options", "nosniff")
        .body(body)
}

fn problem_response(problem: Problem) -> Response {
    let response = Response::from(problem.details());
    match problem.retry_s() {
        Some(retry_s) => response.with(&[("Retry-After", retry_s.to_string())]),
        None if response.status() == 401 => response.header("WWW-Authenticate", "Bearer"),
        None => response,
    }
}

/// Tells a client of a problem, within its callback where it has one.
fn respond_problem(
    http: &mut Http<'_, App>,
    id: ConnectionId,
    problem: Problem,
    callback: Option<&str>,
    cross_origin: &[Vec<Field>],
) {
    tracing::debug!(?id, code = problem.code(), "refused");
    let response = match callback {
        Some(callback) => script_response(native::wrap(Some(callback), problem.to_callback_argument())),
        None => problem_response(problem).with(fields_for(cross_origin, http.state(id))),
    };
    http.respond(id, &response);
}

/// Leave for a page of another origin to read what its user's cookie opened.
fn allow_credentials() -> Field {
    ("Access-Control-Allow-Credentials", "true".to_owned())
}

/// What a page of another origin is told; one that came by the admin listener, nothing.
fn fields_for<'a>(cross_origin: &'a [Vec<Field>], client: Option<&Client>) -> &'a [Field] {
    match client {
        Some(client) if client.door == Door::Front => &cross_origin[usize::from(client.origin)],
        _ => &[],
    }
}

/// The connection waits for nothing any more.
fn done(http: &mut Http<'_, App>, id: ConnectionId) {
    if let Some(client) = http.state_mut(id) {
        client.doing = Doing::Nothing;
    }
}

fn unix_ms(http: &Http<'_, App>) -> u64 {
    http.unix_time().as_millis() as u64
}

/// The loop's own clock, which nobody sets.
fn now_ms(http: &Http<'_, App>) -> u64 {
    http.now().as_millis() as u64
}

fn now(http: &mut Http<'_, App>) -> Now {
    Now { unix_ms: unix_ms(http), random: http.random() }
}
