//! A simulated disk that fails, is full, or is damaged; and its faults in traces and checks.

mod common;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};

use common::SECOND;
use common::disks::{SECTOR, stage};
use sealed::disk::File;
use sealed::sim::{Check, DiskFaults, Random, SimDisk, Simulation};

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_failed_sync_loses_what_later_reads_still_show() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let (machine, _, file) = stage(&Simulation::new(seed), 4);
        file.write_all_at(&[2; 4 * SECTOR], 0).expect("room");
        machine.set_faults(DiskFaults { failed_sync: 1.0, ..DiskFaults::default() });
        file.sync_data().expect_err("it fails");
        machine.set_faults(DiskFaults::default());
        file.sync_data().expect("the next one succeeds");
        let mut bytes = [0; 4 * SECTOR];
        file.read_exact_at(&mut bytes, 0).expect("all of it");
        assert_eq!(bytes, [2; 4 * SECTOR]);
        machine.kill();
        assert_eq!(machine.contents("data/log").expect("it is durable"), bytes);
        machine.power_cut();
        let left = machine.contents("data/log").expect("it is durable");
        seen.insert(left.chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), 16, "any of the four can be lost: {seen:?}");

    // What is written anew is synced.
    for seed in 0..50 {
        let (machine, _, file) = stage(&Simulation::new(seed), 4);
        file.write_all_at(&[2; 5 * SECTOR], 0).expect("room");
        machine.set_faults(DiskFaults { failed_sync: 1.0, ..DiskFaults::default() });
        file.sync_data().expect_err("it fails");
        machine.set_faults(DiskFaults::default());
        file.set_len(0).expect("shorter");
        file.write_all_at(&[2; 5 * SECTOR], 0).expect("room");
        file.sync_data().expect("a working disk");
        machine.power_cut();
        assert_eq!(machine.contents("data/log").expect("it is durable"), [2; 5 * SECTOR]);
    }
}

#[test]
fn a_failed_sync_of_a_directory_loses_names_that_it_still_lists() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (machine, directory, _) = stage(&Simulation::new(seed), 1);
        directory.create("new").expect("a new file");
        machine.set_faults(DiskFaults { failed_sync: 1.0, ..DiskFaults::default() });
        directory.sync().expect_err("it fails");
        machine.set_faults(DiskFaults::default());
        directory.sync().expect("the next one succeeds");
        assert_eq!(directory.list().expect("a list"), ["log", "new"]);
        machine.power_cut();
        seen.insert(machine.files().len());
    }
    assert_eq!(seen, [1, 2].into());
}

#[test]
fn reads_and_writes_are_short() {
    let (machine, _, file) = stage(&Simulation::new(1), 1);
    machine.set_faults(DiskFaults { short_read: 1.0, short_write: 1.0, ..DiskFaults::default() });
    let (mut read, mut written) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..200 {
        read.insert(file.read_at(&mut [0; 5], 0).expect("some"));
        written.insert(file.write_at(&[0; 5], 0).expect("some"));
    }
    assert_eq!((read, written), ([1, 2, 3, 4].into(), [1, 2, 3, 4].into()));
}

#[test]
fn failed_calls_change_nothing() {
    let (machine, _, file) = stage(&Simulation::new(1), 1);
    machine.set_faults(DiskFaults { failed_read: 1.0, failed_write: 1.0, ..DiskFaults::default() });
    let before = machine.operations();
    file.write_at(&[2; 5], 0).expect_err("it fails");
    file.read_at(&mut [0; 5], 0).expect_err("it fails");
    assert_eq!(machine.operations(), before + 1, "a write counts even if it fails");
    assert_eq!(machine.contents("data/log").expect("it exists"), [1; SECTOR]);
}

#[test]
fn a_lack_of_space_is_met_where_space_is_taken() {
    let (machine, directory, file) = stage(&Simulation::new(1), 1);
    file.allocate(2_000).expect("space");
    machine.set_faults(DiskFaults { no_space: 1.0, ..DiskFaults::default() });
    file.write_all_at(&[2; 2_000], 0).expect("it is allocated");
    file.allocate(1_000).expect("it is allocated");
    file.set_len(1_999).expect("shorter");
    let full = [
        kind(file.write_at(&[2; 2], 1_998)),
        kind(file.allocate(2_001)),
        kind(file.set_len(2_001)),
        kind(directory.create("new")),
        kind(directory.lock("lock")),
    ];
    assert_eq!(full, [Some(ErrorKind::StorageFull); 5]);
    assert_eq!((file.len().expect("a length"), directory.list().expect("a list").len()), (1_999, 1));
}

#[test]
fn capacity_is_counted_by_what_is_allocated() {
    let (machine, directory, file) = stage(&Simulation::new(1), 1);
    assert_eq!(machine.bytes_used(), 512);
    machine.set_capacity(Some(2_000));
    let other = directory.create("other").expect("a name takes no space");
    other.set_len(5_000).expect("zeros take no space");
    assert_eq!(machine.bytes_used(), 512);
    assert_eq!(kind(other.allocate(1_489)), Some(ErrorKind::StorageFull));
    other.allocate(1_400).expect("space");
    assert_eq!(machine.bytes_used(), 1_912);
    assert_eq!(file.write_at(&[2; 200], 512).expect("space for a part"), 88);
    assert_eq!(kind(file.write_at(&[2; 200], 600)), Some(ErrorKind::StorageFull));
    assert_eq!(kind(file.write_all_at(&[2; 200], 500)), Some(ErrorKind::StorageFull));
    other.write_all_at(&[2; 1_400], 0).expect("it is allocated");
    assert_eq!(machine.bytes_used(), 2_000);
    // The space of a removed file is free once nobody has it open.
    directory.remove("other").expect("it exists");
    assert_eq!(machine.bytes_used(), 2_000);
    drop(other);
    assert_eq!(machine.bytes_used(), 600);
    file.set_len(100).expect("shorter");
    assert_eq!(machine.bytes_used(), 100);
    machine.set_capacity(None);
    file.write_all_at(&[2; 10_000], 0).expect("no limit");
}

#[test]
fn what_is_allocated_and_synced_is_allocated_after_a_power_cut() {
    for seed in 0..50 {
        let (machine, _, file) = stage(&Simulation::new(seed), 1);
        file.allocate(2_000).expect("space");
        file.sync_data().expect("a working disk");
        file.write_all_at(&[2; 100], 1_900).expect("it is allocated");
        machine.power_cut();
        assert_eq!(machine.bytes_used(), 2_000);
    }
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let (machine, _, file) = stage(&Simulation::new(1), 1);
    let long = [kind(file.set_len(1 << 40)), kind(file.allocate(u64::MAX)), kind(file.write_at(&[1], u64::MAX))];
    assert_eq!(long, [Some(ErrorKind::FileTooLarge); 3]);
    machine.cut_after(1);
    file.write_at(&[1], u64::MAX).expect_err("its process is gone");
    machine.power_cut();
    assert_eq!(machine.files()[0].1, 512);
}

#[test]
fn a_test_reads_and_damages_files() {
    let (machine, directory, file) = stage(&Simulation::new(1), 1);
    file.write_all_at(b"hello", 0).expect("room");
    machine.flip_bit("data/log", 8 * 4 + 1);
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 0).expect("all of it");
    assert_eq!(&bytes, b"hellm");
    machine.replace("./data/log", "abc");
    assert_eq!(file.len().expect("a length"), 3, "an open file sees it");
    machine.replace("data/new", vec![7; 600]);
    machine.flip_bit("data/new", 0);
    machine.power_cut();
    assert_eq!(machine.files(), [("data/log".into(), 3), ("data/new".into(), 600)]);
    assert_eq!(machine.contents("data/log").expect("it exists"), b"abc");
    assert_eq!(machine.contents("data/new").expect("it exists")[..2], [6, 7]);
    assert_eq!(machine.contents("data/none"), None);
    assert!(directory.open("log").is_err());
    for wrong in [("data/none", 0), ("data/log", 24)] {
        panic::catch_unwind(AssertUnwindSafe(|| machine.flip_bit(wrong.0, wrong.1))).expect_err("no such bit");
    }
    panic::catch_unwind(AssertUnwindSafe(|| machine.replace("data", ""))).expect_err("a folder");
}

/// Makes random calls, and ends the process in random ways. Returns the digest of the run.
fn upheaval(seed: u64) -> u64 {
    let sim = Simulation::new(seed);
    let mut random = sim.random(0);
    let machine = sim.disk();
    machine.set_faults(DiskFaults::any(&mut sim.random(1)));
    for _ in 0..10 {
        let directory = machine.disk().open_dir("data").expect("a folder");
        if random.chance(0.5) {
            machine.cut_after(random.within(1..=30));
        }
        for _ in 0..20 {
            let names = ["a", "b", "c"];
            let (one, other) = (names[random.below(3)], names[random.below(3)]);
            if let Ok(file) = directory.create(one).or_else(|_| directory.open(one)) {
                let (offset, mut buffer) = (random.within(0..=3_000), vec![7; random.below(2_000)]);
                let _ = file.write_all_at(&buffer, offset);
                let _ = [File::set_len, File::allocate][random.below(2)](&file, random.within(0..=3_000));
                let _ = random.chance(0.3).then(|| file.sync_data());
                let _ = file.read_at(&mut buffer, 0);
            }
            let _ = random.chance(0.3).then(|| directory.rename(one, other));
            let _ = random.chance(0.2).then(|| directory.remove(other));
            let _ = random.chance(0.2).then(|| directory.sync());
        }
        [SimDisk::kill, SimDisk::power_cut][random.below(2)](&machine);
        let lengths: u64 = machine.files().iter().map(|(_, length)| length).sum();
        assert!(machine.bytes_used() <= lengths, "no file is allocated beyond its end");
        machine.files().iter().for_each(|(path, length)| {
            assert_eq!(machine.contents(path).expect("it exists").len() as u64, *length);
        });
    }
    sim.digest()
}

#[test]
fn a_seed_determines_a_run() {
    let digests: BTreeSet<_> = (0..200).map(upheaval).collect();
    assert_eq!(digests.len(), 200);
    assert!((0..50).all(|seed| digests.contains(&upheaval(seed))));
}

#[test]
fn disks_are_independent() {
    let sim = Simulation::new(1);
    let (one, _, file) = stage(&sim, 1);
    let (other, ..) = stage(&sim, 2);
    other.set_faults(DiskFaults { failed_write: 1.0, ..DiskFaults::default() });
    other.cut_after(1);
    other.power_cut();
    file.write_all_at(&[2; 600], 0).expect("the other disk fails");
    assert_eq!((one.files()[0].1, other.files()[0].1), (600, 1_024));
    assert_eq!((one.operations(), other.operations()), (5, 4));
}

#[test]
fn work_uses_a_disk_and_the_trace_shows_it() {
    let sim = Simulation::new(1);
    let (machine, directory, _) = stage(&sim, 1);
    let workers = sim.workers(1, 10);
    let work = move || {
        let file = directory.create("new").expect("a new file");
        file.write_all_at(b"hello", 7).expect("room");
    };
    workers.spawn(work).expect("room");
    assert_eq!(machine.contents("data/new"), None);
    sim.run_for(SECOND);
    assert_eq!(machine.contents("data/new").expect("it exists"), b"\0\0\0\0\0\0\0hello");
    machine.power_cut();
    for line in ["disk 0: 5 of 5 are written at 7 of data/new", "disk 0: the power is cut"] {
        assert!(sim.trace().contains(line), "{}", sim.trace());
    }
}

#[test]
fn a_check_reduces_a_failure_to_the_losses_that_it_needs() {
    let forgets_to_sync_names = |sim: &Simulation| {
        let (machine, directory, file) = stage(sim, 1);
        machine.set_faults(DiskFaults { short_write: 0.5, ..DiskFaults::any(&mut Random::new(sim.seed())) });
        for round in 0..5 {
            let _ = file.write_all_at(&[2; 5_000], 0);
            let _ = directory.create(&format!("file {round}"));
        }
        machine.power_cut();
        assert!(machine.files().len() > 5, "a name is lost");
    };
    let check = || Check::new(0..100).run(forgets_to_sync_names);
    let payload = panic::catch_unwind(AssertUnwindSafe(check)).expect_err("it fails");
    let report = *payload.downcast::<String>().expect("a text");
    assert!(report.contains("\nfaults that it needs: disk."), "{report}");
    let trace = report.split_once("the end of its trace with these faults alone:\n").expect("a trace").1;
    assert_eq!(trace.matches("  fault ").count(), 1, "{report}");
}
