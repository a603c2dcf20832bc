//! The console of the admin listener, and the page of the API.

use std::process::Command;

use base64::Engine;
use serde_json::json;

use crate::HOSTILE;
use crate::chromium::{Chromium, Page};
use crate::common::{Client, Folder, Process};
use crate::phone::{FAINT, assert_none};

/// Shows a view of the console.
fn show(browser: &mut Chromium, page: &Page, view: &str) {
    browser.eval(page, &format!("location.hash = {}", json!(view)));
}

/// Waits until the page shows a text.
fn wait_text(browser: &mut Chromium, page: &Page, text: &str) {
    browser.wait(page, &format!("document.body.innerText.includes({})", json!(text)));
}

/// Clicks the button with a label.
fn click(browser: &mut Chromium, page: &Page, label: &str) {
    let find = format!("[...document.querySelectorAll('button, a')].find(one => one.textContent === {})", json!(label));
    browser.wait(page, &format!("!!{find}"));
    browser.eval(page, &format!("{find}.click()"));
}

pub(crate) fn the_console_shows_the_server_and_changes_channels() {
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "2"]);
    let mut client = Client::connect(server.front);
    let page = browser.open(&format!("http://{}/", server.admin));
    wait_text(&mut browser, &page, "ready");
    wait_text(&mut browser, &page, "Resident memory");
    for (index, text) in HOSTILE.iter().enumerate() {
        assert_eq!(client.post(&format!("/channels/room.{index}"), *text).status, 200);
        assert_eq!(client.post("/channels/room", *text).status, 200);
    }
    show(&mut browser, &page, "channels");
    browser.wait(&page, "document.querySelectorAll('tbody tr').length === 11");
    browser.eval(&page, "document.querySelector('input').value = 'room.*'");
    click(&mut browser, &page, "Search");
    browser.wait(&page, "document.querySelectorAll('tbody tr').length === 10");
    // History and live messages, as text.
    show(&mut browser, &page, "channel=room");
    for text in HOSTILE {
        let shown =
            format!("[...document.querySelectorAll('#log p')].some(one => one.textContent.endsWith({}))", json!(text));
        browser.wait(&page, &shown);
    }
    browser.wait(&page, "[...document.querySelectorAll('.tile')].some(one => /Subscribers/.test(one.textContent) && /1$/.test(one.textContent))");
    browser.eval(&page, "document.querySelector('textarea').value = 'from the console'");
    click(&mut browser, &page, "Publish");
    browser.wait(&page, "document.querySelector('#log').lastChild.textContent.endsWith('from the console')");
    assert_eq!(browser.eval(&page, "window.broken === undefined"), true);
    // Nothing is dropped without a confirmation.
    for (label, confirmed, left) in [("Clear the history", false, 11), ("Clear the history", true, 0)] {
        click(&mut browser, &page, label);
        browser.wait(&page, "document.querySelector('#ask').open");
        click(&mut browser, &page, if confirmed { "Drop them" } else { "Cancel" });
        browser.wait(&page, "!document.querySelector('#ask').open");
        if confirmed {
            wait_text(&mut browser, &page, "The history is dropped.");
            browser.wait(&page, "document.querySelector('#log').childElementCount === 0");
        }
        let info = Client::connect(server.admin).get("/channels/room/info").json();
        assert_eq!(info["messages"], left);
    }
    click(&mut browser, &page, "Close the channel");
    click(&mut browser, &page, "Close it");
    wait_text(&mut browser, &page, "The channel was closed.");
}

pub(crate) fn the_console_shows_what_was_refused_and_the_limits_and_settings() {
    let mut browser = Chromium::start();
    let folder = Folder::new("console");
    let file = folder.write("ccomet.toml", "[limits]\nmessage_bytes_max = 10\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccomet"));
    let server = Process::run(command.args(["--front", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(file));
    let mut client = Client::connect(server.front);
    assert_eq!(client.post("/channels/small", "more than ten bytes").status, 413);
    let page = browser.open(&format!("http://{}/#refusals", server.admin));
    wait_text(&mut browser, &page, "message_too_large");
    wait_text(&mut browser, &page, "/channels/small");
    show(&mut browser, &page, "limits");
    wait_text(&mut browser, &page, "limits.connections_max");
    show(&mut browser, &page, "settings");
    wait_text(&mut browser, &page, "\"message_bytes_max\": 10");
    folder.write("ccomet.toml", "[limits]\nmessage_bytes_max = 20\n");
    click(&mut browser, &page, "Reload the settings");
    wait_text(&mut browser, &page, "Reloaded. Applied: limits.message_bytes_max. Needs a restart: nothing.");
    show(&mut browser, &page, "readers");
    wait_text(&mut browser, &page, "No reader is slow.");
}

pub(crate) fn the_console_asks_for_the_admin_key() {
    let mut browser = Chromium::start();
    let server = Process::start("[admin]\nkeys = [\"the-admin-key-of-this-test\"]\n", &[]);
    let page = browser.open(&format!("http://{}/#settings", server.admin));
    let sign_in = |browser: &mut Chromium, key: &str| {
        browser.wait(&page, "!!document.querySelector('input[type=password]')");
        browser.eval(&page, &format!("document.querySelector('input').value = {}", json!(key)));
        click(browser, &page, "Sign in");
    };
    sign_in(&mut browser, "schl\u{fc}ssel");
    wait_text(&mut browser, &page, "ASCII alone");
    sign_in(&mut browser, "not the key");
    wait_text(&mut browser, &page, "does not accept this key");
    sign_in(&mut browser, "the-admin-key-of-this-test");
    wait_text(&mut browser, &page, "\"admin\"");
    assert_eq!(browser.eval(&page, "document.body.innerText.includes('the-admin-key-of-this-test')"), false);
    show(&mut browser, &page, "channel=room");
    browser.wait(&page, "!!document.querySelector('textarea')");
    browser.eval(&page, "document.querySelector('textarea').value = 'with a key'");
    click(&mut browser, &page, "Publish");
    browser.wait(&page, "document.querySelector('#log').textContent.includes('with a key')");
}

pub(crate) fn the_console_fits_a_phone_and_works_by_keyboard() {
    let mut browser = Chromium::start();
    let server = Process::start("", &[]);
    let mut client = Client::connect(server.front);
    let long = "a".repeat(128);
    assert_eq!(client.post(&format!("/channels/{long}"), "x".repeat(3_000)).status, 200);
    for colours in ["light", "dark"] {
        let page = browser.open(&format!("http://{}/", server.admin));
        browser.set_screen(&page, 320, colours);
        for view in ["overview", "channels", &format!("channel={long}"), "readers", "refusals", "limits", "settings"] {
            show(&mut browser, &page, view);
            browser.wait(&page, "document.querySelector('#view').childElementCount > 0");
            browser.wait(&page, "document.documentElement.scrollWidth <= innerWidth");
            // Everything that can be used can be reached, and has a name.
            let named = "[...document.querySelectorAll('a, button, input, textarea')].every(one => one.tabIndex >= 0
                && (one.textContent || one.labels?.length || one.ariaLabel))";
            browser.wait(&page, named);
            assert_none(&mut browser, &page, FAINT, &format!("{view} in {colours}"));
        }
    }
}

pub(crate) fn the_page_of_the_api_sends_requests() {
    let mut browser = Chromium::start();
    let server = Process::start("", &[]);
    let page = browser.open(&format!("http://{}/docs", server.admin));
    wait_text(&mut browser, &page, "/channels/{names}");
    let operation =
        "[...document.querySelectorAll('details')].find(one => /^POST.channels.{names}/.test(one.textContent))";
    browser.eval(&page, &format!("{operation}.open = true"));
    browser.wait(&page, &format!("!!{operation}.querySelector('form')"));
    browser.eval(
        &page,
        &format!(
            "(() => {{ const form = {operation}.querySelector('form'); form.querySelector('input').value = 'news'
                 form.querySelector('textarea').value = 'tried'; form.requestSubmit() }})()"
        ),
    );
    browser.wait(&page, &format!("/200 OK[^]*position/.test({operation}.querySelector('pre').textContent)"));
    let history = Client::connect(server.admin).get("/channels/news/history").json();
    assert_eq!(history["items"][0]["data"], "tried");
}

/// Writes the picture for the manual to the path in `CCOMET_TEST_CONSOLE_SCREENSHOT`.
pub(crate) fn a_picture_of_the_console() {
    let path = std::env::var_os("CCOMET_TEST_CONSOLE_SCREENSHOT").expect("where it goes");
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "2"]);
    let mut client = Client::connect(server.front);
    let page = browser.open(&format!("http://{}/", server.admin));
    let follower = browser.open(&format!("http://{}/#channel=news", server.admin));
    wait_text(&mut browser, &follower, "Messages a second");
    for round in 0..40_u32 {
        for number in 0..20 + 40 * (round % 5) {
            client.publish(&format!("news.{}", number % 8), "a message");
            client.publish("news", format!("message {number} of round {round}"));
        }
        browser.eval(&page, "new Promise(done => setTimeout(done, 500))");
    }
    let png = base64::engine::general_purpose::STANDARD.decode(browser.screenshot(&page)).expect("base64");
    std::fs::write(path, png).expect("a file");
}
