//! The codec: requests and responses as bytes, without an event loop.
//!
//! A [`RequestDecoder`] and a [`ResponseDecoder`] are fed with slices, hold none of the bytes, and
//! allocate nothing: they return what they have found in the slice. They refuse every message that
//! two implementations might interpret differently ([`DecodeError`]), and enforce [`Limits`].

pub(crate) mod chunked;
pub(crate) mod decoder;
pub(crate) mod error;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod limits;
pub(crate) mod proxy_header;
pub(crate) mod response;
pub(crate) mod response_decoder;
pub(crate) mod response_head;

pub use decoder::{Event, RequestDecoder};
pub use error::DecodeError;
pub use fields::BadHeaderValue;
pub use head::{Method, RequestHead};
pub use limits::{HEADERS_MAX, Limits};
pub use proxy_header::{BadProxyHeader, ProxyHeader};
pub use response::{CONTINUE, Response, encode_chunk, encode_last_chunk, reason};
pub use response_decoder::{ResponseDecoder, ResponseEvent};
pub use response_head::{Asked, ResponseHead};
