//! A Redis, and servers that share it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use testing::process::free_address;

use crate::common::{Client, Folder, PATIENCE, Process, process, wait_until};

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

/// A Redis in a process and a folder of its own. It has written each change to its append-only file
/// when it confirms the change.
pub(crate) struct Redis {
    process: process::Process,
    folder: Folder,
    address: SocketAddr,
}

impl Redis {
    fn start() -> Self {
        let (folder, address) = (Folder::new("redis"), free_address([127, 0, 0, 78]));
        let process = Self::run(&folder, address);
        let mut redis = Self { process, folder, address };
        redis.wait();
        redis
    }

    fn run(folder: &Folder, address: SocketAddr) -> process::Process {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(folder.join("."));
        process::Process::start(command.stdout(Stdio::null()))
    }

    fn wait(&mut self) {
        self.process.wait_for_listener(self.address, || "see the output of redis-server".to_owned());
        wait_until("Redis has loaded its file", || self.command("PING") == "+PONG");
    }

    /// Kills it without a warning.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it after a kill, with what its file has.
    pub(crate) fn start_again(&mut self) {
        self.process = Self::run(&self.folder, self.address);
        self.wait();
    }

    /// Starts it after a kill, without data.
    pub(crate) fn start_empty(&mut self) {
        fs::remove_dir_all(self.folder.join("appendonlydir")).expect("its file");
        self.start_again();
    }

    /// Sends it a signal, given by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Sends a command, and returns the first line of the reply.
    pub(crate) fn command(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.write_all(format!("{command}\r\n").as_bytes()).expect("sent");
        let (mut reply, mut byte) = (Vec::new(), [0]);
        while !reply.ends_with(b"\r\n") && stream.read(&mut byte).expect("a reply") > 0 {
            reply.extend(byte);
        }
        String::from_utf8_lossy(&reply).trim().to_owned()
    }
}

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
        let redis = Redis::start();
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
