//! Test tools shared by the crates of this workspace.
//!
//! - [`http`]: requests, responses, streams of events, and a blocking client of them.
//! - [`process`]: programs that run for as long as a test does, and what the system reports about them.
//! - `sim`, with the feature `sim`: the same requests and responses on a simulated network.
//! - [`Folder`]: a folder of a test's own. [`wait_until`]: a wait for a condition, no longer than [`PATIENCE`].
//! - [`programs`]: tests that drive other programs, and are ignored, visibly, if those are not installed.
//! - The program `faults` (`src/bin/faults`) plants faults in the code, to see whether the tests catch them.
//!
//! # Panics
//!
//! A function that cannot do its work panics: the test fails there. What a function demands beyond that, its text says.

#![allow(clippy::missing_panics_doc)] // said above, for all of them

mod folder;
pub mod http;
pub mod process;
pub mod programs;
#[cfg(feature = "sim")]
pub mod sim;

use std::time::{Duration, Instant};

pub use folder::Folder;

/// How long anything may take before a test gives up. Generous: machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds, and looks every 5 ms. Panics, and says `what` was waited for, after [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
