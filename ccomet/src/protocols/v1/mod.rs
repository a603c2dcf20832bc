//! The API of version 1.0.

pub(crate) mod items;
