//! The native API.

mod encoder;
pub(crate) mod items;
pub(crate) mod publication;
mod request;
pub(crate) mod websocket;

pub(crate) use encoder::Native;

/// Its row in the table of protocols.
pub(super) const ROW: u8 = 0;
