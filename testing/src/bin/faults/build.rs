//! Whether every fault can be planted and compiles.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::list::Fault;
use crate::tree::Tree;

/// Faults that are planted at a time: no two of them change the same place.
#[derive(Default)]
struct Batch<'a> {
    faults: Vec<&'a Fault>,
    changed: BTreeMap<&'a Path, Vec<Range<usize>>>,
}

impl<'a> Batch<'a> {
    /// Adds a fault if the place that it changes is free.
    fn add(&mut self, fault: &'a Fault, range: &Range<usize>) -> bool {
        let changed = self.changed.entry(&fault.file).or_default();
        let is_free = changed.iter().all(|held| held.end <= range.start || range.end <= held.start);
        if is_free {
            changed.push(range.clone());
            self.faults.push(fault);
        }
        is_free
    }
}

/// Compiles all faults, as many at a time as go together. Returns a text for each that does not compile.
pub(crate) fn check(tree: &Tree, faults: &[Fault]) -> Vec<String> {
    let mut failures = Vec::new();
    let mut batches: Vec<Batch<'_>> = Vec::new();
    for fault in faults {
        match fault.range(&tree.read(&fault.file)) {
            Ok(range) => {
                if !batches.iter_mut().any(|batch| batch.add(fault, &range)) {
                    let mut batch = Batch::default();
                    batch.add(fault, &range);
                    batches.push(batch);
                }
            }
            Err(why) => failures.push(why),
        }
    }
    for batch in batches {
        failures.extend(check_together(tree, &batch.faults));
    }
    failures
}

/// Compiles faults together, and halves them to find those that do not compile.
fn check_together(tree: &Tree, faults: &[&Fault]) -> Vec<String> {
    let mut texts = BTreeMap::new();
    for fault in faults {
        let text: &mut String = texts.entry(&fault.file).or_insert_with(|| tree.read(&fault.file));
        *text = fault.plant(text).unwrap_or_else(|_| text.clone());
    }
    let before: Vec<_> = texts.keys().map(|file| (*file, tree.read(file))).collect();
    for (file, text) in &texts {
        tree.write(file, text);
    }
    let (compiles, output) = tree.cargo(&["check", "-q", "--locked", "-p", "ccomet", "--all-features", "--lib"]);
    let (tls, more) = tree.cargo(&["check", "-q", "--locked", "-p", "sealed-http", "--all-features", "--lib"]);
    for (file, text) in &before {
        tree.write(file, text);
    }
    if compiles && tls {
        println!("{} faults compile together", faults.len());
        return Vec::new();
    }
    if let [fault] = faults {
        return vec![format!("does not compile: {}\n{output}{more}", fault.name)];
    }
    let (one, other) = faults.split_at(faults.len() / 2);
    [check_together(tree, one), check_together(tree, other)].concat()
}
