//! The client library in Node: what a program relies on, what happens when its tokens expire, and
//! how subscriptions share a WebSocket.

mod common;

use std::process::{Command, ExitCode};

use common::{Client, Folder, Process};
use testing::programs::{Need, run};
use testing::tests;

const SECRET: &str = "a secret that is long enough for it";

fn main() -> ExitCode {
    run(tests![needs [Need::Program("node")]; the_client_library_works_in_node, subscriptions_share_a_websocket])
}

/// Returns the flags with which Node has a `WebSocket`.
fn flags() -> &'static [&'static str] {
    let asked = Command::new("node").args(["-p", "typeof WebSocket"]).output().expect("Node runs");
    if asked.stdout.starts_with(b"undefined") { &["--experimental-websocket"] } else { &[] }
}

/// Saves the library as the server sends it.
fn library(server: &Process) -> Folder {
    let folder = Folder::new("node");
    for name in ["ccomet.js", "ccomet.mjs"] {
        folder.write(name, Client::connect(server.front).get(&format!("/{name}")).body);
    }
    folder
}

fn run_script(name: &str, arguments: &[&str], folder: &Folder) {
    let script = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/{}"), name);
    let mut command = Command::new("node");
    let run = command.args(flags()).arg(script).args(arguments).arg(&**folder).output().expect("Node runs");
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}

fn the_client_library_works_in_node() {
    let settings =
        format!("[auth]\nwarning_s = 10\nkeys = [{{ id = \"main\", algorithm = \"HS256\", secret = \"{SECRET}\" }}]\n");
    let server = Process::start(&settings, &["--loops", "2"]);
    run_script("library.mjs", &[&format!("http://{}", server.front), SECRET], &library(&server));
}

fn subscriptions_share_a_websocket() {
    let server = Process::start("", &["--loops", "1"]);
    run_script("sharing.mjs", &[], &library(&server));
}
