//! Rules for channels by name: their history, their number of readers, and the clients that may use
//! them.

use std::time::Duration;

use sealed::fault;
use serde::{Deserialize, Serialize};

use crate::config::table::{Applied, Changes, Row, Section, Settings, check};
use crate::config::{Config, ConfigError};
use crate::core::message::{ChannelKind, ChannelName};
use crate::core::pattern::Pattern;
use crate::core::window::HistoryLimits;

/// The settings for the channels of a pattern, in place of the general ones. If several rules match
/// a channel, the first applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The channels to which the rule applies.
    pub channels: Pattern,
    /// Messages that each channel keeps. Default `history.messages_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_max: Option<usize>,
    /// Bytes that each channel keeps. Default `history.bytes_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<usize>,
    /// Time for which a message is kept, in seconds. Default `history.age_max_s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_max_s: Option<u64>,
    /// Subscribers of each channel on one loop. Default `limits.subscribers_per_channel_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribers_max: Option<usize>,
    /// Bytes of one message, at most `limits.message_bytes_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<usize>,
    /// The clients that may subscribe.
    #[serde(default)]
    pub subscribe: Who,
    /// The clients that may publish.
    #[serde(default)]
    pub publish: Who,
}

impl Rule {
    /// Creates a rule that changes nothing for the channels of a pattern.
    ///
    /// ```
    /// use ccomet::{Config, Rule, Who};
    ///
    /// let mut config = Config::default();
    /// let chat = Rule { messages_max: Some(50), publish: Who::Token, ..Rule::new("chat.*".parse()?) };
    /// config.rules.push(chat);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(channels: Pattern) -> Self {
        Self {
            channels,
            messages_max: None,
            bytes_max: None,
            age_max_s: None,
            subscribers_max: None,
            message_bytes_max: None,
            subscribe: Who::Anyone,
            publish: Who::Anyone,
        }
    }

    /// Returns the numbers with their names and default bounds. The ranges are those of the
    /// settings that a rule replaces.
    fn numbers(&self) -> [(&'static str, Option<u64>, u64); 5] {
        let count = |number: Option<usize>| number.map(|number| number as u64);
        [
            ("rules.messages_max", count(self.messages_max), 1 << 20),
            ("rules.bytes_max", count(self.bytes_max), u64::MAX),
            ("rules.age_max_s", self.age_max_s, u64::MAX / 1_000),
            ("rules.subscribers_max", count(self.subscribers_max), u64::MAX),
            ("rules.message_bytes_max", count(self.message_bytes_max), 8 << 20),
        ]
    }
}

/// Templates for rows of the table of settings: a number of a rule, and the clients that a rule
/// allows.
pub(super) const NUMBER: Row = Row {
    name: "",
    kind: "Option<usize>",
    default: "",
    range: None,
    answers: None,
    applied: Applied::Reload,
    meaning: "",
};
const CLIENTS: Row = Row { kind: "Who", default: "\"anyone\"", answers: Some("not_allowed"), ..NUMBER };

impl Settings for Rule {
    const SECTION: Section = Section {
        name: "rules",
        meaning: "Settings for the channels whose names match a pattern. The file has a `[[rules]]` for each rule, at most 1,000; \
                  the first whose `channels` match a channel's name applies to it \
                  ([rules by name](../ccomet/API.md#rules-by-name)).",
        rows: &[
            Row {
                name: "channels",
                kind: "Pattern",
                default: "none",
                meaning: "Name or pattern of the channels. Each rule needs it.",
                ..NUMBER
            },
            Row {
                name: "messages_max",
                default: "`history.messages_max`",
                range: Some("1 to 1_048_576"),
                meaning: "Messages that one channel keeps.",
                ..NUMBER
            },
            Row {
                name: "bytes_max",
                default: "`history.bytes_max`",
                range: Some("at least 1 B"),
                meaning: "Bytes that one channel keeps.",
                ..NUMBER
            },
            Row {
                name: "age_max_s",
                kind: "Option<u64>",
                default: "`history.age_max_s`",
                range: Some("at least 1 s"),
                meaning: "Time for which a message is kept.",
                ..NUMBER
            },
            Row {
                name: "subscribers_max",
                default: "`limits.subscribers_per_channel_max`",
                range: Some("at least 1"),
                answers: Some("subscriber_limit"),
                meaning: "Subscribers of one channel on one loop.",
                ..NUMBER
            },
            Row {
                name: "message_bytes_max",
                default: "`limits.message_bytes_max`",
                range: Some("1 B to 8 MiB"),
                answers: Some("message_too_large"),
                meaning: "Bytes of one message. A rule does not raise `limits.message_bytes_max`.",
                ..NUMBER
            },
            Row {
                name: "subscribe",
                meaning: "Which clients may subscribe: all to which the rest of the configuration grants it \
                          (`anyone`), those of them with a token (`token`), or the admin listener alone (`admin`).",
                ..CLIENTS
            },
            Row { name: "publish", meaning: "Which clients may publish, with the same values.", ..CLIENTS },
        ],
    };

    fn check_ranges(&self) -> Result<(), ConfigError> {
        for (name, number, max) in self.numbers() {
            let max = if fault!("rule-beyond-limits") { u64::MAX } else { max };
            number.map_or(Ok(()), |number| check(name, number, 1..=max))?;
        }
        Ok(())
    }

    fn succeed(&mut self, running: &Self, changes: &mut Changes) {
        if self != running {
            changes.note("rules", false);
        }
    }
}

/// The clients that may do something, among those that the rest of the configuration allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// All clients.
    #[default]
    Anyone,
    /// Clients with a token that permits it, and clients of the admin listener.
    Token,
    /// Clients of the admin listener only.
    Admin,
}

/// The rules, prepared for lookups by loops.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    /// The bounds of each rule, followed by the bounds of channels without a rule.
    bounds: Vec<Bounds>,
}

/// The bounds of a channel: its history, its subscribers, and its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) history: HistoryLimits,
    pub(crate) subscribers_max: usize,
    pub(crate) message_bytes_max: usize,
}

/// The index of a channel's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleId(u16);

impl Rules {
    /// The maximum number of rules.
    pub(crate) const MAX: usize = 1_000;

    pub(crate) fn new(config: &Config) -> Self {
        let (history, limits) = (&config.history, &config.limits);
        let aged = |rule: &Rule| if fault!("rule-age-ignored") { None } else { rule.age_max_s };
        let read = |rule: &Rule| if fault!("rule-readers-ignored") { None } else { rule.subscribers_max };
        let bounds = |rule: Option<&Rule>| Bounds {
            history: HistoryLimits {
                messages_max: rule.and_then(|rule| rule.messages_max).unwrap_or(history.messages_max),
                bytes_max: rule.and_then(|rule| rule.bytes_max).unwrap_or(history.bytes_max),
                kept_for: Duration::from_secs(rule.and_then(aged).unwrap_or(history.age_max_s)),
            },
            subscribers_max: rule.and_then(read).unwrap_or(limits.subscribers_per_channel_max),
            message_bytes_max: rule
                .and_then(|rule| rule.message_bytes_max)
                .map_or(limits.message_bytes_max, |bytes| bytes.min(limits.message_bytes_max)),
        };
        let all = config.rules.iter().map(|rule| bounds(Some(rule))).chain([bounds(None)]);
        Self { rules: config.rules.clone(), bounds: all.collect() }
    }

    /// Returns the rule for a channel. The joins and leaves of a channel are kept for as long as
    /// its messages.
    pub(crate) fn find(&self, channel: &ChannelName) -> RuleId {
        let found = match channel.kind() {
            ChannelKind::Named(name) | ChannelKind::Presence(name) => {
                self.rules.iter().position(|rule| rule.channels.matches(name))
            }
            ChannelKind::Pattern(_) => None,
        };
        RuleId(found.unwrap_or(self.rules.len()) as u16)
    }

    /// Returns the rule that limits the number of readers of a channel. For a pattern, that is the
    /// strictest of the rules of matching channels, so that a pattern evades none of them.
    pub(crate) fn find_for_readers(&self, channel: &ChannelName) -> RuleId {
        let Some(pattern) = channel.to_pattern() else { return self.find(channel) };
        let limited = self.rules.iter().enumerate().filter(|(_, rule)| rule.subscribers_max.is_some());
        let overlaps = |rule: &Rule| {
            rule.channels.overlaps(&pattern) && (rule.channels == pattern || !fault!("pattern-evades-subscriber-limit"))
        };
        let overlapping = limited.filter(|(_, rule)| overlaps(rule)).map(|(index, _)| index);
        let strictest = overlapping.chain([self.rules.len()]).min_by_key(|index| self.bounds[*index].subscribers_max);
        RuleId(strictest.unwrap_or(self.rules.len()) as u16)
    }

    /// Returns whether a rule limits the number of readers of a channel.
    pub(crate) fn limit_readers(&self, channel: &ChannelName) -> bool {
        let RuleId(rule) = self.find_for_readers(channel);
        self.rules.get(usize::from(rule)).is_some_and(|rule| rule.subscribers_max.is_some())
    }

    /// Returns the rule for a channel, if it has one.
    pub(crate) fn rule_of(&self, channel: &ChannelName) -> Option<&Rule> {
        self.rules.get(usize::from(self.find(channel).0))
    }

    /// Returns whether [`find`](Self::find) and [`find_for_readers`](Self::find_for_readers) find
    /// the same rule for each channel as with others.
    pub(crate) fn apply_as(&self, others: &Self) -> bool {
        let crowds = |rules: &Self| rules.bounds.iter().map(|bounds| bounds.subscribers_max).collect::<Vec<_>>();
        let of = |rule: &Rule| (rule.channels.clone(), rule.subscribers_max.is_some());
        self.rules.iter().map(of).eq(others.rules.iter().map(of)) && crowds(self) == crowds(others)
    }

    /// Returns all rules; those that take precedence come first.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Rule> {
        self.rules.iter()
    }

    pub(crate) fn bounds(&self, id: RuleId) -> &Bounds {
        &self.bounds[usize::from(id.0)]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn rules(toml: &str) -> Rules {
        Rules::new(&toml::from_str::<Config>(toml).expect("TOML"))
    }

    /// Returns the channel of that name, or the channel of that pattern.
    pub(crate) fn channel(name: &str) -> ChannelName {
        let pattern = Pattern::new(name).expect("a pattern");
        if name.contains('*') { ChannelName::of_pattern(&pattern) } else { ChannelName::new(name).expect("a name") }
    }

    #[test]
    fn the_first_matching_rule_applies() {
        let rules = rules(
            "[[rules]]\nchannels = \"news.uk\"\nmessages_max = 7\n\
             [[rules]]\nchannels = \"news.*\"\nmessages_max = 9\nmessage_bytes_max = 100\nage_max_s = 60\n",
        );
        let bounds = |name: &str| rules.bounds(rules.find(&channel(name)));
        assert_eq!((bounds("news.uk").history.messages_max, bounds("news.fr").history.messages_max), (7, 9));
        assert_eq!((bounds("news.uk").message_bytes_max, bounds("news.fr").message_bytes_max), (65_536, 100));
        assert_eq!(
            (bounds("news.fr").history.kept_for, bounds("sport").history.messages_max),
            (Duration::from_secs(60), 500)
        );
        let beside = ChannelName::of_presence(&channel("news.uk"));
        assert_eq!(rules.bounds(rules.find(&beside)).history.messages_max, 7);
    }
}
