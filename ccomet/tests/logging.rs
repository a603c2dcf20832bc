//! The program's log, signals, and limit of open files: the server goes on, whatever happens to the
//! log.
#![cfg(target_os = "linux")]

mod common;

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

use common::{Client, Folder, Process};
use testing::http::{UPGRADE, frame};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "2"]).args(arguments);
    command
}

/// Sends requests, each of which causes lines in the log.
fn assert_serves(server: &Process) {
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
    assert_serves(&server);
    server.signal("TERM");
    assert!(server.wait().success());
}

#[test]
fn a_log_without_a_reader_does_not_end_the_server() {
    let mut server = Process::run(program(&["--log", "trace"]).stderr(Stdio::piped()));
    drop(server.errors());
    assert_serves(&server);
    server.signal("TERM");
    assert!(server.wait().success());
}

#[test]
fn a_log_whose_reader_stalls_does_not_stop_a_loop() {
    // More than a pipe holds.
    let server = Process::run(program(&["--log", "trace"]).stderr(Stdio::piped()));
    for _ in 0..20 {
        assert_serves(&server);
    }
}

#[test]
fn signals_to_reopen_logs_are_logged_and_change_nothing() {
    let mut server = Process::run(program(&["--log", "info"]).stderr(Stdio::piped()));
    let mut log = server.errors();
    let mut reader = Client::connect(server.front).events("/channels/news", "");
    for signal in ["USR1", "USR2", "USR1"] {
        server.signal(signal);
        let line = log.find(|line| line.as_ref().expect("text").contains("it has no effect"));
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
    let lines: Vec<String> = std::iter::once(line).chain(log).collect();
    // The counts include all refusals, the last of them when the server ends.
    for kind in ["token_invalid", "token_missing"] {
        let of_kind: Vec<&String> = lines.iter().filter(|line| line.contains(kind)).collect();
        let counts = of_kind.iter().map(|line| value(line, "count=").parse::<u32>().expect("a number"));
        assert_eq!((counts.sum(), of_kind.len()), (6, 2), "{lines:?}");
    }
    assert!(lines.iter().all(|line| !line.contains("sesame")), "{lines:?}");
    // The log names the error of a token for the operator, too.
    assert!(lines[0].contains("The token is malformed, or not signed by a key of this server"), "{}", lines[0]);
}

/// Returns the value that follows a name in a line of the log.
fn value<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, behind) = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line}"));
    behind.split(' ').next().unwrap_or_default()
}

#[test]
fn a_refusal_for_a_channel_is_logged_with_the_channel() {
    let settings = "[[rules]]\nchannels = \"closed\"\npublish = \"admin\"\n\
                    [[rules]]\nchannels = \"short\"\nmessage_bytes_max = 3\n";
    let folder = Folder::new("refusals-for-channels");
    let config = folder.write("ccomet.toml", settings).display().to_string();
    let mut server = Process::run(program(&["--log", "info", "--config", &config]).stderr(Stdio::piped()));
    let messages = r#"{"messages":[{"channel":"open","data":"x"},{"channel":"closed","data":"x"}]}"#;
    assert_eq!(Client::connect(server.front).post("/messages", messages).status, 403);
    assert_eq!(Client::connect(server.front).post("/messages", "no JSON").status, 400);
    let mut socket = Client::connect(server.front);
    socket.ask("GET", "/channels/news", UPGRADE);
    assert_eq!(socket.head().0, 101);
    socket.send(frame(0x81, r#"{"type":"publish","channel":"short","data":"long"}"#));
    server.signal("TERM");
    let lines: Vec<String> = server.errors().map(|line| line.expect("text")).collect();
    for (kind, channel) in [("message_too_large", "\"short\""), ("not_allowed", "\"closed\""), ("bad_body", "\"\"")] {
        let line = lines.iter().find(|line| line.contains(kind)).unwrap_or_else(|| panic!("{kind}: {lines:?}"));
        assert_eq!(value(line, "channel="), channel, "{line}");
    }
}

#[test]
fn refusals_of_every_api_are_logged_with_the_address_of_the_client() {
    let settings = "[front]\ntrusted_proxies = [\"127.0.0.0/8\"]\ndeny = [\"192.0.2.66\"]\n\
                    [icomet]\nauth = \"token\"\n[limits]\nsubscribes_per_address_minute = 1\nchannels_max = 2\n";
    let folder = Folder::new("refusals-of-clients");
    let config = folder.write("ccomet.toml", settings).display().to_string();
    let mut server = Process::run(program(&["--log", "info", "--config", &config]).stderr(Stdio::piped()));
    // On one connection, since each loop counts separately.
    let mut proxy = Client::connect(server.front);
    let mut ask = |client: &str, target: &str| {
        proxy.ask("GET", target, &format!("X-Forwarded-For: {client}\r\n"));
        proxy.reply().status
    };
    assert_eq!([ask("192.0.2.7", "/channels/a?wait=0"), ask("192.0.2.7", "/channels/a?wait=0")], [200, 429]);
    assert_eq!(ask("192.0.2.66", "/channels/a?wait=0"), 403);
    assert_eq!(ask("192.0.2.8", "/poll?cname=b&token=wrong"), 200, "in its own words");
    let body = "no JSON";
    let length = body.len();
    proxy.ask("POST", "/messages", &format!("X-Forwarded-For: 192.0.2.9\r\nContent-Length: {length}\r\n"));
    proxy.send(body);
    assert_eq!(proxy.reply().status, 400);
    let mut admin = Client::connect(server.admin);
    let full = (0..9).find(|n| admin.post(&format!("/channels/c{n}"), "x").status == 503);
    assert!(full.is_some(), "as many channels as may be");
    let messages = r#"{"messages":[{"channel":"one-more","data":"x"},{"channel":"and-another","data":"x"}]}"#;
    assert_eq!(admin.post("/messages", messages).status, 503, "for channels that cannot be made");
    let mut push = |n: usize| {
        admin.ask("GET", &format!("/push?cname=c{n}&content=x"), "X-Requested-With: x\r\n");
        admin.reply().status
    };
    assert!((10..30).any(|n| push(n) == 429), "as many as may be, in icomet's words");
    server.signal("TERM");
    let lines: Vec<String> = server.errors().map(|line| line.expect("text")).collect();
    for (kind, client) in [
        ("too_many_requests", "\"192.0.2.7\""),
        ("forbidden", "\"192.0.2.66\""),
        ("wrong_token", "\"192.0.2.8\""),
        ("bad_body", "\"192.0.2.9\""),
        ("channel_limit", "\"127.0.0.1:"),
    ] {
        let line = lines.iter().find(|line| line.contains(kind)).unwrap_or_else(|| panic!("{kind}: {lines:?}"));
        assert!(value(line, "client=").starts_with(client), "{line}");
    }
    let full = lines.iter().filter(|line| line.contains("channel_limit"));
    let count: u32 = full.map(|line| value(line, "count=").parse::<u32>().expect("a number")).sum();
    assert_eq!(count, 3, "the native client's, that of several messages and icomet's: {lines:?}");
}

#[test]
fn refusals_on_a_websocket_are_logged_with_the_address_that_the_proxy_named() {
    for (proxy_protocol, header) in [(false, "X-Forwarded-For: 192.0.2.7\r\n"), (true, "")] {
        let settings = format!("[front]\ntrusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = {proxy_protocol}\n");
        let folder = Folder::new("refusals-on-sockets");
        let config = folder.write("ccomet.toml", settings).display().to_string();
        let mut server = Process::run(program(&["--log", "info", "--config", &config]).stderr(Stdio::piped()));
        let mut proxy = Client::connect(server.front);
        if proxy_protocol {
            proxy.send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n");
        }
        proxy.ask("GET", "/channels/news", &format!("{UPGRADE}{header}"));
        assert_eq!(proxy.head().0, 101);
        proxy.send(frame(0x81, "no command"));
        let mut log = server.errors().map(|line| line.expect("text"));
        server.signal("TERM");
        let line = log.find(|line| line.contains("bad_command")).expect("a line");
        assert!(value(&line, "client=").starts_with("\"192.0.2.7"), "{line}");
    }
}

#[test]
fn a_log_without_a_terminal_has_no_colour_codes() {
    let mut server = Process::run(program(&["--log", "info"]).stderr(Stdio::piped()));
    server.signal("TERM");
    let lines: Vec<String> = server.errors().map(|line| line.expect("text")).collect();
    assert!(lines.iter().any(|line| line.contains("stopped")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
}

fn checked(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ccomet")).arg("config").args(arguments).output().expect("it ends")
}

#[test]
fn an_unknown_log_level_is_an_error_that_lists_the_levels() {
    let output = checked(&["--log", "loud"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("loud") && message.contains("debug"), "{message}");
}

#[test]
fn a_listener_may_be_given_by_host_name() {
    let output = checked(&["--front", "localhost:8100"]);
    let settings = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && settings.contains("listen = \"127.0.0.1:8100\""), "{output:?}");
    let output = checked(&["--front", "localhost"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("localhost"), "{message}");
}

#[test]
fn the_soft_limit_of_open_files_is_raised_and_a_hard_limit_below_the_connections_is_warned_of() {
    let program = env!("CARGO_BIN_EXE_ccomet");
    let arguments = "--front 127.0.0.1:0 --admin 127.0.0.1:0";
    let start = |more: &str| {
        let script = format!("ulimit -Sn 100 && ulimit -Hn 300 && exec {program} {arguments} {more}");
        Process::run(Command::new("sh").args(["-c", &script]).stderr(Stdio::piped()))
    };
    let below = |server: &mut Process| {
        let line = server.errors().map(|line| line.expect("text")).find(|line| line.contains("limits.connections_max"));
        line.expect("a line")
    };
    let mut server = start("");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).expect("its limits");
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(limit.split_whitespace().filter(|word| *word == "300").count(), 2, "{limit}");
    let line = below(&mut server);
    assert!(line.contains("300") && line.contains("INFO"), "nobody has chosen the default: {line}");
    let folder = Folder::new("chosen-connections");
    let config = folder.write("ccomet.toml", "[limits]\nconnections_max = 1000\n").display().to_string();
    let line = below(&mut start(&format!("--config {config}")));
    assert!(line.contains("WARN"), "{line}");
}
