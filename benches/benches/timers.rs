//! A million timers, and a million messages from another thread: `sealed` compared with others.
//!
//! `cargo bench -p benches --bench timers` prints criterion's figures for smaller cases, and then a
//! table of all cases, measured in alternating rounds.

use std::time::Duration;

use benches::table::{Better, Table, is_short};
use benches::timers::Part;
use benches::{posts, timers};
use criterion::{BenchmarkId, Criterion, Throughput};

fn main() {
    let (count, rounds) = if is_short() { (1_000, 1) } else { (1_000_000, 5) };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    with_criterion(&mut criterion, count / 10);
    criterion.final_summary();

    let mut table = Table::new("timers", "ms for a million timers", Better::Less, &timers::WAYS.map(|(name, _)| name));
    table.compare(&["set", "moved", "cancelled"], rounds, |way| Some(timers::WAYS[way].1(count, Part::Changing)));
    table.compare(&["fired"], rounds, |way| Some(timers::WAYS[way].1(count, Part::Firing)));
    table.finish();

    let mut table = Table::new("posts", "ms for a million messages", Better::Less, &posts::WAYS.map(|(name, _)| name));
    table.compare(&["posted"], rounds, |way| Some(vec![posts::WAYS[way].1(count).as_secs_f64() * 1_000.0]));
    table.finish();
}

fn with_criterion(criterion: &mut Criterion, count: usize) {
    let mut group = criterion.benchmark_group(format!("{count} timers set, moved and cancelled"));
    group.throughput(Throughput::Elements(count as u64));
    for (name, measure) in timers::WAYS {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|rounds| {
                let all = (0..rounds).flat_map(|_| measure(count, Part::Changing));
                Duration::from_secs_f64(all.sum::<f64>() / 1_000.0)
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group(format!("{count} messages posted"));
    group.throughput(Throughput::Elements(count as u64));
    for (name, post) in posts::WAYS {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| post(count)).sum());
        });
    }
    group.finish();
}
