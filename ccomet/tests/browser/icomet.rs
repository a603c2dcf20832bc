//! Pages of icomet without a back end of their own: they sign and publish at the admin listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use serde_json::json;

use crate::chromium::{Chromium, Page};
use crate::common::{Client, Process};
use crate::{HOSTILE, MESSAGES, send, wait_messages};

/// Serves the page from an origin of its own, for as long as the tests run.
fn serve_page() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let (mut head, mut bytes) = (Vec::new(), [0; 4096]);
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut bytes) {
                    Ok(count) if count > 0 => head.extend_from_slice(&bytes[..count]),
                    _ => break,
                }
            }
            let page = include_str!("icomet.html");
            let length = page.len();
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
            let _ = stream.write_all(response.as_bytes());
        }
    });
    address
}

/// Starts a server whose admin listener pages of that origin may use.
fn serve_for(origin: &str) -> Process {
    let settings = format!("[admin]\norigins = [\"{origin}\"]\n[icomet]\nauth = \"token\"\npolling_timeout_s = 1\n");
    Process::start(&settings, &["--loops", "2"])
}

fn url(origin: &str, server: &Process, name: &str, transport: &str) -> String {
    let (front, admin) = (server.front, server.admin);
    format!("{origin}/?front=http://{front}&admin=http://{admin}&name={name}&transport={transport}")
}

fn wait_state(browser: &mut Chromium, page: &Page, state: &str) {
    browser.wait(page, &format!("document.querySelector('#state').dataset.state === '{state}'"));
}

fn two_pages_talk(transports: [&str; 2]) {
    let mut browser = Chromium::start();
    let origin = format!("http://{}", serve_page());
    let server = serve_for(&origin);
    let pages = ["ann", "bob"];
    let pages = [0, 1].map(|n: usize| browser.open(&url(&origin, &server, pages[n], transports[n])));
    for page in &pages {
        wait_state(&mut browser, page, "open");
    }
    let mut messages = Vec::new();
    for (index, text) in HOSTILE.iter().enumerate() {
        send(&mut browser, &pages[index % 2], text);
        messages.push((*text).to_owned());
        for page in &pages {
            wait_messages(&mut browser, page, &messages);
        }
    }
}

pub(crate) fn icomets_chat_by_long_polling() {
    two_pages_talk(["poll", "poll"]);
}

pub(crate) fn icomets_chat_by_server_sent_events() {
    two_pages_talk(["sse", "sse"]);
    two_pages_talk(["sse", "poll"]);
}

pub(crate) fn pages_of_unlisted_origins_change_nothing_at_the_admin_listener() {
    let mut browser = Chromium::start();
    let address = serve_page();
    let server = serve_for(&format!("http://{address}"));
    // The same page by another host name: another origin.
    let stranger = browser.open(&url(&format!("http://localhost:{}", address.port()), &server, "eve", "poll"));
    wait_state(&mut browser, &stranger, "refused");
    assert_eq!(browser.eval(&stranger, MESSAGES), json!([]));
    // An image without a referrer.
    let push = format!("http://{}/push?cname=icomet&content=bad", server.admin);
    let loaded = browser.eval(
        &stranger,
        &format!(
            "new Promise((done) => {{ const image = new Image(); image.referrerPolicy = 'no-referrer';
             image.onload = image.onerror = () => done('over'); image.src = '{push}'; }})"
        ),
    );
    assert_eq!(loaded, "over");
    let history = Client::connect(server.front).get("/channels/icomet?after=oldest&wait=0");
    assert_eq!(history.messages(), [""; 0]);
    // An attacker's name that resolves to this machine: browsers resolve all names below localhost
    // to it.
    let rebound = browser.open(&format!("http://evil.localhost:{}/info", server.admin.port()));
    browser.wait(&rebound, "document.body.textContent.includes('host_unknown')");
}
