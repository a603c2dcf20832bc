//! Who may do what: tokens, what they grant, and who is let do without one.
//!
//! [`Verifier`] is what the keys of the configuration make of a token: a [`Grant`] or a reason. `bearer.rs` finds the token in a
//! request, and `gate.rs` holds what it grants against what is asked.

mod admin_keys;
mod bearer;
mod crypto;
mod gate;
mod key;
mod mint;
mod settings;
mod verifier;

use crate::message::ChannelName;
use crate::pattern::{Pattern, any_matches};

pub(crate) use admin_keys::{AdminKeys, is_key};
pub(crate) use gate::{Gate, Identity, callback_of};
pub use key::AuthError;
pub use mint::{Claims, make_token};
pub use settings::{Algorithm, Anonymous, Auth, Key, Secret};
pub use verifier::Verifier;

/// What the bearer of a token may do, or who brings none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who it is; nobody in particular without a token, or with one that does not say.
    pub subject: Option<Box<str>>,
    /// The channels that may be read.
    pub subscribe: Vec<Pattern>,
    /// The channels that may be published to.
    pub publish: Vec<Pattern>,
    /// The channels of which it may be known who is there.
    pub presence: Vec<Pattern>,
    /// When it ends, in seconds since 1970; `None` without a token.
    pub expires_s: Option<u64>,
}

impl Grant {
    /// Whether a channel may be read, or all those of a pattern; or who comes and goes in one.
    pub(crate) fn may_subscribe(&self, channel: &ChannelName) -> bool {
        match channel.watched() {
            Some(watched) => self.may_see(&watched),
            None => any_matches(&self.subscribe, channel),
        }
    }

    /// Whether it may be known who is in a channel.
    pub(crate) fn may_see(&self, channel: &ChannelName) -> bool {
        any_matches(&self.presence, channel)
    }

    /// Whether it may be published to a channel.
    pub(crate) fn may_publish(&self, channel: &ChannelName) -> bool {
        any_matches(&self.publish, channel)
    }
}

/// Why a token grants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not one of ours: malformed, too long, of another key or algorithm, tampered with, for another audience.
    #[error("the token is not one that this server accepts")]
    Invalid,
    /// Its time is over.
    #[error("the token's time is over")]
    Expired,
    /// Its time has not begun.
    #[error("the token's time has not begun")]
    NotYet,
}
