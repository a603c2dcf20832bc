//! A loop with its share of the subscribers and publishers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sealed::{CloseReason, Connect, ConnectionId, Context, Input, Service, TimerId};
use sealed_http::codec::{Asked, Limits, ResponseDecoder, ResponseEvent};
use sealed_http::websocket::{Challenge, Codec, Event};

use super::marker::Markers;
use super::plan::Plan;
use super::publisher::Publisher;
use super::subscriber::Subscriber;
use super::tally::{Tally, histogram};

/// How often a loop reports.
pub(super) const REPORT: Duration = Duration::from_millis(200);
/// How often publishers are checked for messages that are due.
const PACE: Duration = Duration::from_millis(1);
/// The wait before a connection that has failed is made again.
const REDIAL: Duration = Duration::from_secs(1);
/// The maximum number of connections of a loop that are being made at a time.
const DIALS_MAX: usize = 256;
/// Maximum number of bytes of a body, an event or a line.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A loop of the client.
pub(super) struct Load {
    pub(super) plan: Arc<Plan>,
    pub(super) markers: Markers,
    pub(super) connect: Connect,
    /// The start of the run: times of messages count from it.
    pub(super) epoch: Instant,
    /// The place of this loop among the loops.
    pub(super) index: usize,
    pub(super) subscribers: Vec<Subscriber>,
    /// The publishers of this loop, of which the first has the number `index`.
    pub(super) publishers: Vec<Publisher>,
    /// Publishers without a request, by the time at which their next message is due.
    pub(super) due: BinaryHeap<Reverse<(Duration, usize)>>,
    pub(super) tally: Tally,
    /// The latencies since the last report.
    pub(super) latency: Histogram<u64>,
    /// Subscribers that wait for their turn to connect.
    pub(super) to_dial: Vec<usize>,
    pub(super) dialling: usize,
    pub(super) ready: usize,
    pub(super) publishes_until: Option<Duration>,
    pub(super) is_over: bool,
    /// The server has refused in a way that repetitions do not change.
    pub(super) refusal: Option<String>,
    pub(super) reports: Sender<Report>,
    pub(super) frames: Vec<u8>,
}

/// What a loop reports at intervals.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) index: usize,
    pub(super) tally: Tally,
    pub(super) ready: usize,
    /// Publishers have no request under way and none due.
    pub(super) is_done: bool,
    /// The server has refused in a way that repetitions do not change.
    pub(super) refusal: Option<String>,
}

/// What a loop is to do next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// To have this many subscribers.
    Grow(usize),
    /// To publish until this time since the start of the run.
    Publish(Duration),
    /// To publish no more.
    Hush,
    End,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    Report,
    Pace,
    Redial(Role),
}

/// What a connection is for, with the place of its owner in the loop.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Role {
    #[default]
    None,
    Subscriber(usize),
    Publisher(usize),
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) role: Role,
    decoder: ResponseDecoder,
    challenge: Option<Challenge>,
    codec: Option<Codec>,
    /// A body, or the part of it that is not a complete line.
    pub(super) partial: Vec<u8>,
    pub(super) status: u16,
    pub(super) keeps_open: bool,
    /// The client ends the connection itself, so that this is no loss.
    pub(super) is_ending: bool,
    has_opened: bool,
}

impl Line {
    pub(super) fn new(role: Role, challenge: Option<Challenge>) -> Self {
        Self { role, challenge, ..Self::default() }
    }
}

impl Load {
    /// Returns the time since the start of the run.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn report(&mut self) {
        let mut tally = self.tally.clone();
        tally.latency = std::mem::replace(&mut self.latency, histogram());
        let is_done = self.publishes_until.is_none() && self.publishers.iter().all(Publisher::is_idle);
        // The receiver may have given up.
        let refusal = self.refusal.clone();
        let _ = self.reports.send(Report { index: self.index, tally, ready: self.ready, is_done, refusal });
    }

    /// Counts a refusal, and reports at once that the run is to end if it is one of the client.
    pub(super) fn refused(&mut self, what: &str, status: u16, body: &[u8]) {
        let text = format!("{what}: {}", self.plan.refusal(status, body));
        self.tally.error(text.clone());
        if matches!(status, 401 | 403 | 404) && self.refusal.is_none() {
            self.refusal = Some(text);
            self.report();
        }
    }

    /// Connects those that wait for it, a limited number at a time.
    pub(super) fn dial_more(&mut self, cx: &mut Context<Self>) {
        while self.dialling < DIALS_MAX && !self.is_over {
            let Some(subscriber) = self.to_dial.pop() else { return };
            self.dial(cx, Role::Subscriber(subscriber));
        }
    }

    pub(super) fn dial(&mut self, cx: &mut Context<Self>, role: Role) {
        self.dialling += 1;
        let nonce = (cx.random(), cx.random());
        let (request, challenge) = match role {
            Role::Subscriber(index) => self.subscribe(index, nonce),
            _ => (String::new(), None),
        };
        match cx.connect(self.connect.clone(), Line::new(role, challenge)) {
            Ok(id) => {
                cx.write(id, request.as_bytes());
                if let Role::Publisher(index) = role
                    && let Some(publisher) = self.publishers.get_mut(index)
                {
                    publisher.connection = Some(id);
                }
            }
            Err(error) => {
                self.dialling -= 1;
                self.tally.failed_connects += 1;
                self.tally.error(format!("{error}: {}", cause(&error)));
                cx.set_timer(REDIAL, Due::Redial(role));
            }
        }
    }

    fn redial(&mut self, cx: &mut Context<Self>, role: Role) {
        match role {
            Role::Subscriber(index) => {
                self.to_dial.push(index);
                self.dial_more(cx);
            }
            Role::Publisher(_) => self.dial(cx, role),
            Role::None => {}
        }
    }

    /// Reads what has arrived on a connection. Returns whether the connection is to go on.
    fn read(&mut self, cx: &mut Context<Self>, id: ConnectionId, line: &mut Line, input: &mut Input<'_>) -> bool {
        let limits = Limits { body_bytes_max: u64::MAX, ..Limits::default() };
        loop {
            if let Some(codec) = &mut line.codec {
                match codec.read(input, &super::subscriber::FRAMES, &mut self.frames) {
                    Ok(Some(Event::Text(text))) => self.frame(cx, id, line, text.as_bytes()),
                    Ok(Some(Event::Binary(bytes))) => self.frame(cx, id, line, &bytes),
                    Ok(Some(Event::Close { reason, .. })) => {
                        self.tally.error(format!("the server has closed the WebSocket: {reason}"));
                        return false;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return true,
                    Err(violation) => {
                        self.tally.error(violation.to_string());
                        return false;
                    }
                }
                continue;
            }
            let (used, event) = match line.decoder.decode(input.bytes(), Asked::Other, &limits) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.tally.error(format!("the answer is malformed: {error}"));
                    return false;
                }
            };
            let bytes = input.take(used);
            match event {
                ResponseEvent::Incomplete => return true,
                ResponseEvent::Interim(_) | ResponseEvent::Switched => {}
                ResponseEvent::Head(head) => {
                    (line.status, line.keeps_open) = (head.status(), head.keep_alive());
                    line.has_opened = true;
                    if let Some(challenge) = line.challenge.take_if(|_| head.status() == 101) {
                        if challenge.check(&head, &[]).is_err() {
                            self.tally.error("the server does not open a WebSocket".to_owned());
                            return false;
                        }
                        let mut random = cx.random();
                        line.codec = Some(Codec::client(move || {
                            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            ((random >> 32) as u32).to_ne_bytes()
                        }));
                    }
                    self.head(cx, id, line, &head);
                }
                ResponseEvent::Data(data) => {
                    if line.partial.len() + data.len() > BODY_BYTES_MAX {
                        self.tally.error("an answer is too long".to_owned());
                        return false;
                    }
                    self.data(cx, id, line, data);
                }
                ResponseEvent::End => {
                    if !self.finish(cx, id, line) {
                        return false;
                    }
                }
            }
            if bytes.is_empty() && input.is_empty() && line.codec.is_none() {
                return true;
            }
        }
    }
}

impl Service for Load {
    type Connection = Line;
    type Message = Order;
    type Timer = Due;

    fn started(&mut self, cx: &mut Context<Self>) {
        cx.set_interval(REPORT, Due::Report);
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.dialling -= 1;
        self.tally.connects += 1;
        match cx.state_mut(id) {
            Some(Line { role: Role::Publisher(index), has_opened, .. }) => {
                *has_opened = true;
                let index = *index;
                self.publisher_connected(cx, index);
            }
            Some(Line { role: Role::Subscriber(index), .. }) => {
                let index = *index;
                self.subscriber_connected(cx, id, index);
            }
            _ => {}
        }
        self.dial_more(cx);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let Some(mut line) = cx.state_mut(id).map(std::mem::take) else { return };
        let goes_on = self.read(cx, id, &mut line, input);
        let out = std::mem::take(&mut self.frames);
        if let Some(held) = cx.state_mut(id) {
            *held = line;
        }
        cx.write(id, &out);
        self.frames = out;
        self.frames.clear();
        if !goes_on {
            cx.abort(id);
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, line: Line, reason: CloseReason) {
        if self.is_over {
            return;
        }
        if matches!(reason, CloseReason::NotConnected(_)) {
            self.dialling -= 1;
            self.tally.failed_connects += 1;
            self.tally.error(format!("cannot connect: {reason}"));
            self.dial_more(cx);
        } else if line.has_opened && !line.is_ending {
            self.tally.lost_connections += 1;
            self.tally.error(format!("a connection has ended: {reason}"));
        } else if !line.is_ending {
            self.tally.failed_connects += 1;
            self.tally.error(format!("a connection has ended without an answer: {reason}"));
        }
        match line.role {
            Role::Subscriber(index) => self.subscriber_gone(index),
            Role::Publisher(index) => self.publisher_gone(index, id),
            Role::None => {}
        }
        if line.is_ending {
            self.redial(cx, line.role);
        } else {
            cx.set_timer(REDIAL, Due::Redial(line.role));
        }
    }

    /// Ends a subscriber whose life is over.
    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        if let Some(line) = cx.state_mut(id) {
            line.is_ending = true;
        }
        cx.abort(id);
    }

    fn message(&mut self, cx: &mut Context<Self>, order: Order) {
        match order {
            Order::Grow(count) => self.grow(cx, count),
            Order::Publish(until) => {
                cx.set_interval(PACE, Due::Pace);
                self.begin_publishing(cx, until);
            }
            Order::Hush => self.hush(),
            Order::End => {
                self.is_over = true;
                self.report();
                cx.stop();
            }
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, due: Due) {
        match due {
            Due::Report => self.report(),
            Due::Pace => self.pace(cx),
            Due::Redial(role) => self.redial(cx, role),
        }
    }

    fn draining(&mut self, cx: &mut Context<Self>, _: Duration) {
        self.is_over = true;
        for id in cx.connection_ids() {
            cx.abort(id);
        }
    }
}

/// Returns the innermost cause of an error.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
