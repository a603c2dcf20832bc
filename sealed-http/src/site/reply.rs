//! Conversions into a response.

use crate::codec::response::Response;

/// Creates a response with status 200 and plain text.
impl From<&'static str> for Response {
    fn from(text: &'static str) -> Self {
        plain().body(text)
    }
}

/// Creates a response with status 200 and plain text.
impl From<String> for Response {
    fn from(text: String) -> Self {
        plain().body(text)
    }
}

/// Converts the value or the error, so that `?` works in functions that make pages.
impl<T: Into<Response>, E: Into<Response>> From<Result<T, E>> for Response {
    fn from(result: Result<T, E>) -> Self {
        result.map_or_else(Into::into, Into::into)
    }
}

fn plain() -> Response {
    Response::new(200).header("Content-Type", "text/plain; charset=utf-8")
}
