//! Servers to be measured, each in a process of its own: the benchmark's program, started again in another role.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ccomet::{Config, Server};
use testing::{Folder, process};

/// The variable that tells a program started again which server to be.
const ROLE: &str = "CCOMET_BENCH_ROLE";

/// A server to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This project's, on one loop.
    Ccomet,
    /// The least possible one: [`crate::bare`].
    Bare,
}

/// A server in a process of its own, killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: process::Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// What goes with it.
    _folder: Option<Folder>,
}

/// To be called first in `main`: runs the server instead, and does not come back, where this process was started as one.
pub fn become_server_if_asked() {
    let Ok(role) = std::env::var(ROLE) else { return };
    if role == "bare" {
        crate::bare::serve();
    } else if let Some((server, body_bytes)) = role.split_once(" with ") {
        crate::http::serve(server, body_bytes);
    } else if let Some((server, part)) = role.split_once('/') {
        crate::echo::serve(server, part);
    } else {
        let mut config = Config { loops: 1.try_into().ok(), ..Config::default() };
        config.front.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.admin.listen = config.front.listen;
        config.times.heartbeat_s = 3_600;
        let server = Server::bind(config).expect("a server");
        println!("{}", server.front());
        server.run().expect("a good end");
    }
    std::process::exit(0);
}

impl Process {
    /// Starts one on processor 0, where `taskset` can be had.
    pub fn start(kind: Kind) -> Self {
        Self::start_as(if kind == Kind::Bare { "bare" } else { "ccomet" })
    }

    /// Starts one of those in [`crate::echo`].
    pub fn start_echo(server: &str, part: crate::echo::Part) -> Self {
        Self::start_as(&format!("{server}/{part:?}"))
    }

    /// Starts one of those in [`crate::http`], if it can be had, to answer with so many bytes.
    pub fn start_http(server: &str, body_bytes: usize) -> Option<Self> {
        if !crate::http::can_be_had(server) {
            return None;
        }
        Some(match server {
            "nginx" => crate::http::nginx::start(body_bytes),
            _ => Self::start_as(&format!("{server} with {body_bytes}")),
        })
    }

    /// Starts another program, and waits until it listens there. The folder is removed behind it.
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

/// A program on processor 0, where `taskset` can be had.
pub(crate) fn pinned(program: &Path) -> Command {
    if !Command::new("taskset").args(["-c", "0", "true"]).output().is_ok_and(|run| run.status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// A server's resident memory in KiB, once that has not changed for a while: longer than its own sweeps take.
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

/// Puts this process on processor 1, where that can be done: beside the server, not in its way.
pub fn pin_client() {
    let pid = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", "1", &pid]).output();
    if !pinned.is_ok_and(|run| run.status.success()) {
        eprintln!("not pinned: no `taskset`, or one processor");
    }
}
