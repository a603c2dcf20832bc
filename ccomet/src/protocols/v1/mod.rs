//! The API of version 1.0.

mod encoder;
mod items;
mod request;

use sealed_http::Response;

use super::format::response::script_response;

pub(crate) use encoder::V1;

/// Its row in the table of protocols.
pub(super) const ROW: u8 = 2;

/// Answers `/sign`.
pub(crate) fn signed_in(callback: &str) -> Response {
    script_response(items::envelope_fixed(callback, items::SIGNED_IN))
}

/// Answers `/publish`.
pub(crate) fn published(callback: &str) -> Response {
    script_response(items::envelope_fixed(callback, items::PUBLISHED))
}
