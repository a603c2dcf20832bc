//! The results of commands.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use tracing::warn;

use super::replies::{ChannelReply, Elements, NameReply, PublishReply, Status};
use super::resp::Value;
use super::{InProgress, Pending, RedisStore};
use crate::core::message::{ChannelName, Message};
use crate::core::position::{Epoch, Spot};
use crate::core::time::UnixMillis;
use crate::engine::store::binary::{Input, read_message};
use crate::engine::store::{KeptChannel, KeptSummary, NotKept, NumberedMessage, Outcome, Part, PartRange, Unreadable};
use crate::engine::{Tick, Window};

/// The reason to give up a connection.
pub(super) type Broken = Cow<'static, str>;

const NOT_UNDERSTOOD: Broken = Cow::Borrowed("a reply of Redis is not what its function returns");
const NEW_GENERATION: Broken = Cow::Borrowed("the data in Redis were replaced or deleted");

/// A reply, as far as it is the same for all functions.
enum Answer {
    Ok(Elements),
    Absent,
    KeyReused,
    /// Redis refuses the command now.
    Refused,
}

impl RedisStore {
    pub(super) fn on_reply(&mut self, now: Tick, value: Value) -> Result<(), Broken> {
        // If the connection is given up, the command is one of those without reply.
        let answer = self.answer(value)?;
        let pending = self.pending.pop_front().ok_or("a reply of Redis belongs to no command")?;
        match pending {
            Pending::Ignored => {}
            Pending::Greeting | Pending::Check => {
                let Answer::Ok(mut elements) = answer else { return Err(NOT_UNDERSTOOD) };
                let (generation, time) = elements.greeting().ok_or(NOT_UNDERSTOOD)?;
                match self.generation() {
                    None => self.greeted(now, generation, time),
                    Some(held) if held == generation => {}
                    Some(_) => return Err(NEW_GENERATION),
                }
            }
            Pending::Open { channel } => self.has_opened(channel, answer)?,
            Pending::CatchUp { channel } => {
                let reply = match answer {
                    Answer::Ok(mut elements) => Some(elements.channel().ok_or(NOT_UNDERSTOOD)?),
                    Answer::Absent => None,
                    Answer::KeyReused | Answer::Refused => return Err(NOT_UNDERSTOOD),
                };
                self.missed(&channel, reply);
            }
            Pending::Restart { channel } => {
                let Answer::Ok(mut elements) = answer else { return Err(NOT_UNDERSTOOD) };
                let reply = elements.channel().ok_or(NOT_UNDERSTOOD)?;
                self.restarted(&channel, reply);
            }
            Pending::Change { channel } => self.has_changed(&channel, answer)?,
            Pending::Part { read, range, epoch } => self.has_part(now, (read, range, epoch), answer)?,
            Pending::Names { read, range, found } => self.has_names(read, (range, found), answer)?,
            Pending::Barrier { channel, number } => self.has_passed_barrier(&channel, number),
            Pending::Sweep => {
                if let Answer::Ok(mut elements) = answer {
                    let visited = elements.visited().ok_or(NOT_UNDERSTOOD)?;
                    self.swept = String::from_utf8_lossy(&visited).into();
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, value: Value) -> Result<Answer, Broken> {
        if let Value::Error(error) = value {
            if self.refusal.as_deref() != Some(&*error) {
                warn!(%error, "Redis refuses commands; publications and reads get status 503 meanwhile");
                self.refusal = Some(error);
            }
            return Ok(Answer::Refused);
        }
        let mut elements = Elements::of(value).ok_or(NOT_UNDERSTOOD)?;
        match elements.status().ok_or(NOT_UNDERSTOOD)? {
            Status::Ok => {}
            Status::Absent => return Ok(Answer::Absent),
            Status::KeyReused => return Ok(Answer::KeyReused),
            Status::Stale => return Err(NEW_GENERATION),
        }
        Ok(Answer::Ok(elements))
    }

    /// Reports that a channel has all up to a barrier, unless it has missed notices before that.
    pub(super) fn has_passed_barrier(&mut self, channel: &ChannelName, number: u64) {
        let Some(mirror) = self.channels.get_mut(channel).filter(|mirror| mirror.is_current) else { return };
        while mirror.awaited.front().is_some_and(|awaited| *awaited <= number) {
            mirror.awaited.pop_front();
            self.outcomes.push_back(Outcome::CaughtUp { channel: channel.clone() });
        }
    }

    fn has_opened(&mut self, channel: ChannelName, answer: Answer) -> Result<(), Broken> {
        if self.opening.remove(&channel).is_none() {
            return Ok(());
        }
        match answer {
            Answer::Ok(mut elements) => {
                let reply = elements.channel().ok_or(NOT_UNDERSTOOD)?;
                let (epoch, is_vacant) = (reply.epoch, reply.next == 0);
                let window = self.window(reply);
                self.add(&channel, &window);
                self.outcomes.push_back(if is_vacant {
                    Outcome::Vacant { channel, epoch }
                } else {
                    Outcome::Opened { channel, kept: Ok(Some(KeptChannel { window, keys: Vec::new() })) }
                });
            }
            Answer::Absent => {
                let topic = self.keys.topic(channel.as_str());
                self.subscribe("UNSUBSCRIBE", &topic);
                self.outcomes.push_back(Outcome::Opened { channel, kept: Ok(None) });
            }
            Answer::Refused | Answer::KeyReused => {
                let topic = self.keys.topic(channel.as_str());
                self.subscribe("UNSUBSCRIBE", &topic);
                self.outcomes.push_back(Outcome::Opened { channel, kept: Err(Unreadable) });
            }
        }
        Ok(())
    }

    fn has_changed(&mut self, channel: &ChannelName, answer: Answer) -> Result<(), Broken> {
        let Some(mirror) = self.channels.get_mut(channel) else { return Ok(()) };
        let is_removed = std::mem::take(&mut mirror.is_removed);
        let Some(own) = mirror.in_progress.take() else { return Ok(()) };
        let kept = match (answer, &own.change) {
            (Answer::KeyReused, _) => Err(NotKept::KeyReused),
            (Answer::Refused, _) | (Answer::Absent, super::OwnedChange::Append(_)) => Err(NotKept::Unavailable),
            (Answer::Ok(mut elements), super::OwnedChange::Append(_)) => {
                let reply = elements.publication().filter(|reply| reply.numbers.len() == own.messages().len());
                if let Some(reply) = reply {
                    self.has_published(channel, own, reply);
                    return Ok(());
                }
                // The next connection finds out what became of it.
                mirror.in_progress = Some(own);
                return Err(NOT_UNDERSTOOD);
            }
            // A channel that is gone is cleared and removed.
            (Answer::Ok(_) | Answer::Absent, super::OwnedChange::Clear) => {
                mirror.clear();
                Ok(())
            }
            (Answer::Ok(_) | Answer::Absent, super::OwnedChange::Remove) => Ok(()),
        };
        self.outcomes.push_back(Outcome::Changed { channel: channel.clone(), kept });
        if is_removed && kept.is_err() {
            self.remove_elsewhere(channel);
        }
        Ok(())
    }

    fn has_published(&mut self, channel: &ChannelName, own: InProgress, reply: PublishReply) {
        let first_new = reply.numbers.iter().find(|(_, is_new)| *is_new).map(|(number, _)| *number);
        if self.epoch_of(channel) != Some(reply.epoch) && first_new == Some(0) {
            // Another server has removed the channel, and this publication has created it again.
            let window = Window { epoch: reply.epoch, kept_from: 0, first: 0, entries: Vec::new() };
            self.restart(channel, window);
        }
        let window_max = self.settings.window_max;
        let Some(mirror) = self.channels.get_mut(channel) else { return };
        if mirror.epoch != reply.epoch || first_new.is_some_and(|first| first != mirror.next()) {
            mirror.in_progress = Some(own);
            return self.look_again(channel);
        }
        let time = UnixMillis::from_millis(reply.time);
        let timed = |message: &Arc<Message>| {
            let mut message = Message::clone(message);
            message.set_time(time);
            Arc::new(message)
        };
        let numbered = own.messages().iter().zip(reply.numbers).map(|(message, (number, is_new))| NumberedMessage {
            number,
            message: timed(message),
            is_known: !is_new,
        });
        let messages: Vec<_> = numbered.collect();
        for new in messages.iter().filter(|new| !new.is_known) {
            mirror.push(&new.message, window_max);
        }
        mirror.note_oldest(reply.first);
        self.refusal = None;
        self.outcomes.push_back(Outcome::Numbered { channel: channel.clone(), messages });
    }

    fn has_part(&mut self, now: Tick, of: (u32, PartRange, Epoch), answer: Answer) -> Result<(), Broken> {
        let (read, range, epoch) = of;
        let (part, result) = match answer {
            Answer::Ok(mut elements) => match elements.channel() {
                Some(reply) if reply.epoch == epoch => (Ok(self.part(now, range, reply)), Ok(())),
                Some(_) => (Ok(Part::empty_at(range.begin)), Ok(())),
                None => (Err(Unreadable), Err(NOT_UNDERSTOOD)),
            },
            Answer::Absent => (Ok(Part::empty_at(range.begin)), Ok(())),
            Answer::KeyReused | Answer::Refused => (Err(Unreadable), Ok(())),
        };
        self.outcomes.push_back(Outcome::Page { read, part });
        result
    }

    fn part(&mut self, now: Tick, range: PartRange, reply: ChannelReply) -> Part {
        let ChannelReply { next, first, entries, has_more, .. } = reply;
        let last = entries.last().map(|entry| entry.number);
        let end = match (last, range.is_backward) {
            (Some(last), true) => last,
            (Some(last), false) => last + 1,
            (None, _) => range.begin,
        };
        let end = if has_more || range.is_backward { end } else { next };
        let entries = entries.iter().map(|entry| (entry.number, self.message(&entry.message, entry.time)));
        let entries = entries.filter(|(_, message)| !message.is_expired(now.time)).collect();
        Part { entries, end, has_more, kept_from: first, readable_from: 0 }
    }

    fn has_names(&mut self, read: u32, of: (super::NameRange, Vec<KeptSummary>), answer: Answer) -> Result<(), Broken> {
        let (mut range, mut found) = of;
        let (listed, result) = match answer {
            Answer::Ok(mut elements) => match elements.names() {
                Some(listed) => (Some(listed), Ok(())),
                None => (None, Err(NOT_UNDERSTOOD)),
            },
            _ => (None, Ok(())),
        };
        let Some((names, has_more)) = listed else {
            self.outcomes.push_back(Outcome::Names { read, names: Err(Unreadable), has_more: false });
            return result;
        };
        if let Some(last) = names.last() {
            range.after = String::from_utf8_lossy(&last.name).into();
        }
        let (index, loops) = (self.settings.index, self.settings.loops);
        let summary = |reply: NameReply| {
            let channel = ChannelName::new(std::str::from_utf8(&reply.name).ok()?).ok()?;
            let NameReply { epoch, next, first, bytes, .. } = reply;
            let is_own = channel.shard(loops) == index;
            is_own.then_some(KeptSummary { channel, kept_from: first, bytes, spot: Spot { epoch, next } })
        };
        // Channels in which nothing was published are listed by the servers that use them.
        found.extend(names.into_iter().filter(|name| name.next > 0).filter_map(summary));
        if has_more && found.len() < range.limit {
            self.send_names(read, range, found);
            return Ok(());
        }
        self.outcomes.push_back(Outcome::Names { read, names: Ok(found), has_more });
        Ok(())
    }

    /// Returns the newest messages of a channel.
    pub(super) fn window(&self, mut reply: ChannelReply) -> Window {
        reply.drop_before_hole();
        let ChannelReply { epoch, next, first: kept_from, entries, .. } = reply;
        let first = entries.first().map_or(next, |entry| entry.number);
        let entries = entries.iter().map(|entry| self.message(&entry.message, entry.time)).collect();
        Window { epoch, kept_from, first, entries }
    }

    /// Reads a message that Redis has kept at a time by its clock.
    pub(super) fn message(&self, bytes: &Bytes, time: u64) -> Arc<Message> {
        let mut message = read_message(Input(bytes)).unwrap_or_else(|| {
            warn!("a message in Redis cannot be read; its readers get an empty one");
            crate::core::message::Draft::default().taken_at(UnixMillis::from_millis(time))
        });
        let time = UnixMillis::from_millis(time);
        if let Some(expires) = message.extra.as_ref().and_then(|extra| extra.expires) {
            let life = expires.saturating_since(message.time());
            message.extra_mut().expires = Some(self.local_time(time).plus(life));
        }
        message.set_time(time);
        Arc::new(message)
    }

    /// Returns the time by the clock of this machine at a time of Redis.
    fn local_time(&self, time: UnixMillis) -> UnixMillis {
        UnixMillis::from_millis(time.as_millis().saturating_add_signed(self.ahead.saturating_neg()))
    }
}
