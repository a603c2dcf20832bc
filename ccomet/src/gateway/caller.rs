//! The client behind a call.

use std::sync::Arc;

use crate::access::client::Asking;
use crate::access::token::Grant;
use crate::core::message::Draft;
use crate::core::owner::Owner;
use crate::core::time::UnixMillis;
use crate::on_call::KeptFields;

/// The client behind a call: what it may do, unless that is everything.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(super) grant: Option<Arc<Grant>>,
    pub(super) asking: Asking,
    /// What is kept of the request that opened a WebSocket, if anybody is asked about what is said there.
    pub(super) opening: Option<Arc<Opening>>,
}

/// A header field that is passed on to the back end: its name and its value.
pub(super) type PassedOn = (Box<str>, Box<str>);

/// What the back end and the embedder are to know of the request that opened a WebSocket.
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
    /// Returns the name of the client, if its token has one.
    pub(super) fn member(&self) -> Option<Arc<str>> {
        self.grant.as_ref()?.subject.as_deref().map(Arc::from)
    }

    /// Returns the owner of channels that are made for it. Channels of the admin listener have no owner that is counted.
    pub(super) fn owner(&self) -> Owner {
        let Some(grant) = &self.grant else { return Owner::default() };
        self.asking.owner(grant.subject.as_deref())
    }

    /// Whether its time is over.
    pub(super) fn has_expired(&self, now: UnixMillis) -> bool {
        self.expires().is_some_and(|expires| expires <= now)
    }

    /// Keeps the idempotency keys of publishers apart: a key is its subject's own, or the admin listener's, or one of all
    /// clients without a subject. No key of a client's holds the character between.
    pub(super) fn scope_key(&self, draft: &mut Draft) {
        let Some(key) = &draft.key else { return };
        let scoped = match self.grant.as_deref().map(|grant| grant.subject.as_deref()) {
            None => format!("admin\0{key}"),
            Some(None) => return,
            Some(Some(subject)) => {
                // A subject may be long; what stands for it is not.
                let digest = ring::digest::digest(&ring::digest::SHA256, subject.as_bytes());
                let scope = digest.as_ref().iter().take(16).fold(0_u128, |scope, byte| scope << 8 | u128::from(*byte));
                format!("{scope:x}\0{key}")
            }
        };
        draft.key = Some(scoped.into());
    }

    /// Returns when that ends.
    pub(super) fn expires(&self) -> Option<UnixMillis> {
        self.grant.as_ref()?.expires()
    }
}
