//! Requests in the API of version 1.0.

use bytes::Bytes;
use sealed_http::site::Query;
use sealed_http::{Method, Response};

use super::{ROW, items};
use crate::core::message::{ChannelName, Draft};
use crate::hub::{Delivery, Format, StartAt, SubscribeRequest};
use crate::protocols::call::{Call, Door, RefusedCall, ReplyTo};
use crate::protocols::format::jsonp::is_callback;
use crate::protocols::format::response::{JSON, script_response};
use crate::protocols::route::{Incoming, parse_number};

/// The maximum length of a client's name, in bytes.
const SNAME_BYTES_MAX: usize = 128;

const METHODS: &str = "GET, OPTIONS";

/// Reads a request, if its path is one of this API's at that listener.
pub(super) fn read(incoming: &Incoming<'_>) -> Option<Result<Call, RefusedCall>> {
    if incoming.door != Door::Front || !matches!(incoming.head.path(), "/sign" | "/publish" | "/subscribe") {
        return None;
    }
    Some(match incoming.head.method() {
        Method::Get => read_get(incoming),
        Method::Options => Ok(Call::Preflight { allow: METHODS }),
        _ => Err(RefusedCall::method(METHODS)),
    })
}

fn read_get(incoming: &Incoming<'_>) -> Result<Call, RefusedCall> {
    let query = Query::new(incoming.head.query());
    let callback: Box<str> = match query.get("callback") {
        Ok(Some(name)) if is_callback(&name) => name.into(),
        _ => return Err(bad_parameters(None)),
    };
    read_call(incoming, query, callback.clone()).ok_or_else(|| bad_parameters(Some(&callback)))
}

fn read_call(incoming: &Incoming<'_>, query: Query<'_>, callback: Box<str>) -> Option<Call> {
    let get = |name: &str| query.get(name).ok().flatten();
    let channel = ChannelName::new(&get("channel")?).ok()?;
    let sname = get("sname").filter(|sname| !sname.is_empty() && sname.len() <= SNAME_BYTES_MAX)?;
    match incoming.head.path() {
        "/sign" => Some(Call::Sign { channel, name: sname.into(), callback }),
        "/publish" => {
            let text = get("msg").filter(|text| text.len() <= incoming.limits().message_bytes_max)?;
            let payload = Bytes::copy_from_slice(text.as_bytes());
            let draft = Draft { payload, sender: Some(sname.into()), ..Draft::default() };
            Some(Call::Publish { channel, draft, reply: ReplyTo::V1 { callback } })
        }
        _ => {
            let start = StartAt::Number(parse_number(&get("seqid")?)?);
            let delivery =
                Delivery { target: Some(callback), name: Some(sname.into()), ..Delivery::new(Format::poll(ROW)) };
            let subscription = SubscribeRequest::new(vec![(channel, start)], delivery);
            Some(Call::Subscribe { subscription, wait_s: incoming.times().classic_poll_s })
        }
    }
}

/// Returns the answer to a request with invalid parameters or an invalid callback.
fn bad_parameters(callback: Option<&str>) -> RefusedCall {
    let response = match callback {
        Some(callback) => script_response(items::envelope_fixed(callback, items::BAD_PARAMETERS)),
        None => Response::new(400)
            .header("Content-Type", JSON)
            .header("Cache-Control", "no-store")
            .header("X-Content-Type-Options", "nosniff")
            .body(items::BAD_PARAMETERS),
    };
    RefusedCall::Own { problem: None, response }
}
