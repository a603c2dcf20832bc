//! The metrics of the admin listener count what happens, exactly, and over all loops.
#![allow(clippy::float_cmp)] // these are whole numbers

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use ccomet::handle::Start;
use ccomet::{Anonymous, Claims, Config, Secret, Simulated};
use common::metrics::{Metrics, documented};
use common::stage::{ANN, LOOPBACK, Stage, bearer, key, patterns};
use sealed::Address;
use sealed::sim::{Peer, Simulation};
use serde_json::json;
use testing::http::{frame, request};

/// Returns values by the labels' values.
fn values(expected: &[(&str, u32)]) -> BTreeMap<String, f64> {
    expected.iter().map(|(labels, value)| ((*labels).to_owned(), f64::from(*value))).collect()
}

impl Stage {
    /// Publishes by a request, and returns its status.
    fn publish(&self, from: &str, channel: &str, body: &str) -> u16 {
        self.exchange(&mut self.connect(from), "POST", &format!("/channels/{channel}"), "", body).status
    }

    /// Opens a stream.
    fn stream(&self, from: &str, target: &str) -> Peer {
        let mut peer = self.begin(from, "GET", target, "Accept: text/event-stream\r\n");
        peer.expect("hello");
        peer
    }
}

#[test]
fn publications_are_counted_by_api_and_result_and_deliveries_by_reader() {
    let stage = Stage::with(7, 3, |config| {
        config.front.patterns = true;
        config.limits.message_bytes_max = 100;
    });
    let handle = stage.server.handle();
    let _inside = handle.subscribe(["b"], &Start::Latest, |_| {}).expect("a subscription");
    let _streams = [stage.stream(ANN, "/channels/a"), stage.stream(LOOPBACK, "/channels/a,b")];
    let mut poll = stage.begin(ANN, "GET", "/channels/b?wait=30", "");
    let mut socket = stage.open(stage.connect(LOOPBACK), "/channels/a", "");
    stage.sim.settle();

    assert_eq!(stage.publish(ANN, "a", "1"), 200);
    socket.send(frame(0x81, json!({"type": "publish", "channel": "b", "data": "2"}).to_string()));
    poll.expect("\"2\"");
    let both = r#"{"messages":[{"channel":"a","data":"3"},{"channel":"b","data":"4"}]}"#;
    let json = "Content-Type: application/json\r\n";
    assert_eq!(stage.exchange(&mut stage.connect(ANN), "POST", "/messages", json, both).status, 200);
    let classic = "/publish?callback=f&channel=a&sname=x&msg=5";
    assert_eq!(stage.exchange(&mut stage.connect(ANN), "GET", classic, "", "").status, 200);
    stage.exchange(&mut stage.admin(), "GET", "/push?cname=b&content=6", "", "");
    stage.exchange(&mut stage.admin(), "GET", "/broadcast?content=7", "", "");
    drop(handle.publish("a", "8"));
    stage.sim.settle();
    // Refused: too long for a channel, by its head and by its body.
    assert_eq!(stage.publish(ANN, "a", &"x".repeat(101)), 413);
    let long = format!(r#"{{"messages":[{{"channel":"a","data":"{}"}}]}}"#, "x".repeat(101));
    stage.exchange(&mut stage.connect(ANN), "POST", "/messages", json, &long);
    socket.send(frame(0x81, json!({"type": "publish", "channel": "b*", "data": "2"}).to_string()));
    stage.sim.settle();

    let metrics = stage.metrics();
    let expected = [
        ("classic accepted", 1),
        ("handle accepted", 1),
        ("icomet accepted", 2),
        ("native accepted", 4),
        ("native refused", 1),
    ];
    assert_eq!(metrics.all_of("ccomet_publishes_total"), values(&expected));
    // Messages 1, 3, 5, 7 and 8 are in channel a, which has three readers; 2, 4, 6 and 7 are in b,
    // which two read all the time, and the poll until the first of them.
    assert_eq!(metrics.of("ccomet_deliveries_total"), f64::from(5 * 3 + 4 * 2 + 1));
    let subscribed = [("handle no", 1), ("poll no", 1), ("stream no", 2), ("websocket no", 1)];
    assert_eq!(metrics.all_of("ccomet_subscribes_total"), values(&subscribed));
    assert_eq!([metrics.of("ccomet_subscribers"), metrics.of("ccomet_channels")], [4.0, 2.0]);
    assert_eq!(metrics.of("ccomet_loops"), 3.0);
}

#[test]
fn connections_are_counted_by_listener_and_transport_until_they_end() {
    let stage = Stage::with(1, 2, |_| {});
    let mut kept = stage.connect(ANN);
    let poll = stage.begin(ANN, "GET", "/channels/a?wait=30", "");
    let stream = stage.stream(ANN, "/channels/a");
    let socket = stage.open(stage.connect(ANN), "/channels/a", "");
    let watch = stage.admin();
    assert_eq!(stage.exchange(&mut kept, "GET", "/channels/a?wait=0", "", "").status, 200);
    // The scraper has a connection, too.
    let expected =
        [("admin http", 2), ("front http", 1), ("front poll", 1), ("front stream", 1), ("front websocket", 1)];
    let metrics = stage.metrics();
    assert_eq!(metrics.all_of("ccomet_connections"), values(&expected));
    assert_eq!(metrics.all_of("ccomet_connections_total"), values(&[("admin", 2), ("front", 4)]));
    assert_eq!(metrics.of("ccomet_limit_used{name=\"limits.connections_max\"}"), 6.0);

    stage.publish(LOOPBACK, "a", "1");
    // The poll is answered, and its connection waits for the next request.
    let expected = [("admin http", 2), ("front http", 2), ("front stream", 1), ("front websocket", 1)];
    assert_eq!(stage.metrics().all_of("ccomet_connections"), values(&expected));
    stage.delete("a");
    drop((kept, poll, stream, socket, watch));
    stage.sim.settle();
    assert_eq!(stage.metrics().all_of("ccomet_connections"), values(&[("admin http", 1)]));
}

#[test]
fn gaps_are_counted_by_reason_with_what_was_missed() {
    let stage = Stage::new(|config| config.history.messages_max = 2);
    let position = |reply: testing::http::Reply| reply.json()["position"].as_str().expect("a position").to_owned();
    let publish = |body| stage.exchange(&mut stage.connect(ANN), "POST", "/channels/a", "", body);
    let first = position(publish("0"));
    for body in ["1", "2", "3", "4", "5"] {
        publish(body);
    }
    // Of the five messages behind the first, two are kept.
    stage.stream(ANN, &format!("/channels/a?after={first}"));
    let metrics = stage.metrics();
    assert_eq!(metrics.all_of("ccomet_gaps_total"), values(&[("late", 1)]));
    assert_eq!(metrics.of("ccomet_missed_total"), 3.0);
    assert_eq!(metrics.all_of("ccomet_history_dropped_total"), values(&[("channel_limits", 4)]));
    assert_eq!(metrics.all_of("ccomet_subscribes_total"), values(&[("stream yes", 1)]));

    stage.delete("a");
    publish("anew");
    stage.exchange(&mut stage.connect(ANN), "GET", &format!("/channels/a?after={first}"), "", "");
    // A stream that takes nothing while the history moves on.
    let mut slow = stage.stream(ANN, "/channels/b");
    slow.stall();
    for _ in 0..200 {
        stage.publish(LOOPBACK, "b", &"x".repeat(60_000));
    }
    slow.unstall();
    slow.discard();
    stage.sim.run_for(Duration::from_secs(1));
    let metrics = stage.metrics();
    assert_eq!(metrics.all_of("ccomet_gaps_total"), values(&[("late", 1), ("renumbered", 1), ("slow", 1)]));
    let delivered = metrics.of("ccomet_deliveries_total") - 2.0 - 1.0;
    assert_eq!(metrics.of("ccomet_missed_total") - 3.0 + delivered, 200.0, "each is delivered or missed");
}

#[test]
fn refusals_are_counted_by_code_and_no_label_comes_from_outside() {
    let stage = Stage::with(3, 2, |config| {
        config.auth.keys = vec![key("main")];
        config.auth.anonymous = Some(Anonymous { subscribe: patterns(&["open.*"]), ..Anonymous::default() });
    });
    for _ in 0..3 {
        assert_eq!(stage.publish(ANN, "a", "1"), 401);
    }
    assert_eq!(stage.exchange(&mut stage.connect(ANN), "GET", "/nothing", "", "").status, 404);
    let mut wrong = stage.connect(ANN);
    wrong.send("BAD\r\n\r\n");
    wrong.expect("400");
    let claims = Claims { sub: Some("secret-subject".to_owned()), ..stage.claims_for("secret.*", 60) };
    let token = stage.sign(&claims);
    let _stream = stage.begin(ANN, "GET", "/channels/secret.channel", &bearer(&token));
    let reply = stage.scrape("GET", "");
    let metrics = Metrics::read(reply.text());
    let refused = metrics.all_of("ccomet_refused_total");
    assert_eq!(refused, values(&[("bad_request_line", 1), ("not_found", 1), ("token_missing", 3)]));
    assert_eq!(metrics.all_of("ccomet_publishes_total"), values(&[("native refused", 3)]));
    assert_eq!(metrics.of("ccomet_members"), 1.0);
    for outside in ["secret", ANN, "nothing"] {
        assert!(!reply.text().contains(outside), "{outside}");
    }
}

#[test]
fn counts_never_decrease_and_histograms_add_up() {
    let stage = Stage::with(5, 3, |config| config.history.messages_max = 3);
    let mut last = BTreeMap::new();
    let mut readers = Vec::new();
    for round in 0..12 {
        let channel = format!("c{}", round % 3);
        readers.push(stage.stream(ANN, &format!("/channels/{channel}?after=oldest")));
        stage.publish(ANN, &channel, "text");
        if round % 4 == 3 {
            readers.remove(0);
            stage.delete(&channel);
        }
        let metrics = stage.metrics();
        let counts = metrics.counts();
        for (name, value) in &last {
            assert!(
                counts.get(name).is_some_and(|now| now >= value),
                "{name} was {value} and is {:?}",
                counts.get(name)
            );
        }
        for family in metrics.families.iter().filter(|family| family.kind == "histogram") {
            let (all, count) = (format!("{}_bucket{{le=\"+Inf\"}}", family.name), format!("{}_count", family.name));
            assert_eq!(metrics.of(&all), metrics.of(&count));
        }
        assert!(metrics.of("ccomet_fanout_seconds_count") > f64::from(round), "on one loop at least");
        last = counts;
    }
}

#[test]
fn a_fan_out_is_counted_for_each_channel_that_a_loop_delivers_at_once() {
    let stage = Stage::new(|_| {});
    let _readers: Vec<Peer> = (0..5).map(|_| stage.stream(ANN, "/channels/a")).collect();
    // They get the first message, in equal replies.
    let _polls: Vec<Peer> = (0..3).map(|_| stage.begin(ANN, "GET", "/channels/a?wait=30", "")).collect();
    stage.sim.settle();
    for body in ["1", "2", "3"] {
        stage.publish(ANN, "a", body);
        stage.publish(ANN, "unread", body);
    }
    let metrics = stage.metrics();
    assert_eq!(metrics.of("ccomet_fanout_seconds_count"), 3.0);
    assert_eq!(metrics.of("ccomet_fanout_seconds_bucket{le=\"0.005\"}"), 3.0);
    assert_eq!(metrics.of("ccomet_deliveries_total"), 18.0);
}

#[test]
fn limits_have_the_names_and_the_values_of_settings() {
    let stage = Stage::with(1, 2, |config| {
        config.limits.channels_max = 70;
        config.front.patterns = true;
    });
    let _pattern = stage.stream(ANN, "/channels/a*");
    stage.publish(ANN, "abc", &"x".repeat(1_000));
    stage.exchange(&mut stage.connect(ANN), "POST", "/channels/abc", "Idempotency-Key: one\r\n", "1");
    let metrics = stage.metrics();
    let limits = metrics.all_of("ccomet_limit");
    let settings: toml::Table = toml::from_str(&stage.config.to_toml()).expect("TOML");
    for (name, value) in &limits {
        let (section, setting) = name.split_once('.').expect("a section");
        #[allow(clippy::cast_precision_loss)]
        let set = settings[section][setting].as_integer().map(|number| number as f64);
        assert_eq!(set, Some(*value), "{name}");
    }
    let used = metrics.all_of("ccomet_limit_used");
    assert_eq!(limits.len(), 9);
    let of = |name: &str| used.get(name).copied();
    assert_eq!(of("limits.channels_max"), Some(2.0), "the channel, and the one of the pattern");
    assert_eq!([of("limits.patterns_max"), of("limits.subscribers_max"), of("history.keys_max")], [Some(1.0); 3]);
    assert_eq!(of("history.total_bytes_max"), Some(metrics.of("ccomet_history_bytes")));
    assert!(of("history.total_bytes_max") > Some(1_000.0));
}

#[test]
fn a_scrape_is_a_call_of_the_admin_listener() {
    let key = "a-key-of-enough-letters";
    let stage = Stage::with(1, 2, |config| config.admin.keys = vec![Secret::new(key)]);
    assert!(stage.scrape("GET", "").is(401, "admin_key"));
    let scraped = stage.scrape("GET", &bearer(key));
    assert_eq!((scraped.status, scraped.header("cache-control")), (200, Some("no-store")));
    assert_eq!(scraped.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let head = stage.scrape("HEAD", &bearer(key));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.header("content-length").is_some_and(|length| length.len() > 3));
    assert_eq!(stage.scrape("POST", &bearer(key)).status, 405);
    assert_eq!(stage.exchange(&mut stage.connect(ANN), "GET", "/metrics", "", "").status, 404);
    assert_eq!(Metrics::read(scraped.text()).all_of("ccomet_refused_total"), values(&[("admin_key", 1)]));
}

#[test]
fn questions_to_the_back_end_are_timed_and_their_failures_counted() {
    let stage = Stage::new(|config| {
        "http://10.0.0.9/hook".clone_into(&mut config.hooks.url);
        config.hooks.publish = true;
    });
    let backend = stage.sim.listen("10.0.0.9:80".parse::<Address>().expect("an address")).expect("it is free");
    let mut client = stage.connect(ANN);
    client.send(request("POST", "/channels/a", "", "1"));
    stage.sim.run_for(Duration::from_millis(300));
    let mut asked = backend.accept().expect("the back end is asked");
    assert_eq!(stage.metrics().of("ccomet_hook_queue"), 1.0);
    asked.send("HTTP/1.1 204 X\r\n\r\n");
    client.expect("position");
    client.send(request("POST", "/channels/a", "", "2"));
    stage.sim.settle();
    asked.send("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n");
    client.expect("hook_unavailable");
    let metrics = stage.metrics();
    assert_eq!(metrics.of("ccomet_hook_seconds_count"), 2.0);
    assert_eq!(metrics.of("ccomet_hook_seconds_bucket{le=\"0.25\"}"), 1.0);
    assert_eq!(metrics.of("ccomet_hook_seconds_bucket{le=\"0.5\"}"), 2.0);
    assert_eq!([metrics.of("ccomet_hook_errors_total"), metrics.of("ccomet_hook_queue")], [1.0, 0.0]);
    assert_eq!(metrics.all_of("ccomet_publishes_total"), values(&[("native accepted", 1), ("native refused", 1)]));
}

#[cfg(unix)]
#[test]
fn a_store_has_metrics_and_memory_has_none() {
    let sim = Simulation::new(1);
    let disk = sim.disk();
    let mut config = Config { loops: 2.try_into().ok(), ..Config::default() };
    config.store.path = Some("/store".into());
    let server = Simulated::start_on(&sim, &disk, config.clone()).expect("it starts");
    let stage = Stage { sim, server, config };
    for body in ["1", "2", "3"] {
        assert_eq!(stage.publish(ANN, "a", body), 200);
    }
    let metrics = stage.metrics();
    assert_eq!(metrics.of("ccomet_store_commit_seconds_count"), 3.0);
    assert!(metrics.of("ccomet_store_written_bytes_total") > 60.0);
    assert_eq!(metrics.of("ccomet_store_waiting_bytes"), 0.0);
    // The log is measured at a checkpoint.
    stage.sim.run_for(Duration::from_secs(130));
    assert_eq!(stage.publish(ANN, "a", &"x".repeat(1 << 20)), 413);
    let metrics = stage.metrics();
    assert_eq!(metrics.of("ccomet_store_segments"), 1.0);
    assert!(metrics.of("ccomet_store_log_bytes") > 0.0);
    // Now the server has everything but the process.
    let rows: Vec<&str> = documented().into_iter().filter(|row| !row.starts_with("| `process_")).collect();
    assert_eq!(rows, metrics.rows(), "the table in OPERATING.md");

    let families = Stage::new(|_| {}).metrics().families;
    assert!(families.iter().all(|family| !family.name.starts_with("ccomet_store")));
}

#[test]
fn a_server_that_shuts_down_says_so() {
    let stage = Stage::new(|_| {});
    let _stream = stage.stream(ANN, "/channels/a");
    assert_eq!(stage.metrics().of("ccomet_draining"), 0.0);
    let mut scraper = stage.admin();
    stage.sim.settle();
    stage.server.stop();
    let reply = stage.exchange(&mut scraper, "GET", "/metrics", "", "");
    assert_eq!(Metrics::read(reply.text()).of("ccomet_draining"), 1.0);
}
