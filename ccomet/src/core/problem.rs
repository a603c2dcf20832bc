//! Errors as problem details (RFC 9457): a status, a code that does not change, and a sentence.

use std::borrow::Cow;

use sealed_http::Problem as Details;

use super::refused::Refused as TokenRefused;

/// When a client is to come back that cannot be served now, in seconds.
const RETRY_S: u32 = 5;

/// What is wrong with a message of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageFault {
    /// Its members are not those of a message.
    Shape,
    Base64,
    Channel,
    /// The member that is malformed or out of its range.
    Member(&'static str),
    TooLarge,
}

impl MessageFault {
    /// Returns what one message alone would be refused with.
    fn alone(self) -> Problem {
        match self {
            Self::Shape | Self::Base64 => Problem::BadBody,
            Self::Channel => Problem::BadChannel,
            Self::Member(name) => Problem::BadParameter(name),
            Self::TooLarge => Problem::MessageTooLarge,
        }
    }

    fn reason(self) -> String {
        match self {
            Self::Shape => {
                "a message needs 'channel' or 'channels', one of 'data' and 'data_base64', and has no members but \
                            these, 'event', 'ttl' and 'key', each once."
                    .to_owned()
            }
            Self::Base64 => "'data_base64' is not Base64 with its padding.".to_owned(),
            Self::Member(name) => format!("'{name}' is malformed or out of its range."),
            Self::Channel | Self::TooLarge => self.alone().reason().to_owned(),
        }
    }
}

/// What a client is told when its request cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    BadChannel,
    TooManyChannels,
    TooManySubscriptions,
    RefTaken,
    UnknownRef,
    BadPosition,
    /// The parameter, or the header field.
    BadParameter(&'static str),
    BadCallback,
    BadOrigin,
    BadCommand,
    BadBody,
    /// What is wrong with the message at that place in the body, from 0 on.
    BadMessage(u32, MessageFault),
    UnsupportedEncoding,
    TooManyMessages,
    KeyReused,
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
    NotAllowed,
    Forbidden,
    NotFound,
    UnknownChannel,
    WrongToken,
    MethodNotAllowed,
    MessageTooLarge,
    ChannelLimit,
    PatternLimit,
    PatternForbidden,
    ClientLimit,
    BroadcastLimit,
    BroadcastTooWide,
    /// In so many seconds there may be room.
    TooManyRequests(u32),
    SubscriberLimit,
    BodyLimit,
    ShuttingDown,
    Unavailable,
}

impl Problem {
    /// The stable code.
    pub(crate) fn code(self) -> &'static str {
        self.parts().1
    }

    /// Returns the status of HTTP.
    pub(crate) fn status(self) -> u16 {
        self.parts().0
    }

    /// Returns the sentence that clients are sent.
    pub(crate) fn reason(self) -> &'static str {
        self.parts().2
    }

    /// Returns what is wrong with this request, in a sentence.
    pub(crate) fn detail(self) -> Cow<'static, str> {
        match self {
            Self::BadParameter(name) => format!("'{name}' is malformed or out of its range.").into(),
            Self::BadMessage(index, fault) => format!("messages[{index}]: {}", fault.reason()).into(),
            Self::TokenInvalid(why) => why.to_string().into(),
            _ => self.reason().into(),
        }
    }

    /// What is told.
    pub(crate) fn details(self) -> Details {
        let (status, code, _) = self.parts();
        let details = Details::new(status).code(code).detail(self.detail());
        // When to come back: a script tag cannot see Retry-After, nor can a page of another origin.
        match self.retry_s() {
            Some(retry_s) => details.member("retry_ms", i64::from(retry_s) * 1_000),
            None => details,
        }
    }

    /// In how many seconds it is worth another try, where it is.
    pub(crate) fn retry_s(self) -> Option<u32> {
        match self {
            Self::TooManyRequests(retry_s) => Some(retry_s),
            Self::ClientLimit => Some(RETRY_S),
            _ => (self.parts().0 == 503).then_some(RETRY_S),
        }
    }

    /// The argument of a JSONP callback, where no status can be seen.
    pub(crate) fn to_callback_argument(self) -> Vec<u8> {
        self.details().kind("error").title(None).to_json()
    }

    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadChannel => (
                400,
                "bad_channel",
                "A channel's name is 1 to 128 bytes of UTF-8 without control characters, ',' or '*'.",
            ),
            Self::TooManyChannels => (
                400,
                "too_many_channels",
                "The request names more channels than one request may, or one channel twice.",
            ),
            Self::TooManySubscriptions => (
                400,
                "too_many_subscriptions",
                "The WebSocket has subscriptions_per_connection_max subscriptions. Remove one, or open another WebSocket.",
            ),
            Self::RefTaken => (409, "ref_taken", "The WebSocket has a subscription with this 'ref' already."),
            Self::UnknownRef => (404, "unknown_ref", "The WebSocket has no subscription with this 'ref'."),
            Self::BadPosition => {
                (400, "bad_position", "'after' is not a position that the server gave out for these channels.")
            }
            Self::BadParameter(_) => {
                (400, "bad_parameter", "A parameter or header field is malformed or out of its range.")
            }
            Self::BadCallback => (
                400,
                "bad_callback",
                "'callback' must be a JavaScript identifier, dotted or indexed, of at most 128 bytes.",
            ),
            Self::BadOrigin => (400, "bad_origin", "'origin' is not an origin whose pages may read here."),
            Self::BadCommand => (400, "bad_command", "That is nothing that can be said on a WebSocket."),
            Self::BadBody => {
                (400, "bad_body", "The body must be JSON: {\"messages\":[{\"channel\":\"…\",\"data\":\"…\"}, …]}.")
            }
            Self::BadMessage(_, fault) => fault.alone().parts(),
            Self::UnsupportedEncoding => {
                (415, "unsupported_encoding", "The body has a Content-Encoding; send it without one.")
            }
            Self::TooManyMessages => {
                (400, "too_many_messages", "The request publishes more than publications_per_request_max.")
            }
            Self::KeyReused => (422, "key_reused", "Something else was published under this idempotency key."),
            Self::HookRefused => (403, "hook_refused", "The site does not allow this."),
            Self::HookUnavailable => (503, "hook_unavailable", "The site cannot be asked whether this is allowed."),
            Self::HookTooLarge => (413, "hook_too_large", "The site cannot be asked about so much in one request."),
            Self::OriginForbidden => (403, "origin_forbidden", "Pages of this origin may not do that here."),
            Self::HostUnknown => (
                421,
                "host_unknown",
                "The listener is not called by the name in Host. If it is, list the name in admin.hosts, or front.hosts.",
            ),
            Self::Forgeable => (
                403,
                "forgeable",
                "A page could make a browser send this GET unseen. Use POST or X-Requested-With, set admin.keys, or set \
                 admin.forgeable_gets.",
            ),
            Self::AdminKey => {
                (401, "admin_key", "The admin listener wants one of admin.keys, as Authorization: Bearer KEY.")
            }
            Self::TokenMissing => (401, "token_missing", "This needs a token, and the request has none."),
            Self::TokenInvalid(_) => (401, "token_invalid", "The token is not one that this server accepts."),
            Self::SubjectChanged => {
                (403, "subject_changed", "The token is of another subject: open a connection of its own with it.")
            }
            Self::TokenExpired => (401, "token_expired", "The token's time is over."),
            Self::TokenNotYet => (401, "token_not_yet", "The token's time has not begun."),
            Self::NotAllowed => (403, "not_allowed", "Who asks may not do this to the channel, or not from this page."),
            Self::Forbidden => (403, "forbidden", "Clients of this address may not come in."),
            Self::WrongToken => (401, "wrong_token", "The channel was not signed for, or not with this token."),
            Self::NotFound => (404, "not_found", "There is nothing at this path."),
            Self::UnknownChannel => (404, "unknown_channel", "There is no such channel."),
            Self::MethodNotAllowed => (405, "method_not_allowed", "The path has no such method; see the Allow header."),
            Self::MessageTooLarge => (413, "message_too_large", "The message is larger than message_bytes_max."),
            Self::TooManyRequests(_) => (429, "too_many_requests", "More comes from this address than may."),
            Self::ChannelLimit => (503, "channel_limit", "The server holds as many channels as it may."),
            Self::PatternLimit => (503, "pattern_limit", "As many patterns are subscribed to as may be."),
            Self::PatternForbidden => (403, "pattern_forbidden", "Patterns of channels may not be used here."),
            Self::ClientLimit => (
                429,
                "client_limit",
                "This address or token has as many channels, patterns, or messages to patterns as a client may.",
            ),
            Self::BroadcastLimit => {
                (503, "broadcast_limit", "As many messages are on their way to patterns as broadcasts_under_way_max.")
            }
            Self::BroadcastTooWide => {
                (403, "broadcast_too_wide", "The pattern stands for more channels than channels_per_broadcast_max.")
            }
            Self::SubscriberLimit => (503, "subscriber_limit", "The server has as many subscribers as it may."),
            Self::BodyLimit => (503, "body_limit", "As many bytes of requests are on their way as body_bytes_max."),
            Self::Unavailable => (
                503,
                "unavailable",
                "The channel cannot be reached now. A message may have been published all the same.",
            ),
            Self::ShuttingDown => (503, "shutting_down", "The server is going down; come back later."),
        }
    }
}
