//! Simulated disks.

use sealed::disk::{Directory, File};
use sealed::sim::{SimDisk, Simulation};

pub(crate) const SECTOR: usize = 512;

/// Returns a disk with a durable file of `sectors` sectors of `1`, its directory and the file.
pub(crate) fn stage(sim: &Simulation, sectors: usize) -> (SimDisk, Directory, File) {
    let machine = sim.disk();
    let directory = machine.disk().open_dir("data").expect("a folder");
    let file = directory.create("log").expect("a new file");
    file.write_all_at(&vec![1; sectors * SECTOR], 0).expect("room");
    file.sync_data().expect("a working disk");
    directory.sync().expect("a working disk");
    (machine, directory, file)
}
