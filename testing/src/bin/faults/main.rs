//! Plants faults in a copy of the workspace, one at a time, and checks that a test fails with each: one that the fault
//! names, or else the seeds of the simulation.
//!
//! | command | effect |
//! | --- | --- |
//! | `cargo faults` | plants all faults in `ccomet/tests/simulation/faults/*.toml` |
//! | `cargo faults -- WORD...` | plants the faults whose name, file or test contains all words |
//! | `cargo faults -- --seeds N` | runs at most N seeds for each fault (20,000) |
//! | `cargo faults -- --build` | checks that every fault can be planted and compiles, and runs nothing |
//!
//! The exit code is 1 if a fault is not caught, cannot be planted, or does not compile.

mod build;
mod list;
mod run;
mod tree;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use list::Fault;
use run::Outcome;
use tree::Tree;

const SEEDS: u64 = 20_000;
/// Seeds that the code without a fault has to pass.
const SEEDS_WITHOUT: u64 = 500;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--").collect();
    let seeds = match words.iter().position(|word| word == "--seeds") {
        Some(at) => words.drain(at..).nth(1).and_then(|word| word.parse().ok()).expect("a number of seeds"),
        None => SEEDS,
    };
    let builds_only = words.iter().any(|word| word == "--build");
    words.retain(|word| word != "--build");
    let mut faults = list::read(root);
    faults.retain(|fault| words.iter().all(|word| fault.has(word)));
    assert!(!faults.is_empty(), "no fault has these words");
    let tree = Tree::copy(root);
    let failures = if builds_only { build::check(&tree, &faults) } else { plant_all(&tree, &faults, seeds) };
    for failure in &failures {
        println!("\n{failure}");
    }
    let verb = if builds_only { "compile" } else { "are caught" };
    println!("\n{} of {} faults {verb}", faults.len() - failures.len(), faults.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs what has to catch each fault. Returns a text for each fault that is not caught.
fn plant_all(tree: &Tree, faults: &[Fault], seeds: u64) -> Vec<String> {
    println!("without a fault");
    for test in faults.iter().map(Fault::test).collect::<BTreeSet<_>>() {
        let clean = run::run(tree, test, seeds.min(SEEDS_WITHOUT));
        assert!(matches!(clean, Outcome::Passed), "the code without a fault has to pass {test:?}:\n{clean:?}");
    }
    faults.iter().filter_map(|fault| plant(tree, fault, seeds).err()).collect()
}

/// Plants a fault, runs what has to catch it, and takes it out again.
fn plant(tree: &Tree, fault: &Fault, seeds: u64) -> Result<(), String> {
    let start = Instant::now();
    let text = tree.read(&fault.file);
    let planted = fault.plant(&text)?;
    tree.write(&fault.file, &planted);
    let outcome = run::run(tree, fault.test(), seeds);
    tree.write(&fault.file, &text);
    let (by, result) = match outcome {
        Outcome::Caught(by) => (format!("caught by {by}"), Ok(())),
        Outcome::Passed => ("NOT caught".to_owned(), Err(format!("not caught: {}", fault.name))),
        Outcome::NotBuilt(output) => {
            ("does NOT compile".to_owned(), Err(format!("does not compile: {}\n{output}", fault.name)))
        }
    };
    let once = if fault.found { " (once in the code)" } else { "" };
    println!("{by:<40} {:>3} s  {}{once}", start.elapsed().as_secs(), fault.name);
    result
}
