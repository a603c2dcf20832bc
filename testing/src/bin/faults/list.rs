//! The list of faults, and the points in the code where they are planted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::tests::UNIT_TESTS;

/// The crates whose code has fault points.
const PACKAGES: [&str; 3] = ["sealed", "sealed-http", "ccomet"];

/// One file of the list.
#[derive(Deserialize)]
struct Faults {
    fault: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// The name of the `fault!` in the code.
    point: Option<String>,
    /// A file that is not Rust. A fault without a point replaces a text in it.
    file: Option<PathBuf>,
    old: Option<String>,
    new: Option<String>,
    /// Whether the code once had the fault.
    #[serde(default)]
    found: bool,
    /// The test file of the crate that has to catch the fault. If there is none, the seeds of the
    /// simulation have to.
    test: Option<String>,
}

/// A way in which the code can be wrong.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) found: bool,
    package: String,
    test: Option<String>,
}

/// The place of a fault.
#[derive(Debug)]
pub(crate) enum Place {
    Point(String),
    Text { file: PathBuf, old: String, new: String },
}

impl Fault {
    /// Returns whether the name, place or test of the fault contains a word.
    pub(crate) fn has(&self, word: &str) -> bool {
        let place = match &self.place {
            Place::Point(point) => point.clone(),
            Place::Text { file, .. } => file.display().to_string(),
        };
        [&self.name, &place, &self.package].iter().any(|text| text.contains(word))
            || self.test.as_ref().is_some_and(|test| test.contains(word))
    }

    /// Returns an error if the crate has no tests of that name.
    fn with_test_in(self, root: &Path) -> Result<Self, String> {
        let Some((package, file)) = self.test().filter(|(_, file)| *file != UNIT_TESTS) else { return Ok(self) };
        let tests = root.join(package).join("tests");
        let exists = tests.join(format!("{file}.rs")).exists() || tests.join(file).join("main.rs").exists();
        if exists { Ok(self) } else { Err(format!("{package} has no tests {file}")) }
    }

    /// Returns the crate and the test file that has to catch the fault, if the fault names one.
    pub(crate) fn test(&self) -> Option<(&str, &str)> {
        self.test.as_deref().map(|test| (self.package.as_str(), test))
    }
}

/// Reads the faults of `ccomet/tests/simulation/faults/*.toml`, in the order of the file names, and
/// compares them with the code. Returns the faults, and a text for each fault that has no place in
/// the code and for each point that is not in the list.
pub(crate) fn read(root: &Path) -> (Vec<Fault>, Vec<String>) {
    let mut points = points(root);
    let (mut faults, mut failures, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    let files = files_below(&root.join("ccomet/tests/simulation/faults"), "toml");
    for (path, text) in files {
        let Faults { fault } = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for row in fault {
            let name = row.name.clone();
            match place(root, row, &points).and_then(|fault| fault.with_test_in(root)) {
                Ok(fault) => faults.push(fault),
                Err(why) => failures.push(format!("{name}: {why}")),
            }
        }
    }
    for fault in &faults {
        if let Place::Point(point) = &fault.place
            && !seen.insert(point.clone())
        {
            failures.push(format!("{}: the point {point} belongs to another fault, too", fault.name));
        }
    }
    points.retain(|point, _| !seen.contains(point));
    failures.extend(points.into_keys().map(|point| format!("fault!(\"{point}\") is not in the list")));
    (faults, failures)
}

fn place(root: &Path, row: Row, points: &BTreeMap<String, &'static str>) -> Result<Fault, String> {
    let Row { name, point, file, old, new, found, test } = row;
    let (package, place) = match (point, file, old, new) {
        (Some(point), None, None, None) => {
            let package = points.get(&point).ok_or_else(|| format!("no fault!(\"{point}\") is in the code"))?;
            (*package, Place::Point(point))
        }
        (None, Some(file), Some(old), Some(new)) => {
            let text = std::fs::read_to_string(root.join(&file)).map_err(|error| error.to_string())?;
            match text.matches(&old).count() {
                // The pages and the client library are part of the server.
                1 => ("ccomet", Place::Text { file, old, new }),
                count => return Err(format!("`old` stands {count} times in {}", file.display())),
            }
        }
        _ => return Err("it needs either `point`, or `file`, `old` and `new`".to_owned()),
    };
    Ok(Fault { name, place, found, package: package.to_owned(), test })
}

/// Returns the names of all points in the code, each with its crate.
fn points(root: &Path) -> BTreeMap<String, &'static str> {
    let mut points = BTreeMap::new();
    for package in PACKAGES {
        for (path, text) in files_below(&root.join(package).join("src"), "rs") {
            if path.ends_with("sealed/src/fault.rs") {
                continue;
            }
            for rest in text.split("fault!(\"").skip(1) {
                let name = rest.split('"').next().unwrap_or_default().to_owned();
                let other = points.insert(name, package).filter(|other| *other != package);
                assert_eq!(other, None, "{}: a point of another crate has this name", path.display());
            }
        }
    }
    points
}

/// Returns the files below a folder whose names end with `extension`, in the order of their paths,
/// with their texts.
fn files_below(folder: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            files.push((path, text));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_the_points_in_the_code_agree() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        assert_eq!(read(root).1, Vec::<String>::new());
    }
}
