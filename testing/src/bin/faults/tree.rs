//! The copy of the workspace that faults are planted in.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What is copied: everything that the tests are built from.
const COPIED: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
    "sealed",
    "sealed-http",
    "ccomet",
    "benches",
    "examples",
    "demos",
    "testing",
];

pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Copies the workspace. Files that are the same in the copy of the last run are left alone, so that little is compiled.
    pub(crate) fn copy(from: &Path) -> Self {
        let root = from.join("target/faults/tree");
        std::fs::create_dir_all(&root).expect("a folder");
        for name in COPIED {
            copy_path(&from.join(name), &root.join(name));
        }
        Self { root }
    }

    pub(crate) fn read(&self, file: &Path) -> String {
        std::fs::read_to_string(self.root.join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    pub(crate) fn write(&self, file: &Path, text: &str) {
        std::fs::write(self.root.join(file), text).expect("written");
    }

    /// Runs cargo in the copy, with a target folder of its own. Returns whether it succeeded, and all that it printed.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> (bool, String) {
        let target = self.root.with_file_name("target");
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(&self.root).env("CARGO_TARGET_DIR", target);
        let output = command.output().expect("cargo");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    }
}

fn copy_path(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).expect("a folder");
        for entry in std::fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            copy_path(&entry.path(), &to.join(entry.file_name()));
        }
        for entry in std::fs::read_dir(to).expect("a folder") {
            let entry = entry.expect("an entry");
            if !from.join(entry.file_name()).exists() {
                let removed = if entry.path().is_dir() {
                    std::fs::remove_dir_all(entry.path())
                } else {
                    std::fs::remove_file(entry.path())
                };
                removed.expect("removed");
            }
        }
    } else {
        let bytes = std::fs::read(from).expect("a file");
        if std::fs::read(to).ok().as_deref() != Some(&bytes) {
            std::fs::write(to, bytes).expect("written");
        }
    }
}
