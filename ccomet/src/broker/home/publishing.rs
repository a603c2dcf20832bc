//! How messages get their numbers.

use std::sync::Arc;

use super::{Home, HomeChannel};
use crate::broker::{Event, Now, Refusal, Ticket};
use crate::message::{ChannelName, Message};
use crate::one_or_more::OneOrMore;
use crate::pattern::Pattern;
use crate::position::Spot;

impl Home {
    pub(super) fn publish(
        &mut self,
        from: usize,
        now: Now,
        name: ChannelName,
        messages: OneOrMore<Message>,
        ticket: Ticket,
    ) {
        let key = match self.open(now, name) {
            Ok(key) => key,
            Err(why) => return self.say(from, Event::Refused { ticket, why }),
        };
        let channel = &self.channels[key];
        if self.keys.is_misused(&channel.name, channel.epoch, &messages) {
            return self.say(from, Event::Refused { ticket, why: Refusal::KeyReused });
        }
        let spots = messages.map(|message| self.take(key, now, &Arc::new(message)));
        self.evict();
        self.say(from, Event::Accepted { ticket, spots });
    }

    /// Numbers and keeps a message, if that was not done before. Returns the spot behind it.
    fn take(&mut self, key: usize, now: Now, message: &Arc<Message>) -> Spot {
        let channel = &self.channels[key];
        if let Some(spot) = self.keys.published(&channel.name, channel.epoch, message) {
            return spot;
        }
        let spot = self.append(key, now, message);
        self.keys.note(&self.channels[key].name, message, spot);
        spot
    }

    /// Numbers and keeps a message. Returns the spot behind it.
    fn append(&mut self, key: usize, now: Now, message: &Arc<Message>) -> Spot {
        let channel = &mut self.channels[key];
        self.bytes += Message::cost(message);
        let number = channel.log.push(message.clone());
        channel.touched_ms = now.unix_ms;
        self.watch.note(&channel.name, now.unix_ms, &mut self.said);
        let spot = Spot { epoch: channel.epoch, next: number + 1 };
        if !self.followed.is_empty() {
            let name = channel.name.clone();
            self.pass_to_patterns(&name, spot, message);
        }
        self.trim(key, now);
        self.mark(key);
        spot
    }

    pub(super) fn broadcast(
        &mut self,
        from: usize,
        now: Now,
        pattern: &Pattern,
        message: Message,
        ticket: Option<Ticket>,
    ) {
        let messages = OneOrMore::one(message);
        let is_meant = |channel: &HomeChannel| {
            !channel.is_derived()
                && pattern.matches(channel.name.as_str())
                && !self.keys.is_misused(&channel.name, channel.epoch, &messages)
        };
        let meant: Vec<usize> =
            self.channels.iter().filter(|(_, channel)| is_meant(channel)).map(|(key, _)| key).collect();
        let message = Arc::new(messages.first);
        for key in &meant {
            self.take(*key, now, &message);
        }
        self.evict();
        if let Some(ticket) = ticket {
            self.say(from, Event::Broadcasted { ticket, channels: meant.len() as u64 });
        }
    }
}
