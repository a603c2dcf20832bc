//! Code that examples share.

pub mod resp;
