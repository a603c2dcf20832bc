//! Runs every tool with every bug, and prints the table of `docs/simulation-compared.md`.
//!
//! The messages of the runs that failed go to the standard error.

use std::process::Command;

use sim_compare::Bug;

const TOOLS: [&str; 5] = ["sealed", "turmoil", "madsim", "loom", "shuttle"];
/// A fault point of sealed, because a service of sealed never sees a short write.
const SHORT_WRITE: &str = "tail-start-not-summed";

fn main() {
    let mut words = std::env::args().skip(1);
    let runs = words.next().unwrap_or("10000".to_owned());
    let seconds = words.next().unwrap_or("60".to_owned());
    println!("| bug | {} |\n| --- {}|", TOOLS.join(" | "), "| --- ".repeat(TOOLS.len()));
    for (number, bug) in Bug::ALL.into_iter().enumerate() {
        let cell =
            |tool| if can_have(tool, bug) { search(tool, bug, number, &runs, &seconds) } else { "–".to_owned() };
        println!("| {} | {} |", bug.text(), TOOLS.map(cell).join(" | "));
    }
}

/// Returns whether the bug can be planted in what the tool runs.
fn can_have(tool: &str, bug: Bug) -> bool {
    let has_threads = matches!(tool, "loom" | "shuttle");
    match bug {
        Bug::None | Bug::RetryTwice | Bug::AckEarly | Bug::LostWake | Bug::LostWakeNarrow => true,
        // sealed splits what is sent by itself.
        Bug::PartialReadOfPieces => matches!(tool, "turmoil" | "madsim"),
        Bug::MemoryOrder => has_threads,
        _ => !has_threads,
    }
}

fn search(tool: &str, bug: Bug, number: usize, runs: &str, seconds: &str) -> String {
    let program = std::env::current_exe().expect("a path").with_file_name(tool);
    let mut command = Command::new(program);
    command.args([&number.to_string(), runs, seconds]).env("RUST_BACKTRACE", "0");
    if bug == Bug::ShortWrite {
        command.env("FAULT_POINT", SHORT_WRITE);
    }
    let output = command.output().expect("the program runs");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = output.lines().last().unwrap_or_default();
    let mut words = line.splitn(3, ' ');
    let (runs, time) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let message = words.next().unwrap_or_default();
    eprintln!("{tool}, {}: {line}", bug.text());
    let time: f64 = time.parse().unwrap_or(f64::NAN);
    let time = if time < 0.005 {
        "<0.01 s".to_owned()
    } else if time < 9.95 {
        format!("{time:.2} s")
    } else {
        format!("{time:.0} s")
    };
    let runs = thousands(runs);
    match (bug, message) {
        (Bug::None, "") => format!("{runs} runs, {time}"),
        (Bug::None, _) => format!("**fails**, {message}"),
        (_, "") => format!("missed ({runs}, {time})"),
        _ => format!("**{runs}** ({time})"),
    }
}

fn thousands(digits: &str) -> String {
    let split = |(at, digit): (usize, char)| {
        if at > 0 && (digits.len() - at).is_multiple_of(3) { format!(",{digit}") } else { format!("{digit}") }
    };
    digits.chars().enumerate().map(split).collect()
}
