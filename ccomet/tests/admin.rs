//! The admin listener and pages: host names, origins, requests that a page can forge, and keys.

mod common;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use ccomet::{Config, ConfigError, Secret};
use common::{Client, Folder, Local, Reply, config, process};
use testing::http::UPGRADE;

const EVIL: &str = "https://evil.example";
const FRIEND: &str = "https://friend.example";

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
fn probes_of_health_need_no_key_and_are_for_the_admin_listener() {
    let mut settings = config(2);
    settings.admin.keys = vec![Secret::new("a-key-of-enough-letters")];
    let server = Local::start(settings);
    for path in ["/health/live", "/health/ready"] {
        let reply = Client::connect(server.admin).get(path);
        assert_eq!(reply.text(), r#"{"ok":true,"problems":[],"type":"health"}"#);
        assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")));
        assert_eq!(head_of(server.admin, "HEAD", path, "").0, 200);
        assert_eq!(head_of(server.admin, "POST", path, "").0, 405);
        assert_eq!(Client::connect(server.front).get(path).status, 404);
    }
    assert_eq!(Client::connect(server.admin).get("/health").status, 401);
    assert_eq!(Client::connect(server.admin).get("/channels").status, 401);
}

/// Sends a request on a new connection, and reads only the head of the answer.
fn head_of(address: SocketAddr, method: &str, target: &str, fields: &str) -> (u16, String) {
    let mut client = Client::connect(address);
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    client.ask(method, target, &format!("{length}{fields}"));
    let (status, head) = client.head();
    (status, head.to_ascii_lowercase())
}

fn history(address: SocketAddr, channel: &str) -> Vec<String> {
    Client::connect(address).get(&format!("/channels/{channel}?after=oldest&wait=0")).messages()
}

/// Every GET of the admin listener that changes something or is answered as script.
const FORGEABLE: [&str; 9] = [
    "/push?cname=news&content=bad",
    "/pub?cname=news&content=bad&cb=f",
    "/broadcast?content=bad",
    "/sign?cname=news",
    "/sign?cname=news&cb=f",
    "/close?cname=news",
    "/clear?cname=news",
    "/channels/news?publish=bad&callback=f",
    "/channels/news?after=oldest&wait=0&callback=f",
];

/// Sends a request under a host name on a new connection.
fn ask_as(host: &str, address: SocketAddr, method: &str, target: &str, fields: &str) -> Reply {
    let mut client = Client::connect(address);
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{length}{fields}\r\n"));
    client.reply()
}

#[test]
fn dns_rebinding_to_the_admin_listener_is_refused() {
    let mut config = config(1);
    config.admin.hosts = vec!["comet.example".to_owned()];
    let server = Local::start(config);
    Client::connect(server.front).publish("news", "kept");
    let evil = "evil.example:8000";
    // The browser takes the page for the server's own: it sends fields that confirm this, or none.
    for fields in
        ["", "Origin: http://evil.example:8000\r\n", "Sec-Fetch-Site: same-origin\r\n", "Sec-Fetch-Site: none\r\n"]
    {
        for (method, target) in ADMIN_CALLS.into_iter().chain([("OPTIONS", "/channels/news"), ("GET", "/openapi.json")])
        {
            let reply = ask_as(evil, server.admin, method, target, fields);
            assert_eq!((reply.status, reply.json()["code"].as_str()), (421, Some("host_unknown")), "{method} {target}");
            assert!(reply.text().contains("admin.hosts"), "the setting is named: {reply:?}");
        }
    }
    for host in ["127.0.0.1.evil.example", "localhost.evil.example", "comet.example.evil.example", "", "\u{fc}"] {
        assert!(matches!(ask_as(host, server.admin, "GET", "/info", "").status, 400 | 421), "{host}");
    }
    assert_eq!(history(server.front, "news"), ["kept"]);
    let own = server.admin.to_string();
    for host in ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000", "10.0.0.5", "Comet.Example:8000", &own]
    {
        assert_eq!(ask_as(host, server.admin, "GET", "/info", "").status, 200, "{host}");
    }
    // The front answers to any name until `front.hosts` is set.
    assert_eq!(ask_as(evil, server.front, "GET", "/channels/news?wait=0&after=oldest", "").status, 200);
}

#[test]
fn a_front_with_host_names_answers_to_no_others() {
    let mut config = config(1);
    config.front.hosts = vec!["comet.example".to_owned()];
    let server = Local::start(config);
    for (host, status) in
        [("evil.example:8100", 421), ("comet.example", 200), ("localhost:8100", 200), ("127.0.0.1", 200)]
    {
        for target in
            ["/channels/news?wait=0", "/poll?cname=news&seq=0", "/chat.html", "/channels/news?wait=0&callback=f"]
        {
            assert_eq!(ask_as(host, server.front, "GET", target, "").status, status, "{host} {target}");
        }
        assert_eq!(ask_as(host, server.front, "POST", "/channels/news", "").status, status, "{host}");
    }
}

#[test]
fn an_image_without_a_referrer_changes_nothing_at_the_admin_listener() {
    let mut named = config(1);
    named.admin.hosts = vec!["comet.example".to_owned()];
    let server = Local::start(named);
    Client::connect(server.front).publish("news", "kept");
    // Without loopback and https, a browser does not send whose page makes the request.
    for host in ["10.0.0.5:8000", "comet.example", "[2001:db8::1]"] {
        for target in FORGEABLE {
            let reply = ask_as(host, server.admin, "GET", target, "Accept: image/*\r\n");
            assert_eq!((reply.status, reply.json()["code"].as_str()), (403, Some("forgeable")), "{host} {target}");
            assert!(reply.text().contains("admin.forgeable_gets"), "the setting is named: {reply:?}");
        }
        for target in ["/info", "/check?cname=news", "/channels", "/channels/news?after=oldest&wait=0"] {
            assert_eq!(ask_as(host, server.admin, "GET", target, "").status, 200, "nobody but the client reads that");
        }
    }
    assert_eq!(history(server.front, "news"), ["kept"]);
    // A program on this machine, a POST, a header field that no image can send, and a user who
    // typed the address.
    for (host, method, fields) in [
        ("127.0.0.1:8000", "GET", ""),
        ("localhost:8000", "GET", ""),
        ("10.0.0.5:8000", "POST", ""),
        ("10.0.0.5:8000", "GET", "X-Requested-With: curl\r\n"),
        ("10.0.0.5:8000", "GET", "Sec-Fetch-Site: none\r\n"),
    ] {
        let reply = ask_as(host, server.admin, method, "/push?cname=other&content=x", fields);
        assert_eq!(reply.text(), "{\"type\":\"ok\"}\n", "{host} {method} {fields}");
    }
    let mut open = config(1);
    open.admin.forgeable_gets = true;
    let open = Local::start(open);
    for target in FORGEABLE {
        assert!(matches!(ask_as("10.0.0.5", open.admin, "GET", target, "").status, 200 | 404), "{target}");
    }
}

#[test]
fn an_admin_listener_with_keys_requires_one() {
    let mut config = config(1);
    let keys = ["an old key, not secret".replace(' ', "-"), "the-newer-key-of-two".to_owned()];
    config.admin.keys = keys.iter().map(|key| Secret::new(key.clone())).collect();
    config.admin.origins = vec![FRIEND.to_owned()];
    let server = Local::start(config);
    Client::connect(server.front).publish("news", "kept");
    let wrong =
        ["", "Bearer ", "Bearer the-newer-key-of-tw", "Bearer the-newer-key-of-two!", "Basic the-newer-key-of-two"];
    for (method, target) in
        ADMIN_CALLS.into_iter().chain([("GET", "/openapi.json"), ("PUT", "/channels"), ("GET", "/none")])
    {
        for key in wrong {
            let fields = if key.is_empty() { String::new() } else { format!("Authorization: {key}\r\n") };
            for fields in [&fields, &format!("{fields}Origin: {FRIEND}\r\n")] {
                let reply = ask_as("localhost", server.admin, method, target, fields);
                assert_eq!(
                    (reply.status, reply.json()["code"].as_str()),
                    (401, Some("admin_key")),
                    "{method} {target} {key}"
                );
                assert_eq!(reply.header("WWW-Authenticate"), Some("Bearer"), "{reply:?}");
            }
        }
    }
    let twice = format!("Authorization: Bearer {}\r\n", keys[0]).repeat(2);
    assert_eq!(ask_as("localhost", server.admin, "GET", "/info", &twice).status, 401);
    assert_eq!(history(server.front, "news"), ["kept"]);
    for (index, key) in keys.iter().enumerate() {
        let fields = format!("Authorization: Bearer {key}\r\n");
        // No page has a key, so that a GET with a key is not forged.
        let reply = ask_as("10.0.0.5", server.admin, "GET", "/push?cname=news&content=new", &fields);
        assert_eq!(reply.text(), "{\"type\":\"ok\"}\n");
        assert_eq!(history(server.front, "news").len(), index + 2);
    }
    // Browsers send a preflight first, without a key.
    let preflight = format!("Origin: {FRIEND}\r\nAccess-Control-Request-Method: DELETE\r\n");
    let reply = ask_as("localhost", server.admin, "OPTIONS", "/channels/news", &preflight);
    assert_eq!((reply.status, reply.header("Access-Control-Allow-Origin")), (204, Some(FRIEND)));
}

#[test]
fn only_pages_of_listed_origins_use_the_admin_listener() {
    let mut config = config(1);
    config.front.origins = vec![EVIL.to_owned()];
    config.admin.origins = vec![FRIEND.to_owned()];
    let server = Local::start(config);
    for (method, target) in ADMIN_CALLS.into_iter().chain(FORGEABLE.map(|target| ("GET", target))) {
        for fields in [
            format!("Origin: {EVIL}\r\n"),
            "Origin: null\r\n".to_owned(),
            "Sec-Fetch-Site: cross-site\r\n".to_owned(),
            format!("Referer: {EVIL}/page\r\n"),
        ] {
            assert_eq!(
                ask_as("localhost", server.admin, method, target, &fields).status,
                403,
                "{method} {target} {fields}"
            );
        }
        for fields in [
            format!("Origin: {FRIEND}\r\n"),
            format!("Sec-Fetch-Site: cross-site\r\nReferer: {FRIEND}/page\r\n"),
            format!("Referer: {FRIEND}/\r\n"),
        ] {
            Client::connect(server.front).publish("news", "there");
            let (status, head) = head_of(server.admin, method, target, &fields);
            assert!((200..300).contains(&status), "{method} {target} {fields}: {head}");
            let is_told = head.contains(&format!("access-control-allow-origin: {FRIEND}\r\n"));
            let is_native = target.starts_with("/channels") && status == 200 && !target.contains("callback");
            assert!(is_told || !is_native || !fields.starts_with("Origin"), "{method} {target}: {head}");
        }
    }
    let asks = |origin: &str| format!("Origin: {origin}\r\nAccess-Control-Request-Method: DELETE\r\n");
    let (_, head) = head_of(server.admin, "OPTIONS", "/channels/news", &asks(FRIEND));
    assert!(head.contains(&format!("access-control-allow-origin: {FRIEND}\r\n")) && head.contains("delete"), "{head}");
    assert!(!head.contains("credentials"), "{head}");
    let (_, head) = head_of(server.admin, "OPTIONS", "/channels/news", &asks(EVIL));
    assert!(!head.contains("access-control-allow"), "{head}");
    // A frame passes messages on to listed origins only, too.
    for (origin, status) in [(FRIEND, 200), (EVIL, 400)] {
        let frame = format!("/channels/news?transport=iframe&origin={origin}");
        assert_eq!(head_of(server.admin, "GET", &frame, "").0, status, "{origin}");
    }
    let mut any = common::config(1);
    any.admin.origins = vec!["*".to_owned()];
    let any = Local::start(any);
    for fields in [
        format!("Origin: {EVIL}\r\n"),
        "Origin: null\r\n".to_owned(),
        "Sec-Fetch-Site: cross-site\r\n".to_owned(),
        format!("Referer: {EVIL}/page\r\n"),
    ] {
        let reply = ask_as("comet.example", any.admin, "GET", "/push?cname=news&content=x&cb=f", &fields);
        assert_eq!(reply.text(), "f({\"type\":\"ok\"});", "{fields}");
    }
}

#[test]
fn only_pages_of_listed_origins_open_websockets_at_the_admin_listener() {
    let mut config = config(1);
    config.front.origins = vec![EVIL.to_owned()];
    config.admin.origins = vec![FRIEND.to_owned()];
    let server = Local::start(config);
    for (origin, status) in [(FRIEND, 101), (EVIL, 403), ("null", 403), ("http://localhost", 101)] {
        let fields = format!("{UPGRADE}Origin: {origin}\r\n");
        assert_eq!(head_of(server.admin, "GET", "/channels/news", &fields).0, status, "{origin}");
    }
}

#[test]
fn a_refused_page_is_answered_before_its_body() {
    let server = Local::start(config(1));
    for (host, fields, status) in [
        ("evil.example", String::new(), 421),
        ("localhost", format!("Origin: {EVIL}\r\n"), 403),
        ("localhost", "Sec-Fetch-Site: cross-site\r\n".to_owned(), 403),
    ] {
        for target in ["/channels/news", "/messages", "/push"] {
            let mut client = Client::connect(server.admin);
            client.send(format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000\r\n{fields}\r\n"));
            assert_eq!(client.head().0, status, "{target} {host} {fields}");
        }
    }
}

#[test]
fn invalid_admin_settings_are_refused() {
    let checked = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.check()
    };
    for host in [
        "",
        "*",
        "comet.example:8000",
        "http://comet.example",
        "a/b",
        "comet.example.",
        "[::1]",
        "a b",
        "\u{fc}.example",
    ] {
        let admin = checked(&|config| config.admin.hosts = vec![host.to_owned()]);
        assert!(matches!(admin, Err(ConfigError::Host { setting: "admin.hosts", .. })), "{host}: {admin:?}");
        let front = checked(&|config| config.front.hosts = vec![host.to_owned()]);
        assert!(matches!(front, Err(ConfigError::Host { setting: "front.hosts", .. })), "{host}: {front:?}");
    }
    checked(&|config| config.admin.hosts = vec!["comet.example".to_owned(), "a_b-7".to_owned()]).expect("names");
    for key in ["", "fifteen-letters", "sixteen letters.", "sixteen\tletters-", "sixteen-l\u{e9}tters"] {
        let refused =
            checked(&|config| config.admin.keys = vec![Secret::new("a-key-of-enough-letters"), Secret::new(key)]);
        assert!(matches!(refused, Err(ConfigError::AdminKey)), "{key}: {refused:?}");
        assert!(key.is_empty() || !refused.expect_err("refused").to_string().contains(key), "it is not shown");
    }
    checked(&|config| config.admin.keys = vec![Secret::new("sixteen-letters!")]).expect("long enough");
    for origins in [vec!["*", FRIEND], vec!["friend.example"], vec!["https://friend.example/"], vec!["null"]] {
        let refused = checked(&|config| config.admin.origins = origins.iter().map(ToString::to_string).collect());
        assert!(
            matches!(refused, Err(ConfigError::Origin { setting: "admin.origins", .. })),
            "{origins:?}: {refused:?}"
        );
    }
}

#[test]
fn keys_are_never_shown() {
    let key = "a-key-of-enough-letters";
    let written = |text: &str| {
        let folder = Folder::new("admin-keys");
        let path = folder.write("ccomet.toml", text);
        let output = Command::new(env!("CARGO_BIN_EXE_ccomet")).arg("check-config").arg("--config").arg(path).output();
        let output = output.expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for (text, fine) in [
        (format!("[admin]\nkeys = [\"{key}\"]\n"), true),
        (format!("[admin]\nkeys = \"{key}\"\n"), false),
        (format!("[admin]\nkeys = [\"{key}\", 5]\n"), false),
        (format!("[admin]\nkeys = [\"{key}\"\n"), false),
    ] {
        let (is_fine, logged) = written(&text);
        assert_eq!(is_fine, fine, "{text}: {logged}");
        assert!(!logged.contains(key), "{logged}");
    }
}

/// Returns what the program logs before it serves, with these settings of the admin listener.
fn logged_at_start(settings: &str) -> String {
    let folder = Folder::new("logged");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "info", "--config"]);
    command.arg(folder.write("ccomet.toml", format!("[admin]\n{settings}")));
    let mut program = process::Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    let lines = program.errors().map_while(Result::ok);
    lines.take_while(|line| !line.contains("serving")).collect::<Vec<_>>().join("\n")
}

#[test]
fn settings_that_admit_pages_are_warned_of_at_the_start() {
    for (settings, word) in [("forgeable_gets = true", "admin.forgeable_gets"), ("origins = [\"*\"]", "admin.origins")]
    {
        let logged = logged_at_start(settings);
        assert!(logged.lines().any(|line| line.contains("WARN") && line.contains(word)), "{logged}");
        let logged = logged_at_start(&format!("{settings}\nkeys = [\"a-key-of-enough-letters\"]"));
        assert!(!logged.contains(word), "no page has a key: {logged}");
    }
    assert!(!logged_at_start("").contains("admin."), "all is well");
}
