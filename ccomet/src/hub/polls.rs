//! Replies to polls, and to subscriptions that are refused before they have begun.

use bytes::Bytes;
use sealed::fault;

use super::channel::{Channel, Ration};
use super::deliver::{Gap, fall_off, gap_item, spots};
use super::encoded::Encoded;
use super::subscriber::{Extra, Kind, Subscriber};
use super::{Hub, IcometForm, Reply, Sink};
use crate::message::ChannelName;
use crate::protocols::format::framing::Framing;
use crate::protocols::format::stream_format::{Tongue, Voice};
use crate::protocols::icomet::events::{Kind as Happening, seq_of};
use crate::protocols::{Form, icomet::events as icomet, native::items as native, v1::items as classic};
use crate::wire::problem::Problem;

impl Hub {
    pub(super) fn start_poll(&mut self, key: u32, gaps: &[Gap], sink: &mut impl Sink) {
        let subscriber = &mut self.subscribers[key as usize];
        let items: Vec<Vec<u8>> = if subscriber.kind.is_poll_of_one() {
            Vec::new()
        } else {
            let spots = spots(&self.channels, subscriber.parts());
            let parts = subscriber.parts();
            let item = |gap: &Gap| {
                let channel = &self.channels[parts[gap.index].channel as usize];
                gap_item(channel, gap.missed, spots[gap.index])
            };
            gaps.iter().map(item).collect()
        };
        let at_once = subscriber.extra.as_ref().is_some_and(|extra| extra.answer_at_once);
        if at_once || !items.is_empty() || self.has_news(key) {
            self.answer_poll(key, &items, sink);
        }
    }

    /// Answers a poll with what there is, behind `items`, and forgets it.
    pub(super) fn answer_poll(&mut self, key: u32, items: &[Vec<u8>], sink: &mut impl Sink) {
        let reply = self.poll_reply(key, items);
        self.conclude(key, reply, sink);
    }

    /// What a poll is answered with now.
    pub(super) fn poll_reply(&mut self, key: u32, items: &[Vec<u8>]) -> Reply {
        let ration = self.ration();
        let subscriber = &mut self.subscribers[key as usize];
        let kind = subscriber.kind;
        let Some(extra) = subscriber.extra.as_deref_mut() else { return Reply::Nothing };
        if let ([part], []) = (extra.parts.as_slice(), items) {
            let channel = &self.channels[part.channel as usize];
            return reply_of_one(subscriber, channel, &mut self.encoded, &[], &mut Vec::new(), ration);
        }
        debug_assert_eq!(kind, Kind::Poll, "others have one channel and no items of their own");
        let mut chunks = Vec::new();
        let mut room = ration.bytes_max;
        for part in &mut extra.parts {
            let channel = &self.channels[part.channel as usize];
            if let Some(gap) = fall_off(channel, part) {
                chunks.push(Bytes::from(gap_item(channel, gap, channel.spot(part.cursor))));
            }
            if room > 0 && part.cursor < channel.log.next() {
                let ration = Ration { bytes_max: room, ..ration };
                let batch = channel.batch(&mut self.encoded, part.cursor, Form::NativeItem, ration);
                part.cursor = if fault!("poll-skips-the-rest") { channel.log.next() } else { batch.to };
                room = room.saturating_sub(batch.chunks.iter().map(Bytes::len).sum());
                chunks.extend(batch.chunks);
            }
        }
        let all = items.iter().map(Vec::as_slice).chain(chunks.iter().map(Bytes::as_ref));
        let mut json = Vec::new();
        native::write_reply(spots(&self.channels, &extra.parts), all, &mut json);
        in_json_or_script(json, extra)
    }

    /// Answers one of icomet's polls with something else than a message.
    pub(super) fn icomet_reply(&self, key: u32, happening: Happening) -> Reply {
        let subscriber = &self.subscribers[key as usize];
        let extra = subscriber.extra.as_deref();
        let Some((extra, part)) = extra.and_then(|extra| Some((extra, extra.parts.first()?))) else {
            return Reply::Nothing;
        };
        let channel = &self.channels[part.channel as usize];
        let seq = if happening == Happening::Noop { subscriber.beats } else { seq_of(channel.log.next()) };
        let event = icomet::event(happening, &channel.name, seq, "");
        icomet_poll_answer(extra.callback.as_deref(), &event)
    }

    pub(super) fn refusal_for(&self, key: u32, channel: &ChannelName, problem: Problem) -> Reply {
        let subscriber = &self.subscribers[key as usize];
        let callback = subscriber.extra.as_ref().and_then(|extra| extra.callback.clone());
        refusal(problem, channel, subscriber.kind, callback)
    }
}

/// How a subscriber is told, that has not been told anything yet, that it cannot have what it wants.
pub(super) fn refusal(problem: Problem, channel: &ChannelName, kind: Kind, callback: Option<Box<str>>) -> Reply {
    let voice = match kind {
        Kind::Stream(voice) if voice.tongue == Tongue::Icomet => Some(voice),
        Kind::IcometPoll => None,
        Kind::Poll => return Reply::Problem(problem, callback),
        Kind::Stream(_) | Kind::Classic => return Reply::Problem(problem, None),
    };
    match icomet::refusal(problem, channel) {
        Some(event) => Reply::Refused(problem, Box::new(icomet_answer(voice, callback.as_deref(), &event))),
        None => Reply::Problem(problem, None),
    }
}

/// A whole answer of icomet's: to a poll, or to one who wanted a stream.
fn icomet_answer(voice: Option<Voice>, callback: Option<&str>, event: &[u8]) -> Reply {
    let Some(voice) = voice else { return icomet_poll_answer(callback, event) };
    let mut body = Vec::new();
    // What is answered whole is framed when it is sent.
    let plain = Voice { framing: Framing::Plain, ..voice };
    plain.write_opening("", &mut body);
    plain.write_icomet(event, &mut body);
    Reply::Icomet(IcometForm::Stream(voice), body.into())
}

/// Answers one of icomet's polls. Browsers run a call only where its type says that it is a script.
fn icomet_poll_answer(callback: Option<&str>, event: &[u8]) -> Reply {
    let form = if callback.is_some() && !fault!("icomet-call-as-json") { IcometForm::Script } else { IcometForm::Json };
    Reply::Icomet(form, icomet::reply(callback, event).into())
}

/// A reply for one who polls one channel. `made` holds what others at the same place got in this flush.
pub(super) fn reply_of_one(
    subscriber: &mut Subscriber,
    channel: &Channel,
    encoded: &mut Encoded,
    signs: &[Bytes],
    made: &mut Vec<(u64, Bytes)>,
    ration: Ration,
) -> Reply {
    let kind = subscriber.kind;
    let Some(extra) = subscriber.extra.as_deref_mut() else { return Reply::Nothing };
    let Some(part) = extra.parts.first_mut() else { return Reply::Nothing };
    if kind == Kind::Classic {
        let mut items = channel.batch(encoded, part.cursor, Form::ClassicItem, ration).chunks;
        // A client takes its count from the last item, unless that is a lone sign-in: so messages come last, and
        // without one there is one sign-in only.
        let shown = if items.is_empty() { &signs[..signs.len().min(1)] } else { signs };
        items.splice(..0, shown.iter().cloned());
        if items.is_empty() {
            return Reply::Nothing;
        }
        let callback = extra.callback.as_deref().unwrap_or_default();
        return Reply::Script(classic::envelope(callback, items.iter().map(Bytes::as_ref)).into());
    }
    if kind == Kind::IcometPoll {
        // One at a time: its clients stop at an array.
        let batch = channel.batch(encoded, part.cursor, Form::IcometEvent, Ration { bytes_max: 1, ..ration });
        let Some(event) = batch.chunks.first() else { return Reply::Nothing };
        return icomet_poll_answer(extra.callback.as_deref(), event);
    }
    if extra.callback.is_none()
        && let Some((_, reply)) = made.iter().find(|(from, _)| *from == part.cursor)
    {
        return Reply::Json(reply.clone());
    }
    let from = part.cursor;
    let mut items = Vec::new();
    if let Some(missed) = fall_off(channel, part) {
        items.push(Bytes::from(gap_item(channel, missed, channel.spot(part.cursor))));
    }
    let batch = channel.batch(encoded, part.cursor, Form::NativeItem, ration);
    let to = batch.to;
    items.extend(batch.chunks);
    part.cursor = to;
    let mut json = Vec::new();
    native::write_reply([channel.spot(to)], items.iter().map(Bytes::as_ref), &mut json);
    let reply = in_json_or_script(json, extra);
    if let Reply::Json(json) = &reply
        && made.len() < 8
    {
        made.push((from, json.clone()));
    }
    reply
}

pub(super) fn in_json_or_script(json: Vec<u8>, extra: &Extra) -> Reply {
    let bytes = Bytes::from(native::wrap(extra.callback.as_deref(), json));
    if extra.callback.is_some() { Reply::Script(bytes) } else { Reply::Json(bytes) }
}
