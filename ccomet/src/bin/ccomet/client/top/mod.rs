//! `ccomet top`: a live view of a running server, read from its admin listener.

mod reading;
mod screen;
mod view;

use std::time::Duration;

use clap::Args;

use self::reading::Reader;
use self::screen::Screen;
use self::view::View;
use super::place::Place;
use super::{Credentials, Outcome, seconds};

pub(super) const EXAMPLES: &str = "\
Examples:
  the server on this machine, refreshed each second:
    ccomet top
  another server, with an admin key:
    ccomet top http://10.0.0.5:8000 --token-file admin.key
  one reading, for scripts:
    ccomet top --once

`q` and Ctrl-C end the view. Rates are those of the last interval. Percentiles are upper bounds, as the metrics of the \
server have them.

The exit status is 1 if the server cannot be reached or refuses at the start, and 2 if the options are wrong.";

/// The arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// URL of the server's admin listener
    #[arg(value_name = "URL", default_value = "http://localhost:8000")]
    server: Place,
    /// Time between two readings, up to an hour, such as 5 or 1m
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = |text: &str| seconds(text, 3_600))]
    interval: u64,
    /// Prints one reading, over one interval, and ends
    #[arg(long)]
    once: bool,
    /// The maximum number of channels in the view
    #[arg(long, value_name = "N", default_value_t = 10)]
    channels: usize,
    #[command(flatten)]
    credentials: Credentials,
}

impl Top {
    pub(super) fn run(&self) -> Outcome {
        let interval = Duration::from_secs(self.interval);
        let mut reader = Reader::new(&self.server, self.credentials.token()?)?;
        // A server that does not answer at the start is an error, and later a line in the view.
        let mut before = reader.read()?;
        if self.once {
            std::thread::sleep(interval);
            let now = reader.read()?;
            let view = View { server: &self.server, before: &before, now: &now, channels_max: self.channels };
            return Screen::plain().show(&view.lines());
        }
        let mut screen = Screen::open()?;
        let mut lines = Vec::new();
        while screen.wait(interval) {
            match reader.read() {
                Ok(now) => {
                    let view = View { server: &self.server, before: &before, now: &now, channels_max: self.channels };
                    lines = view.lines();
                    before = now;
                    screen.show(&lines)?;
                }
                Err(error) => {
                    // Elsewhere than on a terminal, the previous reading is still there.
                    let mut lines = if screen.is_terminal() { lines.clone() } else { Vec::new() };
                    lines.insert(0, view::Line::problem(format!("no reading: {error}")));
                    screen.show(&lines)?;
                }
            }
        }
        Ok(())
    }
}
