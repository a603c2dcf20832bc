//! Servers to be measured, each in a process of its own: the program of the benchmark, started
//! again in another role.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ccomet::{Config, Server};
use testing::{Folder, process};

/// The environment variable that names the server that a program started again runs.
const ROLE: &str = "CCOMET_BENCH_ROLE";

/// A server to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The server of this project, on one loop.
    Ccomet,
    /// The server of this project, on one loop, with a store on disk.
    Stored,
    /// The server that does the least work: [`crate::bare`].
    Bare,
}

/// A server in a process of its own, killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: process::Process,
    /// The address of the server.
    pub address: SocketAddr,
    /// A folder that is removed with the server.
    _folder: Option<Folder>,
}

/// Runs the server, and does not return, if this process was started as one. Call it first in
/// `main`.
pub fn become_server_if_asked() {
    let Ok(role) = std::env::var(ROLE) else { return };
    if role == "bare" {
        crate::bare::serve();
    } else if let Some(server) = role.strip_prefix("datagrams on ") {
        crate::datagrams::serve(server);
    } else if let Some((server, body_bytes)) = role.split_once(" with ") {
        crate::http::serve(server, body_bytes);
    } else if let Some((server, part)) = role.split_once('/').filter(|_| !role.starts_with("ccomet")) {
        crate::echo::serve(server, part);
    } else {
        let mut config = Config { loops: 1.try_into().ok(), ..Config::default() };
        config.front.listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        config.admin.listen = config.front.listen.clone();
        config.times.heartbeat_s = 3_600;
        config.store.path = role.strip_prefix("ccomet in ").map(PathBuf::from);
        let server = Server::bind(config).expect("a server");
        println!("{}", server.front());
        server.run().expect("a good end");
    }
    std::process::exit(0);
}

impl Process {
    /// Starts a server, on processor 0 if `taskset` is available.
    pub fn start(kind: Kind) -> Self {
        match kind {
            Kind::Ccomet => Self::start_as("ccomet"),
            Kind::Bare => Self::start_as("bare"),
            Kind::Stored => {
                let folder = Folder::new("stored");
                let server = Self::start_as(&format!("ccomet in {}", folder.join("data").display()));
                Self { _folder: Some(folder), ..server }
            }
        }
    }

    /// Starts a server of [`crate::echo`].
    pub fn start_echo(server: &str, part: crate::echo::Part) -> Self {
        Self::start_as(&format!("{server}/{part:?}"))
    }

    /// Starts a server of [`crate::datagrams`].
    pub fn start_datagrams(server: &str) -> Self {
        Self::start_as(&format!("datagrams on {server}"))
    }

    /// Starts a server of [`crate::http`] that answers with this many bytes, if it is available.
    pub fn start_http(server: &str, body_bytes: usize) -> Option<Self> {
        if !crate::http::can_be_had(server) {
            return None;
        }
        Some(match server {
            "nginx" => crate::http::nginx::start(body_bytes),
            _ => Self::start_as(&format!("{server} with {body_bytes}")),
        })
    }

    /// Starts another program, and waits until it listens at the address. The folder is removed
    /// after it.
    pub(crate) fn start_program(command: &mut Command, address: SocketAddr, folder: Folder) -> Self {
        let mut child = process::Process::start(command);
        child.wait_for_listener(address, || format!("{command:?}"));
        Self { child, address, _folder: Some(folder) }
    }

    fn start_as(role: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let (child, [address]) = process::Process::start_announced(pinned(&program).env(ROLE, role), [""]);
        Self { child, address, _folder: None }
    }
}

impl Deref for Process {
    type Target = process::Process;

    fn deref(&self) -> &Self::Target {
        &self.child
    }
}

/// Starts another program on processor 0, which needs `taskset`, and waits until it listens at the
/// free address that its arguments are made of. Returns it with that address.
pub fn start_elsewhere(program: &str, arguments: impl Fn(SocketAddr) -> Vec<String>) -> (process::Process, SocketAddr) {
    let address = process::free_address([127, 0, 0, 1]);
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]).args(arguments(address)).stdout(Stdio::null());
    let mut started = process::Process::start(&mut command);
    started.wait_for_listener(address, || program.to_owned());
    (started, address)
}

/// Returns a command that runs a program, on processor 0 if `taskset` is available.
pub fn pinned(program: &Path) -> Command {
    if !Command::new("taskset").args(["-c", "0", "true"]).output().is_ok_and(|run| run.status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// Returns the resident memory of a server in KiB, once it has not changed for 2 s, which is longer
/// than the server's own sweeps take.
pub fn settled(server: &Process) -> u64 {
    let mut last = server.rss_kib();
    let mut same = 0;
    while same < 8 {
        std::thread::sleep(Duration::from_millis(250));
        let now = server.rss_kib();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// Pins this process to processor 1 if possible, so that it does not disturb the server.
pub fn pin_client() {
    let pid = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", "1", &pid]).output();
    if !pinned.is_ok_and(|run| run.status.success()) {
        eprintln!("not pinned: no `taskset`, or one processor");
    }
}
