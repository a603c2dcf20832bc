//! Live progress, on standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::report::Second;
use super::{grouped, millis, rounded};

/// The interval of lines that are not on a terminal.
const IN_FILE: Duration = Duration::from_secs(10);

/// A line that is replaced each second on a terminal, or lines at longer intervals.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
    last: Duration,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), last: Duration::ZERO }
    }

    pub(super) fn show(&mut self, now: Duration, ready: usize, second: &Second) {
        if !self.is_terminal && now.saturating_sub(self.last) < IN_FILE {
            return;
        }
        self.last = now;
        let mut line = format!("{:>4} s  {} subscribers", now.as_secs(), grouped(ready as u64));
        if let Some(latency_us) = second.latency_us {
            let rates = format!(
                "  {} published/s  {} delivered/s  50 % {}  99 % {}",
                rounded(second.published),
                rounded(second.delivered),
                millis(latency_us[0]),
                millis(latency_us[2]),
            );
            line.push_str(&rates);
        }
        let mut errors = io::stderr();
        // Standard error may be closed.
        let _ = if self.is_terminal { write!(errors, "\r\x1b[K{line}") } else { writeln!(errors, "{line}") };
    }

    /// Removes the line from a terminal.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
