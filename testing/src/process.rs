//! Programs that run for as long as a test does, and what the system reports about them.
//!
//! Memory, descriptors and processor time are read from `/proc`, which exists only on Linux.

use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait_until;

/// A program in a process of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ends_by_signal: bool,
}

impl Process {
    /// Starts a program. Dropping it kills the program.
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, ends_by_signal: false }
    }

    /// Starts a program, and reads its addresses from the first lines that it prints: for each of
    /// `names`, a line that starts with that name, if it is not empty, followed by an address or
    /// the URL of one. The rest of its standard output is not read.
    pub fn start_announced<const N: usize>(command: &mut Command, names: [&str; N]) -> (Self, [SocketAddr; N]) {
        let mut process = Self::start(command.stdout(Stdio::piped()));
        let mut lines = process.output();
        let addresses = names.map(|name| {
            let line = lines.next().expect("a line").expect("text");
            let rest = line.strip_prefix(name).unwrap_or_else(|| panic!("{name} is announced: {line}")).trim();
            rest.strip_prefix("http://").unwrap_or(rest).parse().unwrap_or_else(|_| panic!("an address: {line}"))
        });
        (process, addresses)
    }

    /// Makes dropping it send SIGTERM and wait, because the children of the program end with it
    /// only then.
    #[must_use]
    pub fn ended_by_signal(mut self) -> Self {
        self.ends_by_signal = true;
        self
    }

    /// Waits until a listener accepts at an address. Panics with the text from `log` if the program
    /// ends before.
    pub fn wait_for_listener(&mut self, address: SocketAddr, log: impl Fn() -> String) {
        wait_until(&format!("{address} is listened at"), || {
            assert!(self.child.try_wait().expect("a process").is_none(), "it has ended: {}", log());
            TcpStream::connect(address).is_ok()
        });
    }

    /// Returns the lines of its standard output, for which [`Stdio::piped`] was set. Call it once:
    /// the next call panics.
    pub fn output(&mut self) -> Lines<BufReader<ChildStdout>> {
        BufReader::new(self.child.stdout.take().expect("its output")).lines()
    }

    /// Returns the lines of its standard error, in the same way.
    pub fn errors(&mut self) -> Lines<BufReader<ChildStderr>> {
        BufReader::new(self.child.stderr.take().expect("its errors")).lines()
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, given by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "{name} was not sent");
    }

    /// Kills the program without a warning, and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().expect("it ran");
        self.child.wait().expect("its end");
    }

    /// Waits until the program ends by itself, however long that takes.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }

    /// Returns its resident memory, in KiB.
    pub fn rss_kib(&self) -> u64 {
        memory_kib(self.id(), "VmRSS")
    }

    /// Returns the number of its open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("a process").count()
    }

    /// Returns the processor time that it has used, to 10 ms.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("a process");
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The program may have ended by itself. Then its process id may belong to another process.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if self.ends_by_signal {
            let _ = Command::new("kill").arg(self.id().to_string()).status();
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Returns a figure of a process's memory in KiB, by its name in `/proc/PID/status`, such as
/// `VmRSS`.
pub fn memory_kib(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a figure");
    line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok()).expect("a number")
}

/// Returns an address of this IP at which nothing listens now. Another program may take it before
/// it is used.
pub fn free_address(ip: [u8; 4]) -> SocketAddr {
    TcpListener::bind(SocketAddr::from((ip, 0))).and_then(|held| held.local_addr()).expect("a port")
}
