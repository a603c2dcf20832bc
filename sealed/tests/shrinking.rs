//! What the reduction of failed runs promises: few faults are left, and they suffice to repeat the
//! failure.

use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealed::sim::{Check, Faults, Random, Simulation};
use sealed::{Config, ConnectionId, Context, Input, Service};

const SECOND: Duration = Duration::from_secs(1);

/// Set in the processes that a test starts.
const CHILD: &str = "SEALED_TEST_SHRINKING_CHILD";

/// Sends back lines, but loses the first piece of a line that arrives in three.
struct Forgetful {
    piece: Vec<u8>,
}

impl Service for Forgetful {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let bytes = input.take_all();
        if bytes.ends_with(b"\n") {
            cx.write(id, &self.piece);
            cx.write(id, bytes);
            self.piece.clear();
        } else {
            self.piece = bytes.to_vec();
        }
    }
}

fn faults(_: &mut Random) -> Faults {
    Faults {
        short_read: 0.2,
        short_write: 0.3,
        would_block: 0.2,
        stall: 0.1,
        slow_tick: 0.05,
        interleave: 0.3,
        jump: 0.01,
        jump_max: SECOND,
        delay_max: Duration::from_millis(5),
        ..Faults::default()
    }
}

fn lines_come_back(sim: &Simulation) {
    let mut event_loop = sim.event_loop(Config::default(), Forgetful { piece: Vec::new() }).expect("a loop");
    let address = event_loop.listen("10.0.0.1:7777").expect("it is free").address;
    sim.start(event_loop);
    let mut peer = sim.connect(address);
    for number in 0..30 {
        let line = format!("this is line {number}\n");
        peer.send(&line);
        sim.run_for(SECOND);
        assert_eq!(String::from_utf8_lossy(&peer.take()), line, "{number}");
    }
}

fn report(check: impl FnOnce()) -> String {
    let payload = panic::catch_unwind(AssertUnwindSafe(check)).expect_err("it fails");
    *payload.downcast::<String>().expect("a text")
}

/// Returns the text between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("{before}: {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("{after}: {text}")).0
}

#[test]
fn a_failure_that_needs_two_faults_is_reduced_to_them() {
    let mut reduced = 0;
    for first in [0, 100, 200, 300] {
        let report = report(|| Check::new(first..first + 100).faults(faults).run(lines_come_back));
        assert!(report.contains("\nfaults that it needs: short_read (2 of "), "{report}");
        let trace = report.split_once("the end of its trace with these faults alone:\n").expect("a trace").1;
        assert!(trace.matches("  fault ").count() <= 2, "{report}");
        reduced += 1;
    }
    assert_eq!(reduced, 4);
}

/// Runs a check that fails, in the processes of the test below.
#[test]
fn in_a_process_of_its_own() {
    if std::env::var_os(CHILD).is_some() {
        Check::new(0..100).faults(faults).run(lines_come_back);
    }
}

#[test]
fn a_reduced_run_is_repeated_from_its_text_and_needs_every_fault_in_it() {
    let run = |variables: &[(&str, &str)]| {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.args(["--exact", "in_a_process_of_its_own"]).env(CHILD, "1").env_remove("SEEDS");
        let output = command.envs(variables.iter().copied()).output().expect("it starts");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (passes, report) = run(&[]);
    assert!(!passes);
    let seed = between(&report, "seed ", " fails");
    let kept = between(&report, " KEEP=", " cargo test");
    let (passes, again) = run(&[("SEED", seed), ("KEEP", kept)]);
    assert!(!passes && again.matches("  fault ").count() == 2, "{again}");
    let end = report.split_once("the end of its trace with these faults alone:\n").expect("a trace").1;
    let end = end.lines().skip(1).take(20).collect::<Vec<_>>().join("\n");
    assert!(again.contains(&end), "the same run: {report}\n{again}");
    let (first, second) = kept.split_once([',', '-']).expect("two numbers");
    for fewer in [first, second, "none"] {
        let (passes, output) = run(&[("SEED", seed), ("KEEP", fewer)]);
        assert!(passes, "KEEP={fewer}: {output}");
    }
    for wrong in [vec![("KEEP", "1")], vec![("SEED", "1"), ("KEEP", "x")], vec![("SEED", "1"), ("KEEP", "5-")]] {
        let (passes, output) = run(&wrong);
        assert!(!passes && output.contains("KEEP="), "{output}");
    }
}

#[test]
fn a_failure_without_faults_needs_none() {
    let report = report(|| {
        Check::new(0..10).faults(faults).run(|sim| {
            lines_come_back_or_not(sim);
            panic!("always");
        });
    });
    assert!(report.contains("faults that it needs: none (0 of "), "{report}");
    assert!(report.contains(" KEEP=none cargo test"), "{report}");
}

fn lines_come_back_or_not(sim: &Simulation) {
    let mut event_loop = sim.event_loop(Config::default(), Forgetful { piece: Vec::new() }).expect("a loop");
    let address = event_loop.listen("10.0.0.1:7777").expect("it is free").address;
    sim.start(event_loop);
    let mut peer = sim.connect(address);
    peer.send("a line\n".repeat(100));
    sim.run_for(SECOND);
}

#[test]
fn the_reduction_has_limits() {
    let runs = AtomicU64::new(0);
    let count = |check: Check| {
        runs.store(0, Ordering::Relaxed);
        let report = report(|| {
            check.threads(1).faults(faults).run(|sim| {
                runs.fetch_add(1, Ordering::Relaxed);
                lines_come_back(sim);
            });
        });
        (report, runs.load(Ordering::Relaxed))
    };
    let (report, without) = count(Check::new(0..100).shrink(0, SECOND));
    assert!(!report.contains("faults that it needs"), "{report}");
    let (report, all) = count(Check::new(0..100).shrink(7, 600 * SECOND));
    assert_eq!(all, without + 7, "{report}");
    assert!(report.contains(" found in 7 runs, up to the limit)"), "{report}");
}

#[test]
fn a_failure_that_does_not_repeat_is_said_to_depend_on_more_than_the_seed() {
    let runs = AtomicU64::new(0);
    let report = report(|| {
        Check::new(0..10).threads(1).run(|_| {
            assert!(runs.fetch_add(1, Ordering::Relaxed) > 0, "only the first");
        });
    });
    assert!(report.contains("the run depends on more than the seed"), "{report}");
}
