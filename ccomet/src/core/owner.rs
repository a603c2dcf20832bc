//! Whose a channel is: the client's that made it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;

use sealed::fault;

/// The address and the token's subject of a client that makes a channel, as far as they are counted. Of both only a hash is
/// kept, which is the same on all loops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    address: Option<NonZeroU64>,
    subject: Option<NonZeroU64>,
}

impl Owner {
    /// A client of that address and with a token of that subject.
    pub(crate) fn new(address: Option<impl Hash>, subject: Option<&str>) -> Self {
        Self {
            address: address.map(|address| digest(("address", address))),
            subject: subject.map(|subject| digest(("subject", subject))),
        }
    }

    /// Returns whether it is a client whose channels are counted: not the admin listener, nor one of loopback without a subject.
    pub(crate) fn is_counted(self) -> bool {
        self.address.is_some() || self.subject.is_some()
    }

    /// Each that is counted.
    pub(crate) fn parts(self) -> impl Iterator<Item = NonZeroU64> {
        [self.address, self.subject.filter(|_| !fault!("subject-not-counted"))].into_iter().flatten()
    }
}

fn digest(of: impl Hash) -> NonZeroU64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
}
