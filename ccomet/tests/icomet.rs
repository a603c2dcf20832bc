//! The API of icomet as its clients see it, byte by byte.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use ccomet::{Config, IcometAuth};
use common::stage::{ANN, Stage};
use common::{Client, Local, Reply, config};
use sealed::sim::Peer;
use testing::http::request;

const SECOND: Duration = Duration::from_secs(1);

fn icomet() -> Config {
    let mut config = config(2);
    config.icomet.polling_timeout_s = 1;
    config
}

fn get(address: SocketAddr, target: &str) -> Reply {
    Client::connect(address).get(target)
}

/// Returns the next chunk of a stream, or an empty text at its end.
fn next_chunk(stream: &mut Client) -> String {
    stream.chunk().unwrap_or_default()
}

fn text(address: SocketAddr, target: &str) -> String {
    get(address, target).text().to_owned()
}

#[test]
fn each_poll_gets_one_event_and_keeps_its_connection() {
    let server = Local::start(icomet());
    assert_eq!(text(server.admin, "/push?cname=abc&content=one"), "{\"type\":\"ok\"}\n");
    assert_eq!(text(server.admin, "/pub?cname=abc&content=t%5Cu0077o&cb=f"), "f({\"type\":\"ok\"});");
    let mut client = Client::connect(server.front);
    let reply = client.get("/sub?cname=abc&seq=1&cb=cb");
    assert_eq!(reply.text(), "cb({\"type\":\"data\",\"cname\":\"abc\",\"seq\":1,\"content\":\"one\"});\n");
    for (name, value) in [
        ("Expires", "0"),
        ("Cache-Control", "no-cache"),
        ("Connection", "keep-alive"),
        ("Content-Type", "text/javascript; charset=utf-8"),
        ("Transfer-Encoding", "chunked"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{reply:?}");
    }
    let next = client.get("/poll?cname=abc&seq=2");
    assert_eq!(next.text(), "{\"type\":\"data\",\"cname\":\"abc\",\"seq\":2,\"content\":\"two\"}\n");
    assert_eq!(next.header("Content-Type"), Some("application/json; charset=utf-8"));
}

#[test]
fn a_poll_without_a_number_gets_the_number() {
    let server = Local::start(icomet());
    text(server.admin, "/push?cname=abc&content=one");
    let next = "{\"type\":\"next_seq\",\"cname\":\"abc\",\"seq\":2,\"content\":\"\"}\n";
    for seq in ["", "&seq=0", "&seq=3", "&seq=-7", "&seq=x"] {
        assert_eq!(text(server.front, &format!("/sub?cname=abc{seq}")), next, "{seq}");
    }
}

#[test]
fn a_silent_stream_gets_counted_noops() {
    let server = Local::start(icomet());
    text(server.admin, "/push?cname=abc&content=one");
    let noop = "{\"type\":\"noop\",\"cname\":\"abc\",\"seq\":7,\"content\":\"\"}\n";
    assert_eq!(text(server.front, "/sub?cname=abc&seq=2&noop=7"), noop);
    let mut stream = Client::connect(server.front);
    stream.ask("GET", "/stream?cname=abc&seq=2&noop=7", "");
    stream.head();
    assert_eq!(next_chunk(&mut stream), noop);
    assert_eq!(next_chunk(&mut stream), noop.replace('7', "8"));
    text(server.admin, "/push?cname=abc&content=two");
    assert!(next_chunk(&mut stream).contains("two"));
    assert_eq!(next_chunk(&mut stream), noop.replace('7', "9"));
}

#[test]
fn all_kinds_of_streams_carry_the_same_events() {
    let server = Local::start(icomet());
    for content in ["a", "b%3C/script%3E"] {
        text(server.admin, &format!("/push?cname=abc&content={content}"));
    }
    let events = [
        r#"{"type":"data","cname":"abc","seq":1,"content":"a"}"#,
        r#"{"type":"data","cname":"abc","seq":2,"content":"b<\/script>"}"#,
        r#"{"type":"close","cname":"abc","seq":3,"content":""}"#,
    ];
    let mut streams: Vec<(Client, &str, &str)> = Vec::new();
    for (path, before, after) in
        [("stream", "", "\n"), ("sse", "data: ", "\n\n"), ("iframe", "<script>parent.icomet_cb(", ");</script>\n")]
    {
        let mut stream = Client::connect(server.front);
        stream.ask("GET", &format!("/{path}?cname=abc&seq=1"), "");
        let (_, head) = stream.head();
        let kind = match path {
            "sse" => "text/event-stream; charset=utf-8",
            "iframe" => "text/html; charset=utf-8",
            _ => "application/json; charset=utf-8",
        };
        assert!(head.contains(&format!("Content-Type: {kind}\r\n")), "{head}");
        assert_eq!(head.contains("Access-Control-Allow-Origin: *"), path == "sse", "{head}");
        if path == "iframe" {
            assert!(next_chunk(&mut stream).starts_with("<!DOCTYPE html>"));
        }
        streams.push((stream, before, after));
    }
    for (stream, before, after) in &mut streams {
        let said_of = |event: &&str| [*before, *event, *after].concat();
        let expected = events[..2].iter().map(said_of).collect::<Vec<_>>().concat();
        let mut got = String::new();
        while got.len() < expected.len() {
            got += &next_chunk(stream);
        }
        assert_eq!(got, expected);
    }
    assert_eq!(text(server.admin, "/close?cname=abc"), "ok 3");
    for (mut stream, before, after) in streams {
        assert_eq!(next_chunk(&mut stream), format!("{before}{}{after}", events[2]));
        assert_eq!(next_chunk(&mut stream), "", "the response ends");
    }
    let gone = get(server.admin, "/close?cname=abc");
    assert_eq!((gone.status, gone.text()), (404, "channel[abc] not connected"));
}

#[test]
fn a_broadcast_takes_a_number_in_every_channel() {
    let server = Local::start(icomet());
    for name in ["a", "b"] {
        text(server.admin, &format!("/push?cname={name}&content=first"));
    }
    assert_eq!(text(server.admin, "/broadcast?content=all"), "ok");
    for name in ["a", "b"] {
        let event = format!("{{\"type\":\"broadcast\",\"cname\":\"{name}\",\"seq\":2,\"content\":\"all\"}}\n");
        assert_eq!(text(server.front, &format!("/sub?cname={name}&seq=2")), event);
    }
}

#[test]
fn clearing_drops_history_and_keeps_the_number() {
    // With one loop, requests that are sent together take effect together.
    let mut config = icomet();
    config.loops = 1.try_into().ok();
    let server = Local::start(config);
    let mut reader = Client::connect(server.front);
    reader.ask("GET", "/stream?cname=abc&seq=0", "");
    reader.head();
    assert!(next_chunk(&mut reader).contains("next_seq"));
    for content in ["one", "two"] {
        text(server.admin, &format!("/push?cname=abc&content={content}"));
    }
    assert_eq!(text(server.admin, "/clear?cname=abc"), "ok 3");
    assert!(next_chunk(&mut reader).contains("one") && next_chunk(&mut reader).contains("two"), "it kept up");
    text(server.admin, "/push?cname=abc&content=three");
    assert!(next_chunk(&mut reader).contains("three"));
    assert!(text(server.front, "/sub?cname=abc&seq=1").contains("three"), "nothing before is kept");
    assert_eq!(get(server.admin, "/clear?cname=other").status, 404);
    let ask = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut admin = Client::connect(server.admin);
    admin.send(ask("/push?cname=abc&content=four") + &ask("/clear?cname=abc"));
    assert_eq!([admin.reply().status, admin.reply().status], [200, 200]);
    assert!(next_chunk(&mut reader).contains("four"), "a reader that keeps up gets earlier messages");
}

#[test]
fn a_signed_channel_requires_its_token() {
    let mut config = icomet();
    config.icomet.auth = IcometAuth::Token;
    let server = Local::start(config);
    let refused = "{\"type\":\"401\",\"cname\":\"abc\",\"seq\":0,\"content\":\"Token error\"}\n";
    assert_eq!(text(server.front, "/sub?cname=abc&seq=0"), refused, "unsigned");
    let sign = get(server.admin, "/sign?cname=abc&expires=60");
    let json = sign.json();
    let token = json["token"].as_str().expect("a token").to_owned();
    let expected = format!(
        "{{\"type\":\"sign\",\"cname\":\"abc\",\"seq\":1,\"token\":\"{token}\",\"expires\":60,\"sub_timeout\":1}}"
    );
    assert_eq!(sign.text().trim_end(), expected);
    assert_eq!(token.len(), 32);
    let other = get(server.admin, "/sign?cname=other").json()["token"].as_str().expect("a token").to_owned();
    assert_ne!(token, other);
    for wrong in ["", "&token=", &format!("&token={other}"), &format!("&token={}", &token[1..]), "&token=+"] {
        assert_eq!(text(server.front, &format!("/sub?cname=abc&seq=0{wrong}")), refused, "{wrong}");
    }
    let right = text(server.front, &format!("/sub?cname=abc&seq=0&token={token}"));
    assert_eq!(right, "{\"type\":\"next_seq\",\"cname\":\"abc\",\"seq\":1,\"content\":\"\"}\n");
    let again = get(server.admin, "/sign?cname=abc").json();
    assert_eq!(again["token"], token, "it stays while the channel does");
}

#[test]
fn without_its_own_tokens_the_rules_for_clients_without_a_token_apply() {
    let mut config = icomet();
    config.auth.keys = vec![common::stage::key("main")];
    let closed = Local::start(config.clone());
    let reply = get(closed.front, "/sub?cname=abc&seq=0");
    assert_eq!((reply.status, reply.header("WWW-Authenticate")), (401, Some("Bearer")), "{reply:?}");
    // With its own tokens, those of the site are not needed.
    config.icomet.auth = IcometAuth::Token;
    let signing = Local::start(config);
    let token = get(signing.admin, "/sign?cname=abc").json()["token"].as_str().expect("a token").to_owned();
    let right = text(signing.front, &format!("/sub?cname=abc&seq=0&token={token}"));
    assert_eq!(right, "{\"type\":\"next_seq\",\"cname\":\"abc\",\"seq\":1,\"content\":\"\"}\n");
}

#[test]
fn back_ends_can_list_channels_and_watch_presence() {
    let server = Local::start(icomet());
    assert_eq!(text(server.admin, "/check?cname=abc"), "{}");
    let mut watch = Client::connect(server.admin);
    watch.ask("GET", "/psub", "");
    watch.head();
    let mut reader = Client::connect(server.front);
    reader.ask("GET", "/stream?cname=abc&seq=0", "");
    reader.head();
    assert_eq!(next_chunk(&mut watch), "1 abc\n");
    assert_eq!(text(server.admin, "/check?cname=abc"), "{\"abc\": 1}");
    assert_eq!(text(server.admin, "/info?cname=abc"), "{\"cname\": \"abc\", \"subscribers\": 1}");
    let info = get(server.admin, "/info").json();
    assert_eq!((&info["channels"], &info["subscribers"]), (&1.into(), &1.into()), "{info}");
    assert_eq!(text(server.admin, "/info?cname=none"), "{\"cname\": \"none\", \"subscribers\": 0}");
    text(server.admin, "/close?cname=abc");
    assert_eq!(next_chunk(&mut watch), "0 abc\n");
    assert_eq!(text(server.admin, "/check?cname=abc"), "{}");
}

#[test]
fn a_token_keeps_its_channel_for_the_time_that_was_asked_for() {
    let stage = Stage::new(|config| config.icomet.auth = IcometAuth::Token);
    let sign =
        stage.exchange(&mut stage.admin(), "GET", "/sign?cname=abc&expires=300", "X-Requested-With: test\r\n", "");
    let token = sign.json()["token"].as_str().expect("a token").to_owned();
    let subscribe = || {
        let target = format!("/sub?cname=abc&seq=0&token={token}");
        stage.exchange(&mut stage.connect(ANN), "GET", &target, "", "")
    };
    stage.sim.run_for(SECOND * 290);
    assert!(subscribe().is(200, "next_seq"), "nothing was published in it, and no one read it");
    // Nobody is there for longer than anything of the channel is kept.
    stage.sim.run_for(SECOND * 100_000);
    assert!(subscribe().is(200, "Token error"));
    assert_eq!(stage.server.holdings().channels, 0);
}

/// Returns the lines that a client of `/psub` has received since the last call.
fn lines(stage: &Stage, watcher: &mut Peer) -> Vec<String> {
    let text = stage.received(watcher);
    let is_line = |line: &&str| line.starts_with("0 ") || line.starts_with("1 ");
    text.lines().filter(is_line).map(str::to_owned).collect()
}

#[test]
fn a_watcher_learns_which_channels_come_into_use_and_go_out_of_use() {
    for loops in [1, 2] {
        let stage = Stage::with(1, loops, |config| {
            config.icomet.channel_timeout_s = 60;
            config.front.patterns = true;
        });
        let admin = |target: &str| stage.exchange(&mut stage.admin(), "GET", target, "X-Requested-With: test\r\n", "");
        let watch = || {
            let mut watcher = stage.admin();
            watcher.send(request("GET", "/psub", "", ""));
            stage.sim.settle();
            watcher
        };
        let mut early = watch();
        // The channel of a pattern is none of its own.
        let _pattern = stage.begin(ANN, "GET", "/channels/read*?transport=sse", "");
        let reader = stage.begin(ANN, "GET", "/stream?cname=read&seq=0", "");
        assert!(admin("/push?cname=pushed&content=one").is(200, "ok"));
        assert!(admin("/sign?cname=signed&expires=300").is(200, "token"));
        let mut seen = lines(&stage, &mut early);
        seen.sort();
        assert_eq!(seen, ["1 pushed", "1 read", "1 signed"]);

        stage.sim.run_for(SECOND * 50);
        assert_eq!(lines(&stage, &mut early), [""; 0], "nothing has changed");
        // A later watcher learns of channels in use when they are reported again.
        let mut late = watch();
        stage.sim.run_for(SECOND * 20);
        for watcher in [&mut early, &mut late] {
            let mut seen = lines(&stage, watcher);
            seen.sort();
            assert_eq!(seen, ["0 pushed", "1 read", "1 signed"], "{loops} loops");
        }
        assert!(admin("/check?cname=pushed").is(200, "{}"));
        assert!(admin("/check?cname=read").is(200, "{\"read\": 1}"));

        // The reader leaves, and the channel is in use for a minute more.
        drop(reader);
        stage.sim.run_for(SECOND * 50);
        assert!(!lines(&stage, &mut early).contains(&"0 read".to_owned()));
        stage.sim.run_for(SECOND * 20);
        assert!(lines(&stage, &mut early).contains(&"0 read".to_owned()));
        // The token holds its channel for five minutes.
        stage.sim.run_for(SECOND * 140);
        assert!(!lines(&stage, &mut early).contains(&"0 signed".to_owned()));
        stage.sim.run_for(SECOND * 30);
        assert!(lines(&stage, &mut early).contains(&"0 signed".to_owned()));

        // Without watchers nothing is recorded. The next one learns at once what is in use.
        drop((early, late));
        stage.sim.run_for(SECOND);
        assert!(admin("/push?cname=again&content=two").is(200, "ok"));
        assert_eq!(lines(&stage, &mut watch()), ["1 again"]);
    }
}

#[test]
fn unknown_methods_and_parameters_are_refused() {
    let server = Local::start(icomet());
    for target in ["/sub?cname=a", "/stream?cname=a", "/sse?cname=a", "/iframe?cname=a", "/ping"] {
        let mut client = Client::connect(server.front);
        assert_eq!(client.post(target, "x").status, 405, "{target}");
    }
    assert_eq!(Client::connect(server.admin).post("/push?cname=a&content=b", "").text(), "{\"type\":\"ok\"}\n");
    assert_eq!(Client::connect(server.admin).post("/broadcast?content=b", "").status, 405);
    for target in ["/sub", "/sub?cname=a&cb=alert(1)", "/sub?cname=a,b", "/sub?cname=a%0d%0aX:y"] {
        assert_eq!(get(server.front, target).status, 400, "{target}");
    }
    for target in ["/push?cname=a&content=b", "/pub?cname=a&content=b", "/close?cname=a", "/psub", "/info"] {
        assert_eq!(get(server.front, target).status, 404, "{target} is not for the front");
    }
    assert_eq!(text(server.front, "/ping"), "icomet_cb({\"type\":\"ping\",\"sub_timeout\":1});\n");
    assert_eq!(text(server.front, "/ping?cb=f"), "f({\"type\":\"ping\",\"sub_timeout\":1});\n");
}

#[test]
fn limits_are_reported_as_icomet_reports_them() {
    let mut config = icomet();
    config.loops = 1.try_into().ok();
    config.limits.channels_max = 1;
    config.limits.subscribers_per_channel_max = 1;
    let server = Local::start(config);
    let mut reader = Client::connect(server.front);
    reader.ask("GET", "/stream?cname=abc&seq=0", "");
    reader.head();
    next_chunk(&mut reader);
    let too_many = |name: &str, what: &str| {
        format!("{{\"type\":\"429\",\"cname\":\"{name}\",\"seq\":0,\"content\":\"Too many {what}\"}}")
    };
    assert_eq!(text(server.front, "/sub?cname=abc"), too_many("abc", "subscribers") + "\n");
    assert_eq!(text(server.front, "/sub?cname=b&cb=f"), format!("f({});\n", too_many("b", "channels")));
    assert_eq!(text(server.front, "/sse?cname=b"), format!("data: {}\n\n", too_many("b", "channels")));
    assert_eq!(get(server.admin, "/push?cname=b&content=x").status, 429);
}

/// Browsers do not run a response without a script's content type if it has `nosniff`.
#[test]
fn jsonp_replies_are_scripts_in_every_api() {
    let mut config = icomet();
    config.loops = 1.try_into().ok();
    config.limits.channels_max = 2;
    let server = Local::start(config);
    text(server.admin, "/push?cname=abc&content=one");
    text(server.admin, "/push?cname=other&content=one");
    let mut closed = Client::connect(server.front);
    closed.ask("GET", "/sub?cname=other&seq=2&cb=f", "");
    common::wait_until("it waits", || text(server.admin, "/info?cname=other").contains("\"subscribers\": 1"));
    assert_eq!(text(server.admin, "/close?cname=other"), "ok 2");
    let closed = closed.reply();
    text(server.admin, "/push?cname=other&content=one");
    let front = [
        "/sub?cname=abc&seq=1&cb=f",
        "/poll?cname=abc&seq=0&cb=f",
        "/sub?cname=abc&seq=2&cb=f",
        "/sub?cname=one-too-many&cb=f",
        "/ping?cb=f",
        "/channels/abc?after=oldest&wait=0&callback=f",
        "/channels/abc?after=wrong&callback=f",
        "/channels/one-too-many?callback=f",
        "/channels/abc?publish=two&callback=f",
        "/sign?channel=abc&sname=ann&callback=f",
        "/publish?channel=abc&sname=ann&msg=x&callback=f",
        "/publish?channel=abc&callback=f",
        "/subscribe?channel=abc&sname=ann&seqid=0&callback=f",
    ];
    let admin = ["/push?cname=abc&content=x&cb=f", "/pub?cname=abc&content=x&cb=f", "/sign?cname=abc&cb=f"];
    let front = front.iter().map(|target| (*target, get(server.front, target)));
    let admin = admin.iter().map(|target| (*target, get(server.admin, target)));
    for (target, reply) in front.chain(admin).chain([("/close", closed)]) {
        assert!(reply.text().trim_start_matches("/**/").starts_with("f("), "{target}: {reply:?}");
        assert_eq!(reply.header("Content-Type"), Some("text/javascript; charset=utf-8"), "{target}: {reply:?}");
        assert_eq!(reply.header("X-Content-Type-Options"), Some("nosniff"), "{target}: {reply:?}");
    }
}

#[test]
fn a_form_is_read_like_a_query_and_overrides_it() {
    let mut config = icomet();
    config.limits.message_bytes_max = 1_024;
    let server = Local::start(config);
    let mut admin = Client::connect(server.admin);
    let read = |seq: usize| get(server.front, &format!("/poll?cname=abc&seq={seq}")).json()["content"].clone();
    for (index, (target, body, content)) in [
        ("/push", "cname=abc&content=hello", "hello".to_owned()),
        ("/push?cname=no&content=no", "cname=abc&content=a%20b+c%26%c3%a9", "a b c&\u{e9}".to_owned()),
        ("/push?cname=abc", "content=of+both", "of both".to_owned()),
        ("/push?cname=abc&content=query", "", "query".to_owned()),
        ("/pub", "content=t%5Cu0077o&cname=abc", "two".to_owned()),
        // The longest message that is allowed, with each of its bytes escaped.
        ("/push", &format!("cname=abc&content={}", "%78".repeat(1_024)), "x".repeat(1_024)),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(admin.post(target, body).text(), "{\"type\":\"ok\"}\n", "{target} {body}");
        assert_eq!(read(index + 1), content, "{target} {body}");
    }
    let call = admin.post("/push", "cname=abc&content=x&cb=f");
    assert_eq!(
        (call.text(), call.header("Content-Type")),
        ("f({\"type\":\"ok\"});", Some("text/javascript; charset=utf-8"))
    );
    for (body, status) in [
        ("content=x".to_owned(), 400),
        ("\u{1}&=&&cname".to_owned(), 400),
        ("cname=abc&cb=alert(1)".to_owned(), 400),
        (format!("cname=abc&content={}", "x".repeat(1_025)), 413),
    ] {
        assert_eq!(admin.post("/push", &body).status, status, "{body}");
    }
    let too_long = format!("cname=abc&content={}", "x".repeat(5_000));
    assert_eq!(Client::connect(server.admin).post("/push", too_long).status, 413);
    // A reader's parameters come from the query only.
    assert_eq!(Client::connect(server.front).post("/sub", "cname=abc").status, 405);
}

/// Expects a call with `429`: icomet's client retries some seconds after it, but after an answer
/// that is no call only when its own timeout is over.
#[test]
fn a_client_over_its_rate_gets_the_error_as_a_jsonp_call() {
    let stage = Stage::new(|config| config.limits.subscribes_per_address_minute = 1);
    let mut peer = stage.connect(ANN);
    let mut ask = || stage.exchange(&mut peer, "GET", "/sub?cname=a&seq=0&cb=f", "", "");
    assert!(ask().contains("next_seq"));
    let refused = ask();
    let call = "f({\"type\":\"429\",\"cname\":\"a\",\"seq\":0,\"content\":\"Too many requests\"});\n";
    assert!(refused.contains(call) && refused.contains("text/javascript"), "{refused}");
}
