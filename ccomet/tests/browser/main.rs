//! Real pages in a real browser: the chat over each transport, the classic page, a plain `EventSource`.

mod chromium;
#[path = "../common/mod.rs"]
mod common;
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
        the_best_that_works_is_taken,
        a_page_with_a_token_sees_who_comes_and_goes,
        the_chat_dropped_into_a_browser_from_disk,
        the_classic_page,
        a_plain_event_source_sees_the_gap,
        the_client_library_is_an_es_module_too,
        guarded::the_front_page_of_a_server_with_keys_asks_for_a_token_and_works_with_one,
        guarded::a_token_in_the_address_signs_in_and_is_taken_out_of_it,
        guarded::what_is_smuggled_into_a_page_is_not_run_and_reaches_no_other_server,
        guarded::pages_of_other_origins_import_the_library_and_use_it_with_a_token,
        guarded::the_library_works_in_a_worker_without_being_told_where_the_server_is,
        icomet::icomets_chat_by_long_polling,
        icomet::icomets_chat_by_server_sent_events,
        icomet::pages_that_are_not_listed_do_nothing_at_the_admin_listener,
        phone::long_names_and_refused_messages_fit_the_screen_of_a_phone,
        phone::the_door_fits_a_phone_and_says_what_a_name_may_be,
        phone::a_message_that_is_too_long_is_said_to_be_before_it_is_sent,
        sharing::many_subscriptions_of_a_page_have_one_websocket_through_everything,
        sharing::subscriptions_with_one_token_share_it_and_one_that_is_refused_disturbs_no_other,
        sharing::more_subscriptions_than_a_connection_may_have_get_another,
        sharing::a_channel_that_is_closed_ends_its_subscription_alone,
        sharing::who_is_known_by_a_cookie_may_subscribe
    ];
    if std::env::var_os("CCOMET_SCREENSHOT").is_some() {
        all.extend(tests![needs [Need::Program("chromium")]; a_picture_of_the_chat]);
    }
    run(all)
}

/// All that has ever broken a chat.
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
fn say(browser: &mut Chromium, page: &Page, text: &str) {
    let text = json!(text);
    browser.eval(
        page,
        &format!(
            "(() => {{ const box = document.querySelector('#text'); box.value = {text};
             box.dispatchEvent(new Event('input', {{bubbles: true}})); document.querySelector('#send').click(); }})()"
        ),
    );
}

/// What was said, as a page shows it. Line ends of a text box are the browser's.
const SAID: &str = "[...document.querySelectorAll('#log .message')]
    .filter((entry) => !['join', 'leave', 'sign', 'gap', 'note'].includes(entry.dataset.kind)).map((entry) => entry.dataset.text)";

fn wait_said(browser: &mut Chromium, page: &Page, expected: &[String]) {
    browser.wait(page, &format!("({SAID}).length >= {}", expected.len()));
    assert_eq!(browser.eval(page, SAID), json!(expected), "each once, in order, unchanged");
    assert_eq!(browser.eval(page, "typeof window.broken"), "undefined", "nothing was run");
    assert_eq!(browser.eval(page, "document.querySelectorAll('#log img, #log script').length"), 0);
}

/// Two pages chat both ways; the server is killed and comes back; one page sleeps through ten messages.
fn chat_through_everything(
    urls: impl Fn(SocketAddr, &str) -> String,
    wait_ready: impl Fn(&mut Chromium, &Page, SocketAddr),
) {
    let mut browser = Chromium::start();
    let mut server = Process::start("", &["--loops", "2"]);
    let (ann, bob) = (browser.open(&urls(server.front, "ann")), browser.open(&urls(server.front, "bob")));
    for page in [&ann, &bob] {
        wait_ready(&mut browser, page, server.front);
    }
    let mut said = Vec::new();
    for (index, text) in HOSTILE.iter().enumerate() {
        let speaker = if index % 2 == 0 { &ann } else { &bob };
        say(&mut browser, speaker, text);
        said.push((*text).to_owned());
        for page in [&ann, &bob] {
            wait_said(&mut browser, page, &said);
        }
    }

    // A page sleeps, and misses nothing.
    browser.set_offline(&bob, true);
    for n in 0..10 {
        let text = format!("while you slept {n}");
        say(&mut browser, &ann, &text);
        said.push(text);
        wait_said(&mut browser, &ann, &said);
    }
    browser.set_offline(&bob, false);
    wait_said(&mut browser, &bob, &said);

    // Killed, and started again on the same ports.
    server.restart();
    for page in [&ann, &bob] {
        wait_ready(&mut browser, page, server.front);
    }
    for (speaker, text) in [(&ann, "back again"), (&bob, "so am I")] {
        say(&mut browser, speaker, text);
        said.push(text.to_owned());
        for page in [&ann, &bob] {
            wait_said(&mut browser, page, &said);
        }
    }
}

fn the_chat_over_server_sent_events() {
    chat_through_everything(
        |server, name| chat(server, name, "sse"),
        |browser, page, _| wait_open(browser, page, "sse"),
    );
}

fn the_chat_over_jsonp() {
    chat_through_everything(
        |server, name| chat(server, name, "jsonp"),
        |browser, page, _| wait_open(browser, page, "jsonp"),
    );
}

fn the_chat_over_long_polling() {
    chat_through_everything(
        |server, name| chat(server, name, "poll"),
        |browser, page, _| wait_open(browser, page, "poll"),
    );
}

fn the_chat_over_websocket() {
    chat_through_everything(
        |server, name| chat(server, name, "websocket"),
        |browser, page, _| wait_open(browser, page, "websocket"),
    );
}

fn the_chat_over_endless_lines() {
    chat_through_everything(
        |server, name| chat(server, name, "lines"),
        |browser, page, _| wait_open(browser, page, "lines"),
    );
}

fn the_chat_over_a_page_in_a_frame() {
    chat_through_everything(
        |server, name| chat(server, name, "iframe"),
        |browser, page, _| wait_open(browser, page, "iframe"),
    );
}

/// A WebSocket where it gets through, and where it does not, the next best; it is said which.
fn the_best_that_works_is_taken() {
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "1"]);
    let page = browser.open(&chat(server.front, "ann", "auto"));
    wait_open(&mut browser, &page, "websocket");
    // A page that is not in a room: it has no WebSocket yet.
    let closed = browser.open(&format!("http://{}/chat.html", server.front));
    // The library's script may come after what the page shows.
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

/// A page with a token sees who is there, reads history, and publishes once what it says twice.
fn a_page_with_a_token_sees_who_comes_and_goes() {
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
                     const told = (sub, on) => new Promise((done) => {{ sub[on] = done; }});
                     const hooks = {{}};
                     const sub = ann.subscribe('room', {{ presence: true, after: position,
                         onmessage: (item) => {{ seen.push(item.event + ' ' + item.data); hooks.message?.(); }},
                         onitem: (item) => {{ seen.push(item.type + ' ' + item.id); hooks[item.type + item.id]?.(); }} }});
                     await told(hooks, 'joinann');
                     const bob = {}.subscribe('room', {{}});
                     await told(hooks, 'joinbob');
                     for (const again of [1, 2]) await ann.publish('room', 'once', {{ event: 'greeting', key: '{transport}' }});
                     bob.close();
                     await told(hooks, 'leavebob');
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
        // The next one starts with an empty room.
        let mut admin = Client::connect(server.admin);
        common::wait_until("the room is empty", || {
            admin.get("/channels/room/presence").json()["members"].as_array().is_some_and(Vec::is_empty)
        });
    }
}

fn the_chat_dropped_into_a_browser_from_disk() {
    for transport in ["websocket", "sse", "jsonp"] {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../demos/web/chat.html");
        chat_through_everything(
            |server, name| format!("file://{page}?server=http://{server}&name={name}&transport={transport}"),
            |browser, page, _| wait_open(browser, page, transport),
        );
    }
}

fn the_classic_page() {
    chat_through_everything(classic, |browser, page, server| {
        // The classic API has no way to resume over a restart: a page is ready when its poll waits, and then it sees
        // who signs in.
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

/// How often a visitor was seen to sign in.
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

/// Writes the picture for the README where `CCOMET_SCREENSHOT` says.
fn a_picture_of_the_chat() {
    let path = std::env::var_os("CCOMET_SCREENSHOT").expect("where it goes");
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
    let mut said = Vec::new();
    for (speaker, text) in lines {
        say(&mut browser, speaker, text);
        said.push(text.to_owned());
        wait_said(&mut browser, &ann, &said);
    }
    browser.wait(&ann, "document.getAnimations().every((one) => one.playState === 'finished')");
    let picture: Value = browser.screenshot(&ann).into();
    let png = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap_or("")).expect("base64");
    std::fs::write(path, png).expect("a file");
}
