//! Whether the simulation catches anything: plants faults into a copy of the workspace, one after the other, and runs seeds
//! until one fails.
//!
//! `cargo faults` plants all that `ccomet/tests/simulation/faults.toml` lists; `cargo faults -- WORD` those whose name has
//! that word; `--seeds N` gives each so many seeds (20,000). It exits with 1 where one is not caught.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde::Deserialize;

const SEEDS: u64 = 20_000;

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
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned();
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--").collect();
    let seeds = match words.iter().position(|word| word == "--seeds") {
        Some(at) => words.drain(at..).nth(1).and_then(|word| word.parse().ok()).expect("a number of seeds"),
        None => SEEDS,
    };
    let list = std::fs::read_to_string(root.join("ccomet/tests/simulation/faults.toml")).expect("the list of faults");
    let Faults { fault: faults } = toml::from_str(&list).expect("a list of faults");
    let tree = root.join("target/faults/tree");
    copy(&root, &tree);
    println!("without a fault");
    let clean = run(&tree, seeds.min(500));
    assert!(clean.caught.is_none() && clean.built, "the code as it is must pass:\n{}", clean.output);
    let mut missed = Vec::new();
    let chosen: Vec<&Fault> =
        faults.iter().filter(|fault| words.iter().all(|word| fault.name.contains(word.as_str()))).collect();
    for fault in &chosen {
        let start = Instant::now();
        let file = tree.join(&fault.file);
        let text = std::fs::read_to_string(&file).expect("the file of a fault");
        assert_eq!(
            text.matches(&fault.old).count(),
            1,
            "{}: `old` stands exactly once in {}",
            fault.name,
            fault.file.display()
        );
        std::fs::write(&file, text.replace(&fault.old, &fault.new)).expect("written");
        let outcome = run(&tree, seeds);
        std::fs::write(&file, &text).expect("written");
        assert!(outcome.built, "{} does not compile:\n{}", fault.name, outcome.output);
        let once = if fault.found { " (once in the code)" } else { "" };
        if let Some(caught) = outcome.caught {
            println!("caught by {caught:<24} {:>3} s  {}{once}", start.elapsed().as_secs(), fault.name);
        } else {
            println!("NOT caught by {seeds} seeds  {}{once}", fault.name);
            missed.push(&fault.name);
        }
    }
    println!("{} of {} faults caught", chosen.len() - missed.len(), chosen.len());
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Outcome {
    built: bool,
    /// What caught it, and after how many seeds.
    caught: Option<String>,
    output: String,
}

fn run(tree: &Path, seeds: u64) -> Outcome {
    let cargo = |arguments: &[&str]| {
        let target = tree.with_file_name("target");
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "-q", "--locked"]).args(arguments);
        let output = command.current_dir(tree).env("CARGO_TARGET_DIR", target).output().expect("cargo");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    let sealed = ["-p", "sealed", "--test", "simulated"];
    let server = ["-p", "ccomet", "--test", "simulation"];
    for tests in [sealed, server] {
        let (built, output) = cargo(&[&tests[..], &["--no-run"]].concat());
        if !built {
            return Outcome { built, caught: None, output };
        }
    }
    // The loop alone, with seeds of its own in each of its tests.
    let (passed, output) = cargo(&[&sealed[..], &["--", "in_a_storm", "wake_up"]].concat());
    if !passed {
        let seed = output.split("seed ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("0");
        return Outcome { built: true, caught: Some(format!("sealed alone, seed {seed}")), output };
    }
    let count = seeds.to_string();
    let (passed, output) = cargo(&[&server[..], &["--", "--seeds", &count, "--until-failure"]].concat());
    // "N of M seeds passed": M have been run. A process that went down altogether has no last word.
    let ran = output.lines().rev().find_map(|line| line.split_once(" seeds passed")?.0.rsplit(' ').next());
    let seed = output.lines().find_map(|line| line.strip_prefix("seed ")?.split(' ').next());
    let caught = format!("{:>5} seeds, seed {}", ran.unwrap_or("1"), seed.unwrap_or("unknown"));
    Outcome { built: true, caught: Some(caught).filter(|_| !passed), output }
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
