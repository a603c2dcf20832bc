//! Under a service manager: notifications of the server's state, and sockets that it inherits. The
//! tests do what systemd does.
#![cfg(target_os = "linux")]

mod common;

use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode, Stdio};

use common::{Client, Folder, PATIENCE, Process, wait_until};
use testing::programs::{Need, run};
use testing::tests;

fn main() -> ExitCode {
    run(tests![
        needs []; the_server_notifies_readiness_watchdog_and_stopping;
        needs [Need::Program("python3")]; inherited_sockets_are_found_by_name
    ])
}

/// The socket where a service manager listens.
struct Manager(UnixDatagram, Folder);

impl Manager {
    fn new() -> Self {
        let folder = Folder::new("notify");
        let socket = UnixDatagram::bind(folder.join("socket")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Self(socket, folder)
    }

    fn notification(&self) -> String {
        let mut bytes = [0; 256];
        let length = self.0.recv(&mut bytes).expect("a notification");
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    }
}

fn the_server_notifies_readiness_watchdog_and_stopping() {
    let manager = Manager::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "3"]);
    command.env("NOTIFY_SOCKET", manager.1.join("socket")).env("WATCHDOG_USEC", "30000000");
    let server = Process::run(&mut command);
    assert_eq!(manager.notification(), "READY=1");
    assert_eq!(Client::connect(server.front).post("/channels/news", "hello").status, 200);
    for _ in 0..3 {
        assert_eq!(manager.notification(), "WATCHDOG=1");
    }
    server.signal("HUP");
    let mut begun = String::new();
    wait_until("it notifies that it reloads", || {
        begun = manager.notification();
        begun.starts_with("RELOADING=1")
    });
    assert!(begun.contains("MONOTONIC_USEC="), "{begun}");
    wait_until("it notifies that it has reloaded", || manager.notification() == "READY=1");
    server.signal("TERM");
    wait_until("it notifies that it stops", || manager.notification() == "STOPPING=1");
}

/// Opens two sockets and becomes the server, as a service manager does: with descriptors from 3 on,
/// and their names in the environment.
const LAUNCHER: &str = "
import os, socket, sys
held = []
for name in ('admin', 'front'):
    one = socket.socket()
    one.bind(('127.0.0.1', 0))
    one.listen(16)
    held.append(one)
for fd, one in zip((13, 14), held):
    os.dup2(one.fileno(), fd)
for fd, copy in ((3, 13), (4, 14)):
    os.dup2(copy, fd, inheritable=True)
names = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '2', 'LISTEN_FDNAMES': 'admin:front'}
os.environ.update(names)
print(*(one.getsockname()[1] for one in held), file=sys.stderr, flush=True)
os.execv(sys.argv[1], sys.argv[1:])
";

fn inherited_sockets_are_found_by_name() {
    let mut command = Command::new("python3");
    command.args(["-c", LAUNCHER, env!("CARGO_BIN_EXE_ccomet"), "--log", "off", "--loops", "2"]);
    let mut server = Process::run(command.stderr(Stdio::piped()));
    let ports = server.errors().next().expect("a line").expect("text");
    let ports: Vec<u16> = ports.split_whitespace().map(|port| port.parse().expect("a port")).collect();
    assert_eq!([server.admin.port(), server.front.port()], ports[..]);
    Client::connect(server.front).publish("news", "hello");
    assert_eq!(Client::connect(server.admin).get("/channels").json()["channels"][0]["channel"], "news");
    assert_eq!(Client::connect(server.front).get("/channels").status, 404, "each is what its name says");
    // Each loop gets its share of the connections.
    let clients: Vec<Client> = (0..8).map(|_| Client::connect(server.front)).collect();
    for mut client in clients {
        assert_eq!(client.get("/channels/news?after=oldest").messages(), ["hello"]);
    }
}
