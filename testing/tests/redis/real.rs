//! A real Redis, and its clients.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};

use testing::redis::{Value, encode_command};
use testing::{Folder, PATIENCE, process::Process, wait_until};

/// The number of the client that changes settings.
const ADMIN: u64 = u64::MAX;

/// A real Redis.
pub struct Real {
    socket: PathBuf,
    clients: BTreeMap<u64, Client>,
    _process: Process,
    _folder: Folder,
}

struct Client {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Real {
    pub fn start() -> Self {
        let folder = Folder::new("redis");
        let socket = folder.join("socket");
        let mut program = Program::new("redis-server");
        program.args(["--port", "0", "--save", "", "--stream-node-max-bytes", "0"]).arg("--dir").arg(&*folder);
        let process = Process::start(program.arg("--unixsocket").arg(&socket).stdout(Stdio::null()));
        wait_until("redis-server listens", || UnixStream::connect(&socket).is_ok());
        let mut real = Self { socket, clients: BTreeMap::new(), _process: process, _folder: folder };
        real.connect(ADMIN);
        real
    }

    /// Drops the data, the functions, and all clients.
    pub fn reset(&mut self, node_max: usize) {
        self.clients.retain(|client, _| *client == ADMIN);
        self.set_full(false);
        self.ask(&["FLUSHALL"]);
        self.ask(&["FUNCTION", "FLUSH"]);
        self.ask(&["CONFIG", "SET", "stream-node-max-entries", &node_max.to_string()]);
    }

    /// Returns whether it sends a client messages of its own calls after their replies.
    pub fn pushes_after(&mut self) -> bool {
        let Value::Bytes(info) = self.ask(&["INFO", "server"]) else { panic!("a text") };
        let info = String::from_utf8_lossy(&info).into_owned();
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).expect("a version");
        let mut parts = version.split('.').map(|part| part.parse::<u32>().expect("a number"));
        (parts.next(), parts.next()) >= (Some(7), Some(2))
    }

    pub fn set_full(&mut self, is_full: bool) {
        self.ask(&["CONFIG", "SET", "maxmemory", if is_full { "1" } else { "0" }]);
    }

    /// Returns its time in ms.
    pub fn time(&mut self) -> i64 {
        let Value::Array(parts) = self.ask(&["TIME"]) else { panic!("a time") };
        let parts: Vec<i64> = parts.iter().map(number_of).collect();
        parts[0] * 1_000 + parts[1] / 1_000
    }

    fn ask(&mut self, command: &[&str]) -> Value {
        let parts: Vec<Vec<u8>> = command.iter().map(|part| part.as_bytes().to_vec()).collect();
        self.send(ADMIN, &parts);
        let reply = self.receive(ADMIN);
        assert!(!reply.is_error(), "{command:?}: {reply:?}");
        reply
    }

    pub fn connect(&mut self, client: u64) {
        let stream = UnixStream::connect(&self.socket).expect("redis-server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        self.clients.insert(client, Client { stream, received: Vec::new() });
    }

    pub fn send(&mut self, client: u64, command: &[Vec<u8>]) {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, command);
        self.client(client).stream.write_all(&bytes).expect("redis-server reads");
    }

    fn client(&mut self, client: u64) -> &mut Client {
        self.clients.get_mut(&client).expect("it is connected")
    }

    /// Returns the next value for a client.
    pub fn receive(&mut self, client: u64) -> Value {
        let client = self.client(client);
        loop {
            if let Some((value, length)) = Value::decode(&client.received) {
                client.received.drain(..length);
                return value;
            }
            let mut buffer = [0; 16 << 10];
            let count = client.stream.read(&mut buffer).expect("redis-server answers");
            assert!(count > 0, "redis-server has closed a connection");
            client.received.extend_from_slice(&buffer[..count]);
        }
    }

    /// Asserts that nothing more has been sent to the clients.
    pub fn expect_silence(&mut self) {
        self.time();
        for (number, client) in &mut self.clients {
            assert_eq!(client.received, b"", "client {number}");
            client.stream.set_nonblocking(true).expect("a socket");
            let mut buffer = [0; 1 << 10];
            let read = client.stream.read(&mut buffer);
            let text = String::from_utf8_lossy(&buffer);
            assert!(read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "client {number}: {text}");
            client.stream.set_nonblocking(false).expect("a socket");
        }
    }
}

fn number_of(value: &Value) -> i64 {
    let Value::Bytes(text) = value else { panic!("a text: {value:?}") };
    String::from_utf8_lossy(text).parse().expect("a number")
}
