//! Errors in a format that clients can parse: problem details (RFC 9457).

use std::borrow::Cow;
use std::fmt;

use sealed::fault;

use crate::codec::error::DecodeError;
use crate::codec::response::{Response, reason};
use crate::site::query::BadEncoding;

/// Members that the problem writes itself.
const OWN: [&str; 6] = ["type", "title", "status", "code", "detail", "instance"];

/// An error response: a status, a stable code for programs, and a sentence for people. As a
/// [`Response`] it has the type `application/problem+json`, and caches must not store it.
///
/// The JSON may be embedded in a script: `<`, U+2028 and U+2029 are escaped.
///
/// # Example
/// ```
/// use sealed_http::{Problem, Response};
///
/// let problem = Problem::new(409).code("name_taken").detail("\"Ann\" is here already.").member("free", "Ann2");
/// assert_eq!(
///     String::from_utf8_lossy(&problem.to_json()),
///     r#"{"type":"about:blank","title":"Conflict","status":409,"code":"name_taken","detail":"\"Ann\" is here already.","free":"Ann2"}"#
/// );
/// assert_eq!(Response::from(problem).status(), 409);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: u16,
    kind: &'static str,
    title: Option<&'static str>,
    code: Option<&'static str>,
    detail: Cow<'static, str>,
    members: Vec<(&'static str, Member)>,
}

/// The value of an additional member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Member {
    /// A string.
    Text(Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// `true` or `false`.
    Flag(bool),
}

impl Problem {
    /// Creates a problem with that status, its standard phrase as title and `about:blank` as type.
    ///
    /// # Panics
    /// If the status is not an error status, 400 to 599.
    pub fn new(status: u16) -> Self {
        assert!((400..600).contains(&status), "not the status of an error: {status}");
        let (kind, title) = ("about:blank", Some(reason(status)));
        Self { status, kind, title, code: None, detail: Cow::Borrowed(""), members: Vec::new() }
    }

    /// Sets the type: a URI, preferably of a page that explains it.
    #[must_use]
    pub fn kind(mut self, uri: &'static str) -> Self {
        self.kind = uri;
        self
    }

    /// Sets the title, which all problems of one type share; `None` omits it.
    #[must_use]
    pub fn title(mut self, title: impl Into<Option<&'static str>>) -> Self {
        self.title = title.into();
        self
    }

    /// Sets the member `code`: a stable name for programs.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Sets the detail: a sentence for people about what happened. An empty detail is omitted.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds an additional member.
    ///
    /// # Panics
    /// If the name is a member of RFC 9457 or `code`, or was added before.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<Member>) -> Self {
        let taken = OWN.contains(&name) || self.members.iter().any(|(held, _)| *held == name);
        assert!(!taken, "a problem's member has a second value: {name}");
        self.members.push((name, value.into()));
        self
    }

    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the problem as a JSON object.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.detail.len());
        out.extend_from_slice(b"{\"type\":");
        write_string(self.kind, &mut out);
        if let Some(title) = self.title {
            write_text_member("title", title, &mut out);
        }
        write_member("status", &Member::Integer(self.status.into()), &mut out);
        if let Some(code) = self.code {
            write_text_member("code", code, &mut out);
        }
        if !self.detail.is_empty() {
            write_text_member("detail", &self.detail, &mut out);
        }
        for (name, value) in &self.members {
            write_member(name, value, &mut out);
        }
        out.push(b'}');
        out
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.title.unwrap_or_else(|| reason(self.status)))?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        Self::new(problem.status)
            .header("Content-Type", "application/problem+json")
            .header("Cache-Control", "no-store")
            .header("X-Content-Type-Options", if fault!("problem-may-be-sniffed") { "" } else { "nosniff" })
            .body(problem.to_json())
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        let text = error.to_string();
        let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
        Self::new(error.status()).code(error.code()).detail(format!("{}{rest}.", first.to_uppercase()))
    }
}

impl From<BadEncoding> for Problem {
    fn from(_: BadEncoding) -> Self {
        Self::new(400).code("bad_encoding").detail("A parameter's percent-encoding is malformed.")
    }
}

impl From<&'static str> for Member {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Member {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i32> for Member {
    fn from(number: i32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<i64> for Member {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Member {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<bool> for Member {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

fn write_member(name: &str, value: &Member, out: &mut Vec<u8>) {
    out.push(b',');
    write_string(name, out);
    out.push(b':');
    match value {
        Member::Text(text) => write_string(text, out),
        Member::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Member::Flag(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
    }
}

fn write_text_member(name: &str, text: &str, out: &mut Vec<u8>) {
    out.push(b',');
    write_string(name, out);
    out.push(b':');
    write_string(text, out);
}

/// Appends a JSON string. In addition to the escapes that RFC 8259 requires, this function escapes
/// what would end a script or a line of a script.
fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for letter in text.chars() {
        match letter {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\u{1f}' | '<' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(letter)).as_bytes());
            }
            _ => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}
