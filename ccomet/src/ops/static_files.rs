//! The static files, embedded in the program: at the front the client library and the chat demo, at
//! the admin listener the console, and the description of the API with its page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use sealed::fault;
use sealed_http::site::{Field, StaticFile};
use sealed_http::{RequestHead, Response};

use crate::protocols::call::Door;

/// Returns the text of a file of the demos.
macro_rules! demo_text {
    ($name:literal) => {{
        let text = include_str!(concat!("../../demos/web/", $name));
        #[cfg(fault_points)]
        let text = sealed::fault::text(concat!("demos/web/", $name), text);
        text
    }};
}

/// All files, by their paths.
#[derive(Debug)]
pub(crate) struct StaticFiles {
    /// The client library, for pages of any origin.
    library: [File; 2],
    demo: Vec<File>,
    document: [File; 1],
    /// The pages of the admin listener. They have no secrets, and ask for the key themselves.
    console: [File; 2],
}

/// The paths of the pages of the admin listener.
const CONSOLE_PATHS: [&str; 2] = ["/", "/docs"];

/// A file, with the header fields of its answers.
#[derive(Debug)]
struct File {
    path: &'static str,
    content: StaticFile,
    fields: Vec<Field>,
}

impl StaticFiles {
    /// Creates the files, with the demo if it is wanted.
    pub(crate) fn new(with_demo: bool) -> Self {
        let file = |path, bytes, fields| File { path, content: StaticFile::new(path, bytes), fields };
        // The files are public: any page may import them, also a page that is isolated from other
        // origins.
        let public = || {
            let mut fields = vec![
                ("Access-Control-Allow-Origin", "*".to_owned()),
                ("Cross-Origin-Resource-Policy", "cross-origin".to_owned()),
            ];
            if fault!("library-for-own-pages") {
                fields.remove(0);
            }
            fields
        };
        let page = |path, html: &'static str| {
            let policy = if fault!("pages-without-policy") { String::new() } else { policy(html) };
            let fields = vec![("Content-Security-Policy", policy)];
            // The path of a page may have no ending that shows its type.
            File { path, content: StaticFile::new("page.html", html.as_bytes()), fields }
        };
        let demo =
            || vec![page("/chat.html", demo_text!("chat.html")), page("/classic.html", demo_text!("classic.html"))];
        Self {
            library: [
                file("/ccomet.js", demo_text!("ccomet.js").as_bytes(), public()),
                file("/ccomet.mjs", demo_text!("ccomet.mjs").as_bytes(), public()),
            ],
            demo: if with_demo { demo() } else { Vec::new() },
            document: [file("/openapi.json", include_bytes!("../../openapi.json"), Vec::new())],
            console: [
                page(CONSOLE_PATHS[0], include_str!("../../console/console.html")),
                page(CONSOLE_PATHS[1], include_str!("../../console/docs.html")),
            ],
        }
    }

    /// Returns the answer to GET or HEAD of a path of a listener; `None` if there is no such file.
    pub(crate) fn answer(&self, door: Door, path: &str, head: &RequestHead<'_>) -> Option<Response> {
        if door == Door::Front && path == "/" && !self.demo.is_empty() {
            return Some(Response::new(302).header("Location", "/chat.html"));
        }
        let [first, second]: [&[File]; 2] = match door {
            Door::Front => [&self.library, &self.demo],
            Door::Admin => [&self.document, &self.console],
        };
        if fault!("library-goes-with-demo") && door == Door::Front && self.demo.is_empty() {
            return None;
        }
        let found = first.iter().chain(second).find(|held| held.path == path)?;
        Some(found.content.answer(head).with(&found.fields))
    }
}

/// Returns whether a file of the admin listener is public.
pub(crate) fn is_public_page(path: &str) -> bool {
    CONSOLE_PATHS.contains(&path) || fault!("description-needs-no-key") && path == "/openapi.json"
}

/// Returns the policy of a page: it may run its own inline scripts and styles, identified by their
/// hashes, run scripts of the server (the library, and JSONP), connect to the server, and have the
/// server's pages in frames. Scripts that an attacker injects into the page are not run.
fn policy(html: &str) -> String {
    let (mut scripts, styles) = (hashes(html, "script"), hashes(html, "style"));
    if fault!("smuggled-scripts-run") {
        scripts.insert_str(0, " 'unsafe-inline'");
    }
    format!(
        "default-src 'none'; script-src 'self'{scripts}; style-src{styles}; img-src data:; connect-src 'self'; \
         frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    )
}

/// Returns the hashes of the contents of elements without attributes, each with a space in front.
fn hashes(html: &str, element: &str) -> String {
    let (opening, closing) = (format!("<{element}>"), format!("</{element}>"));
    let inside = html.split(&opening).skip(1).filter_map(|rest| rest.split_once(&closing));
    let hash = |text: &str| format!(" 'sha256-{}'", BASE64.encode(digest(&SHA256, text.as_bytes())));
    inside.map(|(text, _)| hash(text)).collect::<Vec<_>>().concat()
}
