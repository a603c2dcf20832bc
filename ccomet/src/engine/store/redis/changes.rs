//! The calls that change channels.

use super::mirror::OwnedChange;
use super::{Pending, RedisStore};
use crate::core::message::ChannelName;
use crate::engine::store::binary::put_message;
use crate::engine::store::digest;

impl RedisStore {
    /// Sends the change in progress of a channel.
    pub(super) fn send_change(&mut self, channel: &ChannelName) {
        let Some(mirror) = self.channels.get_mut(channel) else { return };
        let limits = mirror.limits;
        let Some(in_progress) = &mut mirror.in_progress else { return };
        in_progress.is_sent = true;
        let token = in_progress.token.clone();
        let change = std::mem::replace(&mut in_progress.change, OwnedChange::Clear);
        let name = channel.as_str();
        let topic = self.keys.topic(name);
        let random = self.random_digits();
        let call = match &change {
            OwnedChange::Append(messages) => {
                let call = self.begin("ccomet1_publish");
                let mut call = call.key(self.keys.state(name)).key(self.keys.stream(name)).key(self.keys.list());
                let (keys, places) = self.keys.of_messages(name, messages.iter().map(|message| &**message));
                for key in keys {
                    call = call.key(key);
                }
                let messages_max = limits.map_or(u64::MAX >> 1, |limits| limits.messages_max.max(1) as u64);
                call = call.arg(name).arg(topic).arg(random).arg(token.as_bytes());
                call = call.number(messages_max).number(self.ttl()).number(self.settings.key_age.as_secs().max(1));
                call = call.number(messages.len());
                for (message, place) in messages.iter().zip(places) {
                    let mut bytes = Vec::with_capacity(message.payload.len() + 64);
                    put_message(&mut bytes, message);
                    call = call.arg(bytes).number(place);
                    call = if place > 0 { call.number(digest(message)) } else { call.arg("") };
                }
                call
            }
            OwnedChange::Clear => {
                let call = self.begin("ccomet1_clear");
                let call = call.key(self.keys.state(name)).key(self.keys.stream(name));
                call.arg(topic).arg(token.as_bytes()).arg(random)
            }
            OwnedChange::Remove => {
                let call = self.begin("ccomet1_remove");
                let call = call.key(self.keys.state(name)).key(self.keys.stream(name)).key(self.keys.list());
                call.arg(name).arg(topic).arg(token.as_bytes())
            }
        };
        if let Some(in_progress) = self.channels.get_mut(channel).and_then(|mirror| mirror.in_progress.as_mut()) {
            in_progress.change = change;
        }
        self.call(Pending::Change { channel: channel.clone() }, &call);
    }
}
