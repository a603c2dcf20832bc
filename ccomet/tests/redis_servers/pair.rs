//! A Redis, and servers that share it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Command;

use crate::common::redis::Redis;
use crate::common::{Client, Folder, Process, wait_until};

/// Windows so short that most of the history is read from Redis, and a history without limits.
const SETTINGS: &str = "
[front]
patterns = true
[store]
window_messages_max = 50
[history]
messages_max = 1048576
bytes_max = 17179869184
total_bytes_max = 17179869184
keys_max = 1000000
";

/// The options of Redis: it has written each change to its append-only file when it confirms the
/// change.
const OPTIONS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A server in a process of its own, with its log in a file.
pub(crate) struct Server {
    process: Process,
    folder: Folder,
    url: String,
}

impl Server {
    fn start(url: &str, settings: &str) -> Self {
        let folder = Folder::new("ccomet");
        folder.write("ccomet.toml", settings);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let process = Self::run(&folder, url, [any, any]);
        Self { process, folder, url: url.to_owned() }
    }

    fn run(folder: &Folder, url: &str, [front, admin]: [SocketAddr; 2]) -> Process {
        let program = std::env::var_os("REDIS_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_ccomet").into());
        let mut command = Command::new(program);
        command.args(["--front", &front.to_string(), "--admin", &admin.to_string(), "--loops", "2", "--redis", url]);
        let log = File::options().create(true).append(true).open(folder.join("log")).expect("a file");
        command.arg("--config").arg(folder.join("ccomet.toml")).stderr(log);
        Process::run(&mut command)
    }

    pub(crate) fn front(&self) -> SocketAddr {
        self.process.front
    }

    /// Kills it without a warning, and starts it again at the same addresses.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = Self::run(&self.folder, &self.url, [self.process.front, self.process.admin]);
    }

    /// Connects a client to the front.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.process.front)
    }

    /// Connects a client to the admin listener.
    pub(crate) fn admin(&self) -> Client {
        Client::connect(self.process.admin)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            eprintln!("log of the server at {}:\n{log}", self.front());
        }
    }
}

/// Two servers with two loops each, and their Redis.
pub(crate) struct Pair {
    pub(crate) servers: [Server; 2],
    pub(crate) redis: Redis,
}

impl Pair {
    /// Starts all of them, and waits until both servers can publish.
    pub(crate) fn start() -> Self {
        let redis = Redis::start([127, 0, 0, 78], &OPTIONS);
        let servers = [(), ()].map(|()| Server::start(&Self::url(&redis), SETTINGS));
        let pair = Self { servers, redis };
        pair.wait();
        pair
    }

    fn url(redis: &Redis) -> String {
        format!("redis://{}", redis.address)
    }

    /// Starts another server, whose names in Redis begin with this prefix.
    pub(crate) fn start_other(&self, prefix: &str) -> Server {
        let settings = SETTINGS.replace("[store]", &format!("[store]\nredis_prefix = \"{prefix}\""));
        let server = Server::start(&Self::url(&self.redis), &settings);
        wait_until("the server is ready", || server.admin().get("/health/ready").status == 200);
        server
    }

    /// Waits until both servers are ready.
    pub(crate) fn wait(&self) {
        for server in &self.servers {
            wait_until("both servers are ready", || server.admin().get("/health/ready").status == 200);
        }
    }
}
