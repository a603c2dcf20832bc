//! The addresses of listeners: Unix sockets, and addresses that cannot be used.

#![cfg(unix)]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use ccomet::{Config, Error, Server};
use sealed::{Address, Stopper};

mod common;

use common::{Client, Folder, Local, PATIENCE, Process, config};

/// A server whose front is a Unix socket.
struct OnSocket {
    stopper: Stopper,
    thread: JoinHandle<Result<(), Error>>,
}

impl OnSocket {
    fn start(config: Config) -> Self {
        let server = Server::bind(config).expect("the server starts");
        let stopper = server.stopper();
        Self { stopper, thread: std::thread::spawn(move || server.run()) }
    }

    fn stop(self) {
        self.stopper.stop();
        self.thread.join().expect("no panic").expect("a good end");
    }
}

/// Returns settings with a front on a Unix socket.
fn on_socket(path: &Path) -> Config {
    let mut config = config(2);
    config.front.listen = Address::unix(path);
    config
}

/// Returns the status line of the answer to a poll with these header fields.
fn poll(path: &Path, fields: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let request = format!("GET /channels/news?wait=0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("it answers");
    reply.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_front_on_a_unix_socket_serves_and_removes_the_file_at_its_end() {
    let folder = Folder::new("socket");
    let path = folder.join("front.sock");
    let mut config = on_socket(&path);
    config.front.socket_mode = "660".to_owned();
    let server = OnSocket::start(config);
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o660);
    assert!(poll(&path, "").contains(" 200 "));
    server.stop();
    assert!(!path.exists(), "the file is removed");
}

#[test]
fn a_client_of_a_unix_socket_counts_as_loopback() {
    let folder = Folder::new("socket-proxy");
    let path = folder.join("front.sock");
    let mut config = on_socket(&path);
    config.front.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
    config.front.deny = vec!["192.0.2.0/24".parse().expect("a network")];
    let server = OnSocket::start(config);
    assert!(poll(&path, "X-Forwarded-For: 198.51.100.1\r\n").contains(" 200 "));
    assert!(poll(&path, "X-Forwarded-For: 192.0.2.1\r\n").contains(" 403 "));
    server.stop();
}

#[test]
fn the_socket_of_a_dead_server_is_replaced_and_no_other_file() {
    let folder = Folder::new("stale");
    let stale = folder.join("stale.sock");
    drop(UnixListener::bind(&stale).expect("a socket"));
    let server = OnSocket::start(on_socket(&stale));
    assert!(poll(&stale, "").contains(" 200 "));
    let refused = Server::bind(on_socket(&stale)).expect_err("in use");
    assert!(refused.to_string().contains("front.listen, --front") && refused.to_string().contains("another program"));
    server.stop();

    let file = folder.write("plain", "precious");
    let folder_there = folder.join("directory");
    std::fs::create_dir(&folder_there).expect("a directory");
    let link = folder.join("link");
    std::os::unix::fs::symlink(folder.join("nothing"), &link).expect("a link");
    for path in [&file, &folder_there, &link] {
        let refused = Server::bind(on_socket(path)).expect_err("no socket").to_string();
        assert!(refused.contains("at this path that is no socket. Remove it, or choose another path"), "{refused}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "precious");
    let missing = Server::bind(on_socket(&folder.join("nowhere/front.sock"))).expect_err("no folder");
    assert!(missing.to_string().contains("directory of the Unix socket does not exist"), "{missing}");
}

#[test]
fn a_client_that_speaks_tls_to_a_plain_listener_is_answered_and_logged() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "info"]).stderr(Stdio::piped());
    let mut server = Process::run(&mut command);
    let mut client = Client::connect(server.front);
    client.send([0x16, 3, 1, 2, 0, 1]);
    let reply = client.reply();
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("tls_not_served") && reply.text().contains("http://"), "{}", reply.text());
    drop(client);
    server.signal("TERM");
    let lines: Vec<String> = server.errors().map(|line| line.expect("text")).collect();
    assert!(lines.iter().any(|line| line.contains("tls_not_served") && line.contains("plain HTTP")), "{lines:?}");
}

/// Returns what the program reports with these arguments, which it refuses.
fn refused(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(arguments).output().expect("it ends");
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_address_that_cannot_be_used_is_named_with_its_setting() {
    let server = Local::start(config(1));
    let taken = server.front.to_string();
    let message = refused(&["--front", &taken, "--admin", "127.0.0.1:0"]);
    for part in
        ["front.listen, --front", "another program", "choose another address", &format!("cannot listen on {taken}")]
    {
        assert!(message.contains(part), "{part} in {message}");
    }
    let message = refused(&["--front", "127.0.0.1:0", "--admin", &taken]);
    assert!(message.contains("admin.listen, --admin"), "{message}");
    let message = refused(&["--front", "localhost:8123", "--admin", "8123"]);
    assert!(message.contains("front.listen and admin.listen are both 127.0.0.1:8123"), "{message}");
    let message = refused(&["--front", "localhost"]);
    assert!(
        message.contains("--front: front.listen: \"localhost\"") && message.contains("localhost:8100"),
        "{message}"
    );
    let message = refused(&["--front", "unix:front.sock"]);
    assert!(message.contains("begins with /"), "{message}");
}
