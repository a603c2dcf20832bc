//! Queries and path segments: decoded once, strictly, and only on demand.

use std::borrow::Cow;

use sealed_http::site::{BadEncoding, Query, decode_segment};

type Value = Result<Option<&'static str>, BadEncoding>;

#[test]
fn the_value_of_a_parameter_is_decoded() {
    let cases: &[(&str, &str, Value)] = &[
        ("simple", "a=b", Ok(Some("b"))),
        ("last of several", "x=y&a=b", Ok(Some("b"))),
        ("first of two", "a=b&a=c", Ok(Some("b"))),
        ("first of two in another spelling", "%61=b&a=c", Ok(Some("b"))),
        ("missing", "b=a", Ok(None)),
        ("in a longer name", "aa=b&ba=c", Ok(None)),
        ("in other letters", "A=b", Ok(None)),
        ("no query", "", Ok(None)),
        ("only separators", "&&", Ok(None)),
        ("without value", "a", Ok(Some(""))),
        ("empty value", "a=", Ok(Some(""))),
        ("equals sign in the value", "a=b=c", Ok(Some("b=c"))),
        ("question mark in the value", "a=b?c", Ok(Some("b?c"))),
        ("semicolon is no separator", "a=b;c=d", Ok(Some("b;c=d"))),
        ("plus is a space", "a=b+c", Ok(Some("b c"))),
        ("escaped plus is a plus", "a=b%2Bc", Ok(Some("b+c"))),
        ("escaped space", "a=b%20c", Ok(Some("b c"))),
        ("escaped separators", "a=b%26c%3Dd", Ok(Some("b&c=d"))),
        ("letters of both sizes", "a=%c3%BC", Ok(Some("ü"))),
        ("decoded once", "a=%2541", Ok(Some("%41"))),
        ("NUL is a character", "a=%00", Ok(Some("\0"))),
        ("line end is one too", "a=%0d%0a", Ok(Some("\r\n"))),
        ("escape cut off", "a=%", Err(BadEncoding)),
        ("escape cut off in its middle", "a=b%4", Err(BadEncoding)),
        ("escape cut off by the next parameter", "a=%4&1=x", Err(BadEncoding)),
        ("not hexadecimal", "a=%zz", Err(BadEncoding)),
        ("half hexadecimal", "a=%4g", Err(BadEncoding)),
        ("sign for a digit", "a=%+1", Err(BadEncoding)),
        ("wide escape", "a=%u00fc", Err(BadEncoding)),
        ("escape in an escape", "a=%%41", Err(BadEncoding)),
        ("not UTF-8", "a=%ff", Err(BadEncoding)),
        ("UTF-8 cut off", "a=%c3", Err(BadEncoding)),
        ("overlong UTF-8", "a=%c0%af", Err(BadEncoding)),
        ("surrogate", "a=%ed%a0%80", Err(BadEncoding)),
        ("malformed elsewhere", "b=%zz&a=c", Ok(Some("c"))),
        ("malformed name elsewhere", "%zz=b&a=c", Ok(Some("c"))),
        ("malformed behind", "a=b&a=%zz", Ok(Some("b"))),
    ];
    for (name, query, expected) in cases {
        let value = Query::new(Some(query)).get("a");
        assert_eq!(value, expected.map(|value| value.map(Cow::Borrowed)), "{name}: {query}");
    }
    assert_eq!(Query::new(None).get("a"), Ok(None));
}

#[test]
fn names_are_decoded_too() {
    let query = Query::new(Some("f%C3%BCr=1&a+b=2&c%2Bd=3&=4"));
    for (name, value) in [("für", Some("1")), ("a b", Some("2")), ("c+d", Some("3")), ("", Some("4")), ("a+b", None)] {
        assert_eq!(query.get(name), Ok(value.map(Cow::Borrowed)), "{name}");
    }
    assert_eq!(Query::new(Some("a=b&&c=d")).get(""), Ok(None), "nothing between separators is no parameter");
    assert_eq!(Query::new(Some("")).get(""), Ok(None));
}

#[test]
fn pairs_are_returned_in_order_and_as_often_as_they_were_sent() {
    let pairs: Vec<_> = Query::new(Some("a=1&&b&a=%32&c=%zz&%zz=d&=e")).pairs().collect();
    let pair = |name, value| Ok((Cow::Borrowed(name), Cow::Borrowed(value)));
    let bad = Err(BadEncoding);
    assert_eq!(pairs, [pair("a", "1"), pair("b", ""), pair("a", "2"), bad.clone(), bad, pair("", "e")]);
    assert_eq!(Query::new(None).pairs().count(), 0);
}

#[test]
fn values_without_escapes_are_not_copied() {
    assert!(matches!(Query::new(Some("a=b")).get("a"), Ok(Some(Cow::Borrowed("b")))));
    assert!(matches!(decode_segment("a+b"), Ok(Cow::Borrowed("a+b"))));
}

#[test]
fn path_segments_are_decoded() {
    for (segment, expected) in [
        ("", Ok("")),
        ("news", Ok("news")),
        ("a+b", Ok("a+b")),
        ("a%20b", Ok("a b")),
        ("a%2Fb", Ok("a/b")),
        ("%2e%2e", Ok("..")),
        ("%252F", Ok("%2F")),
        ("%E4%B8%AD", Ok("中")),
        ("%", Err(BadEncoding)),
        ("%2", Err(BadEncoding)),
        ("%2x", Err(BadEncoding)),
        ("%ff", Err(BadEncoding)),
    ] {
        assert_eq!(decode_segment(segment).as_deref(), expected.as_ref().map(|text| *text), "{segment}");
    }
}
