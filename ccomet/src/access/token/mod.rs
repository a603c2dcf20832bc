//! Tokens and their grants.
//!
//! With the keys of the configuration, [`Verifier`] turns a token into a [`Grant`] or a reason for
//! its refusal. `bearer.rs` finds the token in a request, and `issue.rs` creates tokens.

mod admin_keys;
pub(super) mod bearer;
mod crypto;
mod issue;
mod jwks;
mod key;
mod spki;
mod verifier;

use sealed::fault;

use crate::core::message::{ChannelKind, ChannelName};
use crate::core::pattern::{Pattern, any_matches};
use crate::core::time::UnixMillis;

pub(crate) use admin_keys::AdminKeys;
pub use issue::{Claims, make_token};
pub use key::AuthError;
pub(crate) use verifier::FetchedKeys;
pub use verifier::Verifier;

/// The permissions of a client: of the bearer of a token, or of all clients without a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The subject of the token, if there is a token and it has one.
    pub subject: Option<Box<str>>,
    /// The channels that may be read.
    pub subscribe: Vec<Pattern>,
    /// The channels that may be published to.
    pub publish: Vec<Pattern>,
    /// The channels whose members it may see.
    pub presence: Vec<Pattern>,
    /// The expiry, in seconds since 1970; `None` without a token.
    pub expires_s: Option<u64>,
}

impl Grant {
    /// Returns the expiry, as a time of the calendar.
    pub(crate) fn expires(&self) -> Option<UnixMillis> {
        self.expires_s.map(UnixMillis::from_secs)
    }

    /// Returns whether it grants reading a channel, all channels of a pattern, or the joins and
    /// leaves of a channel.
    pub(crate) fn may_subscribe(&self, channel: &ChannelName) -> bool {
        match channel.kind() {
            ChannelKind::Presence(watched) if fault!("presence-sent-to-readers") => {
                any_matches(&self.subscribe, watched)
            }
            ChannelKind::Presence(watched) => self.may_see(watched),
            ChannelKind::Named(_) | ChannelKind::Pattern(_) => any_matches(&self.subscribe, channel.as_str()),
        }
    }

    /// Returns whether it certainly grants reading all that another grant does, without a look at
    /// each channel: both have the same patterns, as successive tokens of one client usually do.
    pub(crate) fn may_read_all_of(&self, other: &Self) -> bool {
        let is_same = self.subscribe == other.subscribe && self.presence == other.presence;
        // A rule may require a token.
        is_same && self.expires_s.is_some() && !fault!("renewal-looks-at-each-channel")
    }

    /// Returns whether it grants seeing the members of the channel of a name.
    pub(crate) fn may_see(&self, name: &str) -> bool {
        any_matches(&self.presence, name)
    }

    /// Returns whether it grants publishing to a channel. A publication to a pattern reaches
    /// channels whose names the publisher may not know, and the answer contains their number: so it
    /// also requires permission to read the pattern.
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
    fn a_grant_with_equal_patterns_needs_no_look_at_channels() {
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
