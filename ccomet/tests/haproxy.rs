//! Behind HAProxy, with the configuration of `haproxy/`, which OPERATING.md shows: clients must not
//! notice the proxy.
#![cfg(target_os = "linux")] // all of 127.0.0.0/8 is loopback

#[path = "common/behind.rs"]
mod behind;
mod common;

use std::ops::Deref;
use std::process::{Command, ExitCode, Stdio};

use behind::{Behind, make_certificate, seconds};
use ccomet::Config;
use common::{Folder, Local, config};
use testing::process::{Process, free_address};
use testing::programs::{Need, run};
use testing::tests;

fn main() -> ExitCode {
    run(tests![
        needs []; the_shown_configuration_is_the_tested_one_and_outlasts_any_silence;
        needs [Need::Program("haproxy")];
        messages_arrive_at_once_over_every_transport,
        a_websocket_can_publish_after_long_silence,
        limits_apply_to_the_address_of_the_client
    ])
}

const SHOWN: &str = include_str!("../haproxy/ccomet.cfg");
const OPERATING: &str = include_str!("../OPERATING.md");

/// HAProxy in a process and a folder of its own, in front of a server.
struct Haproxy {
    _process: Process,
    _folder: Folder,
    behind: Behind,
}

impl Deref for Haproxy {
    type Target = Behind;

    fn deref(&self) -> &Behind {
        &self.behind
    }
}

impl Haproxy {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(2);
        config.front.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        // No heartbeats, which could push held-back messages on.
        config.times.heartbeat_s = 3_600;
        change(&mut config);
        let server = Local::start(config);
        // No other test listens here.
        let address = free_address([127, 0, 0, 78]);
        let folder = Folder::new("haproxy");
        let tls = make_certificate(&folder);
        let mut shown = SHOWN.to_owned();
        for (held, other) in [
            ("bind :443 ssl", format!("bind {address} ssl")),
            ("127.0.0.1:8100", server.front.to_string()),
            ("/etc/ssl/comet/comet.pem", folder.join("comet.pem").display().to_string()),
        ] {
            assert_eq!(shown.matches(held).count(), 1, "{held}");
            shown = shown.replace(held, &other);
        }
        let configuration = folder.write("haproxy.cfg", shown);
        let log = std::fs::File::create(folder.join("log")).expect("a file");
        let mut command = Command::new("haproxy");
        // In the foreground.
        command.arg("-db").arg("-f").arg(configuration).stdout(Stdio::null()).stderr(log);
        let mut process = Process::start(&mut command);
        process.wait_for_listener(address, || std::fs::read_to_string(folder.join("log")).unwrap_or_default());
        Self { _process: process, _folder: folder, behind: Behind { address, tls, server } }
    }
}

fn the_shown_configuration_is_the_tested_one_and_outlasts_any_silence() {
    assert!(OPERATING.contains(SHOWN), "OPERATING.md shows this:\n{SHOWN}");
    let Config { times, icomet, .. } = Config::default();
    let silences = [2 * times.heartbeat_s, times.poll_wait_max_s, times.classic_poll_s, icomet.polling_timeout_s];
    for limit in ["timeout client", "timeout server", "timeout tunnel"].map(|name| seconds(SHOWN, name)) {
        assert!(silences.into_iter().all(|silence| silence + 20 <= limit), "{silences:?} in {limit}");
    }
    assert!(SHOWN.contains("\n    option http-no-delay\n"), "or events wait for each other");
}

fn messages_arrive_at_once_over_every_transport() {
    let haproxy = Haproxy::start(|_| {});
    haproxy.assert_prompt("HAProxy");
}

fn a_websocket_can_publish_after_long_silence() {
    let haproxy = Haproxy::start(|_| {});
    haproxy.assert_sockets_outlast_silence("HAProxy");
}

fn limits_apply_to_the_address_of_the_client() {
    let (ann, bob, eve) = ([127, 0, 0, 3], [127, 0, 0, 4], [127, 0, 0, 5]);
    let haproxy = Haproxy::start(|config| {
        config.front.deny = vec!["127.0.0.5/32".parse().expect("a network")];
        config.loops = 1.try_into().ok();
        config.limits.subscribes_per_address_minute = 2;
    });
    assert_eq!(haproxy.status(ann, ""), 200);
    assert_eq!(haproxy.status(eve, ""), 403);
    assert_eq!(haproxy.status(eve, "X-Forwarded-For: 127.0.0.3\r\n"), 403, "whatever it says itself");
    assert_eq!(haproxy.status(ann, "X-Forwarded-For: 127.0.0.5\r\n"), 200);
    assert_eq!([haproxy.status(ann, ""), haproxy.status(ann, "X-Forwarded-For: 192.0.2.1\r\n")], [429, 429]);
    assert_eq!(haproxy.status(bob, ""), 200);
}
