//! Many subscriptions of a page, and the few WebSockets that they share.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};

use serde_json::json;

use crate::chromium::{Chromium, Page};
use crate::common::{Client, Process};
use crate::guarded;

/// Opens a page without subscriptions, which counts its WebSockets and has the function `follow`.
fn open(browser: &mut Chromium, server: &Process) -> Page {
    let page = browser.open(&format!("http://{}/ccomet.js", server.front));
    browser.wait(&page, "document.readyState === 'complete' && location.protocol === 'http:'");
    browser.eval(
        &page,
        "import('/ccomet.mjs').then(() => {
             globalThis.sockets = [];
             globalThis.WebSocket = class extends WebSocket {
                 constructor(url) { super(url); sockets.push(this); }
             };
             globalThis.live = () => sockets.filter(({ readyState }) => readyState <= 1).length;
             globalThis.follow = (comet, channel, options) => {
                 const notes = { messages: [], states: [], gaps: 0 };
                 notes.sub = comet.subscribe(channel, { after: 'oldest', ...options,
                     onmessage: ({ data }) => notes.messages.push(data),
                     ongap: () => (notes.gaps += 1),
                     onstate: (state, detail) => { notes.states.push(state); notes.detail = detail; } });
                 return notes;
             };
             globalThis.isOpen = ({ states }) => states.at(-1) === 'open';
         })",
    );
    page
}

const COUNT: usize = 20;

/// Subscribes to `COUNT` channels, each by a `CComet` of its own.
fn follow_all(browser: &mut Chromium, page: &Page) {
    browser.eval(
        page,
        &format!("globalThis.all = Array.from({{ length: {COUNT} }}, (_, n) => follow(new CComet(location.origin), `c${{n}}`)), 0"),
    );
    browser.wait(page, "all.every(isOpen)");
}

/// Publishes to all channels, and waits until each subscription has all messages of its channel.
fn publish_all(browser: &mut Chromium, page: &Page, server: &Process, rounds: &mut Vec<String>, text: &str) {
    let mut publisher = Client::connect(server.front);
    for n in 0..COUNT {
        publisher.publish(&format!("c{n}"), format!("{text} {n}"));
    }
    rounds.push(text.to_owned());
    expect_all(browser, page, rounds);
}

fn expect_all(browser: &mut Chromium, page: &Page, rounds: &[String]) {
    browser.wait(page, &format!("all.every(({{ messages }}) => messages.length >= {})", rounds.len()));
    let wrong = format!(
        "all.filter(({{ messages }}, n) => messages.join() !== {}.map((text) => `${{text}} ${{n}}`).join()).map(({{ messages }}) => messages)",
        json!(rounds)
    );
    assert_eq!(browser.eval(page, &wrong), json!([]), "each once and in order");
}

pub(crate) fn many_subscriptions_of_a_page_share_one_websocket_through_all_interruptions() {
    let mut browser = Chromium::start();
    let mut server = Process::start("", &["--loops", "2"]);
    let page = open(&mut browser, &server);
    let mut rounds = Vec::new();
    follow_all(&mut browser, &page);
    publish_all(&mut browser, &page, &server, &mut rounds, "hello");
    assert_eq!(browser.eval(&page, "[sockets.length, all[0].sub.transport]"), json!([1, "websocket"]));

    // A page that is offline misses nothing.
    browser.set_offline(&page, true);
    browser.wait(&page, "!navigator.onLine");
    browser.eval(&page, "sockets[0].close()");
    browser.wait(&page, "all.every((notes) => !isOpen(notes))");
    let mut publisher = Client::connect(server.front);
    for n in 0..COUNT {
        publisher.publish(&format!("c{n}"), format!("while you slept {n}"));
    }
    rounds.push("while you slept".to_owned());
    browser.set_offline(&page, false);
    expect_all(&mut browser, &page, &rounds);
    assert_eq!(browser.eval(&page, "live()"), 1);

    // Another network: the page gives the connection up at once, though no event reports that it
    // broke.
    browser.eval(&page, "globalThis.before = sockets.length; dispatchEvent(new Event('online'))");
    publish_all(&mut browser, &page, &server, &mut rounds, "elsewhere");
    browser.wait(&page, "all.every(isOpen) && live() === 1");
    assert_eq!(browser.eval(&page, "sockets.length - before"), 1);

    // Into the back/forward cache, which allows no open connection, and out of it.
    browser.eval(&page, "dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))");
    browser.wait(&page, "live() === 0");
    browser.eval(&page, "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))");
    publish_all(&mut browser, &page, &server, &mut rounds, "back");
    assert_eq!(browser.eval(&page, "live()"), 1);

    // The server is killed, and started again on the same ports, without the earlier messages.
    server.restart();
    browser.wait(&page, "all.every(({ states }) => states.at(-1) === 'open') && live() === 1");
    browser.eval(&page, "for (const notes of all) notes.messages.length = 0");
    rounds.clear();
    publish_all(&mut browser, &page, &server, &mut rounds, "again");
    assert_eq!(browser.eval(&page, "live()"), 1);

    // All subscriptions but one close; the last one closes the connection.
    browser.eval(&page, "for (const { sub } of all.slice(1)) sub.close()");
    publisher = Client::connect(server.front);
    publisher.publish("c0", "the last");
    browser.wait(&page, "all[0].messages.at(-1) === 'the last'");
    assert_eq!(browser.eval(&page, "live()"), 1);
    browser.eval(&page, "all[0].sub.close()");
    browser.wait(&page, "live() === 0");
    assert_eq!(browser.eval(&page, "all.every(({ states }) => states.at(-1) === 'closed')"), true);
}

pub(crate) fn subscriptions_with_one_token_share_a_websocket_and_a_refused_one_disturbs_no_other() {
    let mut browser = Chromium::start();
    let server = Process::start(&guarded::settings(), &["--loops", "1"]);
    let page = open(&mut browser, &server);
    let token = json!(guarded::token("ann", 600));
    browser.eval(
        &page,
        &format!(
            "globalThis.calls = 0;
             const token = async () => {{ calls += 1; return {token}; }};
             globalThis.all = ['room', 'secret', 'chat'].map((name) => follow(new CComet(location.origin, {{ token }}), name)), 0"
        ),
    );
    browser.wait(&page, "isOpen(all[0]) && isOpen(all[2]) && all[1].states.at(-1) === 'closed'");
    assert_eq!(
        browser.eval(&page, "[sockets.length, calls, all[1].detail.code, all[0].states, all[2].states]"),
        json!([1, 1, "not_allowed", ["connecting", "open"], ["connecting", "open"]])
    );
    // Without the token, a subscription uses another connection.
    browser.eval(&page, "new CComet(location.origin).subscribe('room'), 0");
    browser.wait(&page, "sockets.length === 2");
}

pub(crate) fn subscriptions_beyond_the_limit_of_a_connection_get_another() {
    let mut browser = Chromium::start();
    let server = Process::start("[limits]\nsubscriptions_per_connection_max = 8\n", &["--loops", "2"]);
    let page = open(&mut browser, &server);
    follow_all(&mut browser, &page);
    publish_all(&mut browser, &page, &server, &mut Vec::new(), "hello");
    assert_eq!(
        browser.eval(&page, "[sockets.length, all.filter(({ states }) => states.includes('waiting')).length]"),
        json!([3, 0])
    );
}

pub(crate) fn closing_a_channel_ends_only_its_subscription() {
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "2"]);
    let page = open(&mut browser, &server);
    follow_all(&mut browser, &page);
    let mut admin = Client::connect(server.admin);
    admin.ask("DELETE", "/channels/c0", "");
    assert_eq!(admin.reply().status, 204);
    browser.wait(&page, "all[0].states.at(-1) === 'closed'");
    browser.eval(&page, "all[0] = follow(new CComet(location.origin), 'c0'), 0");
    browser.wait(&page, "all.every(isOpen)");
    publish_all(&mut browser, &page, &server, &mut Vec::new(), "hello");
    assert_eq!(browser.eval(&page, "[sockets.length, all[1].states]"), json!([1, ["connecting", "open"]]));
}

/// Starts a back end that allows only what comes with a cookie. Returns its address.
fn start_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            std::thread::spawn(move || {
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    while line != "\r\n" {
                        line.clear();
                        if stream.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        let lower = line.to_ascii_lowercase();
                        length = lower
                            .strip_prefix("content-length:")
                            .map_or(length, |value| value.trim().parse().expect("a length"));
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).expect("a body");
                    let is_known = String::from_utf8_lossy(&body).contains("\"Cookie\":\"user=ann\"");
                    let answer = if is_known { "204 No Content\r\n" } else { "403 Forbidden\r\nContent-Length: 0\r\n" };
                    stream.get_mut().write_all(format!("HTTP/1.1 {answer}\r\n").as_bytes()).expect("sent");
                }
            });
        }
    });
    address
}

pub(crate) fn a_client_with_a_cookie_may_subscribe() {
    let mut browser = Chromium::start();
    let backend = start_backend();
    let server = Process::start(
        &format!(
            "[front]\norigins = [\"https://friend.example\"]\n
             [hooks]\nurl = \"http://{backend}/\"\nsubscribe = true\nheaders = [\"Cookie\"]\n"
        ),
        &["--loops", "1"],
    );
    let page = open(&mut browser, &server);
    browser.eval(&page, "globalThis.all = [follow(new CComet(location.origin), 'a')], 0");
    browser.wait(&page, "all[0].states.at(-1) === 'closed'");
    assert_eq!(browser.eval(&page, "all[0].detail.code"), "hook_refused");
    // Immediately, while the connection that was opened without the cookie still exists.
    browser.eval(&page, "document.cookie = 'user=ann'; globalThis.all = [follow(new CComet(location.origin), 'a')], 0");
    browser.wait(&page, "isOpen(all[0])");
    assert_eq!(browser.eval(&page, "all[0].sub.transport"), "websocket");
}
