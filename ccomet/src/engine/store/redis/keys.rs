//! The names of keys and topics in Redis, and the commands that use them.

use super::resp::encode;
use crate::core::message::{ChannelName, Message};
use crate::core::position::Epoch;

/// The partition of all keys, as a hash tag: keys with equal tags are on one node.
const TAG: &str = "{0}";

/// The names of keys and topics.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: Box<str>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}:{TAG}:").into() }
    }

    fn named(&self, kind: &str, name: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), kind.as_bytes(), b":", name.as_bytes()].concat()
    }

    /// Returns the key of the generation.
    pub(super) fn generation(&self) -> Vec<u8> {
        [self.prefix.as_bytes(), b"g"].concat()
    }

    /// Returns the key of the list of channels.
    pub(super) fn list(&self) -> Vec<u8> {
        [self.prefix.as_bytes(), b"l"].concat()
    }

    /// Returns the key of a channel's state. With an empty name, all such keys begin with it.
    pub(super) fn state(&self, name: &str) -> Vec<u8> {
        self.named("m", name)
    }

    /// Returns the key of a channel's stream. With an empty name, all such keys begin with it.
    pub(super) fn stream(&self, name: &str) -> Vec<u8> {
        self.named("s", name)
    }

    /// Returns the topic of a channel. With an empty name, all topics begin with it.
    pub(super) fn topic(&self, name: &str) -> Vec<u8> {
        self.named("c", name)
    }

    /// Returns the pattern of the topics of all channels that a pattern of channels matches.
    pub(super) fn topics_of(&self, pattern: &ChannelName) -> Vec<u8> {
        let mut topics = self.topic("");
        for byte in pattern.as_str().bytes() {
            if matches!(byte, b'?' | b'[' | b']' | b'\\' | b'^') {
                topics.push(b'\\');
            }
            topics.push(byte);
        }
        topics
    }

    /// Returns the key of an idempotency key of a channel.
    fn idempotency(&self, name: &str, key: &str) -> Vec<u8> {
        [&*self.named("k", name), b"\0", key.as_bytes()].concat()
    }

    /// Returns the idempotency keys of messages, each once, and the place of the key of each
    /// message among them: from 1 on, or 0 if it has none.
    pub(super) fn of_messages<'a>(
        &self,
        name: &str,
        messages: impl Iterator<Item = &'a Message>,
    ) -> (Vec<Vec<u8>>, Vec<usize>) {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let places = messages.map(|message| {
            let Some(key) = message.key().map(|key| self.idempotency(name, key)) else { return 0 };
            let held = keys.iter().position(|held| *held == key);
            held.unwrap_or_else(|| {
                keys.push(key);
                keys.len() - 1
            }) + 1
        });
        let places = places.collect();
        (keys, places)
    }
}

/// A call of a function.
#[derive(Debug)]
pub(super) struct Call {
    function: &'static str,
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new(function: &'static str) -> Self {
        Self { function, keys: Vec::new(), arguments: Vec::new() }
    }

    pub(super) fn key(mut self, key: Vec<u8>) -> Self {
        self.keys.push(key);
        self
    }

    pub(super) fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn number(self, number: impl std::fmt::Display) -> Self {
        self.arg(format!("{number}"))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let count = self.keys.len().to_string();
        let mut parts: Vec<&[u8]> = vec![b"FCALL", self.function.as_bytes(), count.as_bytes()];
        parts.extend(self.keys.iter().map(Vec::as_slice));
        parts.extend(self.arguments.iter().map(Vec::as_slice));
        encode(out, &parts);
    }
}

/// Returns the text of an epoch, as functions have it.
pub(super) fn epoch_text(epoch: Epoch) -> String {
    format!("{:015x}", epoch.0)
}

/// Returns the epoch of a text.
pub(super) fn read_epoch(text: &[u8]) -> Option<Epoch> {
    let text = std::str::from_utf8(text).ok()?;
    u64::from_str_radix(text, 16).ok().filter(|epoch| *epoch >> 60 == 0).map(Epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_a_pattern_match_it_alone() {
        let pattern = "a[1]?*".parse().map(|pattern| ChannelName::of_pattern(&pattern)).expect("a pattern");
        let topics = String::from_utf8(Keys::new("p").topics_of(&pattern)).expect("text");
        assert_eq!(topics, r"p:{0}:c:a\[1\]\?*");
    }

    #[test]
    fn the_text_of_an_epoch_is_the_epoch() {
        for epoch in [Epoch(1), Epoch(1_700_000_000_000 << 16 | 0xabcd)] {
            assert_eq!(read_epoch(epoch_text(epoch).as_bytes()), Some(epoch));
        }
        assert_eq!(read_epoch(b"zz"), None);
    }
}
