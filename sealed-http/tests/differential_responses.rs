//! Responses that are accepted here, hyper's client and httparse accept with the same meaning; where they do not, a row says
//! why.
//!
//! Inputs are made and spoilt from seeds. A seed that failed is run again with
//! `DIFFERENTIAL_SEED=17 cargo test -p sealed-http --test differential_responses`, more of them with
//! `DIFFERENTIAL_SEEDS=1000000`.

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
fn known_differences_are_there_still() {
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
fn spoilt_responses_accepted_here_mean_the_same_to_others() {
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
    // Neither are nearly all of them spoilt beyond recognition, nor nearly none.
    assert!((inputs / 4..inputs * 9 / 10).contains(&accepted), "{accepted} accepted of {inputs}");
    for (error, why) in STRICTER {
        assert!(stricter.contains(error), "no peer goes on any more where it is {error:?} here: {why}");
    }
}

/// The seeds to run: one, or so many, where the environment says so.
fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DIFFERENTIAL_SEEDS").unwrap_or(SEEDS),
    }
}
