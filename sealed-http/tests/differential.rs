//! Requests that this crate accepts are accepted by hyper and httparse with the same meaning; a row
//! explains each exception.
//!
//! Inputs are all cases of the tables, and requests that are generated from seeds and then spoilt.
//! To repeat a seed that failed, run `DIFFERENTIAL_SEED=17 cargo test -p sealed-http --test
//! differential`; for more seeds, set `DIFFERENTIAL_SEEDS=1000000`.

#[path = "differential/chunks.rs"]
mod chunks;
mod common;
#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/generate.rs"]
mod generate;
#[path = "differential/peers.rs"]
mod peers;

use std::collections::HashSet;
use std::ops::Range;

use common::{cases, decode_pieces, latin1};
use compare::{KNOWN, PEERS, PROBE, STRICTER, compare, difference};
use sealed_http::codec::{DecodeError as E, Limits};

const SEEDS: u64 = 50_000;

#[test]
fn accepted_cases_mean_the_same_to_peers() {
    let mut stricter = HashSet::new();
    for table in cases::tables() {
        for (name, _, input, _) in table.cases {
            compare(&format!("{}: {name}", table.name), &latin1(input), &table.limits, &mut stricter);
        }
    }
    for (error, why) in STRICTER {
        assert!(stricter.contains(error), "no peer goes on any more where it is {error:?} here: {why}");
    }
}

#[test]
fn known_differences_still_exist() {
    for known in KNOWN {
        let input = [&latin1(known.example), PROBE].concat();
        let (ours, error) = peers::sealed(&input, &Limits::default());
        let (_, read) = PEERS.iter().find(|(name, _)| *name == known.peer).expect("a peer");
        let theirs = read(&input);
        let found = difference(&ours, error, &theirs);
        assert!(found.is_some_and(|found| (known.is_it)(&found)), "{} differs no more: {}", known.peer, known.why);
    }
}

#[test]
fn accepted_spoilt_requests_mean_the_same_to_peers() {
    let seeds = seeds();
    let mut stricter = HashSet::new();
    let accepted = seeds.clone().filter(|seed| compare_seed(*seed, &mut stricter)).count();
    let inputs = seeds.count();
    println!("{inputs} inputs, of {accepted} at least the first request was accepted");
    // Neither nearly all nor nearly none of the requests are spoilt beyond recognition.
    assert!(inputs < 100 || (inputs / 4..inputs * 3 / 4).contains(&accepted), "{accepted} accepted of {inputs}");
}

/// Returns the seeds to run: one, or as many as the environment sets.
fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DIFFERENTIAL_SEEDS").unwrap_or(SEEDS),
    }
}

fn compare_seed(seed: u64, stricter: &mut HashSet<E>) -> bool {
    let input = generate::input(seed);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    let (name, limits) = (format!("DIFFERENTIAL_SEED={seed}"), Limits::default());
    assert_eq!(decode_pieces(&bytes, &limits), decode_pieces(&[&input], &limits), "{name}: a byte at a time");
    compare(&name, &input, &limits, stricter)
}
