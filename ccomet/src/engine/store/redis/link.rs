//! The link of a loop to Redis: a service beside the server of the loop, which has one connection
//! and makes another if it breaks.
//!
//! A connection begins with a [handshake](super::handshake). Then the link sends the store's
//! commands, which it takes at the end of each tick, in one write, and passes replies and pushes to
//! the store in their order. It interprets only what concerns the connection itself.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use sealed::{CloseReason, Config, ConnectionId, Context, Input, Service, TimerId};

use super::faults::LinkLog;
use super::handshake::{Handshake, Step, quoted};
use super::port::{LinkEvent, LinkEvents, LinkPort, ToLink};
use super::resp::{Decoder, Value, encode};
use super::settings::LinkSettings;

/// The time without a byte from Redis after which it is asked for one.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// The time after which a missing reply ends the connection.
const REPLY_MAX: Duration = Duration::from_secs(5);
/// The pauses between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A connection that lasts this long resets the pause.
const LASTING: Duration = Duration::from_secs(5);
/// Bytes of commands that the kernel has not taken. The store has a lower limit.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Replies that Redis owes, in order.
#[derive(Debug)]
enum Owed {
    /// To commands of the store that were sent together.
    Store { replies: usize, since: Duration },
    /// To a `PING` of the link.
    Ping { since: Duration },
}

impl Owed {
    fn since(&self) -> Duration {
        match self {
            Self::Store { since, .. } | Self::Ping { since } => *since,
        }
    }
}

/// The progress of a connection.
#[derive(Debug)]
enum Phase {
    Connecting,
    Shaking(Handshake),
    Up { since: Duration },
}

/// The connection to Redis, or the attempt to make one.
#[derive(Debug)]
struct Attempt {
    id: ConnectionId,
    number: u64,
    phase: Phase,
    decoder: Decoder,
    owed: VecDeque<Owed>,
    /// The time at which bytes arrived last.
    heard: Duration,
}

/// The link of a loop to Redis.
#[derive(Debug)]
pub(crate) struct Link {
    settings: Arc<LinkSettings>,
    /// The index of the loop.
    index: usize,
    log: LinkLog,
    port: LinkPort,
    events: LinkEvents,
    attempt: Option<Attempt>,
    /// The number of attempts so far.
    attempts: u64,
    pause: Duration,
}

/// The timer for the next attempt.
#[derive(Debug)]
pub(crate) struct Retry;

impl Link {
    pub(crate) fn new(
        settings: Arc<LinkSettings>,
        index: usize,
        log: LinkLog,
        (port, events): (LinkPort, LinkEvents),
    ) -> Self {
        Self { settings, index, log, port, events, attempt: None, attempts: 0, pause: PAUSE_MIN }
    }

    /// Returns the limits of the service.
    pub(crate) fn config() -> Config {
        Config { connections_max: 4, output_bytes_max: OUTPUT_BYTES_MAX, delays_shutdown: false, ..Config::default() }
    }

    fn connect(&mut self, cx: &mut Context<Self>) {
        self.attempts += 1;
        let connect = self.settings.connect.clone().limit(REPLY_MAX);
        match cx.connect(connect, ()) {
            Ok(id) => {
                self.attempt = Some(Attempt {
                    id,
                    number: self.attempts,
                    phase: Phase::Connecting,
                    decoder: Decoder::default(),
                    owed: VecDeque::new(),
                    heard: cx.now(),
                });
            }
            // The drain limit has passed, and the loop ends.
            Err(sealed::Error::Connect { source, .. }) if cx.is_draining() && source.kind() == ErrorKind::Other => {}
            Err(sealed::Error::Connect { source, .. }) => self.fail(cx, &cannot_connect(source.kind())),
            Err(error) => self.fail(cx, &format!("cannot be reached: {error}")),
        }
    }

    /// Returns the current attempt, if that connection is its.
    fn current(&mut self, id: ConnectionId) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|attempt| attempt.id == id)
    }

    /// Gives up the current connection, and makes another after a pause. `fault` is the predicate
    /// of a sentence about Redis.
    fn fail(&mut self, cx: &mut Context<Self>, fault: &str) {
        if let Some(Attempt { id, phase, .. }) = self.attempt.take() {
            // Commands that Redis has not read must not be executed after those of the next
            // connection.
            cx.reset(id);
            self.note_end(cx, &phase);
        }
        self.retry(cx, fault);
    }

    /// Notes that the connection is gone, and how far it got.
    fn note_end(&mut self, cx: &Context<Self>, phase: &Phase) {
        if let Phase::Up { since } = phase {
            if cx.now().saturating_sub(*since) >= LASTING {
                self.pause = PAUSE_MIN;
            }
            // The gateway's part of this tick may be over.
            self.events.push(LinkEvent::Down);
        }
    }

    /// Makes another connection after a pause.
    fn retry(&mut self, cx: &mut Context<Self>, fault: &str) {
        self.log.fault(self.index, &format!("Redis at {} {fault}.", self.settings.shown));
        // From half of the pause to all of it.
        let half = self.pause / 2;
        let millis = u64::try_from(half.as_millis()).unwrap_or(0).max(1);
        let jitter = Duration::from_millis(cx.random() % millis);
        cx.set_timer(half + jitter, Retry);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Takes a value from Redis, when bytes have been received: before the end of the tick.
    ///
    /// # Errors
    /// The fault for which the connection is given up.
    fn take(&mut self, cx: &mut Context<Self>, value: Value) -> Result<(), String> {
        let Some(attempt) = &mut self.attempt else { return Ok(()) };
        match &mut attempt.phase {
            Phase::Connecting => {}
            Phase::Shaking(handshake) => match handshake.take(&value, &self.settings)? {
                Step::Wait => {}
                Step::Send(commands) => {
                    cx.write_bytes(attempt.id, commands.into());
                }
                Step::Ready { run_id, version } => {
                    attempt.phase = Phase::Up { since: cx.now() };
                    attempt.owed.clear();
                    self.log.up(self.index, &self.settings.shown, &version);
                    self.events.push_before_end(LinkEvent::Up { connection: attempt.number, run_id });
                }
            },
            Phase::Up { .. } => match value {
                Value::Push(elements) => self.events.push_before_end(LinkEvent::Push(elements)),
                value => {
                    if let Value::Error(error) = &value {
                        check_error(error)?;
                    }
                    match attempt.owed.front_mut() {
                        Some(Owed::Store { replies, .. }) => {
                            *replies -= 1;
                            if *replies == 0 {
                                attempt.owed.pop_front();
                            }
                            self.events.push_before_end(LinkEvent::Reply(value));
                        }
                        Some(Owed::Ping { .. }) => drop(attempt.owed.pop_front()),
                        None => return Err("sends a reply to no command; the connection is given up".to_owned()),
                    }
                }
            },
        }
        Ok(())
    }

    /// Decodes and takes what has arrived.
    fn take_all(&mut self, cx: &mut Context<Self>, id: ConnectionId) -> Result<(), String> {
        while let Some(attempt) = self.current(id) {
            match attempt.decoder.next() {
                Ok(Some(value)) => self.take(cx, value)?,
                Ok(None) => break,
                Err(error) => {
                    return Err(format!("cannot be understood: {error}. Check that store.redis names a Redis"));
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, cx: &mut Context<Self>, commands: usize, bytes: Vec<u8>) {
        let Some(attempt) = &mut self.attempt else { return };
        if commands > 0 {
            attempt.owed.push_back(Owed::Store { replies: commands, since: cx.now() });
        }
        cx.write_bytes(attempt.id, bytes.into());
    }

    /// Returns whether an order is for the connection in use.
    fn is_up(&self, connection: u64) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|attempt| attempt.number == connection && matches!(attempt.phase, Phase::Up { .. }))
    }

    /// Looks for silence and missing replies. Returns the time until the next look.
    fn look(attempt: &mut Attempt, cx: &mut Context<Self>) -> Result<Duration, String> {
        let now = cx.now();
        let age = |since: Duration| now.saturating_sub(since);
        let oldest = attempt.owed.front().map(Owed::since);
        if oldest.is_some_and(|since| age(since) >= REPLY_MAX) {
            return Err("has not replied for 5 seconds; the connection is given up".to_owned());
        }
        if !matches!(attempt.phase, Phase::Up { .. }) {
            return Ok(oldest.map_or(SILENCE_MAX, |since| REPLY_MAX.saturating_sub(age(since))));
        }
        if age(attempt.heard) >= SILENCE_MAX && attempt.owed.is_empty() {
            let mut ping = Vec::new();
            encode(&mut ping, &[b"PING"]);
            cx.write_bytes(attempt.id, ping.into());
            attempt.owed.push_back(Owed::Ping { since: now });
        }
        let until_missing = attempt.owed.front().map(|owed| REPLY_MAX.saturating_sub(age(owed.since())));
        let until_silent = SILENCE_MAX.saturating_sub(age(attempt.heard));
        let until_silent = if until_silent.is_zero() { SILENCE_MAX } else { until_silent };
        Ok(until_missing.map_or(until_silent, |until_missing| until_missing.min(until_silent)))
    }
}

/// Returns the fault of a connection that has ended.
fn close_reason(phase: &Phase, reason: CloseReason) -> String {
    match (phase, reason) {
        (Phase::Connecting, CloseReason::NotConnected(kind) | CloseReason::Failed(kind)) => cannot_connect(kind),
        (Phase::Up { .. }, reason) => format!("is no longer connected: {reason}"),
        (_, reason) => format!("ends the connection at its beginning: {reason}. Check that store.redis names a Redis"),
    }
}

/// Returns the fault of an attempt that cannot be made.
fn cannot_connect(kind: ErrorKind) -> String {
    let advice = match kind {
        ErrorKind::InvalidData => "check whether it speaks TLS, and by which authority its certificate is",
        ErrorKind::NotFound => "check the name of the host, or the path of the socket, in store.redis",
        ErrorKind::PermissionDenied => "check the permissions of its socket",
        _ => "check that it runs, and the address in store.redis",
    };
    format!("cannot be reached ({kind}): {advice}")
}

/// Finds errors after which a connection is of no use.
fn check_error(error: &str) -> Result<(), String> {
    Err(match error.split(' ').next().unwrap_or_default() {
        "READONLY" | "MASTERDOWN" => "has become a replica: write the address of the master in store.redis".to_owned(),
        "LOADING" => "is loading its data: the server waits until Redis has finished".to_owned(),
        "MISCONF" => "refuses what is to be kept, because it cannot save its data: see its log".to_owned(),
        "NOREPLICAS" => "has too few replicas to accept anything (min-replicas-to-write)".to_owned(),
        _ if error.starts_with("ERR Function not found") => {
            "has lost the functions of the server, which are loaded again".to_owned()
        }
        "NOPERM" | "NOAUTH" => format!("does not allow what the server does: the error is \"{}\"", quoted(error)),
        _ => return Ok(()),
    })
}

impl Service for Link {
    type Connection = ();
    type Message = ();
    type Timer = Retry;

    fn started(&mut self, cx: &mut Context<Self>) {
        self.connect(cx);
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let (handshake, commands) = Handshake::begin(&self.settings);
        let now = cx.now();
        let Some(attempt) = self.current(id) else { return };
        attempt.phase = Phase::Shaking(handshake);
        attempt.owed.push_back(Owed::Ping { since: now });
        cx.write_bytes(id, commands.into());
        cx.set_deadline(id, SILENCE_MAX);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let (bytes, now) = (input.take_all(), cx.now());
        let Some(attempt) = self.current(id) else { return };
        attempt.heard = now;
        attempt.decoder.feed(bytes);
        if let Err(fault) = self.take_all(cx, id) {
            self.fail(cx, &fault);
        }
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(attempt) = self.current(id) else { return cx.abort(id) };
        match Self::look(attempt, cx) {
            Ok(delay) => cx.set_deadline(id, delay),
            Err(fault) => self.fail(cx, &fault),
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, _: Retry) {
        if self.attempt.is_none() {
            self.connect(cx);
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, (): (), reason: CloseReason) {
        let Some(attempt) = self.attempt.take_if(|attempt| attempt.id == id) else { return };
        if reason == CloseReason::Shutdown {
            return self.note_end(cx, &attempt.phase);
        }
        let fault = close_reason(&attempt.phase, reason);
        self.note_end(cx, &attempt.phase);
        self.retry(cx, &fault);
    }

    fn turned(&mut self, cx: &mut Context<Self>) {
        for order in self.port.take() {
            match order {
                ToLink::Send { connection, commands, bytes } if self.is_up(connection) => {
                    self.send(cx, commands, bytes);
                }
                ToLink::Reset { connection, why } if self.is_up(connection) => {
                    self.fail(cx, &format!("gets a new connection: {why}"));
                }
                ToLink::Send { .. } | ToLink::Reset { .. } => {}
            }
        }
    }

    /// Keeps the connection, since publications are in progress. It does not delay the shutdown.
    fn draining(&mut self, _: &mut Context<Self>, _: Duration) {}
}

#[cfg(all(test, feature = "sim"))]
mod tests;
