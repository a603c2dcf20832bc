//! Malformed requests to every endpoint: the server answers with a clear error, and goes on.

mod common;

use common::{Client, Local, config};

#[test]
fn malformed_calls_are_answered_with_a_code() {
    let server = Local::start(config(2));
    let mut client = Client::connect(server.front);
    let long = "x".repeat(129);
    let many = (0..33).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    for (method, target, status, code) in [
        ("GET", "/channels/", 400, "bad_channel"),
        ("GET", "/channels/a,", 400, "bad_channel"),
        ("GET", "/channels/a%2Cb", 400, "bad_channel"),
        ("GET", "/channels/%ff", 400, "bad_channel"),
        ("GET", "/channels/%zz", 400, "bad_channel"),
        ("GET", "/channels/a%0d%0ab", 400, "bad_channel"),
        ("GET", "/channels/..", 400, "bad_channel"),
        ("GET", "/channels/a/b", 404, "not_found"),
        ("GET", "/channels/news.*", 403, "pattern_forbidden"),
        ("POST", "/channels/news.*", 403, "pattern_forbidden"),
        ("GET", &format!("/channels/{long}"), 400, "bad_channel"),
        ("GET", &format!("/channels/{many}"), 400, "too_many_channels"),
        ("GET", "/channels/a,a", 400, "too_many_channels"),
        ("GET", "/channels/a?after=", 400, "bad_position"),
        ("GET", "/channels/a?after=7", 400, "bad_position"),
        ("GET", "/channels/a?after=%ff", 400, "bad_position"),
        ("GET", "/channels/a,b?after=0000000000001-0000000001", 400, "bad_position"),
        ("GET", "/channels/a?wait=x", 400, "bad_parameter"),
        ("GET", "/channels/a?wait=-1", 400, "bad_parameter"),
        ("GET", "/channels/a?wait=%ff", 400, "bad_parameter"),
        ("GET", "/channels/a?callback=alert(document.cookie)", 400, "bad_callback"),
        ("GET", "/channels/a?callback=%3Cscript%3E", 400, "bad_callback"),
        ("GET", "/channels/a?callback=", 400, "bad_callback"),
        ("POST", "/channels/a,a", 400, "too_many_channels"),
        ("POST", "/channels/a,,b", 400, "bad_channel"),
        ("GET", "/channels/a/presents", 404, "not_found"),
        ("GET", "/channels/a/info", 404, "not_found"),
        ("GET", "/channels/a/history?limit=0", 400, "bad_parameter"),
        ("GET", "/channels/a/history?after=oldest&before=latest", 400, "bad_parameter"),
        ("GET", "/channels/a/history?before=oldest", 400, "bad_position"),
        ("GET", "/channels/a/history", 404, "unknown_channel"),
        ("DELETE", "/channels/a/history", 405, "method_not_allowed"),
        ("GET", "/channels/a?last=x", 400, "bad_parameter"),
        ("GET", "/channels/a?last=1&after=oldest", 400, "bad_parameter"),
        ("POST", "/channels/%ff", 400, "bad_channel"),
        ("PUT", "/channels/a", 405, "method_not_allowed"),
        ("DELETE", "/channels/a", 405, "method_not_allowed"),
        ("POST", "/chat.html", 405, "method_not_allowed"),
        ("POST", "/nowhere", 404, "not_found"),
        ("PUT", "/channels", 404, "not_found"),
        ("GET", "/channels", 404, "not_found"),
        ("GET", "/etc/passwd", 404, "not_found"),
        ("GET", "/../Cargo.toml", 404, "not_found"),
    ] {
        let length = if method == "POST" || method == "PUT" { "Content-Length: 0\r\n" } else { "" };
        client.ask(method, target, length);
        let reply = client.reply();
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{method} {target}");
        let json = reply.json();
        assert_eq!((&json["code"], &json["status"]), (&code.into(), &status.into()), "{method} {target}");
        assert!(json["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "a sentence: {json}");
        assert_eq!(reply.header("allow").is_some(), status == 405, "{method} {target}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{method} {target}");
    }
    client.publish("a", "still here, and on the same connection");
}

#[test]
fn malformed_http_is_refused_and_nothing_after_it_is_answered() {
    let server = Local::start(config(1));
    let valid = "GET /channels/a?wait=0 HTTP/1.1\r\nHost: h\r\n\r\n";
    let body = "Content-Length: 5\r\n";
    for (request, status) in [
        ("hello\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\nHost: h\n\n".to_owned(), 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), 505),
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(20_000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("POST /channels/a HTTP/1.1\r\nHost: h\r\n{body}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /channels/a HTTP/1.1\r\nHost: h\r\n{body}{body}\r\nhello"), 400),
        ("POST /channels/a HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n".to_owned(), 400),
        ("POST /channels/a HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n".to_owned(), 413),
        ("POST /channels/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n".to_owned(), 400),
        ("POST /channels/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n".to_owned(), 413),
    ] {
        let mut client = Client::connect(server.front);
        client.send(format!("{request}{valid}"));
        let reply = client.reply();
        assert_eq!(reply.status, status, "{request}");
        assert_eq!(reply.json()["status"], status, "{request}");
        assert!(client.is_closed(), "{request}");
    }
    assert_eq!(Client::connect(server.front).get("/channels/a?wait=0").messages(), Vec::<String>::new());
}

#[test]
fn an_incomplete_request_is_given_up() {
    let mut settings = config(1);
    settings.times.request_s = 1;
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    client.send("POST /channels/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel");
    assert_eq!(client.reply().status, 408);
    assert!(client.is_closed());
    assert!(Client::connect(server.front).is_closed(), "nor may one connect and say nothing");
}

#[test]
fn errors_name_the_wrong_parameter() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    for (target, name) in [
        ("/channels/a?wait=x", "wait"),
        ("/channels/a?last=x", "last"),
        ("/channels/a?presence=2", "presence"),
        ("/channels/a?transport=pigeon", "transport"),
        ("/channels/a/history?limit=0", "limit"),
        ("/channels/a?after=x", "after"),
        ("/channels/a/history?after=x", "after"),
        ("/channels/a/history?before=oldest", "before"),
    ] {
        let detail = client.get(target).json()["detail"].as_str().expect("a sentence").to_owned();
        assert!(detail.contains(&format!("'{name}'")), "{target}: {detail}");
    }
    client.ask("POST", "/channels/a?ttl=0", "Content-Length: 0\r\n");
    assert!(client.reply().text().contains("'ttl'"));
    client.ask("POST", "/channels/a", "Idempotency-Key: a b\u{e9}\r\nContent-Length: 0\r\n");
    assert!(client.reply().text().contains("'Idempotency-Key'"));
}

#[test]
fn parameters_that_exclude_each_other_are_not_reported_as_malformed() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    for (target, excluded) in [
        ("/channels/a?after=xyz&last=1", "'after' and 'last'"),
        ("/channels/a/history?before=latest&after=oldest", "'after' and 'before'"),
    ] {
        let problem = client.get(target).json();
        assert_eq!(problem["code"], "bad_parameter");
        assert_eq!(problem["detail"], format!("{excluded} cannot be used together."), "{target}");
    }
}

#[test]
fn an_unknown_subresource_of_a_channel_is_not_found() {
    let server = Local::start(config(1));
    for (listener, target) in [
        (server.front, "/channels/a/presences"),
        (server.front, "/channels/a/info"),
        (server.front, "/channels/a*/b"),
        (server.admin, "/channels/a/presence/more"),
    ] {
        let reply = Client::connect(listener).get(target);
        assert!(reply.is(404, "not_found") && reply.contains("%2F"), "{target}: {reply:?}");
    }
}

#[test]
fn a_body_with_a_content_encoding_is_refused() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    for path in ["/channels/a", "/messages"] {
        client.ask("POST", path, "Content-Encoding: gzip\r\nContent-Length: 0\r\n");
        let reply = client.reply();
        assert_eq!((reply.status, &reply.json()["code"]), (415, &"unsupported_encoding".into()), "{path}");
    }
    client.ask("POST", "/channels/a", "Content-Encoding: identity\r\nContent-Length: 0\r\n");
    assert_eq!(client.reply().status, 200);
}

#[test]
fn a_wrong_message_of_a_batch_is_named_and_none_is_kept() {
    let server = Local::start(config(2));
    let mut client = Client::connect(server.front);
    let good = r#"{"channel":"a","data":"x"}"#;
    for bad in [
        r#"{"channel":"a","data":"\ud800"}"#,
        r#"{"channel":"a"}"#,
        r#"{"data":"x"}"#,
        r#"{"channel":"a","data":"x","color":"red"}"#,
        r#"{"channel":"a","channel":"b","data":"x"}"#,
        r#"{"channel":"a,b","data":"x"}"#,
        r#"{"channel":"a","data":"x","event":"\n"}"#,
        r#"{"channel":"a","data":"x","ttl":0}"#,
        r#"{"channel":"a","data":"x","key":"a b"}"#,
        r#"{"channel":"a","data_base64":"eA"}"#,
        "17",
    ] {
        let body = format!(r#"{{"messages":[{good},{good},{bad}]}}"#);
        let reply = client.post("/messages", &body);
        assert_eq!(reply.status, 400, "{bad}");
        assert!(reply.text().contains("messages[2]"), "{bad}: {reply:?}");
    }
    assert_eq!(client.get("/channels/a?after=oldest&wait=0").messages(), Vec::<String>::new());
}
