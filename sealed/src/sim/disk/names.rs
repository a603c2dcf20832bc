//! The names of files: those that processes see, and those that the disk has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::state::FileId;
use crate::sim::Random;

#[derive(Debug, Default)]
pub(super) struct Names {
    cached: BTreeMap<PathBuf, FileId>,
    durable: BTreeMap<PathBuf, FileId>,
    /// Changes that are not durable, in order.
    pending: Vec<Change>,
    directories: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone)]
enum Change {
    Create { path: PathBuf, file: FileId },
    Rename { to: PathBuf, file: FileId },
    Remove { path: PathBuf, file: FileId },
}

impl Names {
    /// Creates a directory and its parents, at once and durably. Returns false if one of them is a
    /// file.
    pub(super) fn add_directory(&mut self, path: &Path) -> bool {
        if path.ancestors().any(|part| self.cached.contains_key(part)) {
            return false;
        }
        self.directories.extend(path.ancestors().map(Path::to_owned));
        true
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        self.directories.contains(path)
    }

    pub(super) fn find(&self, path: &Path) -> Option<FileId> {
        self.cached.get(path).copied()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, FileId)> {
        self.cached.iter().map(|(path, file)| (path.as_path(), *file))
    }

    pub(super) fn list(&self, directory: &Path) -> Vec<String> {
        let here = self.cached.keys().filter(|path| path.parent() == Some(directory));
        let mut names: Vec<_> = here.filter_map(|path| path.file_name()?.to_str()).map(ToOwned::to_owned).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn create(&mut self, path: &Path, file: FileId) {
        self.change(Change::Create { path: path.to_owned(), file });
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, file: FileId) {
        if from != to {
            self.change(Change::Rename { to: to.to_owned(), file });
        }
    }

    pub(super) fn remove(&mut self, path: &Path, file: FileId) {
        self.change(Change::Remove { path: path.to_owned(), file });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    /// Gives a file a name that is durable at once.
    pub(super) fn put(&mut self, path: &Path, file: FileId) {
        self.pending.retain(|change| change.path() != path);
        self.cached.insert(path.to_owned(), file);
        self.durable.retain(|_, other| *other != file);
        self.durable.insert(path.to_owned(), file);
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Makes the names in a directory durable. Returns the number of changes.
    pub(super) fn sync(&mut self, directory: &Path) -> usize {
        let before = self.pending.len();
        for change in std::mem::take(&mut self.pending) {
            if change.is_in(directory) {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
        before - self.pending.len()
    }

    /// Fails to do that: each change is made durable, given up as if it were durable, or left.
    pub(super) fn fail_sync(&mut self, directory: &Path, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            match if change.is_in(directory) { random.below(3) } else { 2 } {
                0 => change.apply(&mut self.durable),
                1 => {}
                _ => self.pending.push(change),
            }
        }
    }

    /// Loses a random part of the changes that are not durable. Returns how many survive.
    pub(super) fn lose(&mut self, random: &mut Random) -> usize {
        let rate = [0.0, 0.1, 0.5, 0.9][random.below(4)];
        self.pending.retain(|_| random.chance(rate));
        self.pending.len()
    }

    /// Shows what the disk has, once the changes that have not been lost are on it.
    pub(super) fn restart(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
        self.cached = self.durable.clone();
    }

    /// Returns the files that have a name, or can have one after a power cut.
    pub(super) fn reachable(&self) -> BTreeSet<FileId> {
        let pending = self.pending.iter().map(|change| match change {
            Change::Create { file, .. } | Change::Rename { file, .. } | Change::Remove { file, .. } => *file,
        });
        self.cached.values().chain(self.durable.values()).copied().chain(pending).collect()
    }
}

impl Change {
    /// Applies the change to names to which earlier changes may not have been applied.
    fn apply(&self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Rename { to, file } => {
                // A file has one name, also if an earlier rename is lost.
                names.retain(|_, other| other != file);
                names.insert(to.clone(), *file);
            }
            Self::Remove { path, file } => {
                if names.get(path) == Some(file) {
                    names.remove(path);
                }
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Create { path, .. } | Self::Remove { path, .. } => path,
            Self::Rename { to, .. } => to,
        }
    }

    fn is_in(&self, directory: &Path) -> bool {
        self.path().parent() == Some(directory)
    }
}
