//! A harness for tests that drive other programs.
//!
//! The harness of the standard library cannot decide at run time that a test is ignored. This
//! harness reports a test as ignored, with the reason, if a program that the test drives is not
//! installed. With `CCOMET_TEST_REQUIRE_ALL` in the environment such a test runs, and fails.
//!
//! A test file that uses it has `harness = false` in the `Cargo.toml` of its crate:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use testing::programs::{Need, Test, run};
//!
//! fn main() -> ExitCode {
//!     run([
//!         Test::new("nginx_passes_events_on", passes_events_on).needs(Need::Program("nginx")),
//!         Test::new("needs_nothing", needs_nothing),
//!     ])
//! }
//! # fn passes_events_on() {}
//! # fn needs_nothing() {}
//! ```

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

/// Makes tests run, and fail, even if their needs are missing.
const REQUIRE_ALL: &str = "CCOMET_TEST_REQUIRE_ALL";

/// A requirement of a test, besides this workspace.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Need {
    /// A program in `PATH`.
    Program(&'static str),
    /// Any of these programs in `PATH`.
    AnyProgram(&'static [&'static str]),
    /// A module of the `python3` in `PATH`.
    PythonModule(&'static str),
    /// A file, such as a module of nginx.
    File(&'static str),
    /// Anything else: the reason that is reported if it is missing, and a function that checks for
    /// it.
    Other(&'static str, fn() -> bool),
    /// This many descriptors for a process, by the soft limit of open files.
    Descriptors(u64),
}

impl Need {
    /// Returns what is missing, as text; `None` if nothing is.
    fn missing(self) -> Option<String> {
        match self {
            Self::Program(name) => (!is_program(name)).then(|| format!("{name} is not installed")),
            Self::AnyProgram(names) => {
                let found = names.iter().any(|name| is_program(name));
                (!found).then(|| format!("none of {} is installed", names.join(", ")))
            }
            Self::PythonModule(name) => {
                let script =
                    format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{name}') is None)");
                let found = Command::new("python3").args(["-c", &script]).output();
                let found = found.is_ok_and(|output| output.status.success());
                (!found).then(|| format!("{name} for Python is not installed"))
            }
            Self::Other(missing, is_there) => (!is_there()).then(|| missing.to_owned()),
            Self::File(path) => (!Path::new(path).exists()).then(|| format!("there is no {path}")),
            Self::Descriptors(wanted) => {
                let script = Command::new("sh").args(["-c", "ulimit -n"]).output();
                let text = script.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
                let allowed = text.unwrap_or_default();
                let enough = allowed == "unlimited" || allowed.parse::<u64>().is_ok_and(|allowed| allowed >= wanted);
                (!enough).then(|| format!("ulimit -n allows {allowed} of {wanted} descriptors"))
            }
        }
    }
}

/// Returns whether a program is in `PATH`.
pub fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A test, and its needs.
#[derive(Debug)]
pub struct Test {
    name: &'static str,
    run: fn(),
    needs: Vec<Need>,
}

impl Test {
    /// Creates a test that fails if `run` panics.
    pub fn new(name: &'static str, run: fn()) -> Self {
        Self { name, run, needs: Vec::new() }
    }

    /// Adds a need without which the test is ignored.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    fn into_trial(self, requires_all: bool) -> Trial {
        let Self { name, run, needs } = self;
        let missing: Vec<String> = needs.into_iter().filter_map(Need::missing).collect();
        let trial = Trial::test(name, move || {
            run();
            Ok(())
        });
        if missing.is_empty() {
            return trial;
        }
        // The kind is printed in front of the name, so that the list of tests shows the reason.
        trial.with_kind(missing.join("; ")).with_ignored_flag(!requires_all)
    }
}

/// Runs the tests that the arguments of the process select, which are those of the standard
/// harness. Returns the exit code for `main`.
pub fn run(tests: impl IntoIterator<Item = Test>) -> ExitCode {
    let requires_all = std::env::var_os(REQUIRE_ALL).is_some();
    let trials = tests.into_iter().map(|test| test.into_trial(requires_all)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Lists tests by the names of their functions, each with its needs:
/// `tests![needs [Need::Program("nginx")]; one, two]`.
#[macro_export]
macro_rules! tests {
    ($(needs [$($need:expr),* $(,)?]; $($test:path),+ $(,)?);+ $(;)?) => {{
        let mut all = Vec::new();
        $(
            let needs: &[$crate::programs::Need] = &[$($need),*];
            $(
                let test = $crate::programs::Test::new(stringify!($test), $test);
                all.push(needs.iter().fold(test, |test, need| test.needs(*need)));
            )+
        )+
        all
    }};
}
