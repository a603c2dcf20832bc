//! Errors as problem details (RFC 9457): a status, a code that does not change, and a sentence.

use std::borrow::Cow;

use sealed_http::Problem as Details;

use super::refused::Refused as TokenRefused;

/// The time in seconds after which a client that cannot be served now should retry.
const RETRY_S: u32 = 5;

/// The fault of one message in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageFault {
    /// The members are not those of a message.
    Shape,
    Base64,
    Channel,
    /// This member is malformed or out of its range.
    Member(&'static str),
    /// The message has more bytes than this limit.
    TooLarge(usize),
}

impl MessageFault {
    /// Returns the problem with which the message is refused if it is published alone.
    fn alone(self) -> Problem {
        match self {
            Self::Shape | Self::Base64 => Problem::BadBody,
            Self::Channel => Problem::BadChannel,
            Self::Member(name) => Problem::BadParameter(name),
            Self::TooLarge(bytes_max) => Problem::MessageTooLarge(bytes_max),
        }
    }

    fn detail(self) -> Cow<'static, str> {
        match self {
            Self::Shape => {
                "A message needs 'channel' or 'channels' and one of 'data' and 'data_base64'. It has no members \
                            but these, 'event', 'ttl' and 'key', each once."
                    .into()
            }
            Self::Base64 => "'data_base64' is not Base64 with its padding.".into(),
            Self::Member(_) | Self::Channel | Self::TooLarge(_) => self.alone().detail(),
        }
    }
}

/// The source of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The permissions of clients without a token.
    Anonymous,
    Token,
    /// A rule for the channel.
    Rule,
    /// The request has the cookie or the password of a user, and may come from a page of another
    /// site.
    Page,
}

/// The error that a client gets if its request cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    BadChannel,
    TooManyChannels,
    TooManySubscriptions,
    /// The connection already reads a channel that it may have in one subscription only.
    SeatTaken,
    RefTaken,
    UnknownRef,
    /// The parameter.
    BadPosition(&'static str),
    /// The parameter, or the header field.
    BadParameter(&'static str),
    /// A parameter, and the parameter that it excludes.
    Excluded(&'static str, &'static str),
    BadCallback,
    BadOrigin,
    BadCommand,
    BadBody,
    /// The index of the message in the body, from 0 on, and its fault.
    BadMessage(u32, MessageFault),
    UnsupportedEncoding,
    TooManyMessages,
    KeyReused,
    /// Settings that were to be reloaded have an error.
    BadSettings,
    /// The program around the server has no settings to reload.
    NoSettings,
    HookRefused,
    HookUnavailable,
    HookTooLarge,
    OriginForbidden,
    HostUnknown,
    Forgeable,
    AdminKey,
    TokenMissing,
    TokenInvalid(TokenRefused),
    TokenExpired,
    SubjectChanged,
    TokenNotYet,
    /// The token's key is not known, and `auth.jwks_url` has not been fetched yet.
    KeysUnavailable,
    NotAllowed(Denial),
    Forbidden,
    NotFound,
    /// The unknown path segment is one after a channel.
    UnknownPart,
    UnknownChannel,
    WrongToken,
    MethodNotAllowed,
    /// The message has more bytes than this limit.
    MessageTooLarge(usize),
    /// The body is too large, and is not known to be a single message.
    BodyTooLarge,
    ChannelLimit,
    PatternLimit,
    PatternForbidden,
    ClientLimit,
    BroadcastLimit,
    BroadcastTooWide,
    /// The time in seconds after which there may be room.
    TooManyRequests(u32),
    /// The limit of the server.
    SubscriberLimit,
    /// The channel has as many subscribers as it may have.
    ChannelFull,
    BodyLimit,
    ShuttingDown,
    Unavailable,
    /// The disk of the store is full.
    StoreFull,
    /// The disk of the store has failed.
    StoreFailed,
}

impl Problem {
    /// Returns the stable code.
    pub(crate) fn code(self) -> &'static str {
        self.parts().1
    }

    /// Returns the HTTP status.
    pub(crate) fn status(self) -> u16 {
        self.parts().0
    }

    /// Returns the sentence that describes the problem of this request.
    pub(crate) fn detail(self) -> Cow<'static, str> {
        match self {
            Self::BadPosition(name) => {
                format!("'{name}' is not a position that the server gave out for these channels.").into()
            }
            Self::BadParameter(name) => format!("'{name}' is malformed or out of its range.").into(),
            Self::Excluded(name, other) => format!("'{name}' and {other} cannot be used together.").into(),
            Self::BadMessage(index, fault) => format!("messages[{index}]: {}", fault.detail()).into(),
            Self::TokenInvalid(why) => sentence(&why.to_string()).into(),
            Self::MessageTooLarge(bytes_max) => {
                format!("The message has more than the {bytes_max} bytes that its channel allows.").into()
            }
            _ => self.text().into(),
        }
    }

    /// Returns the problem details that clients get.
    pub(crate) fn details(self) -> Details {
        let (status, code) = self.parts();
        let details = Details::new(status).code(code).detail(self.detail());
        // The time is in the body too: neither a script tag nor a page of another origin can see
        // Retry-After.
        match self.retry_s() {
            Some(retry_s) => details.member("retry_ms", i64::from(retry_s) * 1_000),
            None => details,
        }
    }

    /// Returns the number of seconds after which a retry may succeed, if it may.
    pub(crate) fn retry_s(self) -> Option<u32> {
        match self {
            Self::TooManyRequests(retry_s) => Some(retry_s),
            Self::ClientLimit | Self::StoreFull => Some(RETRY_S),
            _ => (self.parts().0 == 503).then_some(RETRY_S),
        }
    }

    /// Returns the argument of a JSONP callback, which replaces the status that a script cannot
    /// see.
    pub(crate) fn to_callback_argument(self) -> Vec<u8> {
        self.details().kind("error").title(None).to_json()
    }

    /// Returns the status and the code.
    fn parts(self) -> (u16, &'static str) {
        match self {
            Self::BadChannel => (400, "bad_channel"),
            Self::TooManyChannels => (400, "too_many_channels"),
            Self::TooManySubscriptions | Self::SeatTaken => (400, "too_many_subscriptions"),
            Self::RefTaken => (409, "ref_taken"),
            Self::UnknownRef => (404, "unknown_ref"),
            Self::BadPosition(_) => (400, "bad_position"),
            Self::BadParameter(_) | Self::Excluded(..) => (400, "bad_parameter"),
            Self::BadCallback => (400, "bad_callback"),
            Self::BadOrigin => (400, "bad_origin"),
            Self::BadCommand => (400, "bad_command"),
            Self::BadBody => (400, "bad_body"),
            Self::BadMessage(_, fault) => fault.alone().parts(),
            Self::UnsupportedEncoding => (415, "unsupported_encoding"),
            Self::TooManyMessages => (400, "too_many_messages"),
            Self::KeyReused => (422, "key_reused"),
            Self::BadSettings => (422, "bad_settings"),
            Self::NoSettings => (409, "no_settings"),
            Self::HookRefused => (403, "hook_refused"),
            Self::HookUnavailable => (503, "hook_unavailable"),
            Self::HookTooLarge => (413, "hook_too_large"),
            Self::OriginForbidden => (403, "origin_forbidden"),
            Self::HostUnknown => (421, "host_unknown"),
            Self::Forgeable => (403, "forgeable"),
            Self::AdminKey => (401, "admin_key"),
            Self::TokenMissing => (401, "token_missing"),
            Self::TokenInvalid(_) => (401, "token_invalid"),
            Self::SubjectChanged => (403, "subject_changed"),
            Self::TokenExpired => (401, "token_expired"),
            Self::TokenNotYet => (401, "token_not_yet"),
            Self::KeysUnavailable => (503, "keys_unavailable"),
            Self::NotAllowed(_) => (403, "not_allowed"),
            Self::Forbidden => (403, "forbidden"),
            Self::WrongToken => (401, "wrong_token"),
            Self::NotFound | Self::UnknownPart => (404, "not_found"),
            Self::UnknownChannel => (404, "unknown_channel"),
            Self::MethodNotAllowed => (405, "method_not_allowed"),
            Self::MessageTooLarge(_) | Self::BodyTooLarge => (413, "message_too_large"),
            Self::TooManyRequests(_) => (429, "too_many_requests"),
            Self::ChannelLimit => (503, "channel_limit"),
            Self::PatternLimit => (503, "pattern_limit"),
            Self::PatternForbidden => (403, "pattern_forbidden"),
            Self::ClientLimit => (429, "client_limit"),
            Self::BroadcastLimit => (503, "broadcast_limit"),
            Self::BroadcastTooWide => (403, "broadcast_too_wide"),
            Self::SubscriberLimit | Self::ChannelFull => (503, "subscriber_limit"),
            Self::BodyLimit => (503, "body_limit"),
            Self::Unavailable => (503, "unavailable"),
            Self::StoreFull => (507, "store_full"),
            Self::StoreFailed => (503, "store_failed"),
            Self::ShuttingDown => (503, "shutting_down"),
        }
    }

    /// Returns the sentence of a problem whose sentence never varies.
    fn text(self) -> &'static str {
        match self {
            Self::BadChannel => {
                "The name of a channel has 1 to 128 bytes of UTF-8, without control characters, ',' and '*', and is not \
                 '.' or '..'."
            }
            Self::TooManyChannels => {
                "The request names more channels than channels_per_subscription_max, or one channel twice."
            }
            Self::TooManySubscriptions => {
                "The WebSocket has subscriptions_per_connection_max subscriptions. Remove one, or open another WebSocket."
            }
            Self::SeatTaken => {
                "The WebSocket has a subscription to this channel already, whose rule limits its subscribers \
                 (subscribers_max). Open another WebSocket."
            }
            Self::RefTaken => "The WebSocket has a subscription with this 'ref' already.",
            Self::UnknownRef => "The WebSocket has no subscription with this 'ref'.",
            Self::BadCallback => "'callback' must be a JavaScript identifier, dotted or indexed, of at most 128 bytes.",
            Self::BadOrigin => "'origin' is not an origin whose pages may read from this server.",
            Self::BadCommand => {
                "The message is none of the commands 'publish', 'subscribe', 'unsubscribe' and 'token', or does not \
                 have the members of its command. A binary message needs a WebSocket of one channel."
            }
            Self::BadBody => {
                "The body must be JSON of the form {\"messages\":[{\"channel\":\"…\",\"data\":\"…\"}, …]}."
            }
            Self::UnsupportedEncoding => "The body has a Content-Encoding. Send it without one.",
            Self::TooManyMessages => "The request has more messages than publications_per_request_max.",
            Self::KeyReused => "Another message was published under this idempotency key.",
            Self::BadSettings => "The settings have an error. Nothing was changed.",
            Self::NoSettings => "The program around this server has no settings to read again.",
            Self::HookRefused => "The site does not allow this.",
            Self::HookUnavailable => "The site could not be asked whether this is allowed.",
            Self::HookTooLarge => "The request is too large for a question to the site.",
            Self::OriginForbidden => "Pages of this origin may not do this.",
            Self::HostUnknown => {
                "The name in Host is not a name of this listener. If it should be, add it to admin.hosts or front.hosts."
            }
            Self::Forgeable => {
                "A page of another site could make a browser send this GET. Use POST, send X-Requested-With, or set \
                 admin.keys or admin.forgeable_gets."
            }
            Self::AdminKey => "The admin listener requires one of admin.keys, as 'Authorization: Bearer KEY'.",
            Self::TokenMissing => "This requires a token, and the request has none.",
            Self::SubjectChanged => "The token has another subject ('sub'). Open another connection with it.",
            Self::TokenExpired => "The token has expired.",
            Self::TokenNotYet => "The token is not valid yet ('nbf').",
            Self::KeysUnavailable => "The server has not got the keys of tokens yet. Try again later.",
            Self::NotAllowed(why) => match why {
                Denial::Anonymous => "Clients without a token may not do this.",
                Denial::Token => "The token does not allow this.",
                Denial::Rule => "A rule for the channel does not allow this.",
                Denial::Page => {
                    "The request has a cookie or a password, and does not come from a page that may use them."
                }
            },
            Self::Forbidden => "Clients with this address may not connect.",
            Self::WrongToken => "The token is not the one of this channel, or the channel has none.",
            Self::NotFound => "There is nothing at this path.",
            Self::UnknownPart => {
                "There is nothing at this path. If '/' is part of the channel's name, write it as %2F."
            }
            Self::UnknownChannel => "There is no channel of this name.",
            Self::MethodNotAllowed => "This path does not have this method. The Allow header lists those that it has.",
            Self::BodyTooLarge => "The body is larger than this request may have.",
            Self::TooManyRequests(_) => "The address of the client has reached a limit.",
            Self::ChannelLimit => "The server has no room for another channel (channels_max).",
            Self::PatternLimit => "The server has no room for another pattern (patterns_max).",
            Self::PatternForbidden => "This client may not use patterns of channels (front.patterns).",
            Self::ClientLimit => {
                "This address or token has as many channels, patterns, or messages to patterns as one client may have."
            }
            Self::BroadcastLimit => "Too many messages to patterns are in transit (broadcasts_under_way_max).",
            Self::BroadcastTooWide => "The pattern stands for more channels than channels_per_broadcast_max.",
            Self::SubscriberLimit => "The server has no room for another subscriber (subscribers_max).",
            Self::ChannelFull => {
                "The channel has no room for another subscriber (subscribers_per_channel_max, or subscribers_max of its \
                 rule)."
            }
            Self::BodyLimit => "Too many bytes of requests are in transit (body_bytes_max).",
            Self::StoreFull => "The disk of the server is full: nothing was published.",
            Self::StoreFailed => "The disk of the server has failed. A message may have been published nevertheless.",
            Self::Unavailable => "The channel is not available now. A message may have been published nevertheless.",
            Self::ShuttingDown => "The server is shutting down. Try again later.",
            Self::BadPosition(_)
            | Self::BadParameter(_)
            | Self::Excluded(..)
            | Self::BadMessage(..)
            | Self::TokenInvalid(_)
            | Self::MessageTooLarge(_) => "",
        }
    }
}

/// Returns the text of an error as a sentence.
fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}.", first.to_uppercase())
}
