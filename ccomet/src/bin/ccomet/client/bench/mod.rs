//! `ccomet bench`: measures a running server, with many subscribers from one process.
//!
//! The commands' thread gives orders to the loops, each on a thread of its own, and reads their
//! reports.

mod load;
mod marker;
mod plan;
mod plot;
mod progress;
mod publisher;
mod report;
mod run;
mod subscriber;
mod tally;

use std::fs::OpenOptions;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::plan::Plan;
pub(super) use self::plan::{Bench, EXAMPLES};
use self::run::Run;
use super::{Misuse, Outcome, with_commas};

/// Descriptors that the process needs beside those of connections.
const DESCRIPTORS: usize = 64;

impl Bench {
    pub(super) fn run(&self) -> Outcome {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut plan = self.plan(now.as_micros() as u32 ^ std::process::id())?;
        plan.check().map_err(Misuse)?;
        self.check_outputs()?;
        fit(&mut plan)?;
        let addresses = plan.place.look_up()?;
        // All connections go to the address that answers.
        let address = TcpStream::connect(&*addresses)
            .and_then(|stream| stream.peer_addr())
            .map_err(|error| format!("cannot connect to {}: {error}", plan.place.authority()))?;
        let results = Run::start(Arc::new(plan), address, usize::from(self.loops))?.conduct(self.pid)?;
        print!("{}", results.text());
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(&results.json())? + "\n";
            std::fs::write(path, json).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        if let Some(path) = &self.svg {
            plot::draw(path, &results)?;
        }
        results.check()
    }

    /// Checks before a long run what would otherwise fail at its end. Existing files stay as they
    /// are until then.
    fn check_outputs(&self) -> Result<(), String> {
        for path in self.json.iter().chain(&self.svg) {
            let is_new = !path.exists();
            let opened = OpenOptions::new().append(true).create(true).open(path);
            opened.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            if is_new {
                let _ = std::fs::remove_file(path);
            }
        }
        match self.pid {
            Some(pid) if run::memory(pid) == (None, None) => {
                Err(format!("--pid {pid}: there is no such process, or its memory cannot be read"))
            }
            _ => Ok(()),
        }
    }
}

/// Raises the limit of open files, and leaves out the steps for which it does not suffice.
fn fit(plan: &mut Plan) -> Result<(), String> {
    #[cfg(unix)]
    let limit = rlimit::increase_nofile_limit(u64::MAX).map_err(|error| format!("cannot read the limit: {error}"))?;
    #[cfg(not(unix))]
    let limit = u64::MAX;
    let others = plan.publishers + DESCRIPTORS;
    let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(others);
    let most = plan.steps.last().copied().unwrap_or_default();
    if most <= room {
        return Ok(());
    }
    let message = format!(
        "{most} subscribers need {} descriptors, and the limit of open files is {limit}: raise the hard limit \
         (ulimit -Hn), or start at most {room}",
        most + others
    );
    plan.steps.retain(|step| *step <= room);
    if plan.steps.is_empty() {
        return Err(message);
    }
    eprintln!("ccomet: {message}; the larger steps are left out");
    Ok(())
}

/// Returns a number with its thousands set apart.
fn grouped(number: u64) -> String {
    with_commas(&number.to_string())
}

/// Returns a number that is not negative, rounded, in the same way.
fn rounded(number: f64) -> String {
    with_commas(&format!("{number:.0}"))
}

/// Returns a latency in milliseconds, as text.
fn millis(us: u64) -> String {
    let ms = Duration::from_micros(us).as_secs_f64() * 1_000.0;
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [rounded(0.4), grouped(999), grouped(1_000), grouped(12_345_678)],
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!([millis(120), millis(45_678), millis(3_000_000)], ["0.12 ms", "45.7 ms", "3000 ms"]);
    }
}
