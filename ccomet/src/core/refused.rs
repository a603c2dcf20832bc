//! The reasons for which a token is refused.

/// The reason for which a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is not a token, or is not signed by a key of this server. Clients get no details about
    /// signatures.
    #[error("the token is malformed, or not signed by a key of this server")]
    Invalid,
    /// Its key is not known, and the keys of `auth.jwks_url` have not been fetched yet.
    #[error("the keys of tokens have not been fetched yet (auth.jwks_url)")]
    KeysPending,
    /// The request has two different tokens.
    #[error("the request has two different tokens")]
    Ambiguous,
    /// It names no key (`kid`), and the server has several.
    #[error("the token has no 'kid', and the server has several keys")]
    KeyMissing,
    /// Its audience (`aud`) is not the server's, or only one of the two has an audience.
    #[error("the token's 'aud' is not the audience of this server")]
    Audience,
    /// Its expiry (`exp`) is missing, or is not a number of seconds.
    #[error("the token's 'exp' is missing, or not a number of seconds since 1970")]
    Expiry,
    /// Its beginning (`nbf`) is not a number of seconds.
    #[error("the token's 'nbf' is not a number of seconds since 1970")]
    NotBefore,
    /// Its subject (`sub`) is neither text nor a whole number.
    #[error("the token's 'sub' is neither text nor a whole number")]
    Subject,
    /// Its `subscribe` is not a list of channels and patterns.
    #[error("the token's 'subscribe' is not a list of channels and patterns")]
    Subscribe,
    /// Its `publish` is not a list of channels and patterns.
    #[error("the token's 'publish' is not a list of channels and patterns")]
    Publish,
    /// Its `presence` is not a list of channels and patterns.
    #[error("the token's 'presence' is not a list of channels and patterns")]
    Presence,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is not valid yet, and does not become valid within the leeway.
    #[error("the token is not valid yet: its 'nbf' is ahead of this server's clock")]
    NotYet,
}
