//! The program's log, signals, and limit of open files: whatever becomes of the log, the server goes on.
#![cfg(target_os = "linux")]

mod common;

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

use common::{Client, Folder, Process};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "2"]).args(arguments);
    command
}

/// Makes requests, each of which is worth lines in the log.
fn serves(server: &Process) {
    for _ in 0..20 {
        let mut client = Client::connect(server.front);
        client.publish("news", "hello");
        assert_eq!(client.get("/nowhere").status, 404);
    }
}

#[test]
fn a_log_on_a_full_disk_does_not_end_the_server() {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("a device that is always full");
    let mut server = Process::run(program(&["--log", "trace"]).stderr(full));
    serves(&server);
    server.signal("TERM");
    assert!(server.wait().success());
}

#[test]
fn a_log_whose_reader_has_gone_does_not_end_the_server() {
    let mut server = Process::run(program(&["--log", "trace"]).stderr(Stdio::piped()));
    drop(server.errors());
    serves(&server);
    server.signal("TERM");
    assert!(server.wait().success());
}

#[test]
fn a_log_whose_reader_stalls_does_not_stop_a_loop() {
    // More than a pipe holds.
    let server = Process::run(program(&["--log", "trace"]).stderr(Stdio::piped()));
    for _ in 0..20 {
        serves(&server);
    }
}

#[test]
fn signals_to_reload_or_to_reopen_logs_are_logged_and_change_nothing() {
    let mut server = Process::run(program(&["--log", "info"]).stderr(Stdio::piped()));
    let mut log = server.errors();
    let mut reader = Client::connect(server.front).events("/channels/news", "");
    for signal in ["HUP", "USR1", "USR2", "HUP"] {
        server.signal(signal);
        let line = log.find(|line| line.as_ref().expect("text").contains("nothing was reloaded"));
        assert!(line.expect("a line").expect("text").contains(&format!("SIG{signal}")));
    }
    Client::connect(server.front).publish("news", "still here");
    assert_eq!(reader.next().message(), "still here");
}

#[test]
fn refusals_are_logged_with_an_example_and_a_count_and_once_a_minute_for_each_kind() {
    let settings =
        "[auth]\nkeys = [{ id = \"k\", algorithm = \"HS256\", secret = \"a secret that is long enough for it\" }]\n";
    let folder = Folder::new("refusals");
    let config = folder.write("ccomet.toml", settings).display().to_string();
    let mut server = Process::run(program(&["--log", "info", "--config", &config]).stderr(Stdio::piped()));
    let front = server.front;
    let refuse = || {
        let mut client = Client::connect(front);
        client.ask("GET", "/channels/secret-plans?token=sesame&wait=0", "");
        assert_eq!(client.reply().status, 401);
        assert_eq!(client.get("/channels/open?wait=0").status, 401);
    };
    for _ in 0..5 {
        refuse();
    }
    let mut log = server.errors().map(|line| line.expect("text"));
    let line = log.find(|line| line.contains("token_invalid")).expect("a line");
    assert!(line.contains("/channels/secret-plans") && line.contains("127.0.0.1") && line.contains("count="), "{line}");
    refuse();
    server.signal("TERM");
    let rest: Vec<String> = log.collect();
    assert!(rest.iter().any(|line| line.contains("token_missing")), "the other kind, and once: {rest:?}");
    assert!(rest.iter().all(|line| !line.contains("token_invalid") && !line.contains("sesame")), "{rest:?}");
}

#[test]
fn a_log_that_is_no_terminal_has_no_colour_codes() {
    let mut server = Process::run(program(&["--log", "info"]).stderr(Stdio::piped()));
    server.signal("TERM");
    let lines: Vec<String> = server.errors().map(|line| line.expect("text")).collect();
    assert!(lines.iter().any(|line| line.contains("stopped")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
}

fn checked(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ccomet")).arg("check-config").args(arguments).output().expect("it ends")
}

#[test]
fn a_log_level_that_does_not_exist_is_an_error_that_says_which_do() {
    let output = checked(&["--log", "loud"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("loud") && message.contains("debug"), "{message}");
}

#[test]
fn a_listener_may_be_named() {
    let output = checked(&["--front", "localhost:8100"]);
    let settings = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && settings.contains("listen = \"127.0.0.1:8100\""), "{output:?}");
    let output = checked(&["--front", "localhost"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("localhost"), "{message}");
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one_and_a_limit_below_the_connections_is_warned_of() {
    let program = env!("CARGO_BIN_EXE_ccomet");
    let arguments = "--front 127.0.0.1:0 --admin 127.0.0.1:0";
    let script = format!("ulimit -Sn 100 && ulimit -Hn 300 && exec {program} {arguments}");
    let mut server = Process::run(Command::new("sh").args(["-c", &script]).stderr(Stdio::piped()));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).expect("its limits");
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(limit.split_whitespace().filter(|word| *word == "300").count(), 2, "{limit}");
    let mut log = server.errors();
    let warning = log.find(|line| line.as_ref().expect("text").contains("limits.connections_max"));
    assert!(warning.expect("a line").expect("text").contains("300"));
}
