//! Reloads of the settings: what takes effect, what needs a restart, and that nobody is dropped.

mod common;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use ccomet::{Config, ConfigError, Rule, Server, Who};
use common::stage::{ANN, PROXY, Stage, bearer, is_barred, is_fine, is_over, key, networks, patterns};
use common::{Client, Folder, Process, config};
use testing::http::Reply;

/// A server whose settings a test changes while it runs.
struct Reloaded {
    stage: Stage,
    written: Arc<Mutex<Config>>,
}

impl Reloaded {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::with(1, 1, change)
    }

    fn with(seed: u64, loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        let written = Arc::new(Mutex::new(Config::default()));
        let read = written.clone();
        let prepare = |server: &mut Server| server.reload_from(move || Ok(read.lock().expect("settings").clone()));
        let stage = Stage::prepared(seed, loops, change, prepare);
        *written.lock().expect("settings") = stage.config.clone();
        Self { stage, written }
    }

    /// Changes the settings, and reloads them. Returns the answer.
    fn reload(&mut self, change: impl FnOnce(&mut Config)) -> Reply {
        let mut written = self.written.lock().expect("settings");
        change(&mut written);
        self.stage.config = written.clone();
        drop(written);
        let reply = self.stage.exchange(&mut self.stage.admin(), "POST", "/reload", "", "");
        assert!(reply.status != 0, "there is an answer");
        reply
    }

    /// Changes a setting that a reload applies.
    fn apply(&mut self, name: &str, change: impl FnOnce(&mut Config)) {
        let reply = self.reload(change);
        assert_eq!(reply.json()["applied"], serde_json::json!([name]), "{reply}");
        assert_eq!(reply.json()["needs_restart"], serde_json::json!([]), "{reply}");
    }

    fn get(&self, from: &str, target: &str, fields: &str) -> Reply {
        self.stage.exchange(&mut self.stage.connect(from), "GET", target, fields, "")
    }

    fn post(&self, from: &str, target: &str, fields: &str, body: &str) -> Reply {
        self.stage.exchange(&mut self.stage.connect(from), "POST", target, fields, body)
    }
}

#[test]
fn keys_are_replaced_and_clients_with_tokens_of_earlier_keys_stay() {
    let mut server = Reloaded::with(1, 3, |config| config.auth.keys = vec![key("main")]);
    let old = server.stage.sign(&server.stage.claims_for("*", 600));
    let socket = server.stage.open(server.stage.connect(ANN), "/channels/news", &bearer(&old));
    server.apply("auth.keys", |config| config.auth.keys = vec![key("next")]);
    // Connections are spread over all loops.
    for _ in 0..6 {
        let refused = server.get(ANN, "/channels/news?wait=0", &bearer(&old));
        assert!(refused.is(401, "token_invalid"), "{refused}");
    }
    let claims = server.stage.claims_for("*", 600);
    let new = ccomet::make_token(&server.stage.config.auth, "next", None, &claims).expect("a token");
    assert_eq!(server.post(ANN, "/channels/news", &bearer(&new), "still here").status, 200);
    let mut socket = socket;
    assert!(server.stage.received(&mut socket).contains("still here"));
}

#[test]
fn limits_and_rules_apply_to_channels_that_exist() {
    let mut server = Reloaded::with(2, 2, |_| {});
    let publish = |server: &Reloaded, body: &str| server.post(ANN, "/channels/news", "", body).status;
    for number in 0..5 {
        assert_eq!(publish(&server, &format!("message {number}")), 200);
    }
    server.apply("rules", |config| {
        config.rules = vec![Rule {
            messages_max: Some(2),
            message_bytes_max: Some(10),
            ..Rule::new("ne*".parse().expect("a pattern"))
        }];
    });
    assert_eq!(publish(&server, "longer than ten bytes"), 413);
    assert_eq!(publish(&server, "short"), 200);
    let history = server.get(ANN, "/channels/news/history", "");
    assert_eq!(history.json()["items"].as_array().map(Vec::len), Some(2), "{history}");
    server.apply("rules", |config| {
        config.rules.insert(0, Rule { publish: Who::Admin, ..Rule::new("news".parse().expect("a name")) });
    });
    assert_eq!(publish(&server, "no"), 403);
    server.apply("rules", |config| config.rules.clear());
    assert_eq!(publish(&server, "longer than ten bytes"), 200);
    server.apply("limits.message_bytes_max", |config| config.limits.message_bytes_max = 200_000);
    assert_eq!(publish(&server, &"x".repeat(150_000)), 200);
    server.apply("limits.channels_max", |config| config.limits.channels_max = 1);
    server.apply("history.messages_max", |config| config.history.messages_max = 1);
    assert_eq!(publish(&server, "last"), 200);
    let history = server.get(ANN, "/channels/news/history", "");
    assert_eq!(history.json()["items"].as_array().map(Vec::len), Some(1), "{history}");
}

#[test]
fn address_rules_and_rates_apply_from_the_next_connection_on() {
    let mut server = Reloaded::new(|config| config.front.trusted_proxies = networks(&["10.0.0.1/32"]));
    let by_proxy = format!("X-Forwarded-For: {ANN}\r\n");
    let mut stream = server.stage.begin(ANN, "GET", "/channels/news", "Accept: text/event-stream\r\n");
    let mut proxy = server.stage.connect(PROXY);
    assert!(is_fine(&server.stage.exchange(&mut proxy, "GET", "/channels/a?wait=0", &by_proxy, "")));
    server.apply("front.deny", |config| config.front.deny = networks(&["192.0.2.1/32"]));
    assert!(is_barred(&server.get(ANN, "/channels/a?wait=0", "")));
    assert!(is_barred(&server.stage.exchange(&mut proxy, "GET", "/channels/a?wait=0", &by_proxy, "")));
    server.stage.exchange(&mut server.stage.admin(), "POST", "/channels/news", "", "to those who stay");
    assert!(server.stage.received(&mut stream).contains("to those who stay"));
    server.apply("front.deny", |config| config.front.deny.clear());
    server.apply("limits.publishes_per_address_minute", |config| config.limits.publishes_per_address_minute = 1);
    assert_eq!(server.post(ANN, "/channels/a", "", "one").status, 200);
    assert!(is_over(&server.post(ANN, "/channels/a", "", "two")));
}

#[test]
fn a_poll_that_waits_during_a_reload_is_answered_for_its_own_page() {
    let listed = ["https://a.example", "https://b.example"];
    let mut server = Reloaded::new(|config| config.front.origins = listed.map(str::to_owned).to_vec());
    let mut poll = server.stage.begin(ANN, "GET", "/channels/news", "Origin: https://b.example\r\n");
    server.stage.sim.settle();
    server.apply("front.origins", |config| {
        config.front.origins = vec!["https://b.example".to_owned()];
    });
    assert_eq!(server.post(ANN, "/channels/news", "", "hello").status, 200);
    let reply = server.stage.reply(&mut poll);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://b.example"), "{reply}");
    let refused = server.get(ANN, "/channels/news?wait=0", "Origin: https://a.example\r\n");
    assert_eq!(refused.header("access-control-allow-origin"), None, "{refused}");
}

#[test]
fn the_admin_keys_hosts_and_apis_are_replaced() {
    let mut server = Reloaded::new(|_| {});
    server.apply("front.hosts", |config| config.front.hosts = vec!["comet.example".to_owned()]);
    assert_eq!(server.get(ANN, "/channels/a?wait=0", "Host: other.example\r\n").status, 421);
    server.apply("front.apis", |config| config.front.apis = vec![ccomet::Api::Icomet]);
    assert_eq!(server.get(ANN, "/channels/a?wait=0", "").status, 404);
    server.apply("front.demo", |config| config.front.demo = false);
    assert_eq!(server.get(ANN, "/chat.html", "").status, 404);
    server.apply("admin.keys", |config| config.admin.keys = vec![ccomet::Secret::new("sixteen-characters")]);
    let reply = server.reload(|_| {});
    assert!(reply.is(401, "admin_key"), "{reply}");
}

#[test]
fn hooks_are_turned_on_and_off() {
    let mut server = Reloaded::new(|_| {});
    let reply = server.reload(|config| {
        config.hooks.url = "http://203.0.113.9:9/".to_owned();
        config.hooks.publish = true;
        config.hooks.channels = patterns(&["asked"]);
    });
    assert_eq!(reply.json()["applied"], serde_json::json!(["hooks.url", "hooks.publish", "hooks.channels"]));
    assert_eq!(server.post(ANN, "/channels/free", "", "hello").status, 200);
    let mut waiting = server.stage.connect(ANN);
    waiting.send(testing::http::request("POST", "/channels/asked", "", "hello"));
    server.apply("hooks.publish", |config| config.hooks.publish = false);
    assert_eq!(server.post(ANN, "/channels/asked", "", "hello").status, 200);
    // The question that was open before is answered for.
    server.stage.sim.run_for(std::time::Duration::from_secs(10));
    let reply = server.stage.reply(&mut waiting);
    assert!(reply.is(503, "hook_unavailable"), "{reply}");
}

#[test]
fn settings_that_need_a_restart_are_named_and_keep_their_values() {
    let mut server = Reloaded::new(|_| {});
    let reply = server.reload(|config| {
        config.loops = 3.try_into().ok();
        config.front.listen = "127.0.0.1:1".parse().expect("an address");
        config.times.heartbeat_s = 100;
        config.times.drain_s = 1;
        config.limits.page_items_max = 1;
    });
    assert_eq!(reply.json()["applied"], serde_json::json!(["limits.page_items_max"]), "{reply}");
    let needing = ["loops", "front.listen", "times.heartbeat_s", "times.drain_s"];
    assert_eq!(reply.json()["needs_restart"], serde_json::json!(needing), "{reply}");
    assert!(
        server.get(ANN, "/channels/news", "Accept: text/event-stream\r\n").text().contains("\"heartbeat_ms\":15000")
    );
    // They are named until the restart.
    assert_eq!(server.reload(|_| {}).json()["needs_restart"], serde_json::json!(needing));
}

#[test]
fn settings_with_an_error_change_nothing() {
    let mut server = Reloaded::new(|_| {});
    let reply = server.reload(|config| {
        config.limits.message_bytes_max = 5;
        config.times.poll_wait_s = 100;
    });
    assert!(reply.is(422, "bad_settings"), "{reply}");
    assert!(
        reply.text().contains("times.poll_wait_s = 100 is out of range: allowed is at most times.poll_wait_max_s"),
        "{reply}"
    );
    assert_eq!(server.post(ANN, "/channels/news", "", "longer than that").status, 200);
}

#[test]
fn a_reload_that_would_open_the_listener_that_runs_is_refused() {
    let mut server = Reloaded::new(|config| {
        config.front.listen = "10.0.0.7:8100".parse().expect("an address");
        config.front.allow = networks(&["192.0.2.0/24"]);
    });
    let reply = server.reload(|config| {
        config.front.listen = "127.0.0.1:8100".parse().expect("an address");
        config.front.allow.clear();
    });
    assert!(reply.is(422, "bad_settings") && reply.text().contains("needs a restart (front.listen)"), "{reply}");
}

#[test]
fn many_reloads_at_once_end_with_the_same_settings_on_all_loops() {
    let server = Reloaded::with(7, 4, |_| {});
    let mut peers: Vec<_> = (0..8).map(|_| server.stage.admin()).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        server.written.lock().expect("settings").limits.message_bytes_max = 100 + number;
        peer.send(testing::http::request("POST", "/reload", "", ""));
    }
    for mut peer in peers {
        let reply = server.stage.reply(&mut peer);
        assert_eq!(reply.status, 200, "{reply}");
    }
    for _ in 0..12 {
        assert_eq!(server.post(ANN, "/channels/a", "", &"x".repeat(107)).status, 200);
        assert_eq!(server.post(ANN, "/channels/a", "", &"x".repeat(108)).status, 413);
    }
}

#[test]
fn only_a_post_at_the_admin_listener_reloads() {
    let server = Reloaded::new(|_| {});
    assert_eq!(server.post(ANN, "/reload", "", "").status, 404);
    let get = server.stage.exchange(&mut server.stage.admin(), "GET", "/reload", "", "");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST, OPTIONS")));
    let by_page = "Origin: https://evil.example\r\n";
    let refused = server.stage.exchange(&mut server.stage.admin(), "POST", "/reload", by_page, "");
    assert!(refused.is(403, "origin_forbidden"), "{refused}");
    let sourceless = Stage::new(|_| {});
    let reply = sourceless.exchange(&mut sourceless.admin(), "POST", "/reload", "", "");
    assert!(reply.is(409, "no_settings"), "{reply}");
}

#[test]
fn an_embedder_is_notified_of_each_step() {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut server) = (steps.clone(), Server::bind(config(2)).expect("a server"));
    let is_good = Arc::new(Mutex::new(true));
    let good = is_good.clone();
    server.reload_from(move || {
        if *good.lock().expect("a switch") { Ok(config(2)) } else { Err(ConfigError::LogLevel("loud".to_owned())) }
    });
    server.on_reload(move |step| {
        let step = format!("{step:?}");
        seen.lock().expect("steps").push(step.split(['(', ' ']).next().unwrap_or_default().to_owned());
    });
    let local = common::Local::run(server);
    assert_eq!(Client::connect(local.admin).post("/reload", "").status, 200);
    *is_good.lock().expect("a switch") = false;
    assert_eq!(Client::connect(local.admin).post("/reload", "").status, 422);
    assert_eq!(*steps.lock().expect("steps"), ["Begun", "Applied", "Begun", "Refused"]);
}

fn start(folder: &Folder, settings: &str) -> Process {
    let path = folder.write("ccomet.toml", settings);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(path);
    Process::run(command.stderr(Stdio::piped()))
}

#[test]
fn the_program_reloads_its_file_at_sighup_and_logs_what_it_does() {
    let folder = Folder::new("reload");
    let mut server = start(&folder, "log.level = \"info\"\n");
    let mut log = server.errors().map(|line| line.expect("text"));
    let mut reader = Client::connect(server.front).events("/channels/news", "");
    folder.write("ccomet.toml", "log.level = \"info\"\nlimits.message_bytes_max = 9\nstore.bytes_max = 20000000\n");
    server.signal("HUP");
    let line = log.find(|line| line.contains("applied: limits.message_bytes_max")).expect("a line");
    assert!(line.contains("INFO"), "{line}");
    assert!(log.next().expect("a line").contains("need a restart: store.bytes_max"));
    assert_eq!(Client::connect(server.front).post("/channels/news", "ten bytes.").status, 413);
    folder.write("ccomet.toml", "limits.message_bytes_max = \"many\"\n");
    server.signal("HUP");
    let line = log.find(|line| line.contains("nothing has changed")).expect("a line");
    assert!(line.contains("ERROR") && line.contains("ccomet.toml"), "{line}");
    folder.write("ccomet.toml", "log.level = \"off\"\n");
    assert_eq!(Client::connect(server.admin).post("/reload", "").status, 200);
    folder.write("ccomet.toml", "log.level = \"info\"\n");
    assert_eq!(Client::connect(server.admin).post("/reload", "").json()["applied"][0], "log.level");
    Client::connect(server.front).publish("news", "still here");
    assert_eq!(reader.next().message(), "still here");
    server.signal("TERM");
    assert!(log.any(|line| line.contains("stopped")), "the log is on again");
}

#[test]
fn a_file_that_does_not_end_is_refused_and_does_not_hold_up_later_reloads() {
    let folder = Folder::new("reload-pipe");
    let server = start(&folder, "");
    let pipe = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let refused = || {
        let reply = Client::connect(server.admin).post("/reload", "");
        assert_eq!(reply.status, 422, "{reply}");
        reply.json()["detail"].as_str().expect("a text").to_owned()
    };
    for settings in [
        format!("auth.jwks_file = {pipe:?}\n"),
        format!("auth.keys = [{{ id = \"a\", algorithm = \"HS256\", secret_file = {pipe:?} }}]\n"),
        "auth.jwks_file = \"/dev/zero\"\n".to_owned(),
    ] {
        folder.write("ccomet.toml", settings);
        assert!(refused().contains("it is a pipe or a device"));
    }
    std::fs::rename(&pipe, folder.join("ccomet.toml")).expect("the pipe is in place of the settings");
    assert!(refused().contains("ccomet.toml: it is a pipe or a device"));
    std::fs::remove_file(folder.join("ccomet.toml")).expect("a pipe");
    folder.write("ccomet.toml", "#".repeat(5 << 20));
    assert!(refused().contains("it is longer than 4194304 bytes"));
    folder.write("ccomet.toml", format!("{} = 1\n", "x".repeat(1 << 20)));
    assert!(refused().len() < 1_000, "a name of a million bytes is not quoted");
    folder.write("ccomet.toml", "limits.message_bytes_max = 9\n");
    assert_eq!(Client::connect(server.admin).post("/reload", "").json()["applied"][0], "limits.message_bytes_max");
}

#[test]
fn a_hang_up_while_the_program_starts_does_not_end_it_and_is_heard_later() {
    let folder = Folder::new("reload-early");
    let pipe = folder.join("ccomet.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(&pipe);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    // The program waits for its settings.
    let mut settings = OpenOptions::new().write(true).open(&pipe).expect("the program reads");
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().expect("kill runs").success());
    settings.write_all(b"log.level = \"info\"\n").expect("it reads");
    drop(settings);
    let log = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let heard = log.map(|line| line.expect("text")).any(|line| line.contains("a reload needs a regular file"));
    let ended = child.try_wait().expect("a state");
    let _ = child.kill();
    let _ = child.wait();
    assert!(heard && ended.is_none(), "{ended:?}");
}

#[test]
fn an_empty_file_is_refused_and_the_log_warns_if_tokens_are_no_longer_needed() {
    let folder = Folder::new("reload-empty");
    let keys = "auth.keys = [{ id = \"a\", algorithm = \"HS256\", secret = \"0123456789abcdef0123456789abcdef\" }]\n";
    let mut server = start(&folder, &format!("log.level = \"info\"\n{keys}"));
    let subscribe = |server: &Process| Client::connect(server.front).get("/channels/news?wait=0").status;
    // An editor that does not replace the file as a whole has emptied it.
    folder.write("ccomet.toml", "");
    let refused = Client::connect(server.admin).post("/reload", "");
    assert!(refused.status == 422 && refused.text().contains("it is empty"), "{refused}");
    assert_eq!(subscribe(&server), 401);
    folder.write("ccomet.toml", "admin.origins = [\"*\"]\n");
    assert_eq!(Client::connect(server.admin).post("/reload", "").status, 200);
    assert_eq!(subscribe(&server), 200);
    let metrics = Client::connect(server.admin).get("/metrics").to_string();
    for (result, count) in [("refused", 1), ("applied", 1)] {
        let line = format!("ccomet_reloads_total{{result=\"{result}\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
    server.signal("TERM");
    let log: Vec<String> = server.errors().map(|line| line.expect("text")).collect();
    let has = |text| log.iter().any(|line| line.contains("WARN") && line.contains(text));
    assert!(has("auth has no keys any more") && has("admin.origins is [\"*\"]"), "{log:#?}");
}
