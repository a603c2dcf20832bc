//! `ccomet bench`, at a server in a process of its own, and at servers that are slow or not of this
//! project.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Folder, Process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ccomet");

fn run(server: SocketAddr, arguments: &str) -> Output {
    let arguments = arguments.split_whitespace();
    Command::new(PROGRAM).args(["bench", &format!("http://{server}")]).args(arguments).output().expect("it runs")
}

/// Expects a run to succeed, and returns its results.
fn measure(server: SocketAddr, arguments: &str) -> Value {
    let folder = Folder::new("ccomet-bench");
    let json = folder.write("results.json", "");
    let output = run(server, &format!("{arguments} --json {}", json.display()));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&std::fs::read(json).expect("results")).expect("JSON")
}

/// Expects that all messages have reached all subscribers, once and in order.
fn assert_complete(results: &Value) {
    for what in ["lost", "duplicates", "out_of_order", "refused", "without_answer"] {
        assert_eq!(results[what], 0, "{what}: {results:#}");
    }
    assert_eq!(results["errors"], serde_json::json!({}), "{results:#}");
}

#[test]
fn all_messages_are_counted_on_each_transport() {
    let server = Process::start("", &[]);
    for transport in ["ws", "sse", "poll"] {
        let load = "--subscribers 40 --channels 2 --publishers 4 --rate 40 --duration 2 --loops 2 --size 300";
        let results = measure(server.front, &format!("{load} --transport {transport}"));
        assert_complete(&results);
        assert_eq!((&results["connected"], &results["transport"]), (&40.into(), &transport.into()));
        let published = results["published"].as_u64().expect("a number");
        assert!((40..=80).contains(&published), "as many as the rate demands: {results:#}");
        // Each channel has half of the subscribers, and half of the publishers.
        assert_eq!(results["delivered"], published * 20);
        let latency = &results["latency_us"];
        assert!(latency["50"].as_u64() > Some(0) && latency["max"].as_u64() >= latency["99"].as_u64(), "{latency}");
        assert!(results["bytes"].as_u64() > Some(published * 20 * 300), "messages have their size: {results:#}");
    }
}

#[test]
fn the_plot_is_an_svg() {
    let server = Process::start("", &[]);
    let folder = Folder::new("ccomet-plot");
    let svg = folder.write("plot.svg", "");
    let output = run(server.front, &format!("--subscribers 5 --duration 2 --svg {}", svg.display()));
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(svg).expect("a plot");
    assert!(text.starts_with("<svg") && text.contains("99.9 %") && text.trim_end().ends_with("</svg>"), "{text}");
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(table.contains("5 of 5 connected") && table.contains("99.9 %"), "{table}");
}

#[test]
fn other_servers_are_measured_by_templates() {
    let server = Process::start("", &[]);
    let paths = "--subscribe-path /channels/{channel} --publish-path /channels/{channel}?event=x";
    let results = measure(server.front, &format!("{paths} --transport sse --subscribers 10 --rate 20 --duration 1"));
    assert_complete(&results);
    assert!(results["delivered"].as_u64() > Some(0), "{results:#}");
}

#[test]
fn clients_that_come_and_go_lose_nothing_while_they_are_there() {
    let server = Process::start("", &[]);
    let results = measure(server.front, "--preset churn --subscribers 20 --life 1 --duration 3");
    assert_complete(&results);
    assert!(results["connections"]["made"].as_u64() > Some(50), "{results:#}");
    assert_eq!(results["connections"]["lost"], 0, "{results:#}");
}

#[test]
fn growing_numbers_of_connections_have_the_memory_of_the_server() {
    let server = Process::start("", &[]);
    let arguments = format!("--preset connections --subscribers 1001 --rate 0 --pid {}", server.id());
    let results = measure(server.front, &arguments);
    let steps = results["steps"].as_array().expect("steps");
    let connected: Vec<_> = steps.iter().map(|step| step["connected"].as_u64()).collect();
    assert_eq!(connected, [Some(1_000), Some(1_001)]);
    assert!(steps.iter().all(|step| step["res_kib"].as_u64() > Some(0)), "{results:#}");
}

#[test]
fn what_keeps_a_run_from_its_work_is_named() {
    let settings = "[auth]\nkeys = [{ id = 'k', algorithm = 'HS256', secret = '0123456789abcdef0123456789abcdef' }]";
    let mut server = Process::start(settings, &[]);
    let refused = run(server.front, "--subscribers 2 --transport poll");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let table = String::from_utf8(refused.stdout).expect("UTF-8");
    assert!(table.contains("subscribe: ") && table.contains("(401 token_missing)"), "{table}");
    let words = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(words.contains("ccomet: subscribe: ") && words.contains("(401 token_missing)"), "{words}");

    let script = "ulimit -n 100 && exec \"$0\" bench \"$1\" --subscribers 200";
    let few = Command::new("sh").args(["-c", script, PROGRAM, &format!("http://{}", server.front)]).output();
    let few = few.expect("it runs");
    let message = String::from_utf8(few.stderr).expect("UTF-8");
    assert_eq!(few.status.code(), Some(1), "{message}");
    assert!(message.contains("the limit of open files is 100") && message.contains("at most 35"), "{message}");

    server.kill();
    let gone = String::from_utf8(run(server.front, "").stderr).expect("UTF-8");
    assert!(gone.contains("cannot connect to"), "{gone}");
}

#[test]
fn what_would_measure_nothing_is_refused_at_the_start() {
    let server = Process::start("", &[]);
    let path = "--subscribe-path /sub/{channel} --publish-path";
    for (arguments, status, expected) in [
        ("--subscribe-path /sub --publish-path /pub/{channel} --channels 2".to_owned(), 2, "--subscribe-path has no"),
        (format!("{path} /pub"), 2, "--publish-path has no {channel}"),
        (format!("{path} /pub/{{channel}} --publish-body text"), 2, "--publish-body has no {message}"),
        ("--size 64kb".to_owned(), 2, "two sizes"),
        ("--duration 2d".to_owned(), 2, "it is not from 1 s to 86400 s"),
        ("--pid 4194999".to_owned(), 1, "there is no such process"),
        ("--json /nosuch/results.json".to_owned(), 1, "cannot write /nosuch/results.json"),
        ("--svg /nosuch/plot.svg".to_owned(), 1, "cannot write /nosuch/plot.svg"),
    ] {
        let output = run(server.front, &arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments}: {message}");
        assert!(message.contains(expected) && output.stdout.is_empty(), "{arguments}: {message}");
    }
}

#[test]
fn a_run_in_which_no_message_is_accepted_fails() {
    let server = Process::start("[auth]\nkeys = []\n[auth.anonymous]\nsubscribe = ['*']\npublish = []\n", &[]);
    let folder = Folder::new("ccomet-bench");
    let json = folder.write("results.json", "");
    let began = Instant::now();
    let output = run(server.front, &format!("--subscribers 2 --duration 1m --json {}", json.display()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "the first refusal ends the run");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("ccomet: publish: ") && message.contains("(403 not_allowed)"), "{message}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("latency       none"), "{table}");
    let results: Value = serde_json::from_slice(&std::fs::read(json).expect("results")).expect("JSON");
    assert_eq!((&results["latency_us"], &results["published"]), (&Value::Null, &0.into()));
}

#[test]
fn a_server_that_goes_away_leaves_no_subscriber() {
    let mut server = Process::start("", &[]);
    let mut bench = Command::new(PROGRAM);
    bench.args(["bench", &format!("http://{}", server.front), "--subscribers", "3", "--duration", "3"]);
    let child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut admin = common::Client::connect(server.admin);
    common::wait_until("messages are published", || {
        admin.ask("GET", "/metrics", "");
        let page = admin.reply();
        page.text().lines().any(|line| {
            line.strip_prefix("ccomet_deliveries_total ").is_some_and(|count| count.parse::<f64>().unwrap_or(0.0) > 3.0)
        })
    });
    server.kill();
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("no subscriber is connected any more"), "{message}");
}

/// The time that the slow server takes for each publication.
const SLOW: Duration = Duration::from_millis(200);

/// Serves streams, and publications that it passes on at once and answers late.
fn serve_slowly(mut stream: TcpStream, readers: &Mutex<Vec<TcpStream>>) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if input.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while input.read_line(&mut line)? > 2 {
            length =
                line.strip_prefix("Content-Length: ").map_or(length, |text| text.trim().parse().expect("a length"));
            line.clear();
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body)?;
        if first.starts_with("GET") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
            readers.lock().expect("a lock").push(stream.try_clone()?);
        } else {
            for reader in &mut *readers.lock().expect("a lock") {
                reader.write_all(&[b"data: ", &body[..], b"\n\n"].concat())?;
            }
            // This is the work of the server that is measured.
            std::thread::sleep(SLOW);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
}

#[test]
fn the_delay_of_a_slow_server_counts_for_the_messages_that_wait_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let readers = Arc::new(Mutex::new(Vec::new()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let readers = readers.clone();
            std::thread::spawn(move || serve_slowly(stream, &readers));
        }
    });
    let paths = "--subscribe-path /sub --publish-path /pub --channels 1 --transport sse";
    let results = measure(address, &format!("{paths} --subscribers 1 --rate 50 --duration 2"));
    assert_complete(&results);
    // A message is passed on when it arrives. But at five messages a second, most are late by more
    // than half a second when the publisher can send them.
    assert!(results["published"].as_u64() < Some(20), "{results:#}");
    assert!(results["latency_us"]["50"].as_u64() > Some(400_000), "{results:#}");
}

#[test]
fn the_second_interruption_prints_what_there_is() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (published, was_published) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Publications are never answered.
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let published = published.clone();
            open.push(stream.try_clone());
            std::thread::spawn(move || {
                let mut request = [0; 3];
                let _ = stream.read_exact(&mut request);
                if &request == b"GET" {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
                } else if &request == b"POS" {
                    let _ = published.send(());
                }
            });
        }
    });
    let mut bench = Command::new(PROGRAM);
    bench.args(["bench", &format!("http://{address}"), "--transport", "sse", "--subscribers", "1", "--duration", "1h"]);
    bench.args(["--subscribe-path", "/{channel}", "--publish-path", "/{channel}"]);
    let mut child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    was_published.recv_timeout(Duration::from_secs(30)).expect("a publication");
    let process = child.id().to_string();
    let began = Instant::now();
    common::wait_until("it ends", || {
        let _ = Command::new("kill").args(["-INT", &process]).status();
        child.try_wait().expect("a process").is_some()
    });
    assert!(began.elapsed() < Duration::from_secs(9), "the answers are not waited for");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "nothing was measured: {output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("1 of 1 connected"), "{table}");
}
