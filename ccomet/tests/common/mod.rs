//! Servers for the tests: in this process, in a process of its own, and on a simulated network.

#![allow(dead_code, unused_imports, unreachable_pub, missing_debug_implementations)] // each test uses a part

pub mod metrics;
pub mod redis;
pub mod socket;
pub mod stage;

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::thread::JoinHandle;

use ccomet::{Config, Server};
use sealed::Stopper;
pub use testing::http::{Client, Event, Events, Reply};
pub use testing::{Folder, PATIENCE, process, wait_until};

/// The settings of a server whose store has small segments and frequent checkpoints, and a history
/// without limits.
pub const SMALL_STORE: &str = "
[store]
segment_bytes = 1048576
checkpoint_bytes = 1048576
window_messages_max = 50
[history]
messages_max = 1048576
bytes_max = 17179869184
total_bytes_max = 17179869184
keys_max = 1000000
";

/// Returns a configuration on ports of the system's choice.
pub fn config(loops: usize) -> Config {
    let mut config = Config { loops: loops.try_into().ok(), ..Config::default() };
    config.front.listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    config.admin.listen = config.front.listen.clone();
    config
}

/// A server in this process. Dropping it stops the server, and asserts that the server ends without
/// an error.
pub struct Local {
    pub front: SocketAddr,
    pub admin: SocketAddr,
    pub stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ccomet::Error>>>,
}

impl Local {
    pub fn start(config: Config) -> Self {
        Self::run(Server::bind(config).expect("the server starts"))
    }

    /// Runs a server that the caller has prepared.
    pub fn run(server: Server) -> Self {
        let [front, admin] = [server.front(), server.admin()].map(|address| address.inet().expect("no Unix socket"));
        let stopper = server.stopper();
        Self { front, admin, stopper, thread: Some(std::thread::spawn(move || server.run())) }
    }

    /// Waits for the server to end by itself.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("a good end");
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stopper.stop();
        // The second call ends the drain of what a test left open.
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("no panic").expect("a good end");
            }
        }
    }
}

/// A server in a process of its own, which dropping kills.
pub struct Process {
    pub front: SocketAddr,
    pub admin: SocketAddr,
    child: process::Process,
    settings: String,
    arguments: Vec<String>,
}

impl Process {
    /// Starts the program with these additional lines in its configuration.
    pub fn start(settings: &str, arguments: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(any, any, settings, arguments.iter().map(|argument| (*argument).to_owned()).collect())
    }

    /// Starts a command that runs the program.
    pub fn run(command: &mut Command) -> Self {
        let (child, [front, admin]) = process::Process::start_announced(command, ["front", "admin"]);
        Self { front, admin, child, settings: String::new(), arguments: Vec::new() }
    }

    /// Kills a server that was started with settings, and starts it again at the same addresses.
    pub fn restart(&mut self) {
        self.child.kill();
        *self = Self::start_at(self.front, self.admin, &self.settings, self.arguments.clone());
    }

    fn start_at(front: SocketAddr, admin: SocketAddr, settings: &str, arguments: Vec<String>) -> Self {
        let folder = Folder::new("ccomet");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
        command.args(["--front", &front.to_string(), "--admin", &admin.to_string(), "--log", "warn", "--config"]);
        command.arg(folder.write("ccomet.toml", settings)).args(&arguments);
        // The server announces its addresses after it has read the file, so that the folder may be
        // dropped.
        Self { settings: settings.to_owned(), arguments, ..Self::run(&mut command) }
    }
}

impl Deref for Process {
    type Target = process::Process;

    fn deref(&self) -> &Self::Target {
        &self.child
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.child
    }
}

/// Expects one of two polls of one name to get an empty answer and to be closed. Returns the other.
pub fn the_one_that_stays(one: Client, other: Client) -> Client {
    let (mut ended, mut stays) = (one, other);
    wait_until("one of the two makes way", || {
        std::mem::swap(&mut ended, &mut stays);
        !ended.is_silent()
    });
    let reply = ended.reply();
    assert_eq!((reply.status, reply.text()), (200, ""));
    assert!(ended.is_closed());
    stays
}
