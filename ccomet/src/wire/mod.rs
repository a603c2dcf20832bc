//! What every listener asks of a request, and how it refuses one: nothing here belongs to one
//! protocol.

pub(crate) mod problem;
