//! The API of icomet 0.2.5.

mod encoder;
mod events;
pub(crate) mod request;
pub(crate) mod responses;

pub(crate) use encoder::{IcometApi, head_of_json};

/// Its row in the table of protocols.
pub(super) const ROW: u8 = 1;
