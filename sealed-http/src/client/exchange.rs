//! A request that is under way.

use std::time::Duration;

use bytes::Bytes;
use sealed::{ConnectionId, TimerId, fault};

use super::fetch::Fetch;
use crate::codec::limits::Limits;
use crate::codec::response_head::Asked;

/// A request whose outcome has not been reported.
#[derive(Debug)]
pub(super) struct FetchExchange {
    pub(super) upstream: usize,
    pub(super) connection: Option<ConnectionId>,
    pub(super) request: Bytes,
    /// The part of the body that was written while the request waited for a connection.
    pub(super) unsent: Vec<u8>,
    pub(super) body_is_open: bool,
    pub(super) answer_is_streamed: bool,
    pub(super) retry: Retry,
    pub(super) asked: Asked,
    pub(super) limits: Limits,
    pub(super) silence_max: Duration,
    pub(super) body: Vec<u8>,
    pub(super) limit: Option<TimerId>,
}

/// Whether a request may be sent again if a kept connection was closed before the response began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    Once,
    /// The request is being sent again: only a new connection may carry it.
    Begun,
}

impl FetchExchange {
    pub(super) fn new(upstream: usize, host: &str, fetch: &Fetch) -> Self {
        let mut limits = fetch.limits;
        if fetch.answer_is_streamed {
            limits.body_bytes_max = u64::MAX;
        }
        let may_be_repeated = fetch.may_be_repeated() || fault!("unrepeatable-sent-again");
        Self {
            upstream,
            connection: None,
            request: fetch.encode(host).into(),
            unsent: Vec::new(),
            body_is_open: fetch.body_is_streamed,
            answer_is_streamed: fetch.answer_is_streamed,
            retry: if may_be_repeated && !fetch.body_is_streamed { Retry::Once } else { Retry::Never },
            asked: fetch.asked(),
            limits,
            silence_max: fetch.silence_max,
            body: Vec::new(),
            limit: None,
        }
    }
}
