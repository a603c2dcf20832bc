//! Subscribers: what they send, and what they make of answers.

use std::time::Duration;

use sealed::{ConnectionId, Context};
use sealed_http::codec::ResponseHead;
use sealed_http::websocket::{Challenge, Limits};

use super::load::{Line, Load, Role};
use super::plan::{Plan, Transport};
use super::tally::{Track, record};

/// The limits of a WebSocket's messages: servers put batches into one.
pub(super) const FRAMES: Limits =
    Limits { message_bytes_max: 64 * 1024 * 1024, frame_bytes_max: 64 * 1024 * 1024, fragments_max: 1_024 };
/// Maximum number of bytes of a refusal that are kept.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// A subscriber, over as many connections as it takes.
#[derive(Debug)]
pub(super) struct Subscriber {
    channel: usize,
    how: Transport,
    /// The server ends it, after one poll.
    polls_once: bool,
    track: Track,
    /// It has subscribed, so that it gets whatever is published from now on.
    is_ready: bool,
    /// What the next poll begins with: a position, or header fields of other servers.
    resume: String,
}

impl Subscriber {
    /// Returns the number of messages that it has not got at the end, of publishers that have
    /// published these numbers of messages.
    pub(super) fn behind(&self, published: &[u32], channels: usize) -> u64 {
        let of_channel = published.iter().skip(self.channel).step_by(channels).enumerate();
        of_channel.map(|(publisher, count)| self.track.behind(publisher, *count)).sum()
    }
}

impl Load {
    /// Makes the subscribers that are missing to this number, and connects them.
    pub(super) fn grow(&mut self, cx: &mut Context<Self>, count: usize) {
        let plan = self.plan.clone();
        let mut fresh = Vec::new();
        for index in self.subscribers.len()..count {
            let polls_once = plan.server_ends && index % 2 == 1;
            let how = if polls_once { Transport::Poll } else { plan.transport };
            let channel = index % plan.channels;
            let track = new_track(&plan, channel, true);
            let resume = String::new();
            self.subscribers.push(Subscriber { channel, how, polls_once, track, is_ready: false, resume });
            fresh.push(index);
        }
        // The last is taken first.
        self.to_dial.extend(fresh.into_iter().rev());
        self.dial_more(cx);
    }

    /// Makes the first request of a connection.
    pub(super) fn subscribe(&mut self, index: usize, nonce: (u64, u64)) -> (String, Option<Challenge>) {
        let Some(subscriber) = self.subscribers.get(index) else { return (String::new(), None) };
        if subscriber.how != Transport::Ws {
            return (self.poll_or_stream(index), None);
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&nonce.0.to_ne_bytes());
        bytes[8..].copy_from_slice(&nonce.1.to_ne_bytes());
        let challenge = Challenge::new(bytes);
        let fields = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            challenge.key()
        );
        (self.plan.subscribe(subscriber.channel, Transport::Ws, "", &fields), Some(challenge))
    }

    fn poll_or_stream(&self, index: usize) -> String {
        let Some(subscriber) = self.subscribers.get(index) else { return String::new() };
        let Subscriber { channel, how, polls_once, resume, .. } = subscriber;
        if *how == Transport::Sse {
            return self.plan.subscribe(*channel, *how, "", "");
        }
        if !self.plan.is_native {
            return self.plan.subscribe(*channel, *how, "", resume);
        }
        let query = match (polls_once, resume.as_str()) {
            (true, _) => format!("?wait={}", self.plan.life.unwrap_or(Duration::from_secs(5)).as_secs().max(1)),
            // The first poll is answered at once, with the position from which the others go on.
            (false, "") => "?wait=0".to_owned(),
            (false, position) => format!("?after={position}"),
        };
        self.plan.subscribe(*channel, *how, &query, if *polls_once { "Connection: close\r\n" } else { "" })
    }

    /// Notes that a subscriber is there, if only its connection shows this: its request is on the
    /// way, and is answered when there is a message.
    pub(super) fn subscriber_connected(&mut self, cx: &mut Context<Self>, id: ConnectionId, index: usize) {
        let waits = |held: &Subscriber| held.polls_once || held.how == Transport::Poll && !self.plan.is_native;
        if self.subscribers.get(index).is_some_and(waits) {
            self.set_ready(cx, id, index);
        }
    }

    /// Takes the head of an answer.
    pub(super) fn head(&mut self, cx: &mut Context<Self>, id: ConnectionId, line: &mut Line, head: &ResponseHead<'_>) {
        let Role::Subscriber(index) = line.role else { return };
        let Some(subscriber) = self.subscribers.get_mut(index) else { return };
        let is_foreign_poll = subscriber.how == Transport::Poll && !self.plan.is_native;
        if is_foreign_poll && head.is_success() {
            // As Nchan and its predecessor have it.
            let of = |name: &str| head.header_str(name).unwrap_or_default().to_owned();
            let (modified, tag) = (of("Last-Modified"), of("Etag"));
            subscriber.resume = if modified.is_empty() {
                String::new()
            } else {
                format!("If-Modified-Since: {modified}\r\nIf-None-Match: {tag}\r\n")
            };
        }
        let is_open = matches!(head.status(), 101 | 200);
        let is_stream = subscriber.how != Transport::Poll;
        if is_open && is_stream && !self.plan.is_native {
            self.set_ready(cx, id, index);
        }
    }

    /// Takes a part of a body.
    pub(super) fn data(&mut self, cx: &mut Context<Self>, id: ConnectionId, line: &mut Line, data: &[u8]) {
        let is_stream = match line.role {
            Role::Subscriber(index) => self.subscribers.get(index).is_some_and(|held| held.how == Transport::Sse),
            _ => false,
        };
        if line.status != 200 {
            let room = REFUSAL_BYTES_MAX.saturating_sub(line.partial.len());
            return line.partial.extend_from_slice(&data[..room.min(data.len())]);
        }
        if !is_stream {
            return line.partial.extend_from_slice(data);
        }
        // A message is within a line.
        let Some(end) = data.iter().rposition(|byte| *byte == b'\n') else {
            return line.partial.extend_from_slice(data);
        };
        let (whole, rest) = data.split_at(end + 1);
        if line.partial.is_empty() {
            self.frame(cx, id, line, whole);
        } else {
            line.partial.extend_from_slice(whole);
            let lines = std::mem::take(&mut line.partial);
            self.frame(cx, id, line, &lines);
            line.partial = lines;
            line.partial.clear();
        }
        line.partial.extend_from_slice(rest);
    }

    /// Takes complete lines, a message of a WebSocket, or a whole body.
    pub(super) fn frame(&mut self, cx: &mut Context<Self>, id: ConnectionId, line: &Line, bytes: &[u8]) {
        let Role::Subscriber(index) = line.role else { return };
        let now_us = self.now().as_micros() as u64;
        let channels = self.plan.channels;
        self.tally.bytes += bytes.len() as u64;
        let (tally, latency) = (&mut self.tally, &mut self.latency);
        let Some(subscriber) = self.subscribers.get_mut(index) else { return };
        self.markers.find(bytes, |marked| {
            tally.delivered += 1;
            record(latency, now_us.saturating_sub(marked.due_us));
            subscriber.track.got(marked.publisher / channels, marked.number, tally);
        });
        if self.plan.is_native && subscriber.how != Transport::Poll {
            self.set_ready(cx, id, index);
        }
    }

    /// Takes the end of an answer. Returns whether the connection goes on.
    pub(super) fn finish(&mut self, cx: &mut Context<Self>, id: ConnectionId, line: &mut Line) -> bool {
        let body = std::mem::take(&mut line.partial);
        let Role::Subscriber(index) = line.role else { return self.published(cx, line, &body) };
        if !matches!(line.status, 200 | 304 | 408 | 204) {
            self.tally.failed_connects += 1;
            self.refused("subscribe", line.status, &body);
            return false;
        }
        let how = self.subscribers.get(index).map(|subscriber| (subscriber.how, subscriber.polls_once));
        let Some((Transport::Poll, polls_once)) = how else {
            self.tally.error("the server has ended a stream".to_owned());
            return false;
        };
        self.frame(cx, id, line, &body);
        if polls_once {
            // The server closes.
            line.is_ending = true;
            return true;
        }
        if self.plan.is_native
            && let Some(position) = position(&body)
            && let Some(subscriber) = self.subscribers.get_mut(index)
        {
            position.clone_into(&mut subscriber.resume);
        }
        if !line.keeps_open {
            line.is_ending = true;
            return false;
        }
        self.set_ready(cx, id, index);
        let request = self.poll_or_stream(index);
        cx.write(id, request.as_bytes());
        true
    }

    /// Notes that a subscriber gets all that is published from now on.
    fn set_ready(&mut self, cx: &mut Context<Self>, id: ConnectionId, index: usize) {
        let Some(subscriber) = self.subscribers.get_mut(index) else { return };
        if std::mem::replace(&mut subscriber.is_ready, true) {
            return;
        }
        self.ready += 1;
        let polls_once = subscriber.polls_once;
        if let Some(life) = self.plan.life.filter(|_| !polls_once) {
            // Between half of it and one and a half.
            let random = (cx.random() % 1_000) as u32;
            cx.set_deadline(id, life / 2 + life * random / 1_000);
        }
    }

    /// Notes that the connection of a subscriber is gone.
    pub(super) fn subscriber_gone(&mut self, index: usize) {
        let plan = self.plan.clone();
        let Some(subscriber) = self.subscribers.get_mut(index) else { return };
        if std::mem::take(&mut subscriber.is_ready) {
            self.ready -= 1;
        }
        if plan.life.is_some() {
            // Another client takes its place.
            subscriber.track = new_track(&plan, subscriber.channel, false);
            subscriber.resume.clear();
        }
    }
}

/// Makes the record of a subscriber of a channel.
fn new_track(plan: &Plan, channel: usize, is_first: bool) -> Track {
    let publishers = (plan.publishers + plan.channels - 1).saturating_sub(channel) / plan.channels;
    Track::new(publishers, is_first && plan.life.is_none())
}

/// Returns the position of a reply.
fn position(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("\"position\":\"")?;
    rest.split_once('"').map(|(position, _)| position).filter(|position| !position.is_empty())
}
