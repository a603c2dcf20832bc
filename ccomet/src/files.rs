//! The files that are served, embedded in the program: at the front the chat demo and the client library, at the admin
//! listener the description of the API.

use sealed_http::StaticFile;

use crate::wire::request::Door;

/// All of them, by their paths.
#[derive(Debug)]
pub(crate) struct Files {
    demo: [(&'static str, StaticFile); 4],
    document: (&'static str, StaticFile),
}

impl Files {
    pub(crate) fn new() -> Self {
        let file = |path, bytes| (path, StaticFile::new(path, bytes));
        Self {
            demo: [
                file("/chat.html", include_bytes!("../../demos/web/chat.html")),
                file("/classic.html", include_bytes!("../../demos/web/classic.html")),
                file("/ccomet.js", include_bytes!("../../demos/web/ccomet.js")),
                file("/ccomet.mjs", include_bytes!("../../demos/web/ccomet.mjs")),
            ],
            document: file("/openapi.json", include_bytes!("../openapi.json")),
        }
    }

    /// The file at a path of a listener.
    pub(crate) fn find(&self, door: Door, path: &str) -> Option<&StaticFile> {
        let held = match door {
            Door::Front => self.demo.as_slice(),
            Door::Admin => std::slice::from_ref(&self.document),
        };
        held.iter().find(|(held, _)| *held == path).map(|(_, file)| file)
    }
}
