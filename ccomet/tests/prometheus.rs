//! Prometheus scrapes a server, and `promtool` accepts the metrics, the alert rules, and the
//! queries of the dashboard.

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};

use common::metrics::{Metrics, documented};
use common::{Client, Folder, Process, wait_until};
use serde_json::{Value, json};
use testing::process::{self, free_address};
use testing::programs::{Need, run};
use testing::tests;

fn main() -> ExitCode {
    run(tests![
        needs [];
        the_configuration_is_the_one_in_the_documentation,
        all_metrics_of_a_process_are_documented,
        rules_and_dashboard_use_metrics_that_exist;
        needs [Need::Program("promtool")]; promtool_accepts_metrics_rules_and_queries;
        needs [Need::Program("prometheus")]; prometheus_scrapes_a_server_and_evaluates_the_rules
    ])
}

const CONFIGURATION: &str = include_str!("../prometheus/prometheus.yml");
const ALERTS: &str = include_str!("../prometheus/alerts.yml");
const BOARD: &str = include_str!("../prometheus/grafana.json");

/// Starts a server with a store, and lets it publish and refuse something.
fn server(folder: &Folder) -> Process {
    let server = Process::start("", &["--loops", "2", "--data", &folder.join("store").display().to_string()]);
    let mut client = Client::connect(server.front);
    client.publish("news", "text");
    assert_eq!(client.get("/channels/a,a").status, 400);
    server
}

fn page(admin: SocketAddr) -> String {
    let reply = Client::connect(admin).get("/metrics");
    assert_eq!(reply.status, 200);
    reply.text().to_owned()
}

/// Returns the queries of the dashboard.
fn queries() -> Vec<String> {
    let board: Value = serde_json::from_str(BOARD).expect("JSON");
    let panels = board["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel.get("targets")?.as_array()).flatten();
    let text = |target: &Value| target["expr"].as_str().expect("a query").to_owned();
    let variables =
        |query: String| query.replace("$__rate_interval", "1m").replace("$job", "ccomet").replace("$instance", ".*");
    targets.map(text).map(variables).collect()
}

fn the_configuration_is_the_one_in_the_documentation() {
    let shown = CONFIGURATION.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
    assert!(include_str!("../OPERATING.md").contains(&shown), "OPERATING.md shows this:\n{shown}");
}

fn all_metrics_of_a_process_are_documented() {
    let folder = Folder::new("metrics");
    let server = server(&folder);
    let metrics = Metrics::read(&page(server.admin));
    let documented = documented();
    for row in metrics.rows() {
        assert!(documented.contains(&row.as_str()), "{row}");
    }
    if cfg!(target_os = "linux") {
        assert!(metrics.of("process_resident_memory_bytes") > 1e6);
        assert!(metrics.of("process_threads") >= 2.0, "one for each loop at least");
    }
    assert!(metrics.of("ccomet_start_time_seconds") > 1.7e9);
    assert!(metrics.of("ccomet_tick_seconds_count") > 0.0);
}

fn rules_and_dashboard_use_metrics_that_exist() {
    let known: BTreeSet<&str> = documented().iter().filter_map(|row| row.split('`').nth(1)).collect();
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rules = ALERTS.lines().filter(|line| !line.contains("summary:") && !line.contains("description:"));
    let texts: Vec<String> = rules.map(str::to_owned).chain(queries()).collect();
    let words = texts.iter().flat_map(|text| text.split(|c| !is_of_name(c)));
    let used: BTreeSet<&str> =
        words.filter(|word| word.starts_with("ccomet_") || word.starts_with("process_")).collect();
    for name in &used {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
        assert!(parts.chain([*name]).any(|name| known.contains(name)), "{name}");
    }
    assert!(used.len() > 25, "{used:?}");
}

/// Runs `promtool` with this input, and asserts that it finds nothing.
fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {printed}");
}

fn promtool_accepts_metrics_rules_and_queries() {
    let folder = Folder::new("promtool");
    let server = server(&folder);
    promtool(&["check", "metrics"], &page(server.admin));
    let alerts = folder.write("alerts.yml", ALERTS);
    promtool(&["check", "rules", "--lint-fatal", &alerts.display().to_string()], "");
    // Each query as a rule: JSON is YAML, too.
    let rule = |(index, expr)| json!({ "record": format!("panel:{index}"), "expr": expr });
    let rules: Vec<Value> = queries().into_iter().enumerate().map(rule).collect();
    let rules = json!({ "groups": [{ "name": "board", "rules": rules }] });
    let queries = folder.write("queries.yml", rules.to_string());
    promtool(&["check", "rules", "--lint-fatal", &queries.display().to_string()], "");
    let configuration = configuration(&folder, server.admin);
    promtool(&["check", "config", &configuration], "");
}

/// Writes the configuration for a server, and the rules. Returns its path.
fn configuration(folder: &Folder, admin: SocketAddr) -> String {
    let alerts = folder.write("alerts.yml", ALERTS).display().to_string();
    let mut shown = CONFIGURATION.to_owned();
    for (held, other) in [("127.0.0.1:8000", admin.to_string()), ("/etc/prometheus/ccomet-alerts.yml", alerts)] {
        assert_eq!(shown.matches(held).count(), 1, "{held}");
        shown = shown.replace(held, &other);
    }
    let global = "global: { scrape_interval: 1s, evaluation_interval: 1s }\n";
    folder.write("prometheus.yml", format!("{global}{shown}")).display().to_string()
}

fn prometheus_scrapes_a_server_and_evaluates_the_rules() {
    let folder = Folder::new("prometheus");
    let server = server(&folder);
    let address = free_address([127, 0, 0, 1]);
    let log = std::fs::File::create(folder.join("log")).expect("a file");
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", configuration(&folder, server.admin)));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}")).stdout(Stdio::null()).stderr(log);
    let mut prometheus = process::Process::start(&mut command);
    let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    prometheus.wait_for_listener(address, log);
    let ask = |path: &str| {
        let reply = Client::connect(address).get(path);
        if reply.status == 200 { reply.json()["data"].clone() } else { Value::Null }
    };
    wait_until("the metrics are there", || {
        let published = "sum(ccomet_publishes_total%7Bjob=%22ccomet%22,result=%22accepted%22%7D)";
        ask(&format!("/api/v1/query?query={published}"))["result"][0]["value"][1] == "1"
    });
    wait_until("all rules are evaluated", || {
        let data = ask("/api/v1/rules");
        let rules = data["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        rules.len() == ALERTS.matches("- alert:").count() && rules.iter().all(|rule| rule["health"] == "ok")
    });
    let targets = ask("/api/v1/targets");
    assert_eq!(targets["activeTargets"][0]["health"], "up", "{targets}\n{}", log());
    assert_eq!(ask("/api/v1/alerts")["alerts"], json!([]), "nothing is wrong");
}
