//! What examples have in common.

pub mod resp;
