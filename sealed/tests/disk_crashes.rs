//! What a simulated disk keeps of a process that ends: by a kill, by a power cut, or in the middle
//! of an operation.

mod common;

use std::collections::BTreeSet;
use std::io;

use common::disks::{SECTOR, stage};
use sealed::disk::Directory;
use sealed::sim::{SimDisk, Simulation};

fn is_gone<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.to_string() == "the process that opened it is gone")
}

/// Returns the first byte of each sector. Asserts that a sector is all one byte.
fn sectors(machine: &SimDisk) -> Vec<u8> {
    let bytes = machine.contents("data/log").expect("it is durable");
    let each = bytes.chunks(SECTOR).map(|sector| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "no sector is torn");
        sector[0]
    });
    each.collect()
}

fn names(machine: &SimDisk) -> Vec<String> {
    machine.disk().open_dir("data").expect("a folder").list().expect("a list")
}

/// Collects what comes out of a test with many seeds.
fn outcomes<T: Ord>(test: impl Fn(u64) -> T) -> BTreeSet<T> {
    (0..400).map(test).collect()
}

#[test]
fn what_is_synced_survives_a_power_cut() {
    for seed in 0..100 {
        let (machine, directory, file) = stage(&Simulation::new(seed), 4);
        file.write_all_at(b"hello", 700).expect("room");
        file.set_len(900).expect("shorter");
        file.sync_data().expect("a working disk");
        directory.create("other").expect("a new file");
        directory.rename("other", "renamed").expect("it exists");
        directory.sync().expect("a working disk");
        let before = machine.contents("data/log");
        for _ in 0..2 {
            machine.power_cut();
            assert_eq!(machine.contents("data/log"), before);
            assert_eq!(names(&machine), ["log", "renamed"]);
        }
    }
}

#[test]
fn any_subset_of_sectors_survives_a_power_cut() {
    let seen = outcomes(|seed| {
        let (machine, _, file) = stage(&Simulation::new(seed), 3);
        file.write_all_at(&[2; 3 * SECTOR], 0).expect("room");
        machine.power_cut();
        sectors(&machine)
    });
    assert_eq!(seen.len(), 8, "each of the three is old or new: {seen:?}");
    assert!(seen.contains(&vec![1, 1, 2]), "a later one survives without earlier ones");
}

#[test]
fn a_sector_survives_in_any_state_that_it_had() {
    let seen = outcomes(|seed| {
        let (machine, _, file) = stage(&Simulation::new(seed), 2);
        for byte in 2..4 {
            file.write_all_at(&[byte; 2 * SECTOR], 0).expect("room");
        }
        machine.power_cut();
        sectors(&machine)
    });
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn a_part_of_a_sector_does_not_survive_without_the_rest() {
    for seed in 0..200 {
        let (machine, _, file) = stage(&Simulation::new(seed), 1);
        file.write_all_at(b"hello", 100).expect("room");
        machine.power_cut();
        let bytes = machine.contents("data/log").expect("it is durable");
        assert!(matches!(&bytes[99..106], b"\x01hello\x01" | &[1, 1, 1, 1, 1, 1, 1]), "{:?}", &bytes[99..106]);
    }
}

#[test]
fn any_length_since_the_last_sync_survives() {
    let seen = outcomes(|seed| {
        let (machine, _, file) = stage(&Simulation::new(seed), 1);
        for sector in 1..3 {
            file.write_all_at(&[2; SECTOR], (sector * SECTOR) as u64).expect("room");
        }
        machine.power_cut();
        sectors(&machine)
    });
    // What is within the length and was not written is zeros.
    let lengths: BTreeSet<_> = seen.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 2, 3].into());
    assert!(seen.contains(&vec![1, 0, 2]) && seen.contains(&vec![1, 2]) && !seen.contains(&vec![2]), "{seen:?}");

    let cut_off = outcomes(|seed| {
        let (machine, _, file) = stage(&Simulation::new(seed), 2);
        file.set_len(0).expect("shorter");
        machine.power_cut();
        sectors(&machine)
    });
    assert!(cut_off.contains(&vec![]) && cut_off.contains(&vec![1, 1]), "{cut_off:?}");
}

#[test]
fn what_was_cut_off_does_not_come_back_once_that_is_synced() {
    for seed in 0..200 {
        let (machine, _, file) = stage(&Simulation::new(seed), 3);
        file.set_len(0).expect("shorter");
        file.sync_data().expect("a working disk");
        file.set_len(3 * SECTOR as u64).expect("longer");
        machine.power_cut();
        assert!(sectors(&machine).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_name_survives_only_by_a_sync_of_its_directory() {
    let seen = outcomes(|seed| {
        let (machine, directory, file) = stage(&Simulation::new(seed), 1);
        let new = directory.create("new").expect("a new file");
        new.write_all_at(b"hello", 0).expect("room");
        new.sync_data().expect("a working disk");
        directory.remove("log").expect("it exists");
        drop(file);
        machine.power_cut();
        let found = names(&machine);
        for name in &found {
            let length = machine.contents(format!("data/{name}")).expect("it has a name").len();
            assert_eq!(length, if name == "log" { SECTOR } else { 5 }, "the contents were synced");
        }
        found.join(" ")
    });
    assert_eq!(seen, ["", "log", "log new", "new"].map(str::to_owned).into());
}

#[test]
fn a_sync_of_another_directory_makes_no_name_durable() {
    let seen = outcomes(|seed| {
        let (machine, directory, _) = stage(&Simulation::new(seed), 1);
        directory.create("new").expect("a new file");
        machine.disk().open_dir("elsewhere").expect("a folder").sync().expect("a working disk");
        machine.power_cut();
        names(&machine).len()
    });
    assert_eq!(seen, [1, 2].into());
}

#[test]
fn a_rename_happens_as_a_whole_or_not_at_all() {
    let seen = outcomes(|seed| {
        let (machine, directory, _) = stage(&Simulation::new(seed), 1);
        let new = directory.create("new").expect("a new file");
        new.write_all_at(&[2; SECTOR], 0).expect("room");
        new.sync_data().expect("a working disk");
        directory.rename("new", "log").expect("it exists");
        machine.power_cut();
        (sectors(&machine)[0], names(&machine).join(" "))
    });
    // If the rename is lost, the creation can survive.
    let wanted = [(1, "log"), (1, "log new"), (2, "log")];
    assert_eq!(seen, wanted.map(|(byte, names)| (byte, names.to_owned())).into());
}

#[test]
fn a_file_never_has_two_names() {
    let seen = outcomes(|seed| {
        let (machine, directory, _) = stage(&Simulation::new(seed), 1);
        directory.rename("log", "b").expect("it exists");
        directory.rename("b", "c").expect("it exists");
        machine.power_cut();
        names(&machine).join(" ")
    });
    assert_eq!(seen, ["b", "c", "log"].map(str::to_owned).into());
}

#[test]
fn a_kill_keeps_everything_written() {
    for seed in 0..20 {
        let (machine, directory, file) = stage(&Simulation::new(seed), 1);
        file.write_all_at(&[2; 2 * SECTOR], 0).expect("room");
        directory.create("new").expect("a new file");
        machine.kill();
        assert_eq!((sectors(&machine), names(&machine).len()), (vec![2, 2], 2));
    }
    // What a killed process has written is still not durable.
    let seen = outcomes(|seed| {
        let (machine, _, file) = stage(&Simulation::new(seed), 1);
        file.write_all_at(&[2; SECTOR], 0).expect("room");
        machine.kill();
        machine.power_cut();
        sectors(&machine)
    });
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[test]
fn the_handles_of_a_process_fail_for_ever_and_its_locks_are_free() {
    for end in [SimDisk::kill, SimDisk::power_cut] {
        let (machine, directory, file) = stage(&Simulation::new(1), 1);
        let disk = machine.disk();
        let lock = directory.lock("lock").expect("it is free");
        directory.sync().expect("a working disk");
        end(&machine);
        let next = machine.disk().open_dir("data").expect("a folder");
        let _lock = next.lock("lock").expect("its process is gone");
        drop(lock);
        assert_eq!(next.lock("lock").expect_err("the new lock stays").kind(), io::ErrorKind::WouldBlock);
        for _ in 0..2 {
            assert!(is_gone(disk.open_dir("data")) && is_gone(directory.list()) && is_gone(directory.sync()));
            assert!(
                is_gone(directory.create("a")) && is_gone(directory.open("log")) && is_gone(directory.remove("log"))
            );
            assert!(is_gone(directory.rename("log", "a")) && is_gone(directory.lock("a")));
            assert!(is_gone(file.read_at(&mut [0], 0)) && is_gone(file.write_at(&[0], 0)) && is_gone(file.len()));
            assert!(is_gone(file.sync_data()) && is_gone(file.set_len(0)) && is_gone(file.allocate(9)));
        }
        assert_eq!(sectors(&machine), [1]);
    }
}

/// Makes one operation of each kind.
fn six_operations(directory: &Directory) -> io::Result<()> {
    let new = directory.create("new")?;
    new.write_at(&[2; SECTOR], 0)?;
    new.sync_data()?;
    directory.rename("new", "log")?;
    directory.sync()?;
    directory.remove("log")
}

#[test]
fn a_process_ends_at_each_operation() {
    for operations in 1..=6 {
        let (machine, directory, file) = stage(&Simulation::new(1), 1);
        let before = machine.operations();
        machine.kill_after(operations);
        assert!(!machine.is_dead());
        assert!(is_gone(six_operations(&directory)));
        assert!(machine.is_dead());
        assert_eq!(machine.operations(), before + operations - 1);
        assert!(is_gone(file.read_at(&mut [0], 0)) && is_gone(machine.disk().open_dir("data")));
        machine.kill();
        assert!(!machine.is_dead());
        let byte = machine.contents("data/log").map(|bytes| bytes[0]);
        assert_eq!(byte, Some(if operations <= 4 { 1 } else { 2 }), "at operation {operations}");
        assert_eq!(names(&machine).len(), if (2..=4).contains(&operations) { 2 } else { 1 });
    }
    let (machine, directory, _) = stage(&Simulation::new(1), 1);
    machine.cut_after(7);
    six_operations(&directory).expect("the seventh is not made");
    assert!(!machine.is_dead());
    // The end of the process cancels the plan.
    machine.kill();
    machine.disk().open_dir("data").expect("a folder").create("a").expect("a new file");
}

#[test]
fn a_write_that_is_cut_happens_in_part_for_a_power_cut_only() {
    let write = |seed, plan: fn(&SimDisk, u64), end: fn(&SimDisk)| {
        let (machine, _, file) = stage(&Simulation::new(seed), 4);
        plan(&machine, 1);
        assert!(is_gone(file.write_all_at(&[2; 4 * SECTOR], 0)));
        end(&machine);
        sectors(&machine)
    };
    let cut = outcomes(|seed| write(seed, SimDisk::cut_after, SimDisk::power_cut));
    assert!(cut.len() > 10 && cut.contains(&vec![1; 4]) && cut.contains(&vec![2; 4]), "{cut:?}");
    let killed = outcomes(|seed| write(seed, SimDisk::kill_after, SimDisk::kill));
    assert_eq!(killed, [vec![1; 4]].into());
}
