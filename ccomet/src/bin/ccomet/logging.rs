//! The program's log: lines on standard error, written by a thread of their own.
//!
//! No loop waits for the log, and failures of the log have no other effect. Lines that cannot be
//! written, because of a full disk or a closed pipe, and lines for which a slow reader leaves no
//! room are counted; the count is written before the next successful line.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use sealed::fault;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// The maximum number of lines that wait to be written. Further lines are dropped and counted.
const QUEUED_LINES_MAX: usize = 8_192;

/// Changes the filter of the log.
pub(crate) type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

/// Starts the log with the filter `level`. The log is complete when the guard has been dropped.
pub(crate) fn start(level: &str) -> Result<(WorkerGuard, SetLevel), Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_new(level)?;
    let dropped = Arc::new(OnceLock::new());
    let output = Output { inner: io::stderr(), unwritten: 0, dropped: dropped.clone(), reported: 0 };
    let builder = NonBlockingBuilder::default().buffered_lines_limit(QUEUED_LINES_MAX).thread_name("log");
    let (writer, guard) = builder.finish(output);
    let _ = dropped.set(writer.error_counter());
    let is_for_people = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Escape codes are for terminals, unless NO_COLOR is set.
        .with_ansi(is_for_people || fault!("colours-in-a-file"));
    let set_level: SetLevel = if fault!("unwritten-log-ends-process") {
        let builder = builder.with_writer(io::stderr).with_filter_reloading();
        let filter = builder.reload_handle();
        builder.init();
        Box::new(move |level| change(level, |level| filter.reload(level)))
    } else {
        let builder = builder.log_internal_errors(false).with_writer(writer).with_filter_reloading();
        let filter = builder.reload_handle();
        builder.init();
        Box::new(move |level| change(level, |level| filter.reload(level)))
    };
    Ok((guard, set_level))
}

/// Parses and sets a filter. Its text was checked with the other settings.
fn change(level: &str, set: impl FnOnce(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>) {
    let changed = EnvFilter::try_new(level).map_err(|error| error.to_string());
    if let Err(error) = changed.and_then(|level| set(level).map_err(|error| error.to_string())) {
        tracing::warn!("the level of the log stays as it was: {error}");
    }
}

/// Writes lines, and counts lost lines.
struct Output<W> {
    inner: W,
    /// Lines that could not be written, and that the log has not reported yet.
    unwritten: usize,
    /// The number of lines for which the queue had no room.
    dropped: Arc<OnceLock<ErrorCounter>>,
    /// The number of dropped lines that the log has reported.
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
        // The line is done, even if it was lost.
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

    /// A disk that accepts nothing while it is full.
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
            // The log's thread passes whole lines.
            output.write_all(format!("{line}\n").as_bytes()).expect("nobody is bothered");
        }
        let text = String::from_utf8(output.inner.written).expect("UTF-8");
        assert_eq!(text, "one\nccomet: 2 lines of the log were lost\nfour\nfive\n");
    }
}
