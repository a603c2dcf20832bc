//! The program's log: lines on standard error, written by a thread of their own.
//!
//! No loop waits for the log, and a log that cannot be written harms nothing: lines that a full disk or a closed pipe
//! does not take, and those for which a slow reader leaves no room, are counted, and the count is written ahead of the
//! next line that gets through.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use sealed::fault;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that wait to be written. Beyond this number, lines are dropped and counted.
const QUEUED_LINES_MAX: usize = 8_192;

/// Starts to log what `level` lets through. The log is complete when the guard has been dropped.
pub(crate) fn start(level: &str) -> Result<WorkerGuard, Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_new(level)?;
    let dropped = Arc::new(OnceLock::new());
    let output = Output { inner: io::stderr(), unwritten: 0, dropped: dropped.clone(), reported: 0 };
    let builder = NonBlockingBuilder::default().buffered_lines_limit(QUEUED_LINES_MAX).thread_name("log");
    let (writer, guard) = builder.finish(output);
    let _ = dropped.set(writer.error_counter());
    let is_for_people = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Escape codes are for people; NO_COLOR asks for none.
        .with_ansi(is_for_people || fault!("colours-in-a-file"));
    if fault!("unwritten-log-ends-process") {
        builder.with_writer(io::stderr).init();
    } else {
        builder.log_internal_errors(false).with_writer(writer).init();
    }
    Ok(guard)
}

/// Writes lines, and counts those that are lost.
struct Output<W> {
    inner: W,
    /// Lines that could not be written and that no line in the log accounts for yet.
    unwritten: usize,
    /// Counts lines for which the queue had no room.
    dropped: Arc<OnceLock<ErrorCounter>>,
    /// How many of those the log accounts for.
    reported: usize,
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let dropped = self.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        let lost = self.unwritten + (dropped - self.reported);
        if lost > 0 && writeln!(self.inner, "ccomet: {lost} lines of the log were lost").is_ok() {
            (self.unwritten, self.reported) = (0, dropped);
        }
        if self.inner.write_all(line).is_err() {
            self.unwritten += 1;
        }
        // The line has been dealt with, whatever became of it.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.inner.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing while it is full.
    #[derive(Default)]
    struct Disk {
        is_full: bool,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_count_is_logged_once() {
        let mut output = Output { inner: Disk::default(), unwritten: 0, dropped: Arc::default(), reported: 0 };
        for (is_full, line) in [(false, "one"), (true, "two"), (true, "three"), (false, "four"), (false, "five")] {
            output.inner.is_full = is_full;
            // Whole, as the log's thread hands lines over.
            output.write_all(format!("{line}\n").as_bytes()).expect("nobody is bothered");
        }
        let text = String::from_utf8(output.inner.written).expect("UTF-8");
        assert_eq!(text, "one\nccomet: 2 lines of the log were lost\nfour\nfive\n");
    }
}
