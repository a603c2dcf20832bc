//! Code that examples share.

pub mod resp;
pub mod socks;
pub mod targets;
