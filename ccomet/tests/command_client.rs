//! `ccomet sub` and `ccomet pub`, at a server in a process of its own.

mod common;

use std::io::Write;
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
    let told = errors.next().expect("a line").expect("text");
    assert!(told.contains("; trying again in "), "{told}");
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
