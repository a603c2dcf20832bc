//! The native API.

mod encoder;
pub(crate) mod items;
pub(crate) mod publication;
mod request;
pub(crate) mod websocket;

pub(crate) use encoder::Native;

/// Its place among the protocols.
pub(super) const ROW: u8 = 0;
