//! What the runner of simulations promises: it finds the lowest seed that fails, and its report
//! says how to repeat the failure.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealed::sim::{self, Check, Faults, Simulation};
use sealed::{Config, ConnectionId, Context, Input, Service};

/// Returns the report of a check that fails.
fn report(check: impl FnOnce()) -> String {
    let payload = panic::catch_unwind(AssertUnwindSafe(check)).expect_err("it fails");
    *payload.downcast::<String>().expect("a text")
}

/// Set in the processes that a test starts, each of which runs a single test.
const CHILD: &str = "SEALED_TEST_CHECK_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs one test of this file in a process of its own.
fn child(test: &str, variables: &[(&str, &str)]) -> Output {
    let program = std::env::current_exe().expect("a path");
    let mut command = Command::new(program);
    command.args(["--exact", test]).env(CHILD, "1").env_remove("SEED").env_remove("SEEDS").env_remove("KEEP");
    command.envs(variables.iter().copied()).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn each_seed_runs_once_with_a_simulation_of_its_own() {
    let seen = Mutex::new(Vec::new());
    sim::check(100..150, |sim| {
        sim.run_for(Duration::from_secs(1));
        assert_eq!(sim.now(), Duration::from_secs(1));
        seen.lock().expect("whole").push(sim.seed());
    });
    let seen = seen.into_inner().expect("whole");
    assert_eq!((seen.len(), BTreeSet::from_iter(seen)), (50, (100..150).collect()));
}

#[test]
fn the_lowest_failing_seed_is_reported_with_any_number_of_threads() {
    for threads in [1, 2, 7] {
        let runs = AtomicU64::new(0);
        let report = report(|| {
            Check::new(0..100_000).threads(threads).run(|sim| {
                runs.fetch_add(1, Ordering::Relaxed);
                // A low seed takes longer than those that follow.
                let rounds = if sim.seed() < 20 { 200_000 } else { 10 };
                let mut random = sim.random(0);
                assert!((0..rounds).map(|_| random.bits()).max() > Some(0));
                sim.note("the last remark");
                assert!(sim.seed() < 17 || sim.seed() % 5 == 1, "seed {} is wrong", sim.seed());
            });
        });
        assert!(report.starts_with("seed 17 fails\n\nto repeat it: SEED=17 cargo test"), "{report}");
        assert!(report.contains("seed 17 is wrong") && !report.contains("seed 18 is wrong"), "{report}");
        assert!(report.contains("tests/check.rs:") && report.contains("-- the last remark"), "{report}");
        assert!(runs.into_inner() < 50_000, "it stops at the failure");
    }
}

#[test]
fn the_faults_of_a_check_depend_on_the_seed_alone() {
    let digests = || {
        let digests = Mutex::new(Vec::new());
        Check::new(0..20).faults(Faults::any).run(|sim| {
            let address = start(sim, Config::default());
            let mut peer = sim.connect(&address);
            peer.send([b'x'; 1_000]);
            sim.run_for(Duration::from_secs(10));
            digests.lock().expect("whole").push((sim.seed(), sim.digest()));
        });
        let mut digests = digests.into_inner().expect("whole");
        digests.sort_unstable();
        digests
    };
    let first = digests();
    assert_eq!(first, digests());
    let distinct: BTreeSet<u64> = first.iter().map(|(_, digest)| *digest).collect();
    assert_eq!(distinct.len(), 20);
}

/// Sends back what it receives, but panics at a question mark.
struct Echo;

impl Service for Echo {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let bytes = input.take_all();
        assert!(!bytes.contains(&b'?'), "this is no place for questions");
        cx.write(id, bytes);
    }
}

fn start(sim: &Simulation, config: Config) -> sealed::Address {
    let mut event_loop = sim.event_loop(config, Echo).expect("a loop");
    let address = event_loop.listen("10.0.0.1:7777").expect("it is free").address;
    sim.start(event_loop);
    address
}

#[test]
fn the_report_has_the_panic_of_a_service_and_what_follows_from_it() {
    let report = report(|| {
        sim::check(0..10, |sim| {
            let mut peer = sim.connect(start(sim, Config::default()));
            peer.send("hello?");
            peer.expect("hello?");
        });
    });
    let (cause, rest) = report.split_once("\nthen panicked at ").expect("both panics");
    assert!(cause.ends_with("this is no place for questions"), "{report}");
    assert!(rest.contains("a loop ended with an error: an event loop panicked"), "{report}");
    assert_eq!(report.matches(" reads 6, ").count(), 1, "one trace: {report}");
    assert!(!report.contains("closes"), "the trace ends with the panic: {report}");
}

#[test]
fn a_peer_that_waits_in_vain_is_reported_where_the_test_waits() {
    let line = line!() + 4;
    let report = report(|| {
        sim::check(0..10, |sim| {
            let mut peer = sim.connect(start(sim, Config::default()));
            peer.expect("a greeting");
        });
    });
    let location = format!("tests{}check.rs:{line}:", std::path::MAIN_SEPARATOR);
    assert!(report.contains(&location), "{report}");
    assert_eq!(report.matches("connects").count(), 1, "one trace: {report}");
}

#[test]
fn the_trace_in_a_report_has_the_length_that_is_set() {
    let report = report(|| {
        Check::new(0..1).trace_entries(5).run(|sim| {
            (0..100).for_each(|number| sim.note(format!("remark {number}")));
            panic!("enough");
        });
    });
    let trace = report.split_once("the end of its trace:\n").expect("a trace").1;
    assert!(trace.starts_with("(95 earlier entries)\n"), "{report}");
    assert_eq!(trace.matches("remark").count(), 5, "{report}");
}

#[test]
fn a_check_without_seeds_is_refused() {
    assert!(report(|| sim::check(5..5, |_| {})).contains("at least one seed"));
}

/// Fails for the seeds above 40. The processes of the test below run it.
#[test]
fn in_a_process_of_its_own() {
    if is_child() {
        sim::check(10..20, |sim| {
            sim.note(format!("this is seed {}", sim.seed()));
            assert!(sim.seed() <= 40, "too high");
        });
    }
}

#[test]
fn variables_select_the_seeds() {
    let run = |variables: &[(&str, &str)]| child("in_a_process_of_its_own", variables);
    let quiet = run(&[]);
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
    let one = run(&[("SEED", "33")]);
    assert!(one.status.success(), "{one:?}");
    assert!(text(&one.stderr).contains("-- this is seed 33\n"), "{one:?}");
    assert!(run(&[("SEEDS", "31")]).status.success());
    for (variable, value) in [("SEEDS", "32"), ("SEEDS", "35..90"), ("SEED", "41")] {
        let failed = run(&[(variable, value)]);
        let output = text(&failed.stdout) + &text(&failed.stderr);
        assert!(!failed.status.success() && output.contains("seed 41 fails"), "{output}");
        assert!(output.contains("SEED=41 cargo test -p sealed in_a_process_of_its_own\n"), "{output}");
        assert_eq!(output.matches("too high").count(), 1, "the panic is printed once: {output}");
    }
    for (variable, value) in [("SEED", "x"), ("SEEDS", "5..x"), ("SEEDS", "-1")] {
        let refused = run(&[(variable, value)]);
        let output = text(&refused.stdout) + &text(&refused.stderr);
        assert!(output.contains(&format!("{variable}={value}: it must be a number")), "{output}");
    }
}
