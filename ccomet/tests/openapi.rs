//! The description of the API matches the server: its codes, its paths, and the answers that a
//! fuzzer gets.

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};

use common::{Client, Folder, Local, Process, config};
use serde_json::{Map, Value, json};
use testing::programs::{Need, run};
use testing::tests;

fn main() -> ExitCode {
    run(tests![
        needs [];
        the_document_is_at_the_admin_listener_alone,
        every_code_is_in_the_document_and_no_other,
        every_operation_of_the_document_is_there_at_its_listeners;
        needs [Need::Program("schemathesis")]; a_fuzzer_that_reads_the_document_finds_nothing
    ])
}

fn the_document_is_at_the_admin_listener_alone() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.admin);
    let reply = client.get("/openapi.json");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(reply.text(), include_str!("../openapi.json"));
    assert!(reply.json()["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    assert_eq!(reply.json()["info"]["version"], env!("CARGO_PKG_VERSION"));
    let tag = reply.header("etag").expect("a tag");
    client.ask("GET", "/openapi.json", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(client.head().0, 304);
    assert_eq!(Client::connect(server.front).get("/openapi.json").json()["code"], "not_found");
}

fn every_code_is_in_the_document_and_no_other() {
    let schemas = &document()["components"]["schemas"];
    let listed = |schema: &str| -> BTreeSet<String> {
        serde_json::from_value(schemas[schema]["enum"].clone()).expect("a list of codes")
    };
    let own = codes_in(include_str!("../src/core/problem.rs"), "fn parts");
    assert!(own.contains("bad_channel"), "{own:?}");
    assert_eq!(listed("Code"), own);
    // Static files have one code more, and the code of a refused WebSocket may be one of the
    // server's own.
    let mut http = codes_in(include_str!("../../sealed-http/src/codec/error.rs"), "fn code");
    http.extend(codes_in(include_str!("../../sealed-http/src/websocket/handshake.rs"), "fn code"));
    http.insert("precondition_failed".to_owned());
    assert!(http.contains("head_too_large"), "{http:?}");
    assert_eq!(listed("HttpCode"), http.difference(&own).cloned().collect());
}

/// Returns the string literals of a function that are codes.
fn codes_in(source: &str, function: &str) -> BTreeSet<String> {
    let (_, body) = source.split_once(function).expect("the function");
    let (body, _) = body.split_once("\n    }\n").expect("its end");
    let is_code = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    body.split('"').skip(1).step_by(2).filter(is_code).map(str::to_owned).collect()
}

fn every_operation_of_the_document_is_there_at_its_listeners() {
    let server = Local::start(config(1));
    let ask = |address: SocketAddr, method: &str, path: &str| {
        // On a new connection each time, since some of the calls close it.
        Client::connect(server.front).publish("a", "x");
        let target = path.replace("{names}", "a").replace("{name}", "a");
        let mut client = Client::connect(address);
        client.ask(&method.to_uppercase(), &format!("{target}?wait=0"), "Content-Length: 0\r\n");
        client.head().0
    };
    let mut there = 0;
    for (listener, address) in [(FRONT, server.front), (ADMIN, server.admin)] {
        let here = operations(&document_of(listener));
        for (method, path, operation) in &here {
            let status = ask(address, method, path);
            assert!(!matches!(status, 404 | 405), "{method} {path} of {}: {status}", listener.name);
            assert!(operation["responses"].get(status.to_string()).is_some(), "{method} {path}: {status}");
        }
        there += here.len();
        let is_here = |method: &str, path: &str| here.iter().any(|(held, at, _)| held == method && at == path);
        for (method, path, _) in operations(&document()).iter().filter(|(method, path, _)| !is_here(method, path)) {
            // The front takes an unknown part of a channel's path for a bad name.
            let status = ask(address, method, path);
            assert!(matches!(status, 400 | 404 | 405), "{method} {path} of {}: {status}", listener.name);
        }
    }
    assert!(there > 30, "{there}");
}

/// Runs Schemathesis, which makes good and bad requests from the document, and compares the answers
/// with it.
fn a_fuzzer_that_reads_the_document_finds_nothing() {
    let settings = "front.patterns = true\n\
                    times = { poll_wait_s = 1, poll_wait_max_s = 1, classic_poll_s = 1 }\n\
                    icomet.polling_timeout_s = 1\n";
    let server = Process::start(settings, &["--loops", "2"]);
    for (listener, address) in [(FRONT, server.front), (ADMIN, server.admin)] {
        let folder = Folder::new("openapi");
        let file = folder.write("openapi.json", for_fuzzing(document_of(listener)).to_string());
        let output = Command::new("schemathesis")
            .arg("run")
            .arg(&file)
            .args(["--url", &format!("http://{address}"), "--phases", "coverage,fuzzing", "--workers", "1"])
            .args(["--seed", "1", "--max-examples", "20", "--generation-database", "none", "--request-timeout", "30"])
            // A listener that needs no token ignores tokens, and a schema cannot express every
            // error.
            .args(["--exclude-checks", "ignored_auth,positive_data_acceptance,negative_data_rejection"])
            .args(["--suppress-health-check", "all", "--no-color"])
            // Schemathesis writes its results there.
            .current_dir(&*folder)
            .stdin(Stdio::null())
            .output();
        let output = output.expect("schemathesis");
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{} of {}\n{printed}", output.status, listener.name);
        let count =
            operations(&document_of(listener)).iter().filter(|(.., operation)| !has_tag(operation, STREAM)).count();
        assert!(printed.contains(&format!("Tested: {count}\n")), "{count} operations\n{printed}");
    }
}

/// Returns the document without streams, long waits, and members that are not listed.
fn for_fuzzing(mut document: Value) -> Value {
    for item in path_items(&mut document) {
        item.retain(|_, operation| !has_tag(operation, STREAM));
        for operation in item.values_mut().filter(|operation| operation.is_object()) {
            let Some(Value::Array(parameters)) = operation.get_mut("parameters") else { continue };
            for parameter in parameters {
                if parameter["name"] == "transport" {
                    parameter["schema"]["enum"] = json!(["poll"]);
                } else if parameter["name"] == "wait" {
                    parameter["schema"] = json!({ "const": 0 });
                    parameter["required"] = true.into();
                }
            }
        }
    }
    let Value::Object(schemas) = &mut document["components"]["schemas"] else { panic!("no schemas") };
    schemas.values_mut().for_each(close_objects);
    document
}

/// Forbids members that a schema does not name, in every object.
fn close_objects(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close_objects);
            if members.contains_key("properties") && members.contains_key("type") {
                members.insert("additionalProperties".to_owned(), false.into());
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(close_objects),
        _ => {}
    }
}

/// A listener, and the tag of the operations that it lacks.
#[derive(Clone, Copy)]
struct Listener {
    name: &'static str,
    without: &'static str,
}

const FRONT: Listener = Listener { name: "front", without: "admin only" };
const ADMIN: Listener = Listener { name: "admin", without: "front only" };

/// The tag of operations that do not end by themselves.
const STREAM: &str = "stream";

fn document() -> Value {
    let mut document: Value = serde_json::from_str(include_str!("../openapi.json")).expect("JSON");
    let shared = document["components"]["pathItems"].take();
    for item in path_items(&mut document) {
        let name = item.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        if let Some(Value::Object(held)) = name.map(|name| &shared[name]) {
            *item = held.clone();
        }
    }
    document
}

/// Returns the part of the document that is about one listener.
fn document_of(listener: Listener) -> Value {
    let mut document = document();
    for item in path_items(&mut document) {
        item.remove("servers");
        item.retain(|_, operation| !has_tag(operation, listener.without));
        for operation in item.values_mut().filter_map(Value::as_object_mut) {
            operation.remove("servers");
        }
    }
    document
}

fn path_items(document: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let Value::Object(paths) = &mut document["paths"] else { panic!("no paths") };
    paths.values_mut().filter_map(Value::as_object_mut)
}

/// Returns methods, paths and operations.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("a path item") {
            if operation.get("responses").is_some() {
                operations.push((method.clone(), path.clone(), operation.clone()));
            }
        }
    }
    operations
}

fn has_tag(operation: &Value, tag: &str) -> bool {
    operation["tags"].as_array().is_some_and(|tags| tags.iter().any(|held| held == tag))
}
