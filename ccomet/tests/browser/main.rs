//! Real pages in a real browser: the chat over each transport, the classic page, a plain
//! `EventSource`.

mod chromium;
#[path = "../common/mod.rs"]
mod common;
mod console;
mod guarded;
mod icomet;
mod phone;
mod sharing;

use std::net::SocketAddr;
use std::process::ExitCode;

use base64::Engine;
use chromium::{Chromium, Page};
use common::{Client, Process};
use serde_json::{Value, json};
use testing::programs::{Need, run};
use testing::tests;

fn main() -> ExitCode {
    let mut all = tests![
        needs [Need::Program("chromium")];
        the_chat_over_server_sent_events,
        the_chat_over_jsonp,
        the_chat_over_long_polling,
        the_chat_over_websocket,
        the_chat_over_endless_lines,
        the_chat_over_a_page_in_a_frame,
        the_best_working_transport_is_used,
        a_page_with_a_token_sees_presence,
        the_chat_opened_from_a_file,
        the_classic_page,
        a_plain_event_source_sees_the_gap,
        the_client_library_is_an_es_module_too,
        console::the_console_shows_the_server_and_changes_channels,
        console::the_console_shows_what_was_refused_and_the_limits_and_settings,
        console::the_console_asks_for_the_admin_key,
        console::the_console_fits_a_phone_and_works_by_keyboard,
        console::the_page_of_the_api_sends_requests,
        guarded::the_page_of_a_server_with_keys_asks_for_a_token_and_works_with_one,
        guarded::a_token_in_the_address_signs_in_and_is_removed_from_it,
        guarded::scripts_injected_into_a_page_do_not_run_and_reach_no_other_server,
        guarded::pages_of_other_origins_import_the_library_and_use_it_with_a_token,
        guarded::the_library_finds_its_server_in_a_worker,
        icomet::icomets_chat_by_long_polling,
        icomet::icomets_chat_by_server_sent_events,
        icomet::pages_of_unlisted_origins_change_nothing_at_the_admin_listener,
        phone::long_names_and_refused_messages_fit_the_screen_of_a_phone,
        phone::the_sign_in_form_fits_a_phone_and_describes_allowed_names,
        phone::a_too_long_message_is_reported_before_it_is_sent,
        sharing::many_subscriptions_of_a_page_share_one_websocket_through_all_interruptions,
        sharing::subscriptions_with_one_token_share_a_websocket_and_a_refused_one_disturbs_no_other,
        sharing::subscriptions_beyond_the_limit_of_a_connection_get_another,
        sharing::closing_a_channel_ends_only_its_subscription,
        sharing::a_client_with_a_cookie_may_subscribe
    ];
    if std::env::var_os("CCOMET_TEST_SCREENSHOT").is_some() {
        all.extend(tests![needs [Need::Program("chromium")]; a_picture_of_the_chat]);
    }
    if std::env::var_os("CCOMET_TEST_CONSOLE_SCREENSHOT").is_some() {
        all.extend(tests![needs [Need::Program("chromium")]; console::a_picture_of_the_console]);
    }
    run(all)
}

/// Texts that have broken a chat.
const HOSTILE: &[&str] = &[
    "it's \"quoted\" and 'quoted'",
    "back\\slash \\n \\u0041 \\",
    "</script><script>window.broken = 1</script>",
    "<!--<script>",
    "<img src=x onerror='window.broken = 1'> &amp; &lt;",
    "line\nend, and\ttab",
    "U+2028 \u{2028} and U+2029 \u{2029} here",
    "😀👩‍👩‍👧‍👦 and 中文, العربية",
    "100 % + 1 # ? & =",
    "{\"json\": [null]} ${x} `y`",
];

fn chat(server: SocketAddr, name: &str, transport: &str) -> String {
    format!("http://{server}/chat.html?name={name}&transport={transport}")
}

fn classic(server: SocketAddr, name: &str) -> String {
    format!("http://{server}/classic.html?name={name}")
}

/// Waits until a page is connected by that transport.
fn wait_open(browser: &mut Chromium, page: &Page, transport: &str) {
    browser.wait(page, &format!("document.querySelector('#state').dataset.transport === '{transport}'"));
    browser.wait(page, "document.querySelector('#state').dataset.state === 'open'");
}

/// Types a text and sends it.
fn send(browser: &mut Chromium, page: &Page, text: &str) {
    let text = json!(text);
    browser.eval(
        page,
        &format!(
            "(() => {{ const box = document.querySelector('#text'); box.value = {text};
             box.dispatchEvent(new Event('input', {{bubbles: true}})); document.querySelector('#send').click(); }})()"
        ),
    );
}

/// The messages that a page shows. A text box normalizes line ends.
const MESSAGES: &str = "[...document.querySelectorAll('#log .message')]
    .filter((entry) => !['join', 'leave', 'sign', 'gap', 'note'].includes(entry.dataset.kind)).map((entry) => entry.dataset.text)";

fn wait_messages(browser: &mut Chromium, page: &Page, expected: &[String]) {
    browser.wait(page, &format!("({MESSAGES}).length >= {}", expected.len()));
    assert_eq!(browser.eval(page, MESSAGES), json!(expected), "each once, in order, unchanged");
    assert_eq!(browser.eval(page, "typeof window.broken"), "undefined", "nothing was run");
    assert_eq!(browser.eval(page, "document.querySelectorAll('#log img, #log script').length"), 0);
}

/// Lets two pages chat both ways, kills and restarts the server, and cuts one page off during ten
/// messages.
fn chat_through_interruptions(
    urls: impl Fn(SocketAddr, &str) -> String,
    wait_ready: impl Fn(&mut Chromium, &Page, SocketAddr),
) {
    let mut browser = Chromium::start();
    let mut server = Process::start("", &["--loops", "2"]);
    let (ann, bob) = (browser.open(&urls(server.front, "ann")), browser.open(&urls(server.front, "bob")));
    for page in [&ann, &bob] {
        wait_ready(&mut browser, page, server.front);
    }
    let mut messages = Vec::new();
    for (index, text) in HOSTILE.iter().enumerate() {
        let speaker = if index % 2 == 0 { &ann } else { &bob };
        send(&mut browser, speaker, text);
        messages.push((*text).to_owned());
        for page in [&ann, &bob] {
            wait_messages(&mut browser, page, &messages);
        }
    }

    // A page that is offline misses nothing.
    browser.set_offline(&bob, true);
    for n in 0..10 {
        let text = format!("while you slept {n}");
        send(&mut browser, &ann, &text);
        messages.push(text);
        wait_messages(&mut browser, &ann, &messages);
    }
    browser.set_offline(&bob, false);
    wait_messages(&mut browser, &bob, &messages);

    // The server is killed, and started again on the same ports.
    server.restart();
    for page in [&ann, &bob] {
        wait_ready(&mut browser, page, server.front);
    }
    for (speaker, text) in [(&ann, "back again"), (&bob, "so am I")] {
        send(&mut browser, speaker, text);
        messages.push(text.to_owned());
        for page in [&ann, &bob] {
            wait_messages(&mut browser, page, &messages);
        }
    }
}

fn the_chat_over_server_sent_events() {
    chat_through_interruptions(
        |server, name| chat(server, name, "sse"),
        |browser, page, _| wait_open(browser, page, "sse"),
    );
}

fn the_chat_over_jsonp() {
    chat_through_interruptions(
        |server, name| chat(server, name, "jsonp"),
        |browser, page, _| wait_open(browser, page, "jsonp"),
    );
}

fn the_chat_over_long_polling() {
    chat_through_interruptions(
        |server, name| chat(server, name, "poll"),
        |browser, page, _| wait_open(browser, page, "poll"),
    );
}

fn the_chat_over_websocket() {
    chat_through_interruptions(
        |server, name| chat(server, name, "websocket"),
        |browser, page, _| wait_open(browser, page, "websocket"),
    );
}

fn the_chat_over_endless_lines() {
    chat_through_interruptions(
        |server, name| chat(server, name, "lines"),
        |browser, page, _| wait_open(browser, page, "lines"),
    );
}

fn the_chat_over_a_page_in_a_frame() {
    chat_through_interruptions(
        |server, name| chat(server, name, "iframe"),
        |browser, page, _| wait_open(browser, page, "iframe"),
    );
}

/// Tests that a page uses a WebSocket, or the next transport if WebSocket fails, and that it
/// reports which.
fn the_best_working_transport_is_used() {
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "1"]);
    let page = browser.open(&chat(server.front, "ann", "auto"));
    wait_open(&mut browser, &page, "websocket");
    // A page that is not in a room has no WebSocket yet.
    let closed = browser.open(&format!("http://{}/chat.html", server.front));
    // The library's script may load after the page is shown.
    browser.wait(&closed, "typeof CComet === 'function'");
    let seen = browser.eval(
        &closed,
        "new Promise((done) => {
             globalThis.WebSocket = class { constructor() { setTimeout(() => this.onclose()); } close() {} };
             const sub = new CComet(location.origin).subscribe('news', {
                 onstate: (state) => state === 'open' && done(sub.transport) });
         })",
    );
    assert_eq!(seen, "sse");
}

/// Tests that a page with a token sees presence, reads history, and publishes once under a repeated
/// key.
fn a_page_with_a_token_sees_presence() {
    let mut browser = Chromium::start();
    let server = Process::start(&format!("{}[times]\npresence_grace_s = 1\n", guarded::settings()), &[]);
    let token = |sub: &str| guarded::token(sub, 600);
    for transport in ["websocket", "sse", "poll"] {
        let page = browser.open(&chat(server.front, "nobody", transport));
        browser.wait(&page, "typeof CComet === 'function'");
        let comet = |sub: &str| {
            let token = json!(token(sub));
            format!("new CComet(location.origin, {{ transport: '{transport}', token: () => {token} }})")
        };
        let seen = browser.eval(
            &page,
            &format!(
                "(async () => {{
                     const seen = [];
                     const ann = {};
                     const {{ members, position }} = await ann.presence('room');
                     const called = (sub, on) => new Promise((done) => {{ sub[on] = done; }});
                     const hooks = {{}};
                     const sub = ann.subscribe('room', {{ presence: true, after: position,
                         onmessage: (item) => {{ seen.push(item.event + ' ' + item.data); hooks.message?.(); }},
                         onitem: (item) => {{ seen.push(item.type + ' ' + item.id); hooks[item.type + item.id]?.(); }} }});
                     await called(hooks, 'joinann');
                     const bob = {}.subscribe('room', {{}});
                     await called(hooks, 'joinbob');
                     for (const again of [1, 2]) await ann.publish('room', 'once', {{ event: 'greeting', key: '{transport}' }});
                     bob.close();
                     await called(hooks, 'leavebob');
                     const page = await ann.history('room', {{ limit: 1 }});
                     sub.close();
                     return {{ before: members.length, seen, last: page.items[0].data }};
                 }})()",
                comet("ann"),
                comet("bob")
            ),
        );
        let expected = ["join ann", "join bob", "greeting once", "leave bob"];
        assert_eq!(seen, json!({"before": 0, "seen": expected, "last": "once"}), "{transport}");
        // The next transport starts with an empty room.
        let mut admin = Client::connect(server.admin);
        common::wait_until("the room is empty", || {
            admin.get("/channels/room/presence").json()["members"].as_array().is_some_and(Vec::is_empty)
        });
    }
}

fn the_chat_opened_from_a_file() {
    for transport in ["websocket", "sse", "jsonp"] {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../demos/web/chat.html");
        chat_through_interruptions(
            |server, name| format!("file://{page}?server=http://{server}&name={name}&transport={transport}"),
            |browser, page, _| wait_open(browser, page, transport),
        );
    }
}

fn the_classic_page() {
    chat_through_interruptions(classic, |browser, page, server| {
        // The classic API cannot resume over a restart: a page is ready when its poll waits, and
        // then sees a sign-in.
        let mut visitor = Client::connect(server);
        let mut count = browser.eval(page, JOINED).as_u64().unwrap_or(0);
        let before = count;
        let start = std::time::Instant::now();
        while count == before {
            assert!(start.elapsed() < common::PATIENCE, "the page does not wait");
            visitor.get("/sign?channel=classic&sname=visitor&callback=cb");
            std::thread::sleep(std::time::Duration::from_millis(100));
            count = browser.eval(page, JOINED).as_u64().unwrap_or(0);
        }
    });
}

/// The number of sign-ins that a page shows.
const JOINED: &str = "[...document.querySelectorAll('#log .message[data-kind=join]')]
    .filter((entry) => entry.textContent.includes('visitor')).length";

fn a_plain_event_source_sees_the_gap() {
    let mut browser = Chromium::start();
    let server = Process::start("[history]\nmessages_max = 2\n", &["--loops", "2"]);
    let mut client = Client::connect(server.front);
    let first = client.publish("news", "0");
    for n in 1..6 {
        client.publish("news", n.to_string());
    }
    let page = browser.open(&format!("http://{}/chat.html?room=other", server.front));
    browser.wait(&page, "document.querySelector('#enter')");
    browser.eval(
        &page,
        &format!(
            "(() => {{ window.caught = []; const source = new EventSource('/channels/news?after={first}');
             source.addEventListener('gap', (event) => caught.push(['gap', JSON.parse(event.data).missed]));
             source.onmessage = (event) => caught.push(['message', JSON.parse(event.data).data]); }})()"
        ),
    );
    browser.wait(&page, "caught.length >= 3");
    assert_eq!(browser.eval(&page, "caught"), json!([["gap", 3], ["message", "4"], ["message", "5"]]));
}

fn the_client_library_is_an_es_module_too() {
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "1"]);
    let page = browser.open(&format!("http://{}/chat.html?room=other", server.front));
    browser.wait(&page, "document.querySelector('#enter')");
    let seen = browser.eval(
        &page,
        "import('/ccomet.mjs').then(({ CComet }) => new Promise((done) => {
             const comet = new CComet(location.origin);
             comet.subscribe('news', { after: 'oldest', onmessage: (item) => done(item.data) });
             comet.publish('news', 'from a module');
         }))",
    );
    assert_eq!(seen, "from a module");
}

/// Writes the picture for the README to the path in `CCOMET_TEST_SCREENSHOT`.
fn a_picture_of_the_chat() {
    let path = std::env::var_os("CCOMET_TEST_SCREENSHOT").expect("where it goes");
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "2"]);
    let ann = browser.open(&chat(server.front, "Ann", "sse"));
    wait_open(&mut browser, &ann, "sse");
    let bob = browser.open(&chat(server.front, "Bob", "jsonp"));
    wait_open(&mut browser, &bob, "jsonp");
    let lines = [
        (&ann, "Is this the server that was rewritten in Rust?"),
        (&bob, "It is. You come by Server-Sent Events, I by JSONP :)"),
        (&ann, "And \"quotes\", back\\slashes and </script> survive?"),
        (&bob, "They do. So does the connection: kill the server and see ;)"),
    ];
    let mut messages = Vec::new();
    for (speaker, text) in lines {
        send(&mut browser, speaker, text);
        messages.push(text.to_owned());
        wait_messages(&mut browser, &ann, &messages);
    }
    browser.wait(&ann, "document.getAnimations().every((one) => one.playState === 'finished')");
    let picture: Value = browser.screenshot(&ann).into();
    let png = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap_or("")).expect("base64");
    std::fs::write(path, png).expect("a file");
}
