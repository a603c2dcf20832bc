//! Cross-origin resource sharing (CORS): which pages may read responses.

use std::borrow::Cow;

/// The origins of pages that may read responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All origins, including `null`, the origin of local files and of sandboxed pages.
    Any,
    /// These origins, compared byte by byte: `https://example.org`. `null` never matches: any page
    /// can obtain that origin by sandboxing itself.
    Listed(Vec<String>),
}

/// The access that a server grants to pages of other origins. Credentials are never allowed.
///
/// # Example
/// ```
/// use sealed_http::site::{Cors, Origins};
/// use sealed_http::{Method, Response, Site};
///
/// static CORS: std::sync::LazyLock<Cors> = std::sync::LazyLock::new(|| Cors {
///     origins: Origins::Listed(vec!["https://example.org".to_owned()]),
///     methods: "GET, POST",
///     headers: "Content-Type".into(),
///     exposed: "Retry-After",
///     max_age_s: "600",
/// });
///
/// let site = Site::new(())
///     .on(Method::Options, "/notes", |_, request, _| {
///         Response::new(204).with(&CORS.preflight_fields(request.head.header_str("Origin")))
///     })
///     .get("/notes", |_, request, _| {
///         Response::from("No notes.\n").with(&CORS.response_fields(request.head.header_str("Origin")))
///     });
/// # drop(site);
/// ```
#[derive(Debug, Clone)]
pub struct Cors {
    /// The allowed origins.
    pub origins: Origins,
    /// The allowed methods, in the format of the header field: `GET, POST`.
    pub methods: &'static str,
    /// The allowed header fields of requests, in the format of the header field.
    pub headers: Cow<'static, str>,
    /// The header fields of responses that pages may read in addition to those that they may always
    /// read, in the format of the header field: `Retry-After`. Empty: none.
    pub exposed: &'static str,
    /// How long a browser may cache the response to a preflight request, in seconds, in the format
    /// of the header field.
    pub max_age_s: &'static str,
}

/// A header field.
pub type Field = (&'static str, String);

impl Cors {
    /// Returns the header fields for any response to a request with this `Origin`.
    pub fn response_fields(&self, origin: Option<&str>) -> Vec<Field> {
        let mut fields = self.origin_fields(origin);
        if !self.exposed.is_empty() && allows(&fields) {
            fields.push(("Access-Control-Expose-Headers", self.exposed.to_owned()));
        }
        fields
    }

    /// Returns the header fields that state which origin may read the response.
    fn origin_fields(&self, origin: Option<&str>) -> Vec<Field> {
        match &self.origins {
            // The value is the same for all origins: a cache cannot return a wrong response.
            Origins::Any => vec![(ALLOW_ORIGIN, "*".to_owned())],
            Origins::Listed(listed) => {
                // A cache must not return one origin's response to another origin.
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

    /// Returns the header fields for the response to a preflight request, which has status 204. An
    /// origin that is not in the list is allowed nothing.
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

/// Returns whether the fields allow an origin to read the response.
fn allows(fields: &[Field]) -> bool {
    fields.iter().any(|(name, _)| *name == ALLOW_ORIGIN)
}
