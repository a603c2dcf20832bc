//! libevent compared with the loops of [`crate::pairs`]: a program in C, compiled on demand, and a
//! process for each round.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::table;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/libevent/bench.c");

/// Compiles the program. Prints the reason, and returns `None`, if the feature is off or libevent
/// is not available.
pub fn compile() -> Option<PathBuf> {
    if !cfg!(feature = "libevent") {
        eprintln!("libevent is left out: the feature `libevent` is off");
        return None;
    }
    let program = table::target().join("libevent-pairs");
    let run = Command::new("cc").args(["-O2", "-o"]).arg(&program).args([SOURCE, "-levent"]).output();
    if run.is_ok_and(|run| run.status.success()) {
        return Some(program);
    }
    eprintln!("libevent is left out: there is no C compiler, or no libevent to link with");
    None
}

/// Returns the time of one round, after one that is not measured.
pub fn round(program: &Path, pairs: usize, active: usize, writes: usize) -> Duration {
    let run = Command::new(program).args([pairs, active, writes].map(|number| number.to_string())).output();
    let output = run.expect("a process").stdout;
    let nanoseconds = String::from_utf8_lossy(&output).trim().parse().expect("a time");
    Duration::from_nanos(nanoseconds)
}
