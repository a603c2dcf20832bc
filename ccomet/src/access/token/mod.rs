//! Tokens, and what they grant.
//!
//! [`Verifier`] is what the keys of the configuration make of a token: a [`Grant`] or a reason. `bearer.rs` finds the token in a
//! request, and `issue.rs` makes tokens.

mod admin_keys;
pub(super) mod bearer;
mod crypto;
mod issue;
mod key;
mod verifier;

use sealed::fault;

use crate::core::message::{ChannelKind, ChannelName};
use crate::core::pattern::{Pattern, any_matches};
use crate::core::time::UnixMillis;

pub(crate) use admin_keys::AdminKeys;
pub use issue::{Claims, make_token};
pub use key::AuthError;
pub use verifier::Verifier;

/// What a client may do: the bearer of a token, or any client without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The subject of the token, if there is a token and it has one.
    pub subject: Option<Box<str>>,
    /// The channels that may be read.
    pub subscribe: Vec<Pattern>,
    /// The channels that may be published to.
    pub publish: Vec<Pattern>,
    /// Patterns of the channels whose members it may see.
    pub presence: Vec<Pattern>,
    /// When it ends, in seconds since 1970; `None` without a token.
    pub expires_s: Option<u64>,
}

impl Grant {
    /// Returns when it ends, by the calendar.
    pub(crate) fn expires(&self) -> Option<UnixMillis> {
        self.expires_s.map(UnixMillis::from_secs)
    }

    /// Returns whether it may read a channel, all channels of a pattern, or the joins and leaves of a channel.
    pub(crate) fn may_subscribe(&self, channel: &ChannelName) -> bool {
        match channel.kind() {
            ChannelKind::Presence(watched) if fault!("presence-sent-to-readers") => {
                any_matches(&self.subscribe, watched)
            }
            ChannelKind::Presence(watched) => self.may_see(watched),
            ChannelKind::Named(_) | ChannelKind::Pattern(_) => any_matches(&self.subscribe, channel.as_str()),
        }
    }

    /// Returns whether it lets its bearer read all that another grant does, as far as that is seen without a look at each
    /// channel: both have the same patterns, as the tokens of one client mostly do.
    pub(crate) fn may_read_all_of(&self, other: &Self) -> bool {
        let is_same = self.subscribe == other.subscribe && self.presence == other.presence;
        // A rule may ask for a token.
        is_same && self.expires_s.is_some() && !fault!("renewal-looks-at-each-channel")
    }

    /// Returns whether it may see the members of the channel of a name.
    pub(crate) fn may_see(&self, name: &str) -> bool {
        any_matches(&self.presence, name)
    }

    /// Returns whether it may be published to a channel. What is published to a pattern reaches channels whose names the
    /// publisher may not know, and the answer counts them: that needs leave to read the pattern, too.
    pub(crate) fn may_publish(&self, channel: &ChannelName) -> bool {
        let reaches_others = channel.is_pattern() && !fault!("pattern-published-unread");
        let name = channel.as_str();
        any_matches(&self.publish, name) && (!reaches_others || any_matches(&self.subscribe, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_grant_with_the_same_patterns_no_channel_is_looked_at() {
        let all = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text).expect("a pattern")).collect::<Vec<_>>();
        let grant = |subscribe: &[&str], presence: &[&str], expires_s| Grant {
            subject: None,
            subscribe: all(subscribe),
            publish: all(&["x"]),
            presence: all(presence),
            expires_s,
        };
        let held = grant(&["a", "b*"], &["a"], Some(1));
        for (renewed, is_known) in [
            (Grant { publish: Vec::new(), ..grant(&["a", "b*"], &["a"], Some(2)) }, true),
            (grant(&["a", "b*", "c"], &["a"], Some(2)), false),
            (grant(&["a"], &["a"], Some(2)), false),
            (grant(&["a", "b*"], &[], Some(2)), false),
            (grant(&["a", "b*"], &["a"], None), false),
        ] {
            assert_eq!(renewed.may_read_all_of(&held), is_known, "{renewed:?}");
        }
    }
}
