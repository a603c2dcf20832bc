//! The native API.

mod encoder;
pub(crate) mod items;
pub(crate) mod publication;
pub(crate) mod request;
pub(crate) mod websocket;

pub(crate) use encoder::Native;

/// Its place among the protocols.
const ROW: u8 = 0;
