//! The files that the front serves: the chat demo and the client library, embedded in the program.

/// A file and its type.
pub(crate) struct File {
    pub(crate) content_type: &'static str,
    pub(crate) bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The file at a path.
pub(crate) fn find(path: &str) -> Option<File> {
    let (content_type, bytes): (_, &[u8]) = match path {
        "/chat.html" => (HTML, include_bytes!("../../demos/web/chat.html")),
        "/classic.html" => (HTML, include_bytes!("../../demos/web/classic.html")),
        "/ccomet.js" => (SCRIPT, include_bytes!("../../demos/web/ccomet.js")),
        "/ccomet.mjs" => (SCRIPT, include_bytes!("../../demos/web/ccomet.mjs")),
        _ => return None,
    };
    Some(File { content_type, bytes })
}
