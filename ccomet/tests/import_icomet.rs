//! `ccomet import-icomet`: a site's settings go over, and a server that has them answers as icomet did.

mod common;

use std::process::{Command, Output};

use ccomet::{Config, import_icomet};
use common::{Client, Process};

/// All that such a file can say.
const WHOLE: &str = "\
# a site's own
pidfile = /var/run/icomet.pid

logger:
\tlevel: debug
\toutput: /var/log/icomet.log
\trotate:
\t\tsize: 1000000000

admin:
\tlisten: 127.0.0.1:0
\tallow: 127.0.0.1
\tallow: 192.168
\tdeny: all

front:
\tlisten: 127.0.0.1:0
\tauth: token
\tmax_channels: 1234
\tmax_subscribers_per_channel: 16
\tchannel_buffer_size: 10
\tchannel_timeout: 31
\tpolling_timeout: 32
";

fn import(name: &str, text: &str) -> Output {
    let path = std::env::temp_dir().join(format!("ccomet-{}-{name}.conf", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).arg("import-icomet").arg(&path).output().expect("it runs");
    let _ = std::fs::remove_file(&path);
    output
}

#[test]
fn every_setting_goes_over_or_is_warned_of() {
    let output = import("whole", WHOLE);
    assert!(output.status.success(), "{output:?}");
    let config: Config = toml::from_str(&String::from_utf8(output.stdout).expect("text")).expect("our settings");
    config.check().expect("fine");
    assert_eq!((config.limits.channels_max, config.limits.subscribers_per_channel_max), (1_234, 16));
    assert_eq!((config.history.messages_max, config.log.level.as_str()), (10, "debug"));
    assert_eq!((config.icomet.channel_timeout_s, config.icomet.polling_timeout_s), (31, 32));
    let allowed: Vec<String> = config.admin.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["127.0.0.1/32", "192.168.0.0/16"]);
    let warnings = String::from_utf8(output.stderr).expect("text");
    for (line, word) in [(2, "pid file"), (6, "standard error"), (8, "log"), (20, "loop")] {
        let told = warnings.lines().find(|told| told.contains(&format!("line {line}: ")));
        assert!(told.is_some_and(|told| told.contains(word)), "line {line}: {warnings}");
    }
    assert_eq!(warnings.lines().count(), 4, "{warnings}");
}

#[test]
fn a_server_with_them_speaks_icomets_api_and_no_other() {
    let output = import("served", WHOLE);
    let server = Process::start(&String::from_utf8(output.stdout).expect("text"), &[]);
    let mut admin = Client::connect(server.admin);
    let sign = admin.get("/sign?cname=news").json();
    assert_eq!((&sign["type"], &sign["sub_timeout"]), (&"sign".into(), &32.into()));
    assert_eq!(admin.get("/push?cname=news&content=hello").status, 200);
    let token = sign["token"].as_str().expect("a token");
    let mut front = Client::connect(server.front);
    let poll = front.get(&format!("/poll?cname=news&seq=1&token={token}"));
    assert!(poll.text().contains("hello"), "{poll:?}");
    assert!(front.get("/poll?cname=news&seq=1").text().contains("401"), "a token is needed");
    let classic = "/subscribe?channel=news&sname=x&seqid=0&callback=f";
    for target in ["/channels/news?after=oldest&wait=0", classic, "/"] {
        assert_eq!(front.get(target).status, 404, "{target} was not there before");
    }
    for target in ["/channels", "/channels/news/history"] {
        assert_eq!(admin.get(target).status, 404, "{target} was not there before");
    }
    assert_eq!(front.post("/messages", "{}").status, 405, "nor was it");
}

#[test]
fn what_is_malformed_is_named_by_its_line() {
    let text = "front:\n\tlisten: here\n  auth: maybe\n\tmax_channels: many\n\tcolor: red\nadmin:\n\tallow: 10.1\n\tallow: x\nword\n";
    let (config, warnings) = import_icomet(text).expect("it is icomet's");
    config.check().expect("what is left is fine");
    let lines: Vec<usize> = warnings.iter().map(|warning| warning.line).collect();
    for line in [2, 3, 4, 5, 7, 8, 9] {
        assert!(lines.contains(&line), "{line}: {warnings:?}");
    }
    let open = "front:\n\tlisten: 0.0.0.0:8100\nadmin:\n\tlisten: 0.0.0.0:8000\n";
    let (config, warnings) = import_icomet(open).expect("it is icomet's");
    config.check().expect("fine");
    assert!(config.front.open && !config.admin.allow.is_empty());
    assert!(warnings.iter().any(|warning| warning.line == 2 && warning.text.contains("open")), "{warnings:?}");
}

#[test]
fn what_is_not_icomets_is_an_error() {
    for (name, text) in [("toml", "[front]\nlisten = 5\n"), ("nothing", "")] {
        let output = import(name, text);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("not a configuration of icomet"), "{output:?}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(["import-icomet", "/nowhere/at/all"]).output();
    let missing = missing.expect("it runs");
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/at/all"));
}
