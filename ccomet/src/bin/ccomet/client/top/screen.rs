//! The terminal: an alternate screen, keys without Enter, and colour; or plain lines elsewhere.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::view::{Line, Style};
use crate::client::Outcome;

/// How long a signal may take to be noticed.
const STEP: Duration = Duration::from_millis(100);
/// An alternate screen without a cursor, and the way back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Where the view is shown. Dropping it restores the terminal.
pub(super) struct Screen {
    is_terminal: bool,
    has_colour: bool,
    keys: Option<Keys>,
    stopped: Arc<AtomicBool>,
}

/// Keys of a terminal that passes them on at once.
struct Keys {
    pressed: Receiver<u8>,
    #[cfg(unix)]
    before: rustix::termios::Termios,
}

impl Screen {
    /// Makes a screen for one reading.
    pub(super) fn plain() -> Self {
        Self { is_terminal: false, has_colour: false, keys: None, stopped: Arc::default() }
    }

    /// Opens the screen, if the standard output is a terminal.
    pub(super) fn open() -> Result<Self, io::Error> {
        let is_terminal = io::stdout().is_terminal();
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let stopped = Arc::new(AtomicBool::new(false));
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, stopped.clone())?;
        }
        let keys = if is_terminal && io::stdin().is_terminal() { Keys::open() } else { None };
        if is_terminal {
            write!(io::stdout(), "{ENTER}")?;
        }
        Ok(Self { is_terminal, has_colour: is_terminal && !is_plain, keys, stopped })
    }

    /// Returns whether each view replaces the previous one.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Waits for this time. Returns whether the view goes on: no key and no signal has ended it.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.stopped.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            match self.keys.as_ref().map(|keys| keys.pressed.recv_timeout(left.min(STEP))) {
                Some(Ok(b'q' | b'Q')) => return false,
                Some(Ok(_) | Err(RecvTimeoutError::Timeout)) => {}
                Some(Err(RecvTimeoutError::Disconnected)) | None => std::thread::sleep(left.min(STEP)),
            }
        }
        false
    }

    /// Shows lines in place of those before.
    pub(super) fn show(&mut self, lines: &[Line]) -> Outcome {
        let mut out = String::new();
        let (columns, rows) = if self.is_terminal { size() } else { (usize::MAX, usize::MAX) };
        if self.is_terminal {
            out.push_str("\x1b[H");
        }
        for (index, line) in lines.iter().take(rows).enumerate() {
            if index > 0 {
                out.push('\n');
            }
            let text: String = line.text.chars().take(columns).collect();
            let style = match line.style {
                Style::Head if self.has_colour => "\x1b[1m",
                Style::Problem if self.has_colour => "\x1b[1;31m",
                _ => "",
            };
            let end = if style.is_empty() { "" } else { "\x1b[0m" };
            out.extend([style, &text, end]);
            if self.is_terminal {
                out.push_str("\x1b[K");
            }
        }
        // A view elsewhere is followed by an empty line.
        out.push_str(if self.is_terminal { "\x1b[J" } else { "\n\n" });
        let mut output = io::stdout().lock();
        match output.write_all(out.as_bytes()).and_then(|()| output.flush()) {
            // The reader, such as `head`, has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stopped.store(true, Ordering::Relaxed);
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(keys) = &self.keys {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &keys.before);
        }
        if self.is_terminal {
            let _ = write!(io::stdout(), "{LEAVE}").and_then(|()| io::stdout().flush());
        }
    }
}

impl Keys {
    /// Sets the terminal to pass on keys at once, without showing them. Returns `None` if it cannot.
    #[cfg(unix)]
    fn open() -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

        let before = tcgetattr(io::stdin()).ok()?;
        let mut changed = before.clone();
        // Ctrl-C remains a signal.
        changed.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &changed).ok()?;
        let (sender, pressed) = channel();
        std::thread::spawn(move || {
            let mut key = [0];
            while io::stdin().read_exact(&mut key).is_ok() && sender.send(key[0]).is_ok() {}
        });
        Some(Self { pressed, before })
    }

    #[cfg(not(unix))]
    fn open() -> Option<Self> {
        let (_, pressed) = channel();
        Some(Self { pressed }).filter(|_| false)
    }
}

/// Returns the columns and rows of the terminal.
fn size() -> (usize, usize) {
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(io::stdout())
        && size.ws_col > 0
        && size.ws_row > 0
    {
        return (usize::from(size.ws_col), usize::from(size.ws_row));
    }
    (80, 24)
}
