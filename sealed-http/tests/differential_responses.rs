//! Responses that this crate accepts are accepted by hyper's client and httparse with the same
//! meaning; a row explains each exception.
//!
//! Inputs are generated from seeds and then spoilt. To repeat a seed that failed, run
//! `DIFFERENTIAL_SEED=17 cargo test -p sealed-http --test differential_responses`; for more seeds,
//! set `DIFFERENTIAL_SEEDS=1000000`.

#[path = "differential/chunks.rs"]
mod chunks;
mod common;
#[path = "differential_responses/compare.rs"]
mod compare;
#[path = "differential_responses/generate.rs"]
mod generate;
#[path = "differential_responses/peers.rs"]
mod peers;
#[path = "differential/generate.rs"]
mod requests;

use std::collections::HashSet;
use std::ops::Range;

use common::latin1;
use compare::{KNOWN, PEERS, PROBE, STRICTER, compare, difference};
use sealed_http::codec::{Asked, Limits};

const SEEDS: u64 = 50_000;

#[test]
fn known_differences_still_exist() {
    for known in KNOWN {
        let (input, asked) = ([&latin1(known.example), PROBE].concat(), [Asked::Other; 4]);
        let (ours, error) = peers::sealed(&asked, &input, &Limits::default());
        for (peer, read) in PEERS.iter().filter(|(peer, _)| known.peers.contains(peer)) {
            let theirs = read(&asked, &input);
            let found = difference(&ours, error, &theirs);
            assert!(found.is_some_and(|found| (known.is_it)(&found)), "{peer} differs no more: {}", known.why);
        }
    }
}

#[test]
fn accepted_spoilt_responses_mean_the_same_to_peers() {
    let seeds = seeds();
    let inputs = seeds.clone().count();
    let mut stricter = HashSet::new();
    let mut accepted = 0;
    for seed in seeds {
        let (asked, input) = generate::input(seed);
        let name = format!("DIFFERENTIAL_SEED={seed}");
        accepted += usize::from(compare(&name, &asked, &input, &Limits::default(), &mut stricter));
    }
    println!("{inputs} inputs, of {accepted} at least the first response was accepted");
    if inputs < 10_000 {
        return;
    }
    // Neither nearly all nor nearly none of the responses are spoilt beyond recognition.
    assert!((inputs / 4..inputs * 9 / 10).contains(&accepted), "{accepted} accepted of {inputs}");
    for (error, why) in STRICTER {
        assert!(stricter.contains(error), "no peer goes on any more where it is {error:?} here: {why}");
    }
}

/// Returns the seeds to run: one, or as many as the environment sets.
fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DIFFERENTIAL_SEEDS").unwrap_or(SEEDS),
    }
}
