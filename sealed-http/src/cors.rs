//! Cross-origin resource sharing: which pages may read replies.

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
///     headers: "Content-Type",
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
    pub headers: &'static str,
    /// How long a browser may remember a preflight's answer, in seconds, as in the header field.
    pub max_age_s: &'static str,
}

/// A header field.
pub type Field = (&'static str, String);

impl Cors {
    /// Header fields for any response to a request with that `Origin`.
    pub fn response_fields(&self, origin: Option<&str>) -> Vec<Field> {
        match &self.origins {
            // The same for all: nothing that a cache could hand to the wrong one.
            Origins::Any => vec![("Access-Control-Allow-Origin", "*".to_owned())],
            Origins::Listed(listed) => {
                // A cache must not hand one origin's reply to another.
                let mut fields = vec![("Vary", "Origin".to_owned())];
                if let Some(origin) =
                    origin.filter(|origin| *origin != "null" && listed.iter().any(|held| held == origin))
                {
                    fields.push(("Access-Control-Allow-Origin", origin.to_owned()));
                }
                fields
            }
        }
    }

    /// Header fields for the answer to a preflight, which is 204. To an origin that is not allowed, nothing is.
    pub fn preflight_fields(&self, origin: Option<&str>) -> Vec<Field> {
        let mut fields = self.response_fields(origin);
        if fields.iter().any(|(name, _)| *name == "Access-Control-Allow-Origin") {
            fields.push(("Access-Control-Allow-Methods", self.methods.to_owned()));
            fields.push(("Access-Control-Allow-Headers", self.headers.to_owned()));
            fields.push(("Access-Control-Max-Age", self.max_age_s.to_owned()));
        }
        fields
    }
}
