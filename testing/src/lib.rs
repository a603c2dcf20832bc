//! Test tools shared by the crates of this workspace.
//!
//! - [`http`]: requests, responses, streams of events, and a blocking client of them.
//! - [`process`]: programs that run for as long as a test does, and what the system reports about
//!   them.
//! - `sim`, with the feature `sim`: the same requests and responses on a simulated network; and
//!   `redis`: a model of Redis there.
//! - [`Folder`]: a folder for one test. [`wait_until`]: waits for a condition, at most
//!   [`PATIENCE`].
//! - [`programs`]: tests that drive other programs, and are reported as ignored if those are not
//!   installed.
//! - The program `faults` (`src/bin/faults`) plants faults in the code, to check whether the tests
//!   catch them.
//!
//! # Panics
//!
//! A function that cannot do its work panics, and the test fails there. Its documentation states
//! what else makes it panic.

#![allow(clippy::missing_panics_doc)] // stated above, for all of them

mod folder;
pub mod http;
pub mod process;
pub mod programs;
#[cfg(feature = "sim")]
pub mod redis;
#[cfg(feature = "sim")]
pub mod sim;

use std::time::{Duration, Instant};

pub use folder::Folder;

/// The time that anything may take before a test gives up. It is generous, because machines are
/// slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds, and checks it every 5 ms. Panics after [`PATIENCE`], with `what`
/// in the message.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
