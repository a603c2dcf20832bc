//! The connection to a real Redis: every way to it, and what the log says of a Redis that does not
//! fit.

mod common;

use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

use common::redis::Redis;
use common::{Folder, wait_until};
use testing::process::free_address;
use testing::programs::{Need, run};
use testing::tests;

fn main() -> ExitCode {
    run(tests![
        needs [];
        settings_that_name_no_redis_are_refused_without_their_secrets;
        needs [Need::Program("redis-server")];
        the_server_connects_by_tcp_unix_socket_and_tls,
        a_user_needs_permissions_and_the_log_names_them,
        a_redis_that_does_not_fit_is_refused_until_it_fits,
        a_lost_connection_is_made_anew_and_logged_once
    ])
}

/// The address of each Redis.
const IP: [u8; 4] = [127, 0, 0, 79];

/// A server that uses a Redis, and its log.
struct Server {
    _process: common::Process,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(url: &str, settings: &str) -> Self {
        let folder = Folder::new("ccomet");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
        command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "2", "--redis", url, "--config"]);
        command.arg(folder.write("ccomet.toml", settings));
        let mut process = common::Process::run(command.stderr(Stdio::piped()));
        let (lines, log) = (process.errors(), Arc::new(Mutex::new(Vec::new())));
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().expect("no panic while it is held").push(line);
            }
        });
        Self { _process: process, log }
    }

    fn count(&self, text: &str) -> usize {
        self.log.lock().expect("no panic while it is held").iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until the log has a line with a text.
    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_until(&format!("the log has {text:?}"), || self.count(text) > 0);
    }

    fn forget(&self) {
        self.log.lock().expect("no panic while it is held").clear();
    }
}

const CONNECTED: &str = "connected to Redis";

fn settings_that_name_no_redis_are_refused_without_their_secrets() {
    for (arguments, error) in [
        (&["--redis", "http://ann:sesame@cache"][..], "has another scheme than redis://, rediss:// and unix://"),
        (&["--redis", "redis://ann:sesame@cache:x"], "redis://(secret)@cache:x\" has a malformed port"),
        (&["--redis", "redis://cache", "--data", "/nowhere"], "store.path and store.redis are both set"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).args(arguments).output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(error), "{errors}");
        assert!(!errors.contains("sesame"), "{errors}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    let output = command.arg("config").env("CCOMET_STORE_REDIS", "redis://ann:sesame@cache/1").output();
    let printed = String::from_utf8(output.expect("it runs").stdout).expect("text");
    assert!(printed.contains("redis = \"redis://(secret)@cache/1\"") && !printed.contains("sesame"), "{printed}");
}

fn the_server_connects_by_tcp_unix_socket_and_tls() {
    let folder = Folder::new("certificates");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificate = folder.write("redis.pem", made.cert.pem());
    let key = folder.write("redis.key", made.signing_key.serialize_pem());
    let secure = free_address([127, 0, 0, 1]);
    let text = |path: &std::path::Path| path.display().to_string();
    let mut redis = Redis::start(
        IP,
        &[
            "--requirepass",
            "ses/ame",
            "--tls-port",
            &secure.port().to_string(),
            "--tls-cert-file",
            &text(&certificate),
            "--tls-key-file",
            &text(&key),
            "--tls-ca-cert-file",
            &text(&certificate),
            "--tls-auth-clients",
            "no",
            "--bind",
            "127.0.0.1",
            "127.0.0.79",
        ],
    );
    redis.wait();
    let ca = format!("[store]\nredis_ca = {:?}\n", text(&certificate));
    let socket = text(&redis.folder.join("redis.sock"));
    for (url, settings) in [
        (format!("redis://:ses%2Fame@{}", redis.address), ""),
        (format!("redis://default:ses%2Fame@{}/15", redis.address), ""),
        (format!("unix://:ses%2Fame@{socket}?db=3"), ""),
        (format!("rediss://:ses%2Fame@localhost:{}", secure.port()), &ca),
    ] {
        let server = Server::start(&url, settings);
        server.wait_for(CONNECTED);
        assert_eq!((server.count("ERROR"), server.count("ame@")), (0, 0), "{url}");
    }
    for (url, settings, fault) in [
        (format!("redis://{}", redis.address), "", "requires a password"),
        (format!("redis://:other@{}", redis.address), "", "refuses the user or the password"),
        (format!("redis://:ses%2Fame@{}/99", redis.address), "", "does not have the database of store.redis"),
        (format!("rediss://:ses%2Fame@localhost:{}", secure.port()), "", "check whether it speaks TLS"),
        (format!("rediss://:ses%2Fame@{}", redis.address), &ca, "Redis at 127.0.0.79"),
        (format!("redis://:ses%2Fame@localhost:{}", secure.port()), "", "Redis at localhost"),
        ("unix:///nowhere/redis.sock".to_owned(), "", "the path of the socket"),
    ] {
        let server = Server::start(&url, settings);
        server.wait_for(fault);
        assert_eq!((server.count(CONNECTED), server.count("ame@")), (0, 0), "{url}");
    }
}

fn a_user_needs_permissions_and_the_log_names_them() {
    let all = "on >sesame ~ccomet:* &* -@all +hello +info +select +ping +fcall +subscribe +unsubscribe +psubscribe \
               +punsubscribe +function|load";
    let without = |permission: &str| all.replace(permission, "");
    let redis = Redis::start(IP, &[]);
    let set_user = |rules: &str| assert_eq!(redis.command(&format!("ACL SETUSER ann reset {rules}")), "+OK");
    for (rules, fault) in [
        (without("+info"), "does not allow INFO"),
        (without("+function|load"), "give the user +function|load"),
        (without(" &*"), "does not allow SUBSCRIBE"),
        (all.replace("&*", "&ccomet:*"), "does not allow PSUBSCRIBE"),
    ] {
        set_user(&rules);
        let server = Server::start(&format!("redis://ann:sesame@{}", redis.address), "");
        server.wait_for(fault);
        set_user(all);
        server.wait_for(CONNECTED);
        assert_eq!(server.count("sesame"), 0);
    }
}

fn a_redis_that_does_not_fit_is_refused_until_it_fits() {
    for (arguments, fault, remedy) in [
        (
            &["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"][..],
            "set maxmemory-policy noeviction",
            Some("CONFIG SET maxmemory-policy noeviction"),
        ),
        (&["--replicaof", "127.0.0.1", "1"], "is a replica of 127.0.0.1:1", Some("REPLICAOF NO ONE")),
        (&["--cluster-enabled", "yes"], "is a part of a cluster", None),
    ] {
        let redis = Redis::start(IP, arguments);
        let server = Server::start(&format!("redis://{}", redis.address), "");
        server.wait_for(fault);
        assert_eq!(server.count(CONNECTED), 0);
        if let Some(remedy) = remedy {
            assert_eq!(redis.command(remedy), "+OK");
            server.wait_for(CONNECTED);
        }
        assert_eq!(server.count(fault), 1, "it is logged once");
    }
}

fn a_lost_connection_is_made_anew_and_logged_once() {
    let mut redis = Redis::start(IP, &[]);
    let server = Server::start(&format!("redis://{}", redis.address), "");
    server.wait_for(CONNECTED);
    server.forget();
    redis.command("CLIENT KILL TYPE normal SKIPME yes");
    server.wait_for("is no longer connected");
    server.wait_for(CONNECTED);
    server.forget();
    redis.kill();
    server.wait_for("check that it runs");
    redis.start_again();
    server.wait_for(CONNECTED);
    assert!(server.count("ERROR") <= 3, "{:?}", server.log.lock());
}
