//! Pages of a server that requires tokens, and what a page may run.

use serde_json::json;

use crate::chromium::Chromium;
use crate::common::{Client, Process};
use crate::{chat, send, wait_messages, wait_open};

const SECRET: &str = "a secret that is long enough for it";

/// Returns the settings of a server with a key.
pub(crate) fn settings() -> String {
    format!("[auth]\nkeys = [{{ id = \"main\", algorithm = \"HS256\", secret = \"{SECRET}\" }}]\n")
}

/// Returns a token for the rooms of the tests, for so many seconds.
pub(crate) fn token(sub: &str, ttl_s: u64) -> String {
    let auth = ccomet::Auth {
        keys: vec![ccomet::Key {
            id: "main".to_owned(),
            secret: Some(ccomet::Secret::new(SECRET.to_owned())),
            ..ccomet::Key::default()
        }],
        ..ccomet::Auth::default()
    };
    let rooms: Vec<_> = ["room", "chat"].iter().map(|name| ccomet::Pattern::new(name).expect("a pattern")).collect();
    let iat = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let claims = ccomet::Claims {
        sub: Some(sub.to_owned()),
        iat,
        exp: iat + ttl_s,
        subscribe: rooms.clone(),
        publish: rooms.clone(),
        presence: rooms,
        ..ccomet::Claims::default()
    };
    ccomet::make_token(&auth, "main", None, &claims).expect("a token")
}

const ASKS: &str = "!document.querySelector('#token-part').hidden
    && /token/.test(document.querySelector('#problem').textContent)";

pub(crate) fn the_page_of_a_server_with_keys_asks_for_a_token_and_works_with_one() {
    let mut browser = Chromium::start();
    let server = Process::start(&settings(), &[]);
    for url in [format!("http://{}/", server.front), chat(server.front, "ann", "sse")] {
        let page = browser.open(&url);
        browser.wait(&page, ASKS);
        let filled = json!(token("ann", 600));
        browser.eval(
            &page,
            &format!(
                "(() => {{ document.querySelector('#name').value = 'ann';
                     document.querySelector('#token').value = {filled}; document.querySelector('#enter').click(); }})()"
            ),
        );
        browser.wait(&page, "document.querySelector('#state').dataset.state === 'open'");
    }
    // The page reports a wrong token, and asks for another.
    let page = browser.open(&format!("{}#token=nonsense", chat(server.front, "bob", "auto")));
    browser.wait(&page, ASKS);
    browser.wait(&page, "/accept/.test(document.querySelector('#problem').textContent)");
}

pub(crate) fn a_token_in_the_address_signs_in_and_is_removed_from_it() {
    let mut browser = Chromium::start();
    let server = Process::start(&settings(), &[]);
    let mut messages = Vec::new();
    for transport in ["websocket", "sse", "lines", "poll", "jsonp", "iframe"] {
        let url = format!("{}#token={}", chat(server.front, "ann", transport), token("ann", 600));
        let page = browser.open(&url);
        wait_open(&mut browser, &page, transport);
        assert_eq!(browser.eval(&page, "location.hash"), "");
        assert_eq!(browser.eval(&page, "location.search.includes('name=ann')"), true);
        send(&mut browser, &page, transport);
        messages.push(transport.to_owned());
        wait_messages(&mut browser, &page, &messages);
    }
}

pub(crate) fn scripts_injected_into_a_page_do_not_run_and_reach_no_other_server() {
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "1"]);
    let other = Process::start("", &["--loops", "1"]);
    for path in ["chat.html", "classic.html"] {
        let page = browser.open(&format!("http://{}/{path}?room=other", server.front));
        browser.wait(&page, "document.querySelector('#enter') && document.readyState === 'complete'");
        browser.eval(
            &page,
            &format!(
                "(() => {{
                     globalThis.violations = [];
                     addEventListener('securitypolicyviolation', (event) => violations.push(event.effectiveDirective));
                     document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.broken = 1\"><b onclick=\"window.broken = 2\" id=bait>x</b>');
                     document.querySelector('#bait').click();
                     const script = document.createElement('script');
                     script.textContent = 'window.broken = 3';
                     document.body.append(script);
                     const far = document.createElement('script');
                     far.src = 'http://{0}/ccomet.js?far';
                     document.body.append(far);
                     fetch('http://{0}/channels/news?wait=0').then(() => (window.broken = 4)).catch(() => (window.refused = true));
                 }})()",
                other.front
            ),
        );
        browser.wait(
            &page,
            "window.refused && ['script-src-attr', 'script-src-elem', 'connect-src', 'img-src']
            .every((directive) => violations.includes(directive))",
        );
        assert_eq!(browser.eval(&page, "typeof window.broken"), "undefined", "{path}");
    }
    // A link cannot name another server for what is written in the page.
    let url = format!("http://{}/chat.html?name=ann&server=http://{}", server.front, other.front);
    let page = browser.open(&url);
    browser.wait(&page, "document.querySelector('#problem').textContent.includes('only to the server')");
    assert_eq!(browser.eval(&page, "document.querySelector('#room').hidden"), true);
}

/// Returns a URL that opens as a page without a policy, in the origin of the server.
fn blank(server: &Process) -> String {
    format!("http://{}/ccomet.js", server.front)
}

pub(crate) fn pages_of_other_origins_import_the_library_and_use_it_with_a_token() {
    let mut browser = Chromium::start();
    let server = Process::start(&settings(), &["--loops", "1"]);
    let elsewhere = Process::start("[front]\ndemo = false\n", &["--loops", "1"]);
    let page = browser.open(&blank(&elsewhere));
    browser.wait(&page, "document.readyState === 'complete' && location.protocol === 'http:'");
    for transport in ["websocket", "sse", "lines", "poll", "jsonp", "iframe"] {
        let (server, token) = (json!(format!("http://{}", server.front)), json!(token("ann", 600)));
        let received = browser.eval(
            &page,
            &format!(
                "import({server} + '/ccomet.mjs').then(({{ CComet }}) => new Promise((done) => {{
                     const comet = new CComet({server}, {{ transport: '{transport}', token: async () => {token} }});
                     const sub = comet.subscribe('room', {{ last: 1, onmessage: (item) => item.data === '{transport}' && done([item.data, sub.transport]),
                         onstate: (state, detail) => state === 'closed' && done(String(detail)) }});
                     comet.publish('room', '{transport}').catch((error) => done(String(error)));
                 }}))"
            ),
        );
        assert_eq!(received, json!([transport, transport]));
    }
}

pub(crate) fn the_library_finds_its_server_in_a_worker() {
    let mut browser = Chromium::start();
    let server = Process::start("", &["--loops", "1"]);
    Client::connect(server.front).publish("news", "for workers");
    let page = browser.open(&blank(&server));
    browser.wait(&page, "document.readyState === 'complete' && location.protocol === 'http:'");
    let library = json!(blank(&server));
    for (transport, kind) in [("auto", "classic"), ("sse", "classic"), ("lines", "module"), ("poll", "module")] {
        let received = browser.eval(
            &page,
            &format!(
                "new Promise((done) => {{
                     const load = '{kind}' === 'module' ? 'import ' : 'importScripts(';
                     const script = `${{load}}${{JSON.stringify({library})}}${{'{kind}' === 'module' ? '' : ')'}};
                         new CComet(undefined, {{ transport: '{transport}' }}).subscribe('news', {{ after: 'oldest', onmessage: (item) => postMessage(item.data) }});`;
                     const worker = new Worker(URL.createObjectURL(new Blob([script], {{ type: 'text/javascript' }})), {{ type: '{kind}' }});
                     worker.onmessage = ({{ data }}) => done(data);
                     worker.onerror = (event) => done(event.message);
                 }})"
            ),
        );
        assert_eq!(received, "for workers", "{transport} {kind}");
    }
}
