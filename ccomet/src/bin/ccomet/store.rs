//! `ccomet store`: tools for the directory of a store.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ccomet::{StoreError, StoreStats, StoreTools};
use clap::{Args, Subcommand};

/// The intervals of progress on a terminal, and elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const IN_FILE: Duration = Duration::from_secs(10);

/// The arguments of `store`.
#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    /// Directory of the store
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data: Option<PathBuf>,
    /// Settings, as TOML, whose `store.path` names the directory if `--data` does not
    #[arg(short, long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Reads all of the store of a stopped server, and prints each damaged place. The exit status
    /// is 1 if there is any.
    Check,
    /// Prints the number of channels and messages, and the sizes of the store of a stopped server
    Stats,
    /// Prints the messages in the store of a stopped server, each as a line of JSON
    Dump {
        /// Prints only the messages of this channel; an error if the store does not have it
        channel: Option<String>,
    },
    /// Makes a new store with all messages of a damaged one that can be read, and prints what is
    /// lost. The server must be stopped.
    Salvage {
        /// Directory of the new store, which must not exist
        to: PathBuf,
        /// Gives all channels new epochs, so that every reader that resumes gets a gap: needed if
        /// clients may have read messages that are newer than a restored backup
        #[arg(long)]
        new_epochs: bool,
    },
    /// Copies the store, whether the server runs or not, and checks the copy
    Backup {
        /// Directory of the copy, which must not exist
        to: PathBuf,
    },
}

impl StoreArguments {
    /// Runs the tool for the store in a directory.
    pub(crate) fn run(&self, path: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
        let path = path.ok_or("name the directory of the store: --data DIR, or --config FILE with store.path")?;
        // A backup opens all segments.
        #[cfg(unix)]
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let mut progress = Progress::new();
        let mut tools = StoreTools::new(path).on_progress(move |step| progress.show(step));
        let done = self.use_tools(&mut tools);
        // Ends the line of progress.
        drop(tools);
        match done {
            Ok(text) => print(&text),
            Err(error) => Err(error),
        }
    }

    /// Returns what is to be printed at the end.
    fn use_tools(&self, tools: &mut StoreTools) -> Result<String, Box<dyn std::error::Error>> {
        match &self.tool {
            Tool::Check => {
                let damages = tools.check()?;
                if damages.is_empty() {
                    return Ok("nothing is wrong\n".to_owned());
                }
                print(&lines(&damages, ""))?;
                Err(format!("the store is damaged in {} places", damages.len()).into())
            }
            Tool::Stats => Ok(describe(&tools.stats()?)),
            Tool::Dump { channel } => {
                let mut output = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
                match tools.dump(channel.as_deref(), &mut output) {
                    // The reader, such as `head`, has seen enough.
                    Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {}
                    other => drop(other?),
                }
                Ok(String::new())
            }
            Tool::Salvage { to, new_epochs } => {
                let salvaged = tools.salvage(to, *new_epochs)?;
                let lost = lines(&salvaged.lost, "lost: ");
                let (channels, messages) = (salvaged.channels, salvaged.messages);
                Ok(format!("{lost}{channels} channels with {messages} messages are in {}\n", to.display()))
            }
            Tool::Backup { to } => {
                let copied = tools.backup(to)?;
                Ok(format!("{} segments, {} bytes, are in {}\n", copied.segments, copied.bytes, to.display()))
            }
        }
    }
}

fn print(text: &str) -> Result<(), Box<dyn std::error::Error>> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Returns a line for each item.
fn lines(items: &[impl Display], before: &str) -> String {
    items.iter().map(|item| format!("{before}{item}\n")).collect::<Vec<_>>().concat()
}

fn describe(stats: &StoreStats) -> String {
    let time = |time: Option<SystemTime>| {
        let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map_or_else(|| "none".to_owned(), |since| format!("{} ms since 1970", since.as_millis()))
    };
    let mut lines = vec![
        format!("channels                 {}", stats.channels),
        format!("messages                 {}", stats.messages),
        format!("oldest message           {}", time(stats.oldest)),
        format!("newest message           {}", time(stats.newest)),
        format!("bytes kept               {}", stats.bytes_kept),
        format!("bytes on disk            {}", stats.bytes_on_disk),
        format!("bytes of the index       {}", stats.index_bytes),
        format!("checkpoint               {} at byte {}", stats.checkpoint.0, stats.checkpoint.1),
        format!("bytes since checkpoint   {}", stats.bytes_behind_checkpoint),
    ];
    lines.extend(stats.segments.iter().map(|segment| {
        let share = (segment.live_bytes * 100 / segment.bytes.max(1)).min(100);
        format!("segment {}   {} bytes, {share} % kept", segment.file, segment.bytes)
    }));
    lines.join("\n") + "\n"
}

/// Progress on standard error: a line that is replaced on a terminal, or a line at intervals.
struct Progress {
    is_terminal: bool,
    last: Instant,
    has_line: bool,
}

impl Progress {
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), last: Instant::now(), has_line: false }
    }

    fn show(&mut self, step: &str) {
        if self.last.elapsed() < if self.is_terminal { ON_TERMINAL } else { IN_FILE } {
            return;
        }
        self.last = Instant::now();
        let mut errors = io::stderr();
        // Standard error may be closed.
        let _ = if self.is_terminal { write!(errors, "\r\x1b[K{step}") } else { writeln!(errors, "{step}") };
        self.has_line = self.is_terminal;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.has_line {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
