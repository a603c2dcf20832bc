//! Every table of cases, each case fed whole, a byte at a time, and split in two at every position.

mod common;

use std::collections::HashSet;

use common::{cases, check};

#[test]
fn every_case_has_its_expected_result() {
    for table in cases::tables() {
        check(&table);
    }
}

/// Compares all cases: a case that is there twice tests nothing the second time.
#[test]
fn no_two_refused_cases_are_the_same() {
    let mut inputs = HashSet::new();
    for table in cases::tables() {
        for (name, _, input, expected) in table.cases {
            let is_new = expected.is_ok() || inputs.insert(*input);
            assert!(is_new, "{}: {name}: there is another case of these bytes", table.name);
        }
    }
}
