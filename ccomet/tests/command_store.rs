//! The subcommand `store`, on a real disk.
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{Client, Folder, Process, SMALL_STORE, wait_until};
use serde_json::Value;

fn server(data: &Path) -> Process {
    Process::run(&mut program(data, "warn"))
}

/// Returns the command that runs a server with a store, and logs at a level.
fn program(data: &Path, level: &str) -> Command {
    let config = data.with_extension("toml");
    fs::write(&config, SMALL_STORE).expect("settings");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "2", "--log", level, "--data"]);
    command.arg(data).arg("--config").arg(config);
    command
}

fn store(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.arg("--data").arg(data).arg("store").args(arguments).output().expect("it runs")
}

/// Runs a tool that must succeed, and returns what it prints.
fn print(data: &Path, arguments: &[&str]) -> String {
    let output = store(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a tool that must fail, and returns what it prints and its errors.
fn fail(data: &Path, arguments: &[&str]) -> String {
    let output = store(data, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Makes a store with two channels, whose server was killed.
fn filled(data: &Path) {
    let mut server = server(data);
    let mut client = Client::connect(server.front);
    for number in 0..20 {
        client.publish("news", format!("news {number}"));
        client.publish("other", format!("other {number}"));
    }
    client.publish("other", b"\xff\xfe");
    server.kill();
}

fn history(server: &Process, channel: &str) -> Vec<String> {
    let mut client = Client::connect(server.front);
    client.get(&format!("/channels/{channel}?after=oldest&wait=0")).messages()
}

/// Returns the segment that has the messages.
fn segment(data: &Path) -> PathBuf {
    data.join("0000000001.log")
}

#[test]
fn a_whole_store_is_checked_counted_and_printed() {
    let folder = Folder::new("whole");
    let data = folder.join("data");
    filled(&data);
    assert_eq!(print(&data, &["check"]), "nothing is wrong\n");
    let stats = print(&data, &["stats"]);
    assert!(
        stats.contains("channels                 2\n") && stats.contains("messages                 41\n"),
        "{stats}"
    );
    let lines: Vec<Value> =
        print(&data, &["dump"]).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 41);
    assert_eq!((&lines[0]["channel"], &lines[0]["data"]), (&"news".into(), &"news 0".into()));
    assert_eq!((&lines[40]["channel"], &lines[40]["data_base64"]), (&"other".into(), &"//4=".into()));
    assert_eq!(print(&data, &["dump", "news"]).lines().count(), 20);
    // The positions are those of the clients.
    let server = server(&data);
    let position = lines[10]["position"].as_str().expect("a position");
    let reply = Client::connect(server.front).get(&format!("/channels/news?after={position}&wait=0"));
    assert_eq!(reply.messages()[0], "news 11");
    for tool in [&["check"][..], &["stats"], &["dump"], &["salvage", "there"]] {
        let error = fail(&data, tool);
        assert!(error.contains("another process uses the store"), "{error}");
    }
}

#[test]
fn a_directory_without_a_store_is_refused_and_not_made() {
    let folder = Folder::new("none");
    let data = folder.join("data");
    for tool in [&["check"][..], &["dump"], &["salvage", "there"], &["backup", "there"]] {
        let error = fail(&data, tool);
        assert!(error.contains("there is no store in"), "{error}");
    }
    assert!(!data.exists());
    let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(["store", "check"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--data"), "{output:?}");
}

#[test]
fn dumping_a_channel_that_does_not_exist_is_an_error_that_names_it() {
    let folder = Folder::new("unknown");
    let data = folder.join("data");
    filled(&data);
    let error = fail(&data, &["dump", "nosuch"]);
    assert!(error.contains("has no channel \"nosuch\""), "{error}");
}

#[test]
fn a_start_that_creates_a_store_is_logged() {
    let folder = Folder::new("created");
    let data = folder.join("data");
    let created = format!("created a new store in {}", data.display());
    for is_first in [true, false] {
        let mut server = Process::run(program(&data, "info").stderr(Stdio::piped()));
        let lines = server.errors().map(|line| line.expect("text"));
        let log: Vec<String> = lines.take_while(|line| !line.contains("serving")).collect();
        assert_eq!(log.iter().any(|line| line.contains(&created)), is_first, "{log:?}");
        server.kill();
    }
}

#[test]
fn each_subcommand_lists_the_options_that_it_uses_and_no_others() {
    const ALL: [&str; 8] = ["--config", "--front", "--admin", "--data", "--redis", "--loops", "--log", "--open-front"];
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(arguments).arg("--help").output();
        String::from_utf8(output.expect("it runs").stdout).expect("text")
    };
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &ALL),
        (&["config"], &ALL),
        (&["token"], &["--config"]),
        (&["import-icomet"], &[]),
        (&["store"], &["--data", "--config"]),
        (&["store", "check"], &["--data", "--config"]),
        (&["store", "backup"], &["--data", "--config"]),
    ];
    for (command, expected) in cases {
        let text = help(command);
        for option in ALL {
            let is_listed = text
                .lines()
                .map(|line| line.trim_start().trim_start_matches("-c, "))
                .any(|line| line.starts_with(&format!("{option} ")) || line == option);
            assert_eq!(is_listed, expected.contains(&option), "{option} of {command:?}: {text}");
        }
    }
}

#[test]
fn the_directory_is_named_before_or_after_the_tool_or_by_the_settings() {
    let folder = Folder::new("named");
    let data = folder.join("data");
    filled(&data);
    let data_text = data.to_str().expect("a path");
    let config = folder.write("store.toml", format!("[store]\npath = {data_text:?}\n"));
    let config = config.to_str().expect("a path");
    for arguments in [
        &["--data", data_text, "store", "check"][..],
        &["store", "--data", data_text, "check"],
        &["store", "check", "--data", data_text],
        &["--config", config, "store", "check"],
        &["store", "check", "--config", config],
        // The directory beside the tool takes precedence.
        &["--data", "/nowhere", "store", "check", "--data", data_text],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(arguments).output().expect("it runs");
        assert_eq!(output.stdout, b"nothing is wrong\n", "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_changed_byte_is_found_and_the_rest_is_salvaged() {
    let folder = Folder::new("changed");
    let (data, new) = (folder.join("data"), folder.join("new"));
    filled(&data);
    let bytes = fs::read(segment(&data)).expect("a segment");
    let place = bytes.windows(6).position(|window| window == b"news 7").expect("a message");
    let file = fs::OpenOptions::new().write(true).open(segment(&data)).expect("a segment");
    file.write_all_at(b"X", place as u64).expect("written");
    let found = fail(&data, &["check"]);
    assert!(found.contains("0000000001.log at byte"), "{found}");
    let to = new.to_str().expect("a path");
    let lost = print(&data, &["salvage", to]);
    assert!(
        lost.contains("lost: 0000000001.log at byte") && lost.contains("lost: channel news: message numbers 7\n"),
        "{lost}"
    );
    assert!(lost.contains("2 channels with 40 messages"), "{lost}");
    assert!(fail(&data, &["salvage", to]).contains("exists already"));
    assert_eq!(print(&new, &["check"]), "nothing is wrong\n");
    let server = server(&new);
    let expected: Vec<String> = (0..20).filter(|number| *number != 7).map(|number| format!("news {number}")).collect();
    assert_eq!(history(&server, "news"), expected);
    assert_eq!(history(&server, "other").len(), 21);
    Client::connect(server.front).publish("news", "more");
}

#[test]
fn a_cut_segment_and_a_missing_index_are_found() {
    let folder = Folder::new("cut");
    let data = folder.join("data");
    filled(&data);
    // After a start, the index has all messages.
    server(&data).kill();
    let length = fs::metadata(segment(&data)).expect("a segment").len();
    let file = fs::OpenOptions::new().write(true).open(segment(&data)).expect("a segment");
    file.set_len(length - 100).expect("cut");
    assert!(fail(&data, &["check"]).contains("0000000001.log"));

    fs::remove_file(data.join("index.redb")).expect("an index");
    assert!(fail(&data, &["check"]).contains("no index"));
    let new = folder.join("new");
    print(&data, &["salvage", new.to_str().expect("a path")]);
    let server = server(&new);
    assert_eq!(history(&server, "news").len(), 20);
    assert!((18..21).contains(&history(&server, "other").len()));
}

#[test]
fn a_changed_row_of_the_index_makes_its_channel_unavailable() {
    let folder = Folder::new("row");
    let data = folder.join("data");
    filled(&data);
    // After a start, the index has all messages.
    server(&data).kill();
    let index = data.join("index.redb");
    let mut bytes = fs::read(&index).expect("an index");
    // The numbers of the oldest and of the next message, 24 bytes before the name.
    let numbers: Vec<u8> = [0, 20].into_iter().flat_map(u64::to_le_bytes).collect();
    let begins = (0..bytes.len() - 44).filter(|begin| bytes[*begin..].starts_with(&numbers));
    let begins: Vec<usize> = begins.filter(|begin| bytes[begin + 40..].starts_with(b"news")).collect();
    assert!(!begins.is_empty());
    for begin in begins {
        bytes[begin + 10] ^= 1;
    }
    fs::write(&index, bytes).expect("written");
    let mut damaged = server(&data);
    for _ in 0..2 {
        let mut client = Client::connect(damaged.front);
        assert_eq!(client.post("/channels/news", "more").status, 503);
        assert_eq!(client.get("/channels/news?after=oldest&wait=0").status, 503);
        assert_eq!(client.post("/channels/other", "more").status, 200);
    }
    damaged.kill();
    assert!(fail(&data, &["check"]).contains("index.redb"));
    let new = folder.join("new");
    assert!(print(&data, &["salvage", new.to_str().expect("a path")]).contains("2 channels with 43 messages"));
    assert_eq!(history(&server(&new), "news").len(), 20);
}

#[test]
fn a_new_store_is_not_made_in_the_directory_of_the_old_one_or_over_a_link() {
    let folder = Folder::new("inside");
    let data = folder.join("data");
    filled(&data);
    let link = folder.join("link");
    std::os::unix::fs::symlink(folder.join("nothing"), &link).expect("a link");
    for tool in ["backup", "salvage"] {
        for inside in ["copy", "deep/copy"] {
            let error = fail(&data, &[tool, data.join(inside).to_str().expect("a path")]);
            assert!(error.contains("is in the directory of the store"), "{error}");
        }
        let error = fail(&data, &[tool, link.to_str().expect("a path")]);
        assert!(error.contains("exists already"), "{error}");
    }
    assert!(!data.join("copy.partial").exists() && !data.join("deep").exists());
}

#[test]
fn the_tools_leave_no_locks_in_a_store_without_them() {
    let folder = Folder::new("locks");
    let data = folder.join("data");
    filled(&data);
    let locks = ["lock", "index.lock"].map(|name| data.join(name));
    for lock in &locks {
        fs::remove_file(lock).expect("a lock");
    }
    let to = |name: &str| folder.join(name).to_str().expect("a path").to_owned();
    let (copy, new) = (to("copy"), to("new"));
    for tool in [&["check"][..], &["stats"], &["dump"], &["backup", &copy], &["salvage", &new]] {
        print(&data, tool);
        assert!(locks.iter().all(|lock| !lock.exists()), "{tool:?}");
    }
    assert_eq!(history(&server(&data), "news").len(), 20);
}

#[test]
fn a_path_that_is_no_directory_is_explained() {
    let folder = Folder::new("path");
    let file = folder.write("file", "text");
    let link = folder.join("link");
    std::os::unix::fs::symlink(folder.join("nothing"), &link).expect("a link");
    for data in [file, link] {
        let output = program(&data, "error").output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("it is a file, or a symbolic link"), "{error}");
    }
}

#[test]
fn files_with_names_that_no_segment_has_are_left_alone() {
    let folder = Folder::new("names");
    let data = folder.join("data");
    filled(&data);
    for name in ["1.log", "7.log", "00000000001.log", "+000000001.log"] {
        fs::write(data.join(name), "something else").expect("a file");
    }
    assert_eq!(print(&data, &["check"]), "nothing is wrong\n");
    assert_eq!(history(&server(&data), "news").len(), 20);
    assert!(data.join("7.log").exists());
}

#[test]
fn a_copy_that_is_made_under_load_is_a_store() {
    let folder = Folder::new("load");
    let data = folder.join("data");
    let running = server(&data);
    let (accepted, is_over) = ([const { AtomicUsize::new(0) }; 3], AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (index, accepted) in accepted.iter().enumerate() {
            let (front, is_over) = (running.front, &is_over);
            scope.spawn(move || {
                let (mut client, padding) = (Client::connect(front), "x".repeat(8_000));
                while !is_over.load(Ordering::Relaxed) {
                    let number = accepted.load(Ordering::Relaxed);
                    client.publish(&format!("load{index}"), format!("{number} {padding}"));
                    accepted.store(number + 1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..5 {
            // Some segments are full by now.
            let published = || accepted.iter().map(|accepted| accepted.load(Ordering::Relaxed)).sum::<usize>();
            wait_until("more is published", || published() > (round + 1) * 150);
            let to = folder.join(format!("copy{round}"));
            let before: Vec<usize> = accepted.iter().map(|accepted| accepted.load(Ordering::Relaxed)).collect();
            print(&data, &["backup", to.to_str().expect("a path")]);
            let server = server(&to);
            for (index, before) in before.into_iter().enumerate() {
                let mut client = Client::connect(server.front);
                let (mut after, mut count) = ("oldest".to_owned(), 0);
                loop {
                    let reply = client.get(&format!("/channels/load{index}?after={after}&wait=0"));
                    let messages = reply.messages();
                    if messages.is_empty() {
                        break;
                    }
                    for message in messages {
                        assert_eq!(message.split(' ').next(), Some(count.to_string().as_str()));
                        count += 1;
                    }
                    after = reply.position();
                }
                assert!(count >= before, "the copy has {count} messages of {before}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
