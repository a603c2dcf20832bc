//! A cookie or a password that a browser sends by itself does not identify the page that caused the
//! request: only pages of the site may act with such credentials.

use ccomet::{Config, ConfigError};
use serde_json::Value;

use super::stage::{Stage, frame, upgrade};

/// Requests that any page can cause in its visitor's browser, and profit from, without permission
/// of the server.
const FORGEABLE: [&str; 8] = [
    "GET /channels/news?callback=f&wait=0",
    "GET /channels/news?callback=f&publish=spam",
    "GET /subscribe?channel=news&sname=a&seqid=0&callback=f",
    "GET /sign?channel=news&sname=a&callback=f",
    "GET /publish?channel=news&sname=a&msg=spam&callback=f",
    "GET /poll?cname=news&cb=f",
    "POST /channels/news",
    "POST /messages",
];

/// Header fields that a browser sends for a page of another site or of an unknown one.
const FOREIGN: [&str; 5] = [
    "",
    "Origin: https://evil.example\r\n",
    "Origin: null\r\n",
    "Sec-Fetch-Site: cross-site\r\n",
    "Sec-Fetch-Site: cross-site\r\nReferer: https://evil.example/\r\n",
];

const OWN: [(&str, &str); 3] = [
    ("Origin: http://x\r\n", "http://x"),
    ("Sec-Fetch-Site: same-origin\r\nReferer: http://x/page\r\n", "http://x"),
    ("Origin: https://listed.example\r\n", "https://listed.example"),
];

fn stage() -> Stage {
    Stage::new(1, |config| config.hooks.headers = vec!["Cookie".to_owned(), "authorization".to_owned()])
}

fn request(line: &str, fields: &str) -> String {
    let body = match line {
        "POST /messages" => r#"{"messages":[{"channel":"news","data":"spam"}]}"#,
        line if line.starts_with("POST") => "spam",
        _ => "",
    };
    format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn pages_of_other_sites_cannot_use_credentials_that_browsers_send_by_themselves() {
    for credentials in ["Cookie: session=7\r\n", "Authorization: Basic YTpi\r\n", "Authorization: Negotiate YTpi\r\n"] {
        let stage = stage();
        for line in FORGEABLE {
            for page in FOREIGN {
                let mut client = stage.client(&request(line, &format!("{credentials}{page}")));
                stage.wait(1);
                let answer = String::from_utf8_lossy(&client.take()).into_owned();
                let is_refused = ["not_allowed", "origin_forbidden", " 403 "].iter().any(|text| answer.contains(text));
                assert!(is_refused, "{line} {credentials}{page}: {answer}");
                assert!(stage.backend.accept().is_none(), "{line} {credentials}{page}");
            }
        }
        let socket = upgrade("/channels/news").replace("Referer: http://x/page\r\nCookie: session=7\r\n", credentials);
        for page in FOREIGN {
            let mut client = stage.client(&socket.replace("Host: x\r\n", &format!("Host: x\r\n{page}")));
            client.expect("HTTP/1.1 403 ");
            assert!(stage.backend.accept().is_none(), "{credentials}{page}");
        }
    }
}

#[test]
fn the_back_end_gets_the_origin_of_the_page() {
    for (page, origin) in OWN {
        for line in FORGEABLE {
            let stage = stage();
            let mut client = stage.client(&request(line, &format!("Cookie: session=7\r\n{page}")));
            let question = stage.backend().answer_next(204, "");
            assert_eq!(question["origin"], origin, "{line}");
            assert_eq!(question["headers"]["Cookie"], "session=7", "{line}");
            client.expect("HTTP/1.1 200 ");
        }
    }
    // The server processes requests of any page if other pages cannot read the reply, and the back
    // end decides.
    let stage = stage();
    let line = "GET /channels/news?wait=0";
    let mut client = stage.client(&request(line, "Cookie: session=7\r\nOrigin: https://evil.example\r\n"));
    let mut backend = stage.backend();
    assert_eq!(backend.answer_next(204, "")["origin"], "https://evil.example");
    let answer = client.expect("\"items\"");
    assert!(!String::from_utf8_lossy(&answer).contains("Access-Control-Allow-Origin"));
    client.send(request(line, "Cookie: session=7\r\n"));
    assert_eq!(backend.answer_next(204, "")["origin"], Value::Null);
}

#[test]
fn a_program_without_a_cookie_needs_no_page() {
    let stage = stage();
    let mut client = stage.client(&request("POST /channels/news", "Authorization: Bearer of-the-sites-own\r\n"));
    let mut backend = stage.backend();
    let question = backend.answer_next(204, "");
    assert_eq!(question["headers"]["authorization"], "Bearer of-the-sites-own");
    client.expect("\"position\"");
    client.send(request("POST /channels/news", ""));
    backend.answer_next(204, "");
    client.expect("\"position\"");
    // If the back end does not get cookies, a cookie permits nothing.
    let stage = Stage::new(1, |_| {});
    let mut client = stage.client(&request("POST /channels/news", "Cookie: session=7\r\n"));
    stage.backend().answer_next(204, "");
    client.expect("\"position\"");
}

#[test]
fn an_answer_about_one_page_is_not_cached_for_another() {
    let stage = stage();
    let asked_by = |page: &str| request("GET /channels/news?wait=0", &format!("Cookie: session=7\r\n{page}"));
    let mut client = stage.client(&asked_by("Origin: http://x\r\n"));
    let mut backend = stage.backend();
    backend.next_question();
    backend.answer(204, "Cache-Control: max-age=60\r\n", "");
    client.expect("\"items\"");
    client.send(asked_by("Origin: http://x\r\n"));
    client.expect("\"items\"");
    client.send(asked_by("Origin: https://evil.example\r\n"));
    backend.answer_next(403, "");
    client.expect("hook_refused");
}

#[test]
fn questions_about_publications_on_a_websocket_name_its_page() {
    let stage = stage();
    let mut client = stage.client(&upgrade("/channels/news"));
    let mut backend = stage.backend();
    backend.answer_next(204, "");
    client.expect("hello");
    client.send(frame(r#"{"type":"publish","channel":"news","data":"x"}"#));
    let question = backend.answer_next(204, "");
    assert_eq!((&question["origin"], &question["headers"]["Cookie"]), (&"http://x".into(), &"session=7".into()));
    client.expect("published");
}

#[test]
fn a_page_of_another_site_opens_no_websocket_with_credentials() {
    let stage = stage();
    let foreign = upgrade("/channels").replace("Referer: http://x/page\r\n", "Origin: https://listed.example\r\n");
    let own = upgrade("/channels");
    let nobodys = upgrade("/channels").replace("Referer: http://x/page\r\n", "");
    for (request, cookie) in [(own, Value::from("session=7")), (foreign, "session=7".into()), (nobodys, Value::Null)] {
        let mut client = stage.client(&request);
        client.expect("hello");
        client.send(frame(r#"{"type":"subscribe","ref":1,"channels":["news"]}"#));
        let question = stage.backend().answer_next(204, "");
        assert_eq!(question["headers"]["Cookie"], cookie, "{request}");
        client.expect("subscribed");
    }
}

#[test]
fn origins_must_be_listed_if_the_back_end_gets_cookies() {
    for (headers, origins, is_fine) in [
        (["Cookie"], ["*"], false),
        (["COOKIE"], ["*"], false),
        (["authorization"], ["*"], false),
        (["User-Agent"], ["*"], true),
        (["Cookie"], ["https://site.example"], true),
    ] {
        let mut config = Config::default();
        "http://127.0.0.1:9000/".clone_into(&mut config.hooks.url);
        config.hooks.subscribe = true;
        config.hooks.headers = headers.map(str::to_owned).to_vec();
        config.front.origins = origins.map(str::to_owned).to_vec();
        let checked = config.check();
        assert_eq!(checked.is_ok(), is_fine, "{headers:?} {origins:?}: {checked:?}");
        assert!(is_fine || matches!(checked, Err(ConfigError::AnyOrigin)), "{checked:?}");
    }
}
