//! The API of icomet 0.2.5.

pub(crate) mod events;
pub(crate) mod request;
