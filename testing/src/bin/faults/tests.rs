//! The tests, built once with all faults in them, and run with one of them planted.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::list::{Fault, Place};

/// How long a run may take that takes next to no time without a fault. A fault that makes a test wait for ever is caught by that.
const PATIENCE: Duration = Duration::from_secs(30);
/// What stands for the tests in the sources of a crate, where a fault names its file.
const UNIT_TESTS: &str = "lib";

/// How long a run may take of which nothing is known yet.
const LONGEST: Duration = Duration::from_secs(300);
/// How long seeds of the server's simulation may take.
const SEEDS_LONGEST: Duration = Duration::from_secs(3_600);

/// What came of a run.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    /// What failed, and after how many seeds.
    Caught(String),
}

/// The programs of tests, by crate and file.
pub(crate) struct Tests {
    root: PathBuf,
    programs: BTreeMap<(String, String), PathBuf>,
    /// How long the longest run of each program took that passed.
    took: Mutex<BTreeMap<PathBuf, Duration>>,
    /// How many there have been: each has a file of its own for its output.
    runs: AtomicUsize,
}

/// A line that cargo prints of what it has built.
#[derive(Deserialize)]
struct Built {
    target: Option<Target>,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Tests {
    /// Builds what the faults need, with all of their points.
    ///
    /// # Panics
    ///
    /// If the build fails; cargo has said why.
    pub(crate) fn build(root: &Path, faults: &[Fault]) -> Self {
        let mut command = Command::new(env!("CARGO"));
        command.args([
            "test",
            "--no-run",
            "--locked",
            "--profile",
            "sim",
            "--message-format",
            "json-render-diagnostics",
        ]);
        command.args(["-p", "sealed", "-p", "sealed-http", "-p", "ccomet"]);
        let files = faults.iter().filter_map(Fault::test).map(|(_, file)| file).chain(["simulated", "simulation"]);
        for file in files.collect::<std::collections::BTreeSet<_>>() {
            _ = if file == UNIT_TESTS { command.arg("--lib") } else { command.args(["--test", file]) };
        }
        command.current_dir(root).env("CARGO_TARGET_DIR", root.join("target/faults"));
        command.env("RUSTFLAGS", "--cfg fault_points").stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().expect("cargo");
        assert!(output.status.success(), "the code with fault points does not compile");
        let text = String::from_utf8_lossy(&output.stdout);
        let built = text.lines().filter_map(|line| serde_json::from_str::<Built>(line).ok());
        let programs = built.filter_map(|built| {
            let (target, manifest) = (built.target?, built.manifest_path?);
            let package = manifest.parent()?.file_name()?.to_str()?.to_owned();
            let is_test = target.kind.contains(&"test".to_owned());
            let file = if is_test { target.name } else { UNIT_TESTS.to_owned() };
            (is_test || target.kind.contains(&"lib".to_owned())).then_some(((package, file), built.executable?))
        });
        Self { root: root.to_owned(), programs: programs.collect(), took: Mutex::default(), runs: AtomicUsize::new(0) }
    }

    /// Runs what has to catch a fault, or runs it without any: one file of a crate's tests, or else the loop's own simulation and then seeds
    /// of the server's until one fails.
    pub(crate) fn run(&self, test: Option<(&str, &str)>, fault: Option<&Fault>, seeds: u64) -> Outcome {
        if let Some((package, file)) = test {
            let (passed, _) = self.start(package, file, &[], fault);
            return if passed { Outcome::Passed } else { Outcome::Caught(format!("{package}/tests/{file}.rs")) };
        }
        // The loop alone, with seeds of its own in each of its tests.
        let (passed, output) = self.start("sealed", "simulated", &["in_a_storm", "wake_up"], fault);
        if !passed {
            let seed = output.split("seed ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("0");
            return Outcome::Caught(format!("sealed alone, seed {seed}"));
        }
        let count = seeds.to_string();
        let arguments = ["--seeds", &count, "--until-failure", "--threads", "1"];
        let (passed, output) = self.start("ccomet", "simulation", &arguments, fault);
        if passed {
            return Outcome::Passed;
        }
        // "N of M seeds passed": M have been run. A process that went down altogether has no last line.
        let ran = output.lines().rev().find_map(|line| line.split_once(" seeds passed")?.0.rsplit(' ').next());
        let seed = output.lines().find_map(|line| line.strip_prefix("seed ")?.split(' ').next());
        Outcome::Caught(format!("{:>5} seeds, seed {}", ran.unwrap_or("1"), seed.unwrap_or("unknown")))
    }

    /// Runs a program of tests. Returns whether it succeeded, and what it printed.
    fn start(&self, package: &str, file: &str, arguments: &[&str], fault: Option<&Fault>) -> (bool, String) {
        let program = self.programs.get(&(package.to_owned(), file.to_owned()));
        let program = program.unwrap_or_else(|| panic!("{package} has no tests in {file}.rs"));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.root.join(package)).env("CARGO_MANIFEST_DIR", self.root.join(package));
        match fault.map(|fault| &fault.place) {
            Some(Place::Point(point)) => _ = command.env("FAULT_POINT", point),
            Some(Place::Text { file, old, new }) => {
                command.env("FAULT_FILE", file).env("FAULT_OLD", old).env("FAULT_NEW", new);
            }
            None => {}
        }
        // A file, for what the program has started may outlive it, and would hold a pipe open.
        let path = program.with_extension(format!("{}.log", self.runs.fetch_add(1, Ordering::Relaxed)));
        let log = File::create(&path).expect("a file for the output");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the same file")).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let start = Instant::now();
        let took = self.took.lock().expect("no thread panics with it").get(program).copied().unwrap_or(LONGEST);
        // Seeds have no usual time: the first may fail, or the last.
        let end = start + if file == "simulation" { SEEDS_LONGEST } else { PATIENCE + took * 4 };
        let status = loop {
            match child.try_wait().expect("a child") {
                Some(status) => break Some(status),
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                None => {
                    _ = child.kill();
                    _ = child.wait();
                    break None;
                }
            }
        };
        let output = std::fs::read(&path).unwrap_or_default();
        _ = std::fs::remove_file(&path);
        // Seeds that do not end in time have found nothing.
        let has_passed = status.map_or(file == "simulation", |status| status.success());
        if has_passed && fault.is_none() {
            self.took.lock().expect("no thread panics with it").insert(program.clone(), start.elapsed());
        }
        (has_passed, String::from_utf8_lossy(&output).into_owned())
    }
}
