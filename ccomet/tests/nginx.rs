//! Behind nginx, with the configurations of `nginx/`, which OPERATING.md shows: clients must not
//! notice the proxy.
#![cfg(target_os = "linux")] // all of 127.0.0.0/8 is loopback

#[path = "common/behind.rs"]
mod behind;
mod common;

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use behind::{Behind, make_certificate, seconds};
use ccomet::Config;
use common::{Folder, Local, config, wait_until};
use testing::process::{Process, free_address};
use testing::programs::{Need, run};
use testing::tests;
use tungstenite::Message;

fn main() -> ExitCode {
    run(tests![
        needs []; the_shown_configurations_are_the_tested_ones_and_outlast_any_silence;
        needs [Need::Program("nginx")]; no_token_is_logged;
        needs [Need::Program("nginx"), Need::Other("nginx has no stream module", has_stream)];
        messages_arrive_at_once_over_every_transport,
        a_websocket_can_publish_after_long_silence,
        heartbeats_arrive,
        a_client_that_was_cut_off_resumes,
        limits_apply_to_the_address_of_the_client
    ])
}

fn has_stream() -> bool {
    found(Kind::Stream).is_some()
}

const HTTP: &str = include_str!("../nginx/ccomet.conf");
const STREAM: &str = include_str!("../nginx/stream.conf");
const UPSTREAM: &str = include_str!("../nginx/upstream.conf");
const OPERATING: &str = include_str!("../OPERATING.md");

/// The kind of proxy that nginx is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A proxy of HTTP, which names clients by `X-Forwarded-For`.
    Http,
    /// A proxy of TCP, which names clients by the PROXY protocol.
    Stream,
}

/// nginx in a process and a folder of its own, in front of a server.
struct Nginx {
    _process: Process,
    folder: Folder,
    behind: Behind,
}

impl Nginx {
    fn start(kind: Kind, change: impl FnOnce(&mut Config)) -> Self {
        let load = found(kind).expect("nginx, and its modules");
        let mut config = config(2);
        config.front.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.front.proxy_protocol = kind == Kind::Stream;
        // No heartbeats, which could push held-back messages on.
        config.times.heartbeat_s = 3_600;
        change(&mut config);
        let server = Local::start(config);
        // No other test listens here.
        let address = free_address([127, 0, 0, 77]);
        let folder = Folder::new("nginx");
        let tls = make_certificate(&folder);
        let configuration = folder.write("nginx.conf", whole(kind, &load, &folder, address, server.front));
        let mut command = Command::new("nginx");
        command.arg("-e").arg(folder.join("log")).arg("-c").arg(configuration).arg("-p").arg(&*folder);
        // A signal ends nginx with its workers; a kill would leave them running.
        let mut process = Process::start(command.stderr(Stdio::null())).ended_by_signal();
        process.wait_for_listener(address, || std::fs::read_to_string(folder.join("log")).unwrap_or_default());
        Self { _process: process, folder, behind: Behind { address, tls, server } }
    }
}

impl Deref for Nginx {
    type Target = Behind;

    fn deref(&self) -> &Behind {
        &self.behind
    }
}

/// Returns the lines that load the modules of this kind, if nginx is installed and has them.
fn found(kind: Kind) -> Option<String> {
    let output = Command::new("nginx").arg("-V").output().ok()?;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    if kind == Kind::Http {
        return Some(String::new());
    }
    if printed.split_whitespace().any(|option| option == "--with-stream") {
        return Some(String::new());
    }
    let modules = printed.split_whitespace().find_map(|option| option.strip_prefix("--modules-path="))?;
    let module = Path::new(modules).join("ngx_stream_module.so");
    module.exists().then(|| format!("load_module {};", module.display()))
}

/// Returns a complete configuration around the shown one, with ports and paths of the test.
fn whole(kind: Kind, load: &str, folder: &Path, listen: SocketAddr, front: SocketAddr) -> String {
    let shown = if kind == Kind::Http { HTTP } else { STREAM };
    #[cfg(fault_points)]
    let shown = if kind == Kind::Http { sealed::fault::text("ccomet/nginx/ccomet.conf", shown) } else { shown };
    let mut shown = shown.to_owned();
    let place = folder.display();
    for (held, other) in [
        ("listen 443 ssl;", format!("listen {listen} ssl;")),
        ("127.0.0.1:8100", front.to_string()),
        ("/etc/ssl/comet/fullchain.pem", format!("{place}/fullchain.pem")),
        ("/etc/ssl/comet/privkey.pem", format!("{place}/privkey.pem")),
        ("/var/log/nginx/comet.log", format!("{place}/access")),
        ("/var/log/nginx/comet-error.log", format!("{place}/errors")),
    ] {
        let expected = usize::from(kind == Kind::Http || !held.starts_with("/var/log"));
        assert_eq!(shown.matches(held).count(), expected, "{held}");
        shown = shown.replace(held, &other);
    }
    if kind == Kind::Http {
        shown = format!(
            "http {{ proxy_temp_path {place}/p; client_body_temp_path {place}/c;
             fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; {shown} }}"
        );
    }
    format!("{load} daemon off; worker_processes 1; pid {place}/pid; error_log {place}/log; events {{}} {shown}")
}

fn the_shown_configurations_are_the_tested_ones_and_outlast_any_silence() {
    for configuration in [HTTP, STREAM, UPSTREAM] {
        assert!(OPERATING.contains(configuration), "OPERATING.md shows this:\n{configuration}");
    }
    let Config { times, icomet, limits, .. } = Config::default();
    let silences = [2 * times.heartbeat_s, times.poll_wait_max_s, times.classic_poll_s, icomet.polling_timeout_s];
    for limit in [seconds(HTTP, "proxy_read_timeout"), seconds(STREAM, "proxy_timeout")] {
        assert!(silences.into_iter().all(|silence| silence + 20 <= limit), "{silences:?} in {limit}");
    }
    assert!(seconds(STREAM, "proxy_timeout") > times.keep_alive_s);
    for upstream in [HTTP, UPSTREAM] {
        assert!(seconds(upstream, "keepalive_timeout") < times.keep_alive_s, "nginx gives connections up first");
    }
    assert!(HTTP.contains("client_max_body_size 2m;") && limits.request_bytes_max * 2 <= 2 * 1024 * 1024);
}

fn messages_arrive_at_once_over_every_transport() {
    for kind in [Kind::Http, Kind::Stream] {
        let nginx = Nginx::start(kind, |_| {});
        nginx.assert_prompt(&format!("{kind:?}"));
    }
}

fn a_websocket_can_publish_after_long_silence() {
    for kind in [Kind::Http, Kind::Stream] {
        let nginx = Nginx::start(kind, |_| {});
        nginx.assert_sockets_outlast_silence(&format!("{kind:?}"));
    }
}

fn heartbeats_arrive() {
    for kind in [Kind::Http, Kind::Stream] {
        let nginx = Nginx::start(kind, |config| config.times.heartbeat_s = 1);
        let mut events = nginx.client().events("/channels/news", "");
        let beats = (0..3).map(|_| events.client.chunk().expect("a heartbeat"));
        assert!(beats.into_iter().all(|beat| beat.contains("event: heartbeat")), "{kind:?}");
        let mut socket = nginx.socket("/channels/news");
        while !matches!(socket.read().expect("a sign of life"), Message::Ping(_)) {}
    }
}

fn a_client_that_was_cut_off_resumes() {
    for kind in [Kind::Http, Kind::Stream] {
        let nginx = Nginx::start(kind, |_| {});
        let mut publisher = nginx.client();
        let mut events = nginx.client().events("/channels/news", "");
        publisher.publish("news", "one");
        let one = events.next();
        drop(events);
        publisher.publish("news", "two");
        let mut events = nginx.client().events("/channels/news", &format!("Last-Event-ID: {}\r\n", one.id));
        publisher.publish("news", "three");
        assert_eq!([one.message(), events.next().message(), events.next().message()], ["one", "two", "three"]);
    }
}

fn no_token_is_logged() {
    let mut nginx = Nginx::start(Kind::Http, |_| {});
    let logged = |nginx: &Nginx| {
        ["access", "errors", "log"]
            .map(|name| std::fs::read_to_string(nginx.folder.join(name)).unwrap_or_default())
            .concat()
    };
    let fields = "Referer: https://site.example/?token=sesame\r\n";
    for (target, status) in [("/channels/news?wait=0&token=sesame", 200), ("/nothing?token=sesame", 404)] {
        let mut client = nginx.client();
        client.ask("GET", target, fields);
        assert_eq!(client.reply().status, status);
    }
    // nginx quotes requests in its log when it reaches no server.
    nginx.behind.server = Local::start(config(1));
    let mut client = nginx.client();
    client.ask("GET", "/channels/away?token=sesame", fields);
    assert_eq!(client.reply().status, 502);
    wait_until("all are logged", || {
        ["/channels/news", "/nothing", "/channels/away"].iter().all(|path| logged(&nginx).contains(path))
    });
    assert!(!logged(&nginx).contains("sesame"), "{}", logged(&nginx));
}

fn limits_apply_to_the_address_of_the_client() {
    let (ann, bob, eve) = ([127, 0, 0, 3], [127, 0, 0, 4], [127, 0, 0, 5]);
    for kind in [Kind::Http, Kind::Stream] {
        let nginx = Nginx::start(kind, |config| {
            config.front.deny = vec!["127.0.0.5/32".parse().expect("a network")];
            config.loops = 1.try_into().ok();
            config.limits.subscribes_per_address_minute = 2;
        });
        assert_eq!(nginx.status(ann, ""), 200);
        assert_eq!(nginx.status(eve, ""), 403, "{kind:?}");
        assert_eq!(nginx.status(eve, "X-Forwarded-For: 127.0.0.3\r\n"), 403, "whatever it says itself");
        assert_eq!(nginx.status(ann, "X-Forwarded-For: 127.0.0.5\r\n"), 200);
        // Limits apply to an address of loopback only if a proxy names it in a header field.
        assert_eq!(nginx.status(ann, ""), if kind == Kind::Http { 429 } else { 200 });
        assert_eq!(nginx.status(ann, "X-Forwarded-For: 192.0.2.1\r\n"), if kind == Kind::Http { 429 } else { 200 });
        assert_eq!(nginx.status(bob, ""), 200);
    }
}
