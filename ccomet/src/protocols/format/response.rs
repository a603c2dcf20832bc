//! HTTP responses that several protocols and the application use.

use bytes::Bytes;
use sealed_http::Response;

pub(crate) const CONTENT_SECURITY_POLICY: &str = "Content-Security-Policy";
pub(crate) const JSON: &str = "application/json; charset=utf-8";
pub(crate) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const HTML: &str = "text/html; charset=utf-8";

pub(crate) fn json_response(body: impl Into<Bytes>) -> Response {
    response(JSON, body)
}

pub(crate) fn json_response_with(status: u16, body: impl Into<Bytes>) -> Response {
    response_with(status, JSON, body)
}

pub(crate) fn script_response(body: impl Into<Bytes>) -> Response {
    response(SCRIPT, body)
}

/// Returns a response that no cache may store.
pub(crate) fn response(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    response_with(200, content_type, body)
}

fn response_with(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    Response::new(status)
        .header("Content-Type", content_type)
        .header("Cache-Control", "no-store")
        .header("X-Content-Type-Options", "nosniff")
        .body(body)
}
