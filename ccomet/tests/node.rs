//! The client library in Node: what a program relies on, and what happens when its tokens expire.

mod common;

use std::process::{Command, ExitCode};

use common::{Client, Folder, Process};
use testing::programs::{Need, run};
use testing::tests;

const SECRET: &str = "a secret that is long enough for it";

fn main() -> ExitCode {
    run(tests![needs [Need::Program("node")]; the_client_library_works_in_node])
}

/// Returns the flags with which Node has a `WebSocket`.
fn flags() -> &'static [&'static str] {
    let asked = Command::new("node").args(["-p", "typeof WebSocket"]).output().expect("Node runs");
    if asked.stdout.starts_with(b"undefined") { &["--experimental-websocket"] } else { &[] }
}

fn the_client_library_works_in_node() {
    let settings =
        format!("[auth]\nwarning_s = 10\nkeys = [{{ id = \"main\", algorithm = \"HS256\", secret = \"{SECRET}\" }}]\n");
    let server = Process::start(&settings, &["--loops", "2"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/library.mjs");
    let url = format!("http://{}", server.front);
    // The library as the server has it.
    let folder = Folder::new("node");
    for name in ["ccomet.js", "ccomet.mjs"] {
        folder.write(name, Client::connect(server.front).get(&format!("/{name}")).body);
    }
    let mut command = Command::new("node");
    let run = command.args(flags()).args([script, &url, SECRET]).arg(&*folder).output().expect("Node runs");
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}
