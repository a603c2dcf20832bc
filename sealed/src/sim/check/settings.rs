//! The environment variables of a check.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::sim::occurrences::numbers;

/// What the environment and the check together order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) seeds: Range<u64>,
    /// The only seed to run.
    pub(super) only: Option<u64>,
    /// The numbers of the faults to keep of it.
    pub(super) keep: Option<BTreeSet<u64>>,
}

impl Settings {
    /// Reads the environment. Returns what is wrong with it, if something is.
    pub(super) fn read(seeds: &Range<u64>) -> Result<Self, String> {
        let only = match variable("SEED") {
            Some(text) => Some(text.parse().map_err(|_| format!("SEED={text}: it must be a number"))?),
            None => None,
        };
        let seeds = match variable("SEEDS") {
            Some(text) => range(&text, seeds.start)
                .ok_or_else(|| format!("SEEDS={text}: it must be a number or a range such as 100..200"))?,
            None => seeds.clone(),
        };
        let keep = match variable("KEEP") {
            Some(text) if only.is_none() => return Err(format!("KEEP={text}: it needs SEED")),
            Some(text) => {
                let keep = numbers(&text);
                Some(keep.ok_or_else(|| format!("KEEP={text}: it must be `none` or numbers such as 4,17,20-31"))?)
            }
            None => None,
        };
        Ok(Self { seeds, only, keep })
    }
}

/// Returns the value of a variable, unless it is empty.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn range(text: &str, first: u64) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((start, end)) => Some(start.parse().ok()?..end.parse().ok()?),
        None => Some(first..first.saturating_add(text.parse().ok()?)),
    }
}
