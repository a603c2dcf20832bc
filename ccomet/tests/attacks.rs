//! Attacks: pages of other origins, text that a reader could take for markup or script, and admin
//! calls at the front. Floods, tokens, addresses and malformed requests have tests of their own.

mod common;

use std::net::SocketAddr;

use ccomet::Config;
use common::{Client, Local, Reply, config, wait_until};
use serde_json::Value;
use testing::http::UPGRADE;

const EVIL: &str = "https://evil.example";
const FRIEND: &str = "https://friend.example";

/// Every readable target of the front, in every API, with the header fields that it needs.
const READS: [(&str, &str); 18] = [
    ("/channels/news/history", ""),
    ("/channels/news/presence", ""),
    ("/channels/news?wait=0", ""),
    ("/channels/news?after=oldest", "Accept: text/event-stream\r\n"),
    ("/channels/news?after=oldest", "Accept: application/x-ndjson\r\n"),
    ("/channels/news?after=oldest&transport=iframe", ""),
    ("/channels/news?wait=0&callback=f", ""),
    ("/channels/news?publish=x&callback=f", ""),
    ("/channels/news?after=7", ""),
    ("/channels/%ff", ""),
    ("/subscribe?channel=news&sname=ann&seqid=0&callback=f", ""),
    ("/subscribe?channel=news", ""),
    ("/poll?cname=news&seq=1", ""),
    ("/sub?cname=news&seq=1&cb=f", ""),
    ("/stream?cname=news&seq=1", ""),
    ("/sse?cname=news&seq=1", ""),
    ("/iframe?cname=news&seq=1", ""),
    ("/ping", ""),
];

fn with_friend() -> Config {
    let mut config = config(2);
    config.front.origins = vec![FRIEND.to_owned()];
    config
}

/// Sends a request on a new connection, and reads only the head of the answer.
fn head_of(address: SocketAddr, method: &str, target: &str, fields: &str) -> (u16, String) {
    let mut client = Client::connect(address);
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    client.ask(method, target, &format!("{length}{fields}"));
    let (status, head) = client.head();
    (status, head.to_ascii_lowercase())
}

fn ask(address: SocketAddr, method: &str, target: &str, fields: &str) -> Reply {
    let mut client = Client::connect(address);
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    client.ask(method, target, &format!("{length}{fields}"));
    client.reply()
}

fn history(address: SocketAddr, channel: &str) -> Vec<String> {
    Client::connect(address).get(&format!("/channels/{channel}?after=oldest&wait=0")).messages()
}

#[test]
fn a_page_of_an_unlisted_origin_reads_nothing() {
    let server = Local::start(with_friend());
    Client::connect(server.front).publish("news", "secret");
    for (target, fields) in READS {
        for origin in
            [EVIL, "null", "https://friend.example.evil.example", "http://friend.example", "https://FRIEND.example"]
        {
            let fields = format!("{fields}Origin: {origin}\r\n");
            let (_, head) = head_of(server.front, "GET", target, &fields);
            assert!(!head.contains("access-control-allow"), "{origin} {target}: {head}");
        }
    }
    for (method, target) in
        [("POST", "/channels/news"), ("HEAD", "/channels/news"), ("PUT", "/channels/news"), ("GET", "/chat.html")]
    {
        let (_, head) = head_of(server.front, method, target, &format!("Origin: {EVIL}\r\n"));
        assert!(!head.contains("access-control-allow"), "{method} {target}: {head}");
    }
    for wanted in ["GET", "POST", "DELETE"] {
        let fields = format!("Origin: {EVIL}\r\nAccess-Control-Request-Method: {wanted}\r\n");
        let (_, head) = head_of(server.front, "OPTIONS", "/channels/news", &fields);
        assert!(!head.contains("access-control-allow"), "{wanted}: {head}");
    }
    // A listed origin has access, and the answer names no other origin.
    for target in ["/channels/news?wait=0", "/sse?cname=news&seq=1"] {
        let (_, head) = head_of(server.front, "GET", target, &format!("Origin: {FRIEND}\r\n"));
        assert!(
            head.contains(&format!("access-control-allow-origin: {FRIEND}\r\n")) && head.contains("vary: origin"),
            "{head}"
        );
    }
    // A frame passes messages on only to the page that it was made for, not to a page that embeds
    // it.
    assert_eq!(head_of(server.front, "GET", &format!("/channels/news?transport=iframe&origin={EVIL}"), "").0, 400);
}

#[test]
fn a_page_of_an_unlisted_origin_opens_no_websocket() {
    let server = Local::start(with_friend());
    for (address, origin, status) in [
        (server.front, FRIEND, 101),
        (server.front, EVIL, 403),
        (server.front, "null", 403),
        (server.front, "https://localhost.evil.example", 403),
        (server.admin, FRIEND, 403),
        (server.admin, EVIL, 403),
        (server.admin, "http://localhost", 101),
    ] {
        let fields = format!("{UPGRADE}Origin: {origin}\r\n");
        assert_eq!(head_of(address, "GET", "/channels/news", &fields).0, status, "{origin}");
    }
}

#[test]
fn a_page_of_an_unlisted_origin_gets_no_script() {
    let server = Local::start(with_friend());
    let scripts = [
        "/channels/news?wait=0&callback=f",
        "/channels/news?publish=x&callback=f",
        "/publish?channel=news&sname=ann&msg=x&callback=f",
        "/sign?channel=news&sname=ann&callback=f",
        "/ping?cb=f",
    ];
    let from =
        |site: &str, page: &str| format!("Sec-Fetch-Site: {site}\r\nSec-Fetch-Dest: script\r\nReferer: {page}\r\n");
    for target in scripts {
        for fields in [
            from("cross-site", &format!("{EVIL}/page")),
            from("same-site", &format!("{EVIL}/page")),
            // The page forbids its browser to send a referrer; an older browser sends nothing else.
            "Sec-Fetch-Site: cross-site\r\n".to_owned(),
            format!("Referer: {EVIL}/?{FRIEND}/\r\n"),
            format!("Origin: {EVIL}\r\n"),
        ] {
            let reply = ask(server.front, "GET", target, &fields);
            assert_eq!(
                (reply.status, reply.json()["code"].as_str()),
                (403, Some("origin_forbidden")),
                "{target} {fields}"
            );
        }
    }
    assert!(history(server.front, "news").is_empty(), "and nothing was published for it");
    for target in scripts {
        for fields in [
            from("cross-site", &format!("{FRIEND}/page")),
            from("same-origin", "http://localhost/chat.html"),
            String::new(),
        ] {
            assert_eq!(head_of(server.front, "GET", target, &fields).0, 200, "{target} {fields}");
        }
    }
}

/// Calls of the admin listener in every API, as method and target.
const ADMIN_CALLS: [(&str, &str); 19] = [
    ("GET", "/channels"),
    ("GET", "/channels/news/info"),
    ("DELETE", "/channels/news/history"),
    ("POST", "/channels/news*"),
    ("DELETE", "/channels/news"),
    ("GET", "/push?cname=news&content=bad"),
    ("POST", "/push?cname=news&content=bad"),
    ("GET", "/pub?cname=news&content=bad"),
    ("POST", "/pub?cname=news&content=bad"),
    ("GET", "/broadcast?content=bad"),
    ("GET", "/sign?cname=news"),
    ("GET", "/sign?cname=news&cb=f"),
    ("GET", "/close?cname=news"),
    ("GET", "/clear?cname=news"),
    ("GET", "/info"),
    ("GET", "/info?cname=news"),
    ("GET", "/check?cname=news"),
    ("GET", "/psub"),
    ("POST", "/channels/news"),
];

#[test]
fn no_page_makes_a_browser_call_the_admin_listener() {
    for config in [config(2), with_friend()] {
        let server = Local::start(config);
        Client::connect(server.front).publish("news", "kept");
        let calls = ADMIN_CALLS.into_iter().chain([
            ("GET", "/channels/news?publish=bad&callback=f"),
            ("GET", "/channels/news?after=oldest&wait=0&callback=f"),
            ("GET", "/channels/news?after=oldest&wait=0"),
        ]);
        for (method, target) in calls {
            for fields in [
                format!("Origin: {EVIL}\r\n"),
                format!("Origin: {FRIEND}\r\n"),
                "Origin: null\r\n".to_owned(),
                // An image, a script, a link, a form: browsers send no `Origin` for the first
                // three.
                "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n".to_owned(),
                "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n".to_owned(),
                format!("Referer: {EVIL}/page\r\n"),
            ] {
                let reply = ask(server.admin, method, target, &fields);
                assert_eq!(reply.status, 403, "{method} {target} {fields}: {reply:?}");
                assert!(!reply.head.to_ascii_lowercase().contains("access-control-allow"), "{reply:?}");
            }
        }
        assert_eq!(history(server.front, "news"), ["kept"]);
        // A back end sends no such field; a request without a page has the site `none`; the
        // server's own pages have their own origin.
        for fields in [
            "",
            "Sec-Fetch-Site: none\r\n",
            "Sec-Fetch-Site: same-origin\r\nReferer: http://localhost/\r\n",
            "Origin: http://localhost\r\n",
        ] {
            assert_eq!(head_of(server.admin, "GET", "/info", fields).0, 200, "{fields}");
        }
    }
}

#[test]
fn no_admin_call_is_answered_at_the_front() {
    let server = Local::start(config(2));
    Client::connect(server.front).publish("news", "kept");
    let mut reader = Client::connect(server.front).events("/channels/news", "");
    let admin = server.admin;
    for (method, target) in ADMIN_CALLS.into_iter().filter(|call| *call != ("POST", "/channels/news")) {
        let paths = [
            target.to_owned(),
            format!("/{target}"),
            format!("/.{target}"),
            format!("/x/..{target}"),
            target.replacen('/', "/%2F", 1),
            target.replace('?', "/?"),
            format!("http://{admin}{target}"),
        ];
        for path in paths {
            for fields in [
                String::new(),
                format!("X-Forwarded-Host: {admin}\r\nX-Original-URL: {target}\r\nX-HTTP-Method-Override: DELETE\r\n"),
            ] {
                let reply = ask(server.front, method, &path, &fields);
                // Some paths are no valid channel names here, or are calls of another API that lack
                // its parameters.
                assert!(matches!(reply.status, 400 | 403 | 404 | 405), "{method} {path}: {reply:?}");
                assert!(!String::from_utf8_lossy(&reply.body).contains("token"), "{reply:?}");
            }
        }
    }
    assert_eq!(history(server.front, "news"), ["kept"]);
    Client::connect(server.front).publish("news", "next");
    assert_eq!(reader.next().message(), "next", "nobody was cut off");
}

#[test]
fn line_ends_from_clients_do_not_end_lines() {
    let server = Local::start(config(1));
    let bad = "%0d%0aX-Evil:%201%0d%0a%0d%0adata:%20evil%0a%0a";
    // Targets where a parameter could reach a header field, or a field of an event.
    let targets = [
        format!("/channels/{bad}"),
        format!("/channels/a?wait=0&callback={bad}"),
        format!("/channels/a?wait={bad}"),
        format!("/channels/a?after={bad}&transport=sse"),
        format!("/channels/a?transport={bad}"),
        format!("/channels/a?transport=iframe&origin=https://x{bad}"),
        format!("/channels/a?wait=0&token={bad}"),
        format!("/channels/a/history?before={bad}"),
        format!("/channels/a?publish=x&event={bad}&callback=f"),
        format!("/sign?channel={bad}&sname=x&callback=f"),
        format!("/sign?channel=a&sname=x&callback={bad}"),
        format!("/publish?channel=a&sname=x&msg=x&callback={bad}"),
        format!("/subscribe?channel=a&sname=x&seqid={bad}&callback=f"),
        format!("/sub?cname={bad}"),
        format!("/sub?cname=a&cb={bad}"),
        format!("/ping?cb={bad}"),
        format!("/{bad}"),
        format!("/chat.html?{bad}"),
        format!("/?{bad}"),
    ];
    for target in &targets {
        let (_, head) = head_of(server.front, "GET", target, "");
        assert!(!head.contains("x-evil"), "{target}: {head}");
    }
    for target in ["/push?cname=a&content=x&cb=", "/sign?cname=a&cb=", "/close?cname=", "/info?cname="] {
        let (_, head) = head_of(server.admin, "GET", &format!("{target}{bad}"), "");
        assert!(!head.contains("x-evil"), "{target}: {head}");
    }
    // A line end within a header field does not survive: the server refuses the request, or reads
    // another field.
    for field in
        ["Last-Event-ID", "Idempotency-Key", "Authorization", "Cookie", "Origin", "Sec-WebSocket-Protocol", "Referer"]
    {
        for end in ["\r", "\n", "\0"] {
            let fields = format!("Accept: text/event-stream\r\n{field}: x{end}X-Evil: 1\r\n");
            let reply = ask(server.front, "GET", "/channels/a", &fields);
            assert!(reply.status == 400 && !reply.head.contains("Evil"), "{field} {end:?}: {reply:?}");
        }
    }
    // Text stays text: one event, and one line.
    let text = "one\r\n\r\nevent: gap\r\ndata: evil\n\nid: evil\u{2028}\0";
    let mut events = Client::connect(server.front).events("/channels/a", "");
    let mut lines = Client::connect(server.front);
    lines.ask("GET", "/channels/a?transport=lines", "");
    lines.head();
    lines.chunk();
    let mut icomet = Client::connect(server.front);
    icomet.ask("GET", "/sse?cname=a&seq=0", "");
    icomet.head();
    let sname = "x%0d%0a%0d%0adata:%20evil%0a%0a";
    Client::connect(server.front).publish("a", text);
    let classic = format!("/publish?channel=a&sname={sname}&msg={sname}&callback=f");
    assert_eq!(head_of(server.front, "GET", &classic, "").0, 200);
    assert_eq!(events.next().message(), text);
    let event = events.next();
    assert_eq!((event.kind.as_str(), event.json()["sender"].as_str()), ("message", Some("x\r\n\r\ndata: evil\n\n")));
    for _ in 0..2 {
        let line = lines.chunk().expect("a line");
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1 && !line.contains('\r'), "{line:?}");
    }
    loop {
        let chunk = icomet.chunk().expect("an event");
        assert!(
            chunk
                .split("\n\n")
                .all(|event| event.is_empty() || event.starts_with("data: {") && !event.contains(['\n', '\r'])),
            "{chunk:?}"
        );
        if chunk.contains("evil") && chunk.contains("x\\r") {
            break;
        }
    }
}

#[test]
fn text_from_clients_does_not_become_script() {
    let server = Local::start(config(1));
    let evil = "</script><script>alert(1)</script><!--<script>\u{2028}');alert(2)//\\');//\"));//";
    let encoded: String = evil.bytes().flat_map(|byte| format!("%{byte:02x}").into_bytes()).map(char::from).collect();
    for (target, status) in [
        (format!("/channels/a?wait=0&callback={encoded}"), 400),
        (format!("/channels/a?wait=0&callback=f{encoded}"), 400),
        (format!("/channels/a?publish=x&callback=alert(1)//{encoded}"), 400),
        (format!("/channels/a?transport=iframe&origin={encoded}"), 400),
        ("/channels/a?transport=iframe&origin=https://x%22);alert(1)//".to_owned(), 400),
        (format!("/sign?channel=a&sname=x&callback={encoded}"), 400),
        (format!("/publish?channel=a&sname=x&msg=x&callback={encoded}"), 400),
        (format!("/subscribe?channel=a&sname=x&seqid=0&callback={encoded}"), 400),
        (format!("/poll?cname=a&cb={encoded}"), 400),
        (format!("/ping?cb={encoded}"), 400),
        (format!("/{encoded}"), 404),
    ] {
        let reply = ask(server.front, "GET", &target, "");
        assert_eq!(reply.status, status, "{target}: {reply:?}");
        assert!(!reply.text().contains("alert") && !reply.text().contains("<script"), "{target}: {reply:?}");
        assert!(!reply.header("content-type").is_some_and(|kind| kind.contains("html")), "{target}: {reply:?}");
    }
    // The text as a channel's name, a sender's name and a message, wherever the server shows them.
    let page = |target: String| {
        let mut client = Client::connect(server.front);
        client.ask("GET", &target, "");
        let (status, head) = client.head();
        assert_eq!(status, 200, "{head}");
        (client, head)
    };
    let (mut native, _) = page(format!("/channels/{encoded}?transport=iframe"));
    let (mut icomet, _) = page(format!("/iframe?cname={encoded}&seq=0"));
    let (mut jsonp, jsonp_head) = {
        let mut client = Client::connect(server.front);
        client.ask("GET", &format!("/channels/{encoded}?callback=f"), "");
        wait_until("all wait", || {
            Client::connect(server.admin).get(&format!("/info?cname={encoded}")).json()["subscribers"] == 3
        });
        let publish = format!("/publish?channel={encoded}&sname={encoded}&msg={encoded}&callback=f");
        assert_eq!(ask(server.front, "GET", &publish, "").status, 200);
        let reply = client.reply();
        (reply.text().to_owned(), reply.head)
    };
    assert!(jsonp_head.contains("nosniff") && jsonp_head.contains("text/javascript"), "{jsonp_head}");
    let argument = jsonp.split_off("/**/f(".len());
    let json: Value = serde_json::from_str(argument.trim_end().strip_suffix(");").expect("a call")).expect("JSON");
    let item = &json["items"][0];
    assert_eq!((&item["data"], &item["sender"], &item["channel"]), (&evil.into(), &evil.into(), &evil.into()));
    assert_is_no_script(&argument);
    let classic = ask(server.front, "GET", &format!("/subscribe?channel={encoded}&sname=b&seqid=0&callback=f"), "");
    assert!(classic.text().contains("alert"), "{classic:?}");
    assert_is_no_script(classic.text());
    let check_next = |client: &mut Client| loop {
        let chunk = client.chunk().expect("it goes on");
        let Some((_, chunk)) = chunk.split_once("alert") else { continue };
        // The only tag is the one that the server appends.
        let inner = chunk.trim_end().strip_suffix("</script>").unwrap_or_else(|| panic!("{chunk}"));
        return assert_is_no_script(inner);
    };
    check_next(&mut native);
    check_next(&mut icomet);
    // The text as the type of a message.
    let typed = Client::connect(server.front).post(&format!("/channels/{encoded}?event={encoded}"), evil);
    assert_eq!(typed.status, 200, "{typed:?}");
    check_next(&mut native);
    check_next(&mut icomet);
    // Answers about a missing channel are not pages.
    for target in
        [format!("/close?cname={encoded}x"), format!("/check?cname={encoded}"), format!("/info?cname={encoded}")]
    {
        let reply = ask(server.admin, "GET", &target, "");
        assert!(!reply.header("content-type").is_some_and(|kind| kind.contains("html")), "{target}: {reply:?}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{target}: {reply:?}");
    }
}

/// Asserts that a text ends no script, hides no end of one, and ends no line in it.
fn assert_is_no_script(text: &str) {
    for sign in ["</", "<!", "<s", "<S", "\u{2028}", "\u{2029}"] {
        assert!(!text.contains(sign), "{sign}: {text}");
    }
}
