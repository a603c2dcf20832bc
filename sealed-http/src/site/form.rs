//! Parameters of a request: from its query, or from its body if that is a form.

use crate::server::handler::Request;
use crate::site::problem::Problem;
use crate::site::query::Query;

const FORM: &[u8] = b"application/x-www-form-urlencoded";

impl<'a> Request<'a> {
    /// Returns the parameters of the query.
    pub fn query(&self) -> Query<'a> {
        Query::new(self.head.query())
    }

    /// Returns the parameters of the body, which must be `application/x-www-form-urlencoded`: the
    /// format in which browsers send forms, and `curl -d` sends data.
    ///
    /// # Errors
    /// A problem of status 415 if the body has any other type, or a charset other than UTF-8; of
    /// status 400 if the body is not UTF-8.
    ///
    /// # Example
    /// ```
    /// use sealed_http::{Problem, Request};
    ///
    /// fn sign_in(request: &Request<'_>) -> Result<String, Problem> {
    ///     let form = request.form()?;
    ///     let name = form.get("name")?.ok_or_else(|| Problem::new(422).detail("The form has no name."))?;
    ///     Ok(format!("Hello, {name}"))
    /// }
    /// ```
    pub fn form(&self) -> Result<Query<'a>, Problem> {
        let kind = self.head.header("content-type").unwrap_or_default();
        let mut parts = kind.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_form = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(FORM));
        if !is_form || !parts.all(is_utf8_or_other) {
            let detail = "The body is to be application/x-www-form-urlencoded, in UTF-8.";
            return Err(Problem::new(415).code("not_a_form").detail(detail));
        }
        let body = std::str::from_utf8(self.body);
        let body = body.map_err(|_| Problem::new(400).code("bad_encoding").detail("The form is not UTF-8."))?;
        Ok(Query::new(Some(body)))
    }
}

/// Returns whether a parameter of a media type is not a charset, or is the charset UTF-8.
fn is_utf8_or_other(parameter: &[u8]) -> bool {
    let equals = parameter.iter().position(|byte| *byte == b'=').unwrap_or(parameter.len());
    let (name, value) = parameter.split_at(equals);
    !name.eq_ignore_ascii_case(b"charset")
        || [&b"=utf-8"[..], b"=\"utf-8\""].iter().any(|utf8| value.eq_ignore_ascii_case(utf8))
}
