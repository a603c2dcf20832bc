//! Forms in bodies: which bodies are read, and that other readers read the same.

use std::borrow::Cow;

use sealed::sim::Random;
use sealed_http::codec::Limits;
use sealed_http::site::Query;
use sealed_http::{Problem, Request, RequestHead};

/// The number of generated forms that another reader reads too.
const SEEDS: u64 = 20_000;

/// Returns the value of `a` in the form, or the status and code of the problem.
fn ask(content_type: &str, body: &[u8]) -> Result<Option<String>, (u16, String)> {
    let fields = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
    let text = format!("POST /?a=query HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let head = RequestHead::parse(text.as_bytes(), &Limits::default()).expect("a request");
    let request = Request { head, body };
    assert_eq!(request.query().get("a"), Ok(Some(Cow::Borrowed("query"))));
    let value = request.form().and_then(|form| Ok(form.get("a")?.map(Cow::into_owned)));
    value.map_err(|problem: Problem| (problem.status(), problem.to_string()))
}

#[test]
fn only_bodies_of_the_form_type_are_read() {
    for (content_type, is_form) in [
        ("application/x-www-form-urlencoded", true),
        ("Application/X-WWW-Form-URLencoded", true),
        ("application/x-www-form-urlencoded; charset=UTF-8", true),
        ("application/x-www-form-urlencoded ;charset=\"utf-8\"", true),
        ("application/x-www-form-urlencoded; other=1; charset=utf-8", true),
        ("application/x-www-form-urlencoded;", true),
        ("application/x-www-form-urlencoded; charset=iso-8859-1", false),
        ("application/x-www-form-urlencoded; charset", false),
        ("application/x-www-form-urlencoded2", false),
        ("multipart/form-data; boundary=a", false),
        ("text/plain", false),
        ("", false),
    ] {
        match ask(content_type, b"a=b+c") {
            Ok(value) => assert!(is_form && value.as_deref() == Some("b c"), "{content_type}: {value:?}"),
            Err((status, _)) => assert!(!is_form && status == 415, "{content_type}: {status}"),
        }
    }
}

#[test]
fn the_value_of_a_form_field_is_decoded() {
    for (body, wanted) in [
        (&b"a=1&b=2"[..], Ok(Some("1"))),
        (b"", Ok(None)),
        (b"a=%C3%A4", Ok(Some("\u{e4}"))),
        ("a=\u{e4}".as_bytes(), Ok(Some("\u{e4}"))),
        (b"a=%0d%0a", Ok(Some("\r\n"))),
        (b"b=%zz", Ok(None)),
        (b"a=%zz", Err(400)),
        (b"a=%ff", Err(400)),
        (b"a=\xff", Err(400)),
    ] {
        let value = ask("application/x-www-form-urlencoded", body);
        let value = value.as_ref().map(Option::as_deref).map_err(|(status, _)| *status);
        assert_eq!(value, wanted, "{}", body.escape_ascii());
    }
}

#[test]
fn other_readers_read_the_same() {
    const PARTS: &[&str] =
        &["a", "b", "=", "&", "+", "%20", "%3D", "%26", "%2B", "%41", "%c3%a4", "%", "%f", "%ff", ";", "ä"];
    let mut strict = 0;
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let text: String = (0..random.below(12)).filter_map(|_| random.pick(PARTS).copied()).collect();
        let here: Vec<_> = Query::new(Some(&text)).pairs().collect();
        let there: Vec<_> = form_urlencoded::parse(text.as_bytes()).collect();
        assert_eq!(here.len(), there.len(), "{text}");
        for (here, there) in here.into_iter().zip(there) {
            if let Ok(pair) = here {
                assert_eq!(pair, there, "{text}");
            } else {
                // The other reader guesses where this crate refuses.
                strict += 1;
                let guessed = |text: &str| text.contains(['\u{fffd}', '%']);
                assert!(guessed(&there.0) || guessed(&there.1), "{text}");
            }
        }
    }
    assert!(strict > 1_000, "{strict}");
}
