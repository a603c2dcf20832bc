//! The files of the front: a client fetches each once, and then only validates it.

mod common;

use common::{Client, Local, config};

#[test]
fn files_are_sent_once_and_validated_afterwards() {
    let server = Local::start(config(2));
    let mut client = Client::connect(server.front);
    for (path, kind) in [
        ("/chat.html", "text/html; charset=utf-8"),
        ("/classic.html", "text/html; charset=utf-8"),
        ("/ccomet.js", "text/javascript; charset=utf-8"),
        ("/ccomet.mjs", "text/javascript; charset=utf-8"),
    ] {
        let reply = client.get(path);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-cache"), "{path}");
        let tag = reply.header("etag").expect("a tag").to_owned();
        // The other loop computes the same `ETag`.
        for _ in 0..4 {
            let mut client = Client::connect(server.front);
            client.ask("GET", path, &format!("If-None-Match: \"other\", {tag}\r\n"));
            let (status, head) = client.head();
            assert_eq!(status, 304, "{path}");
            assert!(head.contains(&tag), "{head}");
        }
        client.ask("GET", path, "If-None-Match: \"other\"\r\n");
        assert_eq!(client.reply().body, reply.body, "{path}");
    }
}

#[test]
fn without_the_demo_only_the_library_is_served() {
    let mut settings = config(1);
    settings.front.demo = false;
    let server = Local::start(settings);
    let with_demo = Local::start(config(1));
    for (address, pages, library) in [(with_demo.front, 200, 200), (server.front, 404, 200), (server.admin, 404, 404)] {
        // The admin listener has its console there.
        let root = if address == server.admin {
            200
        } else if pages == 200 {
            302
        } else {
            pages
        };
        let mut client = Client::connect(address);
        for (path, status) in [
            ("/chat.html", pages),
            ("/classic.html", pages),
            ("/", root),
            ("/ccomet.js", library),
            ("/ccomet.mjs", library),
        ] {
            assert_eq!(client.get(path).status, status, "{address} {path}");
        }
    }
    assert_eq!(Client::connect(with_demo.admin).get("/chat.html").status, 404);
}
