//! The bytes of a connection, as this crate, hyper and httparse understand them: the table of the
//! differential test holds.
#![no_main]
#![allow(dead_code)] // a part is used only by the test

#[path = "../../sealed-http/tests/differential/chunks.rs"]
mod chunks;
#[path = "../../sealed-http/tests/differential/compare.rs"]
mod compare;
#[path = "../../sealed-http/tests/differential/peers.rs"]
mod peers;

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use sealed_http::codec::Limits;

fuzz_target!(|bytes: &[u8]| {
    compare::compare("input", bytes, &Limits::default(), &mut HashSet::new());
});
