//! Code that examples share.

pub mod mqtt;
pub mod resp;
pub mod socks;
pub mod targets;
