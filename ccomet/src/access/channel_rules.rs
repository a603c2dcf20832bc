//! The part of the channel rules that determines which clients may subscribe and publish.

use sealed::fault;

use crate::config::rules::{Rule, Rules, Who};
use crate::core::message::{ChannelKind, ChannelName};

/// An action on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelAction {
    Subscribe,
    Publish,
}

impl Rules {
    /// Returns whether a client of the front may do that to a channel, or to all channels of a
    /// pattern. For a pattern, no rule of a channel that it matches may forbid it.
    pub(crate) fn allow(&self, action: ChannelAction, channel: &ChannelName, has_token: bool) -> bool {
        let most = if has_token { Who::Token } else { Who::Anyone };
        let allows = |rule: &Rule| {
            let needed = if action == ChannelAction::Publish { rule.publish } else { rule.subscribe };
            needed <= most
        };
        match channel.kind() {
            ChannelKind::Pattern(pattern) if fault!("pattern-evades-rule") => {
                self.iter().all(|rule| allows(rule) || rule.channels != pattern)
            }
            ChannelKind::Pattern(pattern) => self.iter().all(|rule| allows(rule) || !rule.channels.overlaps(&pattern)),
            ChannelKind::Named(_) | ChannelKind::Presence(_) => self.rule_of(channel).is_none_or(allows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rules::tests::{channel, rules};

    #[test]
    fn a_pattern_is_allowed_if_all_its_channels_are() {
        let rules = rules(
            "[[rules]]\nchannels = \"secret.*\"\nsubscribe = \"admin\"\n\
             [[rules]]\nchannels = \"*.members\"\nsubscribe = \"token\"\npublish = \"token\"\n",
        );
        for (name, without, with) in [
            ("secret.plan", false, false),
            ("club.members", false, true),
            ("secret.members", false, false),
            ("news", true, true),
            ("news.*", false, true),
            ("*", false, false),
            ("se*", false, false),
            ("news.*.uk", true, true),
        ] {
            let name = channel(name);
            let allowed = [false, true].map(|token| rules.allow(ChannelAction::Subscribe, &name, token));
            assert_eq!(allowed, [without, with], "{name}");
        }
        assert!(rules.allow(ChannelAction::Publish, &channel("secret.plan"), false));
    }
}
