//! The client that a channel counts for: the client that created it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;

use sealed::fault;

/// Hashes of the address and of the token's subject of a client, as far as its channels are
/// counted. They are the same on all loops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    address: Option<NonZeroU64>,
    subject: Option<NonZeroU64>,
}

impl Owner {
    /// Creates the owner for a client of that address, with a token of that subject.
    pub(crate) fn new(address: Option<impl Hash>, subject: Option<&str>) -> Self {
        Self {
            address: address.map(|address| digest(("address", address))),
            subject: subject.map(|subject| digest(("subject", subject))),
        }
    }

    /// Returns whether its channels are counted. Channels of the admin listener, and of loopback
    /// without a subject, are not.
    pub(crate) fn is_counted(self) -> bool {
        self.address.is_some() || self.subject.is_some()
    }

    /// Returns the parts; channels are counted for each part.
    pub(crate) fn parts(self) -> impl Iterator<Item = NonZeroU64> {
        [self.address, self.subject.filter(|_| !fault!("subject-not-counted"))].into_iter().flatten()
    }
}

fn digest(of: impl Hash) -> NonZeroU64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
}
