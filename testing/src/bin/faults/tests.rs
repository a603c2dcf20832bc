//! The tests, built once with all faults in them, and run with one of them planted.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::list::{Fault, Place};

/// A run with a fault may take this time, plus four times the time of the run without a fault.
/// After that it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time that a run without a fault may take.
const LONGEST: Duration = Duration::from_secs(600);
/// The simulation of the server prints its progress every 5 s, however many seeds there are. Once
/// it has been silent for this time, a seed hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The test of a fault that the unit tests of its crate catch.
pub(crate) const UNIT_TESTS: &str = "lib";
/// The tests that catch a fault that names none: the simulation of the loop, and that of the
/// server.
const SIMULATED: &str = "simulated";
const SIMULATION: &str = "simulation";

/// The result of the tests of a fault.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    /// The test that failed or hung, and the number of seeds that it took.
    Caught(String),
}

/// How a run of a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    /// The program did not end by itself.
    Hung,
}

impl End {
    fn verb(self) -> &'static str {
        match self {
            Self::Passed => "passes",
            Self::Failed => "fails",
            Self::Hung => "hangs",
        }
    }
}

/// The test programs, by crate and file.
pub(crate) struct Tests {
    root: PathBuf,
    programs: BTreeMap<(String, String), PathBuf>,
    /// How long each program took without a fault.
    took: Mutex<BTreeMap<PathBuf, Duration>>,
    /// The number of runs so far: each has a file of its own for its output.
    runs: AtomicUsize,
}

/// A line that cargo prints about something it has built.
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
    /// Builds the tests that the faults need, with all fault points.
    ///
    /// # Panics
    ///
    /// Panics if the build fails; cargo has printed the reason.
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
        let files = faults.iter().filter_map(Fault::test).map(|(_, file)| file).chain([SIMULATED, SIMULATION]);
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

    /// Runs the tests that have to catch a fault, or runs them without a fault: one test file of a
    /// crate, or else the simulation of the loop, followed by seeds of the simulation of the server
    /// until one fails. A run that hangs counts as caught.
    pub(crate) fn run(&self, test: Option<(&str, &str)>, fault: Option<&Fault>, seeds: u64) -> Outcome {
        if let Some((package, file)) = test {
            let (end, _) = self.start(package, file, &[], fault);
            return match end {
                End::Passed => Outcome::Passed,
                End::Failed => Outcome::Caught(shown(package, file)),
                End::Hung => Outcome::Caught(format!("{}, hanging", shown(package, file))),
            };
        }
        // The loop alone. Each of its tests has seeds of its own.
        let (end, output) = self.start("sealed", SIMULATED, &["in_a_storm", "wake_up"], fault);
        if end != End::Passed {
            let seed = output.split("seed ").nth(1).and_then(|rest| rest.split_whitespace().next());
            return Outcome::Caught(format!("sealed alone, seed {} {}", seed.unwrap_or("unknown"), end.verb()));
        }
        let count = seeds.to_string();
        let arguments = ["--seeds", &count, "--until-failure", "--threads", "1"];
        let (end, output) = self.start("ccomet", SIMULATION, &arguments, fault);
        if end == End::Passed {
            return Outcome::Passed;
        }
        // "N of M seeds passed" means that M seeds have run. A process that hangs or crashes has
        // printed no such line, but may have printed its progress: "N of M seeds, 0 failed".
        let lines = || output.lines().rev();
        let of_all = lines().find_map(|line| line.split_once(" seeds passed")?.0.rsplit(' ').next());
        let ran = of_all.or_else(|| lines().find_map(|line| Some(line.split_once(" seeds, ")?.0.split_once(' ')?.0)));
        let seed = output.lines().find_map(|line| line.strip_prefix("seed ")?.split(' ').next());
        Outcome::Caught(format!("{:>5} seeds, seed {} {}", ran.unwrap_or("1"), seed.unwrap_or("unknown"), end.verb()))
    }

    /// Runs a test program. Returns how it ended, and its output.
    fn start(&self, package: &str, file: &str, arguments: &[&str], fault: Option<&Fault>) -> (End, String) {
        let program = self.programs.get(&(package.to_owned(), file.to_owned()));
        let program = program.unwrap_or_else(|| panic!("cargo has not built {}", shown(package, file)));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.root.join(package)).env("CARGO_MANIFEST_DIR", self.root.join(package));
        match fault.map(|fault| &fault.place) {
            Some(Place::Point(point)) => _ = command.env("FAULT_POINT", point),
            Some(Place::Text { file, old, new }) => {
                command.env("FAULT_FILE", file).env("FAULT_OLD", old).env("FAULT_NEW", new);
            }
            None => {}
        }
        // A file, because a process that the program has started may outlive it, and would hold a
        // pipe open.
        let path = program.with_extension(format!("{}.log", self.runs.fetch_add(1, Ordering::Relaxed)));
        let log = File::create(&path).expect("a file for the output");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the same file")).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let start = Instant::now();
        let took = self.took.lock().expect("no thread panics with it").get(program).copied();
        let limit = match took {
            _ if file == SIMULATION => Limit::Silence(SILENCE_MAX),
            Some(took) => Limit::Time(PATIENCE + took * 4),
            None => Limit::Time(LONGEST),
        };
        let end = wait(&mut child, &path, limit);
        let output = std::fs::read(&path).unwrap_or_default();
        _ = std::fs::remove_file(&path);
        if end == End::Passed && fault.is_none() {
            self.took.lock().expect("no thread panics with it").insert(program.clone(), start.elapsed());
        }
        (end, String::from_utf8_lossy(&output).into_owned())
    }
}

/// The condition under which a program counts as hanging.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// It has run for this long.
    Time(Duration),
    /// It has printed nothing for this long.
    Silence(Duration),
}

/// Waits until a program ends, or kills it once it hangs. Its output goes to the file.
fn wait(child: &mut Child, output: &Path, limit: Limit) -> End {
    let (mut since, mut printed) = (Instant::now(), 0);
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return if status.success() { End::Passed } else { End::Failed };
        }
        let longest = match limit {
            Limit::Time(longest) => longest,
            Limit::Silence(longest) => {
                let length = std::fs::metadata(output).map_or(0, |file| file.len());
                if length != std::mem::replace(&mut printed, length) {
                    since = Instant::now();
                }
                longest
            }
        };
        if since.elapsed() >= longest {
            _ = child.kill();
            _ = child.wait();
            return End::Hung;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the tests of a file as cargo names them.
fn shown(package: &str, file: &str) -> String {
    if file == UNIT_TESTS { format!("-p {package} --lib") } else { format!("-p {package} --test {file}") }
}

#[cfg(all(test, unix))]
mod unit_tests {
    use super::*;

    #[test]
    fn a_silent_program_hangs_and_a_printing_program_does_not() {
        let output = std::env::temp_dir().join(format!("faults-{}", std::process::id()));
        for (script, expected) in [
            ("for n in 1 2 3 4 5 6; do echo $n; sleep 0.5; done", End::Passed),
            ("echo 1; exit 1", End::Failed),
            ("echo 1; exec sleep 600", End::Hung),
        ] {
            let log = File::create(&output).expect("a file");
            let mut child = Command::new("sh").args(["-c", script]).stdout(log).spawn().expect("a shell");
            assert_eq!(wait(&mut child, &output, Limit::Silence(Duration::from_secs(2))), expected, "{script}");
        }
        _ = std::fs::remove_file(output);
    }
}
