//! The example `kv` compared with `redis-server`: the same load from `redis-benchmark`, in
//! alternating rounds of one run.
//!
//! `cargo build --release -p examples --example kv && cargo run --release -p benches --bin kv`.
//! Needs Debian's `redis-server` and `redis-tools`, and `taskset`: the servers share processor 0,
//! and the load runs on processor 1. Takes a minute.

use std::collections::BTreeMap;
use std::process::Command;

use benches::server::start_elsewhere;
use testing::process::Process;

const ROUNDS: usize = 5;

struct Server {
    name: &'static str,
    port: u16,
    _process: Process,
}

fn start(name: &'static str, program: &str, arguments: impl Fn(u16) -> Vec<String>) -> Server {
    let (process, address) = start_elsewhere(program, |address| arguments(address.port()));
    Server { name, port: address.port(), _process: process }
}

fn main() {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let kv = std::env::current_exe().expect("this program").with_file_name("examples").join("kv");
    let servers = [
        start("kv", &kv.display().to_string(), |port| text(&[&format!("127.0.0.1:{port}")])),
        start("redis-server", "redis-server", |port| {
            text(&["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        }),
    ];
    let mut rates: BTreeMap<(usize, String, &str), Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (depth, requests) in [(1, "200000"), (16, "2000000")] {
            for server in &servers {
                for (command, rate) in load(server.port, depth, requests) {
                    rates.entry((depth, command, server.name)).or_default().push(rate);
                }
            }
        }
    }
    println!("| pipelined | command | kv, a second | redis-server | ratio |\n| ---: | --- | ---: | ---: | ---: |");
    for ((depth, command, _), ours) in rates.iter().filter(|((.., name), _)| *name == "kv") {
        let theirs = &rates[&(*depth, command.clone(), "redis-server")];
        let (ours, theirs) = (median(ours), median(theirs));
        println!("| {depth} | {command} | {ours:.0} | {theirs:.0} | {:.2} |", ours / theirs);
    }
}

/// Runs `redis-benchmark`, and returns the rate that it prints for each command.
fn load(port: u16, depth: usize, requests: &str) -> Vec<(String, f64)> {
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "redis-benchmark", "-p", &port.to_string(), "-t", "set,get,incr", "-n", requests]);
    let output = command.args(["-c", "50", "-P", &depth.to_string(), "--csv"]).output().expect("redis-benchmark");
    let text = String::from_utf8_lossy(&output.stdout).replace('"', "");
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split(',');
        Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
    });
    lines.collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
