//! What can be returned where a response is wanted.

use crate::response::Response;

/// A status of 200, and plain text.
impl From<&'static str> for Response {
    fn from(text: &'static str) -> Self {
        plain().body(text)
    }
}

/// A status of 200, and plain text.
impl From<String> for Response {
    fn from(text: String) -> Self {
        plain().body(text)
    }
}

/// Either the one or the other, so that `?` works where pages are made.
impl<T: Into<Response>, E: Into<Response>> From<Result<T, E>> for Response {
    fn from(result: Result<T, E>) -> Self {
        result.map_or_else(Into::into, Into::into)
    }
}

fn plain() -> Response {
    Response::new(200).header("Content-Type", "text/plain; charset=utf-8")
}
