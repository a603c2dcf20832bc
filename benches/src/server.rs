//! Servers to be measured, each in a process of its own: the benchmark's program, started again in another role.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ccomet::{Config, Server};

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
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// What goes with it.
    folder: Option<PathBuf>,
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

    /// Starts another program, which listens there. The folder is removed behind it.
    pub(crate) fn start_program(command: &mut Command, address: SocketAddr, folder: PathBuf) -> Self {
        Self { child: command.spawn().expect("a process"), address, folder: Some(folder) }
    }

    fn start_as(role: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = pinned(&program).env(ROLE, role).stdout(Stdio::piped()).spawn().expect("a process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("an address");
        Self { child, address: line.trim().parse().expect("an address"), folder: None }
    }

    /// Processor time it has used.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
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

/// Resident memory of a process, in KiB.
pub fn rss_kib(process: u32) -> u64 {
    vm_kib(process, "VmRSS")
}

/// A server's resident memory in KiB, once that has not changed for a while: longer than its own sweeps take.
pub fn settled(server: &Process) -> u64 {
    let mut last = rss_kib(server.id());
    let mut same = 0;
    while same < 8 {
        std::thread::sleep(Duration::from_millis(250));
        let now = rss_kib(server.id());
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// A figure that the system gives of a process's memory, in KiB: `VmRSS`, `VmSize`.
pub fn vm_kib(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a figure");
    line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok()).expect("a number")
}

/// Puts this process on processor 1, where that can be done: beside the server, not in its way.
pub fn pin_client() {
    let pid = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", "1", &pid]).output();
    if !pinned.is_ok_and(|run| run.status.success()) {
        eprintln!("not pinned: no `taskset`, or one processor");
    }
}
