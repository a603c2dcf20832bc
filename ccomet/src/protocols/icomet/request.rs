//! Requests of icomet's clients and back ends.

use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use sealed::fault;
use sealed_http::{Method, RequestHead, Response};

use super::ROW;
use crate::core::message::ChannelName;
use crate::core::problem::Problem;
use crate::engine::Token;
use crate::hub::{Delivery, Format, StartAt, SubscribeRequest};
use crate::protocols::call::{self, Door};
use crate::protocols::format::framing::Framing;
use crate::protocols::format::jsonp::is_callback;
use crate::protocols::format::response::TEXT;
use crate::protocols::format::stream_format::{StreamFormat, Transport};
use crate::protocols::route::Incoming;

/// A call of icomet's API.
#[derive(Debug)]
pub(crate) enum IcometCall {
    Subscribe { subscription: SubscribeRequest, token: Option<Token> },
    Ping { callback: Box<str> },
    Publish { channel: ChannelName, payload: Bytes, callback: Option<Box<str>> },
    Broadcast { payload: Bytes },
    Sign { channel: ChannelName, expires_s: Option<u32>, callback: Option<Box<str>> },
    Close { channel: ChannelName },
    Clear { channel: ChannelName },
    Info { channel: Option<ChannelName> },
    Check { channel: ChannelName },
    Watch,
}

/// The reason for which a request is not a valid call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// The methods that the path has.
    Method(&'static str),
    BadName,
    BadCallback,
    /// The message has more bytes than this limit.
    TooLarge(usize),
}

impl From<BadRequest> for call::RefusedCall {
    fn from(refused: BadRequest) -> Self {
        let (problem, status, text) = match refused {
            BadRequest::Method(allow) => {
                let response = Response::new(405).header("Allow", allow).header("Content-Type", TEXT);
                return Self::Own { problem: Some(Problem::MethodNotAllowed), response };
            }
            BadRequest::BadName => (Problem::BadChannel, 400, "cname is missing or no channel's name"),
            BadRequest::BadCallback => (Problem::BadCallback, 400, "cb is not a JavaScript identifier"),
            BadRequest::TooLarge(bytes_max) => (Problem::MessageTooLarge(bytes_max), 413, "content is too long"),
        };
        let response = Response::new(status).header("Content-Type", TEXT).header("X-Content-Type-Options", "nosniff");
        Self::Own { problem: Some(problem), response: response.body(text) }
    }
}

/// Returns whether a request for this path may have its parameters in its body.
pub(super) fn has_form(door: Door, path: &str) -> bool {
    matches!((door, path), (Door::Admin, "/push" | "/pub"))
}

/// Returns whether a GET of this path changes something, at the admin listener.
pub(super) fn has_effect(path: &str) -> bool {
    matches!(path, "/push" | "/pub" | "/broadcast" | "/sign" | "/close" | "/clear")
}

/// Returns the length of the longest form for messages of `message_bytes_max` bytes: with every
/// byte escaped, and with a name and a callback.
pub(super) fn form_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_mul(3).saturating_add(1_024)
}

/// Reads a request, if its path is one of icomet's at that listener.
pub(super) fn read(incoming: &Incoming<'_>) -> Option<Result<IcometCall, BadRequest>> {
    let Incoming { door, head, body, .. } = *incoming;
    let path = head.path();
    let post_too = has_form(door, path);
    let form = if post_too && !fault!("icomet-form-not-read") { String::from_utf8_lossy(body) } else { Cow::default() };
    let parameters = Parameters { form: &form, query: head.query().unwrap_or("") };
    let reader = Reader { head, parameters, message_bytes_max: incoming.limits().message_bytes_max };
    let read: &dyn Fn() -> Result<IcometCall, BadRequest> = match (door, path) {
        (Door::Front, "/sub" | "/poll") => &|| reader.subscribe(None),
        (Door::Front, "/stream") => &|| reader.subscribe(Some(Transport::Lines)),
        (Door::Front, "/sse") => &|| reader.subscribe(Some(Transport::EventStream)),
        (Door::Front, "/iframe") => &|| reader.subscribe(Some(Transport::Iframe)),
        (Door::Front, "/ping") => &|| reader.ping(),
        (Door::Admin, "/push") => &|| reader.publish(|content| content),
        (Door::Admin, "/pub") => &|| reader.publish(unquoted),
        (Door::Admin, "/broadcast") => &|| Ok(IcometCall::Broadcast { payload: reader.content(|content| content)? }),
        (Door::Admin, "/sign") => &|| reader.sign(),
        (Door::Admin, "/close") => &|| Ok(IcometCall::Close { channel: reader.channel()? }),
        (Door::Admin, "/clear") => &|| Ok(IcometCall::Clear { channel: reader.channel()? }),
        (Door::Admin, "/info") => &|| reader.info(),
        (Door::Admin, "/check") => &|| Ok(IcometCall::Check { channel: reader.channel()? }),
        (Door::Admin, "/psub") => &|| Ok(IcometCall::Watch),
        _ => return None,
    };
    Some(match head.method() {
        Method::Get => read(),
        Method::Post if post_too => read(),
        _ => Err(BadRequest::Method(if post_too { "GET, POST" } else { "GET" })),
    })
}

struct Reader<'a> {
    head: &'a RequestHead<'a>,
    parameters: Parameters<'a>,
    message_bytes_max: usize,
}

impl Reader<'_> {
    fn subscribe(&self, transport: Option<Transport>) -> Result<IcometCall, BadRequest> {
        let channel = self.channel()?;
        let callback = self.callback()?;
        let number = |name: &str| self.parameters.get(name).and_then(|text| text.parse().ok()).unwrap_or(0_i32);
        let noop = number("noop");
        let delivery = match transport {
            None => Delivery { target: callback, beats: noop, ..Delivery::new(Format::poll(ROW)) },
            Some(transport) => {
                let framing = if self.head.version_minor() == 0 { Framing::Plain } else { Framing::Chunked };
                Delivery { beats: noop, ..Delivery::new(StreamFormat { transport, framing }.in_row(ROW)) }
            }
        };
        let start = StartAt::Number(u64::from(number("seq").cast_unsigned()));
        let token = self.parameters.get("token").and_then(|text| Token::parse(&text));
        Ok(IcometCall::Subscribe { subscription: SubscribeRequest::new(vec![(channel, start)], delivery), token })
    }

    fn ping(&self) -> Result<IcometCall, BadRequest> {
        Ok(IcometCall::Ping { callback: self.callback()?.unwrap_or_else(|| "icomet_cb".into()) })
    }

    fn publish(&self, read: fn(String) -> String) -> Result<IcometCall, BadRequest> {
        let channel = self.channel()?;
        Ok(IcometCall::Publish { channel, payload: self.content(read)?, callback: self.callback()? })
    }

    fn sign(&self) -> Result<IcometCall, BadRequest> {
        let expires_s =
            self.parameters.get("expires").and_then(|text| text.parse().ok()).filter(|expires| *expires > 0);
        Ok(IcometCall::Sign { channel: self.channel()?, expires_s, callback: self.callback()? })
    }

    fn info(&self) -> Result<IcometCall, BadRequest> {
        let channel = match self.parameters.get("cname") {
            Some(name) if !name.is_empty() => Some(self.channel()?),
            _ => None,
        };
        Ok(IcometCall::Info { channel })
    }

    fn channel(&self) -> Result<ChannelName, BadRequest> {
        let name = self.parameters.get("cname").unwrap_or_default();
        ChannelName::new(&name).map_err(|_| BadRequest::BadName)
    }

    fn callback(&self) -> Result<Option<Box<str>>, BadRequest> {
        match self.parameters.get("cb").filter(|callback| !callback.is_empty()) {
            None => Ok(None),
            Some(callback) if is_callback(&callback) => Ok(Some(callback.into())),
            Some(_) => Err(BadRequest::BadCallback),
        }
    }

    fn content(&self, read: fn(String) -> String) -> Result<Bytes, BadRequest> {
        let content = read(self.parameters.get("content").unwrap_or_default());
        if content.len() > self.message_bytes_max {
            Err(BadRequest::TooLarge(self.message_bytes_max))
        } else {
            Ok(content.into())
        }
    }
}

/// The parameters of a request, by icomet's rules: a form overrides the query, whatever the body's
/// content type. Invalid escapes are text, and so is a single `%`, which icomet's chat page sends.
struct Parameters<'a> {
    form: &'a str,
    query: &'a str,
}

impl Parameters<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let pairs = [self.form, self.query].into_iter().flat_map(|pairs| pairs.split('&'));
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        let spaced = value.replace('+', " ");
        Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    }
}

/// Returns the text between the quotes of a JSON string. Text that is not valid there is returned
/// unchanged.
fn unquoted(content: String) -> String {
    serde_json::from_str(&format!("\"{content}\"")).unwrap_or(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_json_already_is_unescaped() {
        for (content, text) in [
            (r#"a\"b\n\u00e9"#, "a\"b\n\u{e9}"),
            ("plain", "plain"),
            ("", ""),
            (r#"not "json""#, r#"not "json""#),
            (r"half \", r"half \"),
            (r#"","seq":9,"x":""#, r#"","seq":9,"x":""#),
        ] {
            assert_eq!(unquoted(content.to_owned()), text, "{content}");
        }
    }

    #[test]
    fn queries_are_parsed_leniently() {
        let parameters = Parameters { form: "", query: "cname=a%20b&content=100%+sure%2&cb&cname=c" };
        assert_eq!(parameters.get("cname").as_deref(), Some("a b"));
        assert_eq!(parameters.get("content").as_deref(), Some("100% sure%2"));
        assert_eq!((parameters.get("cb").as_deref(), parameters.get("token")), (Some(""), None));
    }
}
