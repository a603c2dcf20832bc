//! The list of faults.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One file of the list.
#[derive(Deserialize)]
struct Faults {
    fault: Vec<Fault>,
}

/// A change to one file that breaks a promise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    old: String,
    new: String,
    /// Whether it was in the code once.
    #[serde(default)]
    pub(crate) found: bool,
    /// The file among the tests of its crate that has to catch it. Without one, the seeds of the simulation have to.
    test: Option<String>,
}

/// Reads the faults that the TOML files of the list's folder hold, in the order of the files' names.
pub(crate) fn read(root: &Path) -> Vec<Fault> {
    let entries = std::fs::read_dir(root.join("ccomet/tests/simulation/faults")).expect("the folder of faults");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).expect("a file of the list");
        let Faults { fault } = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        fault
    };
    files.iter().flat_map(read).collect()
}

impl Fault {
    /// Returns whether its name, file or test contains a word.
    pub(crate) fn has(&self, word: &str) -> bool {
        let file = self.file.to_string_lossy();
        self.name.contains(word) || file.contains(word) || self.test.as_ref().is_some_and(|test| test.contains(word))
    }

    /// Returns the crate and the file of its tests that have to catch it alone.
    pub(crate) fn test(&self) -> Option<(&str, &str)> {
        // The pages and the client library are part of the server.
        let package = self.file.iter().next().and_then(|name| name.to_str());
        let package = package.map(|name| if name == "demos" { "ccomet" } else { name });
        package.zip(self.test.as_deref())
    }

    /// Returns where the text that it replaces stands in its file: exactly once.
    pub(crate) fn range(&self, text: &str) -> Result<Range<usize>, String> {
        let count = text.matches(&self.old).count();
        match text.find(&self.old) {
            Some(start) if count == 1 => Ok(start..start + self.old.len()),
            _ => {
                Err(format!("cannot be planted: {}: `old` stands {count} times in {}", self.name, self.file.display()))
            }
        }
    }

    /// Returns the text of its file with the fault in it.
    pub(crate) fn plant(&self, text: &str) -> Result<String, String> {
        let range = self.range(text)?;
        let mut planted = text.to_owned();
        planted.replace_range(range, &self.new);
        Ok(planted)
    }
}
