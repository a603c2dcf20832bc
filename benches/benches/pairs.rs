//! Bytes round a ring of socket pairs, as in libevent's own benchmark: `sealed` compared with a
//! bare mio loop and others.
//!
//! `cargo bench -p benches --bench pairs` prints criterion's figures for one case, and then a table
//! of all cases, measured in alternating rounds. With `--features libevent`, libevent is one of the
//! peers.

use std::path::Path;

use benches::pairs::LOOPS;
use benches::table::{Better, Table, is_short};
use benches::{libevent, limits};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Writes of one round.
const WRITES: usize = 20_000;

/// The number of pairs, and the number of bytes in flight at a time.
const CASES: [(usize, usize); 8] =
    [(100, 1), (100, 100), (1_000, 1), (1_000, 100), (1_000, 1_000), (9_000, 1), (9_000, 100), (9_000, 1_000)];

fn main() {
    limits::raise_open_files();
    let short = is_short();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2))
        .configure_from_args();
    with_criterion(&mut criterion, if short { 100 } else { WRITES });
    criterion.final_summary();

    let libevent = libevent::compile();
    let mut peers: Vec<_> = LOOPS.iter().map(|(name, _)| *name).collect();
    peers.push("libevent");
    let what = format!("ms a round of {WRITES} writes");
    let mut table = Table::new("pairs", &what, Better::Less, &peers);
    for (pairs, active) in CASES {
        let rounds = if short { 1 } else { 5 };
        let (shown, shrunk) = (format!("{pairs} pairs, {active} active"), if short { 100 } else { 1 });
        let (pairs, active) = ((pairs / shrunk).max(2), (active / shrunk).max(1));
        table.compare(&[&shown], rounds, |peer| one(peer, libevent.as_deref(), pairs, active, WRITES / shrunk));
    }
    table.finish();
}

fn with_criterion(criterion: &mut Criterion, writes: usize) {
    let mut group = criterion.benchmark_group("1,000 pairs, 100 active");
    group.throughput(Throughput::Elements(writes as u64));
    for (name, make) in LOOPS {
        let mut passing = make(1_000);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| passing.round(100, writes)).sum());
        });
    }
    group.finish();
}

/// Measures one round on a new loop, because the process may not be able to hold the sockets of all
/// loops at once.
fn one(peer: usize, libevent: Option<&Path>, pairs: usize, active: usize, writes: usize) -> Option<Vec<f64>> {
    let time = if let Some((_, make)) = LOOPS.get(peer) {
        let mut passing = make(pairs);
        passing.round(active, writes);
        passing.round(active, writes)
    } else {
        libevent::round(libevent?, pairs, active, writes)
    };
    Some(vec![time.as_secs_f64() * 1_000.0])
}
