//! The native API.

pub(crate) mod items;
pub(crate) mod publication;
pub(crate) mod request;
pub(crate) mod websocket;
