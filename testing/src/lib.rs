//! Test tools shared by the crates of this workspace.
//!
//! - [`programs`]: tests that drive other programs, and are ignored, visibly, if those are not installed.
//! - The program `faults` (`src/bin/faults`) plants faults in a copy of the workspace, to see whether the tests catch them.

pub mod programs;
