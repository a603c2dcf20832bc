//! A Redis in a process and a folder of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use testing::process::free_address;

use super::{Folder, PATIENCE, process, wait_until};

pub struct Redis {
    pub process: process::Process,
    pub folder: Folder,
    pub address: SocketAddr,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a Redis with options at a free port of an address. It has nothing on the disk.
    pub fn start(ip: [u8; 4], arguments: &[&str]) -> Self {
        let (folder, address) = (Folder::new("redis"), free_address(ip));
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = Self::run(&folder, address, &arguments);
        let mut redis = Self { process, folder, address, arguments };
        redis.wait();
        redis
    }

    fn run(folder: &Folder, address: SocketAddr, arguments: &[String]) -> process::Process {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string(), "--save", ""]);
        command.arg("--unixsocket").arg(folder.join("redis.sock")).arg("--dir").arg(folder.join("."));
        process::Process::start(command.args(arguments).stdout(Stdio::null()))
    }

    /// Waits until it answers commands.
    pub fn wait(&mut self) {
        self.process.wait_for_listener(self.address, || "see the output of redis-server".to_owned());
        wait_until("Redis has loaded its file", || !self.command("PING").starts_with("-LOADING"));
    }

    /// Kills it without a warning.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it after a kill, with what its files have.
    pub fn start_again(&mut self) {
        self.process = Self::run(&self.folder, self.address, &self.arguments);
        self.wait();
    }

    /// Starts it after a kill, without its append-only file.
    pub fn start_empty(&mut self) {
        fs::remove_dir_all(self.folder.join("appendonlydir")).expect("its file");
        self.start_again();
    }

    /// Sends it a signal, given by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Sends a command, and returns the first line of the reply.
    pub fn command(&self, command: &str) -> String {
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
