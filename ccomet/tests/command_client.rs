//! `ccomet sub` and `ccomet pub`, at a server in a process of its own.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use common::Process;
use serde_json::Value;
use testing::process;

/// A server with one channel that needs a token, and keys for it.
const GUARDED: &str = "
[auth]
keys = [{ id = 'main', algorithm = 'HS256', secret = '0123456789abcdef0123456789abcdef' }]
[auth.anonymous]
subscribe = ['open.*']
publish = ['open.*']
";

fn server(settings: &str) -> Process {
    Process::start(settings, &[])
}

/// Makes a command of the program, for the front of a server.
fn command(server: &Process, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args([name, "--server", &format!("http://{}", server.front)]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, with this standard input.
fn run(server: &Process, name: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = command(server, name, arguments).spawn().expect("it starts");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// Expects a command to succeed, and returns the lines that it has printed.
fn lines(server: &Process, name: &str, arguments: &[&str], input: &str) -> Vec<String> {
    let output = run(server, name, arguments, input);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// Expects a command to fail, and returns its message.
fn failure(server: &Process, name: &str, arguments: &[&str]) -> String {
    let output = run(server, name, arguments, "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn what_pub_publishes_is_what_sub_prints() {
    let server = server("");
    let position = lines(&server, "pub", &["news", "one"], "");
    assert_eq!(position.len(), 1, "{position:?}");
    lines(&server, "pub", &["news", "--event", "edited"], "two\nlines");
    let numbers = lines(&server, "pub", &["-l", "news"], "three\r\nfour\n\nsix");
    assert_eq!(numbers.len(), 4, "a position for each line: {numbers:?}");

    let raw = lines(&server, "sub", &["--raw", "--after", "oldest", "-n", "6", "news"], "");
    assert_eq!(raw, ["one", "two", "lines", "three", "four", "", "six"]);
    let readable = lines(&server, "sub", &["--after", &position[0], "-n", "1", "news"], "");
    assert!(readable[0].ends_with("Z  news [edited]  two\\nlines"), "{readable:?}");
    let json = lines(&server, "sub", &["--json", "--last", "1", "-n", "1", "news"], "");
    let item: Value = serde_json::from_str(&json[0]).expect("JSON");
    assert_eq!((&item["type"], &item["data"]), (&"message".into(), &"six".into()));
    assert_eq!(item["position"], *numbers[3]);
}

#[test]
fn channels_may_be_several_and_have_any_name() {
    let server = server("");
    let names = "a/b,grün und blau";
    let printed = lines(&server, "pub", &[names, "both"], "");
    assert!(printed[0].starts_with("a/b\t") && printed[1].starts_with("grün und blau\t"), "{printed:?}");
    let raw = lines(&server, "sub", &["--raw", "--after", "oldest", "-n", "2", "a/b", "grün und blau"], "");
    assert_eq!(raw, ["both", "both"]);
    let url = format!("http://{}/channels/a%2Fb", server.admin);
    assert_eq!(lines(&server, "sub", &["--raw", "--last", "1", "-n", "1", &url], ""), ["both"]);
    let pattern = format!("http://{}/channels/a*", server.admin);
    assert_eq!(lines(&server, "pub", &[&pattern, "all"], ""), ["a*\t1 channels"]);
}

#[test]
fn a_message_with_a_key_is_published_once() {
    let server = server("");
    let first = lines(&server, "pub", &["news", "once", "--key", "k"], "");
    assert_eq!(lines(&server, "pub", &["news", "once", "--key", "k"], ""), first);
    let failed = failure(&server, "pub", &["news", "other", "--key", "k"]);
    assert!(failed.contains("(422 key_reused)"), "{failed}");
    let two = lines(&server, "pub", &["news", "-l", "--key", "l"], "one\ntwo\n");
    assert_eq!(lines(&server, "pub", &["news", "-l", "--key", "l"], "one\ntwo\n"), two);
}

#[test]
fn a_refusal_has_the_words_of_the_server_and_the_status_1() {
    let mut server = server(GUARDED);
    let missing = failure(&server, "pub", &["closed", "x"]);
    assert!(missing.starts_with("ccomet: ") && missing.ends_with("(401 token_missing)\n"), "{missing}");
    let invalid = failure(&server, "sub", &["closed", "--token", "x"]);
    assert!(invalid.ends_with("(401 token_invalid)\n"), "{invalid}");
    lines(&server, "pub", &["open.x", "for all"], "");
    let line = {
        let mut child = command(&server, "pub", &["open.x,closed", "-l"]).spawn().expect("it starts");
        child.stdin.take().expect("its input").write_all(b"one\ntwo\n").expect("it reads");
        String::from_utf8(child.wait_with_output().expect("it ends").stderr).expect("UTF-8")
    };
    assert!(line.starts_with("ccomet: line 1 is not published: "), "{line}");

    server.kill();
    for name in ["pub", "sub"] {
        let unreachable = failure(&server, name, &["x"]);
        let address = server.front.to_string();
        assert!(unreachable.contains(&address) && unreachable.contains("cannot connect"), "{unreachable}");
    }
}

#[test]
fn a_token_from_a_file_counts() {
    let folder = testing::Folder::new("ccomet-token");
    let settings = folder.write("ccomet.toml", GUARDED);
    let make = Command::new(env!("CARGO_BIN_EXE_ccomet"))
        .args(["token", "--subscribe", "closed", "--publish", "closed", "--config"])
        .arg(settings)
        .output()
        .expect("it runs");
    let token = folder.write("token", String::from_utf8(make.stdout).expect("a token"));
    let token = token.to_str().expect("UTF-8");
    let server = server(GUARDED);
    lines(&server, "pub", &["closed", "secret", "--token-file", token], "");
    let read = lines(&server, "sub", &["closed", "--raw", "--last", "1", "-n", "1", "--token-file", token], "");
    assert_eq!(read, ["secret"]);
}

#[test]
fn sub_resumes_after_a_break_and_prints_what_was_missed() {
    let mut server = server("");
    lines(&server, "pub", &["news", "before"], "");
    let mut subscriber =
        process::Process::start(&mut command(&server, "sub", &["--after", "oldest", "-n", "2", "news"]));
    let (mut printed, mut errors) = (subscriber.output(), subscriber.errors());
    assert!(printed.next().expect("a line").expect("text").ends_with("news  before"));
    server.restart();
    let notice = errors.next().expect("a line").expect("text");
    assert!(notice.contains("; trying again in "), "{notice}");
    // A server that keeps messages in memory has forgotten its channels.
    let gap = printed.next().expect("a line").expect("text");
    assert_eq!(gap, "news  --- gap: messages may have been missed");
    lines(&server, "pub", &["news", "after"], "");
    assert!(printed.next().expect("a line").expect("text").ends_with("news  after"));
    assert!(subscriber.wait().success());
}

#[test]
fn sub_ends_well_with_the_channel_and_with_a_signal() {
    let server = server("");
    lines(&server, "pub", &["news", "hello"], "");
    for by_signal in [true, false] {
        let mut subscriber = process::Process::start(&mut command(&server, "sub", &["--last", "1", "news"]));
        let mut printed = subscriber.output();
        assert!(printed.next().expect("a line").expect("text").ends_with("news  hello"));
        if by_signal {
            subscriber.signal("INT");
            let hint = subscriber.errors().next().expect("a line").expect("text");
            assert!(hint.starts_with("ccomet: to continue from here: --after "), "{hint}");
        } else {
            let mut admin = common::Client::connect(server.admin);
            admin.ask("DELETE", "/channels/news", "");
            assert_eq!(admin.reply().status, 204);
            assert_eq!(printed.next().expect("a line").expect("text"), "news  --- closed");
        }
        assert!(subscriber.wait().success());
    }
}

/// Expects options to be refused, and returns the message.
fn misuse(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(arguments).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn lines_are_published_over_a_restart_of_the_server() {
    let mut server = server("");
    let mut publisher = command(&server, "pub", &["-l", "news"]).spawn().expect("it starts");
    let mut input = publisher.stdin.take().expect("its input");
    let mut printed = BufReader::new(publisher.stdout.take().expect("its output")).lines();
    input.write_all(b"one\n").expect("it reads");
    printed.next().expect("a line").expect("text");
    // The connection ends while no line is under way.
    server.restart();
    input.write_all(b"two\n").expect("it reads");
    drop(input);
    let position = printed.next().expect("a line").expect("text");
    assert!(position.contains('-'), "{position}");
    assert!(publisher.wait().expect("its end").success());
    assert_eq!(lines(&server, "sub", &["--raw", "--after", "oldest", "-n", "1", "news"], ""), ["two"]);
}

/// Reads a request, and returns its key.
fn key_of_request(input: &mut BufReader<TcpStream>) -> String {
    let (mut key, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        assert!(input.read_line(&mut line).expect("a request") > 0);
        if line == "\r\n" {
            input.read_exact(&mut vec![0; length]).expect("a body");
            return key;
        }
        let (name, value) = line.trim_end().split_once(": ").unwrap_or_default();
        match &*name.to_ascii_lowercase() {
            "idempotency-key" => value.clone_into(&mut key),
            "content-length" => length = value.parse().expect("a number"),
            _ => {}
        }
    }
}

#[test]
fn a_line_without_an_answer_is_sent_again_with_its_key() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/channels/news", listener.local_addr().expect("an address"));
    let keys = std::thread::spawn(move || {
        let mut keys = Vec::new();
        let answer = |input: &mut BufReader<TcpStream>| {
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"position\":\"P\"}";
            input.get_mut().write_all(text.as_bytes()).expect("an answer");
        };
        let mut first = BufReader::new(listener.accept().expect("a connection").0);
        keys.push(key_of_request(&mut first));
        answer(&mut first);
        keys.push(key_of_request(&mut first));
        drop(first);
        let mut second = BufReader::new(listener.accept().expect("a connection").0);
        keys.push(key_of_request(&mut second));
        answer(&mut second);
        keys
    });
    let mut publish = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    publish.args(["pub", "-l", &url]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = publish.spawn().expect("it starts");
    child.stdin.take().expect("its input").write_all(b"one\ntwo\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let keys = keys.join().expect("keys");
    assert!(!keys[0].is_empty() && keys[0] != keys[1] && keys[1] == keys[2], "{keys:?}");
}

/// Returns the position that a command names at its end.
fn continuation(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    let hint = errors.lines().find_map(|line| line.strip_prefix("ccomet: to continue from here: --after "));
    hint.unwrap_or_else(|| panic!("no position: {errors}")).to_owned()
}

#[test]
fn the_position_to_continue_from_is_the_one_after_the_last_message() {
    let server = server("");
    for number in 1..=3 {
        lines(&server, "pub", &["pa", &format!("a{number}")], "");
        lines(&server, "pub", &["pb", &format!("b{number}")], "");
    }
    for channels in [["pa", "pb"].as_slice(), &["pa"]] {
        let (mut after, mut all) = ("oldest".to_owned(), Vec::new());
        for _ in 0..channels.len() * 3 {
            let arguments = [&["--raw", "-n", "1", "--after", &after], channels].concat();
            let output = run(&server, "sub", &arguments, "");
            assert!(output.status.success(), "{output:?}");
            all.push(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
            after = continuation(&output);
        }
        all.sort_unstable();
        assert_eq!(all, ["a1", "a2", "a3", "b1", "b2", "b3"][..channels.len() * 3]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_message_that_was_not_written_comes_again() {
    let server = server("");
    lines(&server, "pub", &["news", "one"], "");
    let mut subscribe = command(&server, "sub", &["--after", "oldest", "news"]);
    subscribe.stdout(File::options().write(true).open("/dev/full").expect("a device"));
    let output = subscribe.output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let after = continuation(&output);
    assert_eq!(lines(&server, "sub", &["--raw", "--after", &after, "-n", "1", "news"], ""), ["one"]);
}

#[test]
fn what_is_not_meant_is_refused() {
    let option = misuse(&["--front", ":20105", "sub", "news"]);
    assert!(option.contains("--front is an option of the server"), "{option}");
    let file = misuse(&["-c", "p.toml", "pub", "news", "x"]);
    assert!(file.contains("--config is an option of the server"), "{file}");
    let url = misuse(&["pub", "localhost:21001/channels/news", "x"]);
    assert!(url.contains("the URL is http://localhost:21001/channels/news"), "{url}");
    let ttl = misuse(&["pub", "news", "x", "--ttl", "1x"]);
    assert!(ttl.contains("unknown unit"), "{ttl}");
    for command in [["pub", "http://nosuch.invalid/channels/x"], ["sub", "http://nosuch.invalid/channels/x"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(command).stdin(Stdio::null()).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no such host"), "{output:?}");
    }
}

#[test]
fn the_examples_of_the_commands_fit_narrow_terminals() {
    for name in ["sub", "pub", "bench", "top"] {
        let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args([name, "--help"]).output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let (_, examples) = text.split_once("Examples:\n").expect("examples");
        for line in examples.lines().take_while(|line| !line.is_empty()) {
            assert!(line.starts_with("  ") && line.len() < 80, "{name}: {line}");
        }
    }
}
