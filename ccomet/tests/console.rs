//! The resources of the console: slow readers, refusals and settings.

mod common;

use std::io::Write;

use common::{Client, Process, wait_until};
use serde_json::Value;
use testing::http::{connect, request};

#[test]
fn slow_readers_are_named_until_they_read() {
    let server = Process::start("", &["--loops", "2"]);
    let mut admin = Client::connect(server.admin);
    let mut list = || admin.get("/slow-readers").json();
    assert_eq!(list()["readers"], Value::Array(Vec::new()));
    wait_until("each loop looks", || list()["complete"] == true);

    let mut slow = connect(server.front);
    let get = request("GET", "/channels/flood", "Accept: text/event-stream\r\n", "");
    slow.write_all(get.as_bytes()).expect("sent");
    let mut publisher = Client::connect(server.front);
    let mut admin_too = Client::connect(server.admin);
    wait_until("it reads", || {
        let info = admin_too.get("/channels/flood/info");
        info.status == 200 && info.json()["subscribers"] == 1
    });
    let payload = "x".repeat(60_000);
    let mut published = 0;
    wait_until("a reader that does not read is slow", || {
        (0..10).for_each(|_| drop(publisher.publish("flood", &payload)));
        published += 10;
        !list()["readers"].as_array().expect("a list").is_empty()
    });
    assert_eq!(list()["count"], 1);
    let reader = list()["readers"][0].clone();
    assert_eq!((&reader["client"], &reader["transport"]), (&"127.0.0.1".into(), &"stream".into()), "{reader}");
    assert_eq!(reader["channel"], "flood");
    let behind = reader["behind"].as_u64().expect("a number");
    assert!((1..=published).contains(&behind), "{reader} of {published}");
    drop(slow);
    wait_until("nobody is slow who is gone", || list()["readers"] == Value::Array(Vec::new()));
}

#[test]
fn refusals_are_shown_with_their_reason_and_client() {
    let server = Process::start("[limits]\nmessage_bytes_max = 10\n", &["--loops", "2"]);
    // A request whose body is refused ends its connection.
    let post = |target: &str, body: &str| Client::connect(server.front).post(target, body).status;
    for _ in 0..3 {
        assert_eq!(post("/channels/news", "more than ten bytes"), 413);
    }
    assert_eq!(post("/channels/new%00s", "x"), 400);
    let mut admin = Client::connect(server.admin);
    let mut refusals = Vec::new();
    wait_until("both are shown", || {
        refusals = admin.get("/refusals").json()["refusals"].as_array().expect("a list").clone();
        let counts = |code: &str| -> u64 {
            let of = refusals.iter().filter(|refusal| refusal["code"] == code);
            of.map(|refusal| refusal["count"].as_u64().expect("a count")).sum()
        };
        counts("message_too_large") == 3 && counts("bad_channel") == 1
    });
    let too_large = refusals.iter().filter(|refusal| refusal["code"] == "message_too_large");
    for refusal in too_large {
        assert_eq!((&refusal["client"], &refusal["path"]), (&"127.0.0.1".into(), &"/channels/news".into()));
        assert!(refusal["reason"].as_str().is_some_and(|reason| reason.contains("10")), "{refusal}");
    }
}

#[test]
fn settings_are_shown_without_secrets_and_the_console_needs_the_key_for_all_but_its_pages() {
    let settings = "[admin]\nkeys = [\"an-admin-key-of-a-test\"]\n[auth]\n\
                    keys = [{ id = \"main\", algorithm = \"HS256\", secret = \"a long secret of the server that nobody may see\" }]\n";
    let server = Process::start(settings, &[]);
    let mut admin = Client::connect(server.admin);
    for page in ["/", "/docs"] {
        assert_eq!(admin.get(page).status, 200, "{page}");
    }
    for resource in ["/settings", "/refusals", "/slow-readers", "/openapi.json"] {
        assert_eq!(admin.get(resource).status, 401, "{resource}");
        assert_eq!(Client::connect(server.front).get(resource).status, 404, "{resource}");
    }
    admin.ask("GET", "/settings", "Authorization: Bearer an-admin-key-of-a-test\r\n");
    let reply = admin.reply();
    assert_eq!(reply.status, 200);
    assert!(reply.json()["limits"]["message_bytes_max"].is_u64());
    for secret in ["an-admin-key-of-a-test", "nobody may see"] {
        assert!(!String::from_utf8_lossy(&reply.body).contains(secret), "{secret}");
    }
}
