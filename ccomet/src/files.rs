//! The files that the front serves: the chat demo and the client library, embedded in the program.

use sealed_http::StaticFile;

/// All of them, by their paths.
#[derive(Debug)]
pub(crate) struct Files([(&'static str, StaticFile); 4]);

impl Files {
    pub(crate) fn new() -> Self {
        let file = |path, bytes| (path, StaticFile::new(path, bytes));
        Self([
            file("/chat.html", include_bytes!("../../demos/web/chat.html")),
            file("/classic.html", include_bytes!("../../demos/web/classic.html")),
            file("/ccomet.js", include_bytes!("../../demos/web/ccomet.js")),
            file("/ccomet.mjs", include_bytes!("../../demos/web/ccomet.mjs")),
        ])
    }

    /// The file at a path.
    pub(crate) fn find(&self, path: &str) -> Option<&StaticFile> {
        self.0.iter().find(|(held, _)| *held == path).map(|(_, file)| file)
    }
}
