//! The client behind a call.

use std::sync::Arc;

use crate::access::client::Asking;
use crate::access::token::Grant;
use crate::core::message::Draft;
use crate::core::owner::Owner;
use crate::core::time::UnixMillis;
use crate::on_call::KeptFields;

/// The client behind a call, with its grant; a client without a grant may do anything.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(super) grant: Option<Arc<Grant>>,
    pub(super) asking: Asking,
    /// The kept parts of the request that opened a WebSocket, if the back end or the embedder is
    /// asked about its commands.
    pub(super) opening: Option<Arc<Opening>>,
}

/// A header field that is passed on to the back end: its name and its value.
pub(super) type PassedOn = (Box<str>, Box<str>);

/// The parts of the request that opened a WebSocket that the back end and the embedder may see.
#[derive(Debug)]
pub(super) struct Opening {
    /// The origin of its page.
    pub(super) origin: Option<Box<str>>,
    /// The fields that are passed on to the back end.
    pub(super) passed_on: Box<[PassedOn]>,
    /// All fields that the embedder may see.
    pub(super) fields: KeptFields,
}

impl Caller {
    /// Returns the subject of the client's token, if it has one.
    pub(super) fn member(&self) -> Option<Arc<str>> {
        self.grant.as_ref()?.subject.as_deref().map(Arc::from)
    }

    /// Returns the owner of channels that are created for the client. The owner for the admin
    /// listener is not counted.
    pub(super) fn owner(&self) -> Owner {
        let Some(grant) = &self.grant else { return Owner::default() };
        self.asking.owner(grant.subject.as_deref())
    }

    /// Returns whether its token has expired.
    pub(super) fn has_expired(&self, now: UnixMillis) -> bool {
        self.expires().is_some_and(|expires| expires <= now)
    }

    /// Separates the idempotency keys of publishers: a key belongs to its subject, to the admin
    /// listener, or to all clients without a subject. No client's key contains the separator.
    pub(super) fn scope_key(&self, draft: &mut Draft) {
        let Some(key) = &draft.key else { return };
        let scoped = match self.grant.as_deref().map(|grant| grant.subject.as_deref()) {
            None => format!("admin\0{key}"),
            Some(None) => return,
            Some(Some(subject)) => {
                // A subject may be long, and its digest is not.
                let digest = ring::digest::digest(&ring::digest::SHA256, subject.as_bytes());
                let scope = digest.as_ref().iter().take(16).fold(0_u128, |scope, byte| scope << 8 | u128::from(*byte));
                format!("{scope:x}\0{key}")
            }
        };
        draft.key = Some(scoped.into());
    }

    /// Returns the expiry of its token.
    pub(super) fn expires(&self) -> Option<UnixMillis> {
        self.grant.as_ref()?.expires()
    }
}
