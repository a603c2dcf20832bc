//! The client library in Node: what a program relies on, and what happens when its tokens expire.

mod common;

use std::process::Command;

use common::Process;

const SECRET: &str = "a secret that is long enough for it";

/// Returns the flags with which Node has a `WebSocket`; `None` where there is no Node of 20 or later, and that is allowed.
fn flags() -> Option<Vec<&'static str>> {
    let asked = Command::new("node").args(["-p", "[parseInt(process.versions.node), typeof WebSocket]"]).output();
    let told = asked.ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version: u32 =
        told.trim_start_matches(['[', ' ']).split(',').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    if version < 20 {
        assert!(std::env::var_os("CCOMET_TEST_REQUIRE_ALL").is_none(), "no Node of 20 or later");
        eprintln!("SKIPPED: this test needs Node of 20 or later");
        return None;
    }
    Some(if told.contains("undefined") { vec!["--experimental-websocket"] } else { Vec::new() })
}

#[test]
fn the_client_library_works_in_node() {
    let Some(flags) = flags() else { return };
    let settings =
        format!("[auth]\nwarning_s = 10\nkeys = [{{ id = \"main\", algorithm = \"HS256\", secret = \"{SECRET}\" }}]\n");
    let server = Process::start(&settings, &["--loops", "2"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/library.mjs");
    let url = format!("http://{}", server.front);
    let run = Command::new("node").args(flags).args([script, &url, SECRET]).output().expect("Node runs");
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}
