//! Cross-origin resource sharing: which pages may read replies.

use std::borrow::Cow;

/// Origins of pages that may read replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Any, `null` among them: pages from a disk.
    Any,
    /// These, compared letter for letter: `https://example.org`. `null` is never one of them: any page can make that
    /// its origin, by sandboxing itself.
    Listed(Vec<String>),
}

/// What a server lets pages of other origins do. Credentials are never allowed.
///
/// # Example
/// ```
/// use sealed_http::{Cors, Origins, Response};
///
/// let cors = Cors {
///     origins: Origins::Listed(vec!["https://example.org".to_owned()]),
///     methods: "GET, POST",
///     headers: "Content-Type".into(),
///     exposed: "Retry-After",
///     max_age_s: "600",
/// };
/// let preflight = Response::new(204).with(&cors.preflight_fields(Some("https://example.org")));
/// # assert_eq!(preflight.status(), 204);
/// ```
#[derive(Debug, Clone)]
pub struct Cors {
    /// Who.
    pub origins: Origins,
    /// The methods, as in the header field: `GET, POST`.
    pub methods: &'static str,
    /// Header fields of requests, as in the header field.
    pub headers: Cow<'static, str>,
    /// Header fields of responses that pages may read beside those that they may always read, as in the header field:
    /// `Retry-After`. Empty: none.
    pub exposed: &'static str,
    /// How long a browser may remember a preflight's answer, in seconds, as in the header field.
    pub max_age_s: &'static str,
}

/// A header field.
pub type Field = (&'static str, String);

impl Cors {
    /// Returns the header fields for any response to a request with that `Origin`.
    pub fn response_fields(&self, origin: Option<&str>) -> Vec<Field> {
        let mut fields = self.origin_fields(origin);
        if !self.exposed.is_empty() && allows(&fields) {
            fields.push(("Access-Control-Expose-Headers", self.exposed.to_owned()));
        }
        fields
    }

    /// Returns the header fields that say whose pages may read.
    fn origin_fields(&self, origin: Option<&str>) -> Vec<Field> {
        match &self.origins {
            // The same for all: nothing that a cache could hand to the wrong one.
            Origins::Any => vec![(ALLOW_ORIGIN, "*".to_owned())],
            Origins::Listed(listed) => {
                // A cache must not hand one origin's reply to another.
                let mut fields = vec![("Vary", "Origin".to_owned())];
                if let Some(origin) =
                    origin.filter(|origin| *origin != "null" && listed.iter().any(|held| held == origin))
                {
                    fields.push((ALLOW_ORIGIN, origin.to_owned()));
                }
                fields
            }
        }
    }

    /// Returns the header fields for the answer to a preflight, which is 204. To an origin that is not allowed, nothing is.
    pub fn preflight_fields(&self, origin: Option<&str>) -> Vec<Field> {
        let mut fields = self.origin_fields(origin);
        if allows(&fields) {
            fields.push(("Access-Control-Allow-Methods", self.methods.to_owned()));
            fields.push(("Access-Control-Allow-Headers", self.headers.clone().into_owned()));
            fields.push(("Access-Control-Max-Age", self.max_age_s.to_owned()));
        }
        fields
    }
}

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";

/// Whether fields let an origin read.
fn allows(fields: &[Field]) -> bool {
    fields.iter().any(|(name, _)| *name == ALLOW_ORIGIN)
}
