//! The setting `front.forwarded_by`.

use serde::{Deserialize, Serialize};

/// The header field in which trusted proxies name the client. The server ignores the other field: a
/// proxy that writes one of them passes on the other as its client sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`, as nginx, `HAProxy` and most others write it.
    #[default]
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    /// `Forwarded`, of RFC 7239.
    Forwarded,
}
