//! Whether the simulation catches anything: plants faults into a copy of the workspace, one after the other, and runs what is
//! to catch each: seeds of the server until one fails, or, where a fault names it, one of the loop's own tests.
//!
//! `cargo faults` plants all that the files in `ccomet/tests/simulation/faults` list; `cargo faults -- WORD` those whose name or
//! test has that word; `--seeds N` gives each so many seeds (20,000). It exits with 1 where one is not caught.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde::Deserialize;

const SEEDS: u64 = 20_000;
/// So many the code has to pass as it is.
const SEEDS_WITHOUT: u64 = 500;

/// What is copied: everything the simulation is built from.
const COPIED: [&str; 9] =
    ["Cargo.toml", "Cargo.lock", ".cargo", "sealed", "sealed-http", "ccomet", "benches", "examples", "demos"];

#[derive(Deserialize)]
struct Faults {
    fault: Vec<Fault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    name: String,
    file: PathBuf,
    old: String,
    new: String,
    /// It was in the code once.
    #[serde(default)]
    found: bool,
    /// The file among the tests of its crate that is to catch it. The simulated server is not asked then.
    test: Option<String>,
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned();
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--").collect();
    let seeds = match words.iter().position(|word| word == "--seeds") {
        Some(at) => words.drain(at..).nth(1).and_then(|word| word.parse().ok()).expect("a number of seeds"),
        None => SEEDS,
    };
    let mut faults = read_faults(&root.join("ccomet/tests/simulation/faults"));
    faults.retain(|fault| words.iter().all(|word| fault.has(word)));
    assert!(!faults.is_empty(), "no fault has these words");
    let tree = root.join("target/faults/tree");
    copy(&root, &tree);
    println!("without a fault");
    for test in faults.iter().map(Fault::test).collect::<BTreeSet<_>>() {
        let clean = run(&tree, test, seeds.min(SEEDS_WITHOUT));
        assert!(clean.caught.is_none() && clean.built, "the code as it is must pass:\n{}", clean.output);
    }
    let caught = faults.iter().filter(|fault| is_caught(&tree, fault, seeds)).count();
    println!("{caught} of {} faults caught", faults.len());
    if caught == faults.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads the faults that the TOML files of a folder list, in the order of the files' names.
fn read_faults(folder: &Path) -> Vec<Fault> {
    let entries = std::fs::read_dir(folder).expect("the folder of faults");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let list = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).expect("a list of faults");
        let Faults { fault } = toml::from_str(&text).expect("a list of faults");
        fault
    };
    files.iter().flat_map(list).collect()
}

impl Fault {
    fn has(&self, word: &str) -> bool {
        self.name.contains(word) || self.test.as_ref().is_some_and(|test| test.contains(word))
    }

    /// The crate and the file of its tests that are to catch it alone.
    fn test(&self) -> Option<(&str, &str)> {
        let package = self.file.iter().next().and_then(|name| name.to_str());
        package.zip(self.test.as_deref())
    }

    /// The text of its file with the fault in it.
    fn plant(&self, text: &str) -> String {
        let count = text.matches(&self.old).count();
        assert_eq!(count, 1, "{}: `old` stands exactly once in {}", self.name, self.file.display());
        text.replace(&self.old, &self.new)
    }
}

/// Plants a fault, runs what is to catch it, takes it out again, and says what came of it.
fn is_caught(tree: &Path, fault: &Fault, seeds: u64) -> bool {
    let start = Instant::now();
    let file = tree.join(&fault.file);
    let text = std::fs::read_to_string(&file).expect("the file of a fault");
    std::fs::write(&file, fault.plant(&text)).expect("written");
    let outcome = run(tree, fault.test(), seeds);
    std::fs::write(&file, &text).expect("written");
    assert!(outcome.built, "{} does not compile:\n{}", fault.name, outcome.output);
    let once = if fault.found { " (once in the code)" } else { "" };
    let by = outcome.caught.as_ref().map_or("NOT caught".to_owned(), |by| format!("caught by {by}"));
    println!("{by:<34} {:>3} s  {}{once}", start.elapsed().as_secs(), fault.name);
    outcome.caught.is_some()
}

struct Outcome {
    built: bool,
    /// What caught it, and after how many seeds.
    caught: Option<String>,
    output: String,
}

fn run(tree: &Path, test: Option<(&str, &str)>, seeds: u64) -> Outcome {
    let (package, file) = test.unwrap_or(("sealed", "simulated"));
    let alone = ["-p", package, "--test", file];
    let server = ["-p", "ccomet", "--test", "simulation"];
    let asked = if test.is_some() { &[alone][..] } else { &[alone, server] };
    for tests in asked {
        let (built, output) = cargo(tree, &[&tests[..], &["--no-run"]].concat());
        if !built {
            return Outcome { built, caught: None, output };
        }
    }
    if test.is_some() {
        let (passed, output) = cargo(tree, &alone);
        let caught = Some(format!("{package}/tests/{file}.rs")).filter(|_| !passed);
        return Outcome { built: true, caught, output };
    }
    // The loop alone, with seeds of its own in each of its tests.
    let (passed, output) = cargo(tree, &[&alone[..], &["--", "in_a_storm", "wake_up"]].concat());
    if !passed {
        let seed = output.split("seed ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("0");
        return Outcome { built: true, caught: Some(format!("sealed alone, seed {seed}")), output };
    }
    run_server(tree, &server, seeds)
}

fn run_server(tree: &Path, tests: &[&str], seeds: u64) -> Outcome {
    let count = seeds.to_string();
    let (passed, output) = cargo(tree, &[tests, &["--", "--seeds", &count, "--until-failure"]].concat());
    // "N of M seeds passed": M have been run. A process that went down altogether has no last word.
    let ran = output.lines().rev().find_map(|line| line.split_once(" seeds passed")?.0.rsplit(' ').next());
    let seed = output.lines().find_map(|line| line.strip_prefix("seed ")?.split(' ').next());
    let caught = format!("{:>5} seeds, seed {}", ran.unwrap_or("1"), seed.unwrap_or("unknown"));
    Outcome { built: true, caught: Some(caught).filter(|_| !passed), output }
}

fn cargo(tree: &Path, arguments: &[&str]) -> (bool, String) {
    let target = tree.with_file_name("target");
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "-q", "--locked"]).args(arguments);
    let output = command.current_dir(tree).env("CARGO_TARGET_DIR", target).output().expect("cargo");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

/// Copies what is needed, removes what is not there any more, and leaves files alone that are the same, so that little is
/// compiled.
fn copy(root: &Path, tree: &Path) {
    std::fs::create_dir_all(tree).expect("a folder");
    for name in COPIED {
        copy_path(&root.join(name), &tree.join(name));
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
