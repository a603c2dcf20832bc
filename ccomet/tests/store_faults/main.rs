//! A server whose disk fails: a sync that returns an error, by a preloaded library, and a full
//! disk, by a small file system in memory, in a namespace of its own.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use common::{Client, Folder, Process, SMALL_STORE, wait_until};
use testing::programs::{Need, run};
use testing::tests;

fn main() -> ExitCode {
    run(tests![
        needs [Need::Program("cc")]; after_a_failed_sync_publishing_ends_and_reading_goes_on;
        needs [Need::Other("no file system can be mounted in a user namespace", has_namespaces)];
            a_full_disk_refuses_publishers_until_there_is_space,
            a_tool_without_room_names_the_disk_that_is_full
    ])
}

const ARGUMENTS: &[&str] =
    &["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "2", "--log", "off", "--data"];

fn has_namespaces() -> bool {
    let mounted = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    mounted.is_ok_and(|output| output.status.success())
}

fn server(command: &mut Command, folder: &Folder) -> Process {
    let config = folder.write("ccomet.toml", SMALL_STORE);
    Process::run(command.args(ARGUMENTS).arg(folder.join("data")).arg("--config").arg(config))
}

fn post(client: &mut Client, text: &str) -> u16 {
    client.post("/channels/news", text).status
}

fn history(server: &Process) -> Vec<String> {
    let (mut client, mut after, mut found) = (Client::connect(server.front), "oldest".to_owned(), Vec::new());
    loop {
        let reply = client.get(&format!("/channels/news?after={after}&wait=0"));
        let messages = reply.messages();
        if messages.is_empty() {
            return found;
        }
        found.extend(messages);
        after = reply.position();
    }
}

/// Returns the answer to a question about the health of a server: its status, and the problems.
fn problems(server: &Process, question: &str) -> (u16, Vec<String>) {
    let reply = Client::connect(server.admin).get(&format!("/health/{question}"));
    let problems = reply.json()["problems"].as_array().expect("a list").clone();
    let codes = problems.iter().filter_map(|problem| problem["code"].as_str().map(str::to_owned));
    (reply.status, codes.filter(|code| code != "checkpoint_fails").collect())
}

fn after_a_failed_sync_publishing_ends_and_reading_goes_on() {
    let folder = Folder::new("sync");
    let library = folder.join("failing_sync.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store_faults/failing_sync.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.expect("cc runs").success());
    let control = folder.join("fail");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    let mut failing = server(command.env("LD_PRELOAD", &library).env("FAIL_SYNC", &control), &folder);

    let mut client = Client::connect(failing.front);
    let mut reader = Client::connect(failing.front).events("/channels/news", "");
    let accepted: Vec<String> = (0..20).map(|number| format!("accepted {number}")).collect();
    for text in &accepted {
        assert_eq!(post(&mut client, text), 200);
        assert_eq!(reader.next().message(), *text);
    }
    fs::write(&control, "").expect("a file");
    assert_eq!(post(&mut client, "refused"), 503);
    assert!(!control.exists(), "the sync has failed");
    assert_eq!(problems(&failing, "ready"), (503, vec!["store_failed".to_owned()]));
    assert_eq!(problems(&failing, "live").0, 200, "a restart would end the readers");
    for _ in 0..3 {
        assert_eq!(post(&mut client, "refused too"), 503, "a disk that has failed is not used again");
    }
    assert_eq!(history(&failing), accepted);
    let mut late = Client::connect(failing.front).events("/channels/news?after=oldest", "");
    assert_eq!(late.next().message(), accepted[0]);
    failing.kill();

    let healthy = server(&mut Command::new(env!("CARGO_BIN_EXE_ccomet")), &folder);
    assert_eq!(history(&healthy), accepted);
    assert_eq!(post(&mut Client::connect(healthy.front), "again"), 200);
}

fn a_full_disk_refuses_publishers_until_there_is_space() {
    let folder = Folder::new("full");
    let data = folder.join("data");
    fs::create_dir(&data).expect("a folder");
    let script = format!("mount -t tmpfs -o size=12m tmpfs '{}' && exec \"$@\"", data.display());
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_ccomet")]);
    let server = server(&mut command, &folder);
    // The directory, as the server sees it.
    let seen =
        Path::new("/proc").join(server.id().to_string()).join("root").join(data.strip_prefix("/").expect("absolute"));
    let ballast = seen.join("ballast");
    let (mut client, padding) = (Client::connect(server.front), "x".repeat(20_000));
    let (mut accepted, mut number) = (Vec::new(), 0);
    let mut publish = || {
        let text = format!("{number} {padding}");
        number += 1;
        let status = post(&mut client, &text);
        if status == 200 {
            accepted.push(text);
        }
        status
    };
    for round in 0..3 {
        for _ in 0..10 {
            assert_eq!(publish(), 200);
        }
        // It ends when the disk is full.
        let _ = fs::write(&ballast, vec![1; 12 << 20]);
        let refused = (0..200).map(|_| publish()).find(|status| *status != 200);
        assert!(matches!(refused, Some(503 | 507)), "round {round}: {refused:?}");
        wait_until("the disk is full", || publish() == 507);
        assert_eq!(problems(&server, "ready"), (503, vec!["store_full".to_owned()]));
        assert_eq!(problems(&server, "live").0, 200);
        fs::remove_file(&ballast).expect("a file");
        // Nothing is published meanwhile.
        wait_until("there is space again", || problems(&server, "ready").0 == 200);
        assert_eq!(publish(), 200);
    }
    assert!(history(&server) == accepted, "{} messages were accepted", accepted.len());
}

fn a_tool_without_room_names_the_disk_that_is_full() {
    let folder = Folder::new("destination");
    let mut server = server(&mut Command::new(env!("CARGO_BIN_EXE_ccomet")), &folder);
    assert_eq!(post(&mut Client::connect(server.front), "text"), 200);
    server.kill();
    let (data, small) = (folder.join("data"), folder.join("small"));
    fs::create_dir(&small).expect("a folder");
    for tool in ["backup", "salvage"] {
        let script = format!("mount -t tmpfs -o size=32k tmpfs '{}' && exec \"$@\"", small.display());
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_ccomet"), "store", tool]);
        let output = command.arg(small.join("new")).arg("--data").arg(&data).output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        let expected = format!("the disk of {} is full", small.join("new").display());
        assert!(output.status.code() == Some(1) && error.contains(&expected), "{tool}: {error}");
    }
}
