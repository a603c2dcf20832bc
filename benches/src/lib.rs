//! Code that the benchmarks share: servers in processes of their own on one core, and a client that
//! drains many sockets on another; loops and timers of other crates, for comparison; tables of
//! ratios.

#![allow(clippy::missing_panics_doc)] // a benchmark that cannot continue prints the reason, and ends

pub mod bare;
pub mod client;
pub mod datagrams;
pub mod echo;
pub mod echo_client;
pub mod http;
pub mod http_client;
pub mod libevent;
pub mod limits;
pub mod pairs;
mod polling;
pub mod posts;
pub mod server;
pub mod table;
pub mod timers;
