//! What has to catch a fault.

use crate::tree::Tree;

/// What came of a run.
#[derive(Debug)]
pub(crate) enum Outcome {
    NotBuilt(String),
    Passed,
    /// What failed, and after how many seeds.
    Caught(String),
}

/// Runs one file of a crate's tests, or else the loop's own simulation and then seeds of the server's until one fails.
pub(crate) fn run(tree: &Tree, test: Option<(&str, &str)>, seeds: u64) -> Outcome {
    let (package, file) = test.unwrap_or(("sealed", "simulated"));
    let alone = ["test", "-q", "--locked", "-p", package, "--test", file];
    let server = ["test", "-q", "--locked", "-p", "ccomet", "--test", "simulation"];
    let asked = if test.is_some() { &[alone][..] } else { &[alone, server] };
    for tests in asked {
        let (built, output) = tree.cargo(&[&tests[..], &["--no-run"]].concat());
        if !built {
            return Outcome::NotBuilt(output);
        }
    }
    if test.is_some() {
        let (passed, _) = tree.cargo(&alone);
        return if passed { Outcome::Passed } else { Outcome::Caught(format!("{package}/tests/{file}.rs")) };
    }
    // The loop alone, with seeds of its own in each of its tests.
    let (passed, output) = tree.cargo(&[&alone[..], &["--", "in_a_storm", "wake_up"]].concat());
    if !passed {
        let seed = output.split("seed ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("0");
        return Outcome::Caught(format!("sealed alone, seed {seed}"));
    }
    run_server(tree, &server, seeds)
}

fn run_server(tree: &Tree, tests: &[&str], seeds: u64) -> Outcome {
    let count = seeds.to_string();
    let (passed, output) = tree.cargo(&[tests, &["--", "--seeds", &count, "--until-failure"]].concat());
    if passed {
        return Outcome::Passed;
    }
    // "N of M seeds passed": M have been run. A process that went down altogether has no last line.
    let ran = output.lines().rev().find_map(|line| line.split_once(" seeds passed")?.0.rsplit(' ').next());
    let seed = output.lines().find_map(|line| line.strip_prefix("seed ")?.split(' ').next());
    Outcome::Caught(format!("{:>5} seeds, seed {}", ran.unwrap_or("1"), seed.unwrap_or("unknown")))
}
