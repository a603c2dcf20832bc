//! `ccomet import-icomet`: converts a site's settings, and a server with these settings answers as
//! icomet did.

mod common;

use std::process::{Command, Output};

use ccomet::{Config, ImportError, import_icomet};
use common::{Client, Folder, Process};

/// A file with every setting.
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

fn import(text: &str) -> Output {
    let folder = Folder::new("import");
    let path = folder.write("icomet.conf", text);
    Command::new(env!("CARGO_BIN_EXE_ccomet")).arg("import-icomet").arg(path).output().expect("it runs")
}

#[test]
fn every_setting_is_converted_or_warned_of() {
    let output = import(WHOLE);
    assert!(output.status.success(), "{output:?}");
    let config: Config = toml::from_str(&String::from_utf8(output.stdout).expect("text")).expect("our settings");
    config.check().expect("fine");
    assert_eq!((config.limits.channels_max, config.limits.subscribers_per_channel_max), (1_234, 16));
    assert_eq!((config.history.messages_max, config.log.level.as_str()), (10, "debug"));
    assert_eq!((config.icomet.channel_timeout_s, config.icomet.polling_timeout_s), (31, 32));
    let allowed: Vec<String> = config.admin.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["127.0.0.1/32", "192.168.0.0/16"]);
    let warnings = String::from_utf8(output.stderr).expect("text");
    for (line, word) in [(2, "pid file"), (6, "standard error"), (8, "log"), (20, "loop"), (11, "admin.origins")] {
        let warned = warnings.lines().find(|warned| warned.contains(&format!("line {line}: ")));
        assert!(warned.is_some_and(|warned| warned.contains(word)), "line {line}: {warnings}");
    }
    assert_eq!(warnings.lines().count(), 5, "{warnings}");
    assert!(config.admin.origins.is_empty() && !config.admin.forgeable_gets, "nothing is opened that need not be");
}

#[test]
fn a_server_with_imported_settings_serves_icomets_api_only() {
    let output = import(WHOLE);
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
    assert_eq!(front.post("/messages", "{}").status, 404, "nor was it");
}

#[test]
fn malformed_lines_are_named_by_their_number() {
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

/// Tests the configuration that icomet is distributed with, and one that allows every address.
#[test]
fn settings_that_keep_a_site_working_are_set_and_warned_of() {
    let section = "front:\n\tlisten: 0.0.0.0:8100\nadmin:\n\tlisten: 0.0.0.0:8000\n";
    let own = format!("{section}\tallow: 127.0.0.1\n\tallow: 192.168\n\tdeny: all\n");
    let open = format!("{section}\tallow: all\n");
    for (text, origins, warned) in [
        (own, &[][..], ["admin.forgeable_gets = true", "admin.hosts", "list their origins in admin.origins"]),
        (open, &["*"][..], ["admin.forgeable_gets = true", "admin.hosts", "admin.origins = [\"*\"]"]),
    ] {
        let (config, warnings) = import_icomet(&text).expect("it is icomet's");
        config.check().expect("fine");
        assert!(config.admin.forgeable_gets, "back ends on other machines publish by GET");
        assert_eq!(config.admin.origins, origins, "{text}");
        for word in warned {
            let found = warnings.iter().any(|warning| warning.line == 4 && warning.text.contains(word));
            assert!(found, "{word}: {warnings:?}");
        }
    }
}

#[test]
fn denied_addresses_stay_denied() {
    let admin = |rules: &str| format!("admin:\n\tlisten: 0.0.0.0:8000\n{rules}");
    let let_in = |rules: &str, address: &str| {
        let (config, _) = import_icomet(&admin(rules)).expect("it is icomet's");
        config.check().expect("fine");
        let address: std::net::IpAddr = address.parse().expect("an address");
        let has = |networks: &[ipnet::IpNet]| networks.iter().any(|network| network.contains(&address));
        has(&config.admin.allow) && !has(&config.admin.deny)
    };
    for (rules, inside, outside) in [
        ("\tallow: all\n\tdeny: 10.1\n", "10.2.0.1", "10.1.0.1"),
        // icomet compares prefixes of addresses as text.
        ("\tallow: *\n\tdeny: 10.1\n", "10.20.0.1", "10.17.0.1"),
        ("\tallow: *\n\tdeny: 10.1\n", "10.20.0.1", "10.100.0.1"),
        ("\tallow: all\n\tdeny: 10.1.\n", "10.17.0.1", "10.1.0.1"),
        ("\tallow: all\n\tallow: 10.1\n\tdeny: all\n", "10.1.0.1", "192.0.2.1"),
        ("\tallow: all\n\tallow: 10.1\n\tdeny: *\n", "10.1.0.1", "192.0.2.1"),
        ("\tallow: 10.1\n", "10.1.0.1", "10.17.0.1"),
    ] {
        assert!(let_in(rules, inside) && !let_in(rules, outside), "{rules}");
    }
    for rules in ["\tdeny: 10.1\n", "\tdeny: all\n", "\tallow: nobody\n"] {
        assert!(!let_in(rules, "192.0.2.1") && !let_in(rules, "127.0.0.1"), "{rules}");
    }
}

#[test]
fn an_unreadable_deny_line_is_an_error() {
    for (line, what) in [
        ("\tdeny: 10.0.0.0/8", "deny: 10.0.0.0/8"),
        ("\tdeny: intruder.example", "deny: intruder.example"),
        ("\tdeny: 10.300", "deny: 10.300"),
        ("\tdeny: 10..1", "deny: 10..1"),
        ("\tdeny:", "deny: "),
        ("\tdeny 10.1", "deny 10.1"),
        // This line belongs to no section.
        ("  deny: 10.1", "deny: 10.1"),
        ("front:\n\tdeny: 10.1", "deny: 10.1"),
    ] {
        let text = format!("front:\n\tlisten: 127.0.0.1:8100\nadmin:\n\tallow: 10\n{line}\n");
        let error = import_icomet(&text).expect_err(line);
        let number = 5 + line.matches('\n').count();
        assert_eq!(error, ImportError::Deny { line: number, text: what.to_owned() }, "{line}");
        let output = import(&text);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("line {number}: ")), "{output:?}");
    }
}

#[test]
fn a_file_of_another_format_is_an_error() {
    for text in ["[front]\nlisten = 5\n", ""] {
        let output = import(text);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("not a configuration of icomet"), "{output:?}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(["import-icomet", "/nowhere/at/all"]).output();
    let missing = missing.expect("it runs");
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/at/all"));
}
