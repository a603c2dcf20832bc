//! Text formats that several protocols use.

pub(crate) mod framing;
pub(crate) mod jsonp;
pub(crate) mod response;
pub(crate) mod sse;
pub(crate) mod stream_format;
