//! The API of version 1.0.

mod encoder;
pub(crate) mod items;
mod request;

pub(crate) use encoder::V1;

/// Its place among the protocols.
pub(super) const ROW: u8 = 2;
