//! Why a token is refused.

/// Why a token grants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is not a token, or not signed by a key of this server. More is not said of a signature.
    #[error("the token is malformed, or not signed by a key of this server")]
    Invalid,
    /// The request has two different tokens.
    #[error("the request has two different tokens")]
    Ambiguous,
    /// It names no key (`kid`), and the server has several.
    #[error("the token has no 'kid', and the server has several keys")]
    KeyMissing,
    /// It is for another audience (`aud`), or names one and the server none, or the other way round.
    #[error("the token's 'aud' is not the audience of this server")]
    Audience,
    /// It has no end (`exp`), or one that is no number of seconds.
    #[error("the token's 'exp' is missing, or not a number of seconds since 1970")]
    Expiry,
    /// Its beginning (`nbf`) is no number of seconds.
    #[error("the token's 'nbf' is not a number of seconds since 1970")]
    NotBefore,
    /// Its subject (`sub`) is neither text nor a whole number.
    #[error("the token's 'sub' is neither text nor a whole number")]
    Subject,
    /// What it lets be read (`subscribe`) is no list of channels and patterns.
    #[error("the token's 'subscribe' is not a list of channels and patterns")]
    Subscribe,
    /// What it lets be published to (`publish`) is no list of channels and patterns.
    #[error("the token's 'publish' is not a list of channels and patterns")]
    Publish,
    /// Its `presence` is no list of channels and patterns.
    #[error("the token's 'presence' is not a list of channels and patterns")]
    Presence,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not begun, and does not within the leeway.
    #[error("the token is not valid yet: its 'nbf' is ahead of this server's clock")]
    NotYet,
}
