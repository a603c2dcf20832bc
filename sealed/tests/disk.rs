//! What the system's file system and the simulated disk have in common.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sealed::disk::{Directory, Disk, File};
use sealed::sim::{DiskFaults, Simulation};

/// A folder of the system that is removed with its contents when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sealed-disk-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test on an empty directory of each kind of disk.
fn on_each_disk(test: impl Fn(&Disk, &Directory)) {
    let folder = Folder::new();
    let system = Disk::system();
    test(&system, &system.open_dir(folder.0.join("a/b")).expect("a folder"));
    for seed in 0..20 {
        let machine = Simulation::new(seed).disk();
        if seed > 0 {
            machine.set_faults(DiskFaults { short_read: 0.5, short_write: 0.5, ..DiskFaults::default() });
        }
        let simulated = machine.disk();
        test(&simulated, &simulated.open_dir("/var/a/b").expect("a folder"));
    }
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("it is short")];
    file.read_exact_at(&mut bytes, 0).expect("all of it");
    bytes
}

#[test]
fn a_file_is_created_once_and_opened_only_if_it_exists() {
    on_each_disk(|_, directory| {
        assert_eq!(kind(directory.open("log")), Some(ErrorKind::NotFound));
        let file = directory.create("log").expect("a new file");
        assert_eq!(file.len().expect("a length"), 0);
        assert_eq!(kind(directory.create("log")), Some(ErrorKind::AlreadyExists));
        file.write_all_at(b"hello", 0).expect("room");
        // Another handle, and a clone, see the same contents.
        assert_eq!(contents(&directory.open("log").expect("it exists")), b"hello");
        assert_eq!(contents(&file.clone()), b"hello");
    });
}

#[test]
fn a_directory_is_found_again_with_its_files() {
    on_each_disk(|disk, directory| {
        directory.create("log").expect("a new file").write_all_at(b"hello", 0).expect("room");
        let again = disk.open_dir(directory.path()).expect("it exists");
        assert_eq!(again.path(), directory.path());
        assert_eq!(contents(&again.open("log").expect("it exists")), b"hello");
        let other = disk.open_dir(directory.path().join("other")).expect("a folder below");
        assert_eq!(other.list().expect("a list"), Vec::<String>::new());
        assert_eq!(directory.list().expect("a list"), ["log"], "folders are no files");
    });
}

#[test]
fn names_are_listed_in_order_renamed_and_removed() {
    on_each_disk(|_, directory| {
        for name in ["b", "a", "c"] {
            directory.create(name).expect("a new file").write_all_at(name.as_bytes(), 0).expect("room");
        }
        assert_eq!(directory.list().expect("a list"), ["a", "b", "c"]);
        let open = directory.open("a").expect("it exists");
        directory.rename("a", "c").expect("it exists");
        directory.remove("b").expect("it exists");
        directory.sync().expect("a working disk");
        assert_eq!(directory.list().expect("a list"), ["c"]);
        assert_eq!(contents(&directory.open("c").expect("it exists")), b"a", "the new name has the renamed file");
        assert_eq!(contents(&open), b"a", "an open file follows the rename");
        assert_eq!(kind(directory.rename("a", "d")), Some(ErrorKind::NotFound));
        assert_eq!(kind(directory.remove("a")), Some(ErrorKind::NotFound));
        directory.rename("c", "c").expect("a rename to the same name does nothing");
        assert_eq!(directory.list().expect("a list"), ["c"]);
    });
}

#[test]
fn only_plain_names_are_names() {
    on_each_disk(|_, directory| {
        directory.create("a").expect("a new file");
        for name in ["", ".", "..", "a/b", "/a", "a/", "./a", "a\\b", "a\0"] {
            let kinds = [
                kind(directory.create(name)),
                kind(directory.open(name)),
                kind(directory.rename(name, "b")),
                kind(directory.rename("a", name)),
                kind(directory.remove(name)),
                kind(directory.lock(name)),
            ];
            assert_eq!(kinds, [Some(ErrorKind::InvalidInput); 6], "{name:?}");
        }
        assert_eq!(directory.list().expect("a list"), ["a"]);
    });
}

#[test]
#[cfg(unix)]
fn a_removed_file_is_readable_while_it_is_open() {
    on_each_disk(|_, directory| {
        let file = directory.create("log").expect("a new file");
        file.write_all_at(b"hello", 0).expect("room");
        directory.remove("log").expect("it exists");
        assert_eq!(contents(&file), b"hello");
        file.write_all_at(b"j", 0).expect("room");
        let next = directory.create("log").expect("the name is free");
        assert_eq!((next.len().expect("a length"), contents(&file).len()), (0, 5), "the two are different files");
    });
}

#[test]
fn reads_and_writes_are_at_offsets() {
    on_each_disk(|_, directory| {
        let file = directory.create("log").expect("a new file");
        file.write_all_at(b"world", 2_006).expect("room");
        file.write_all_at(b"hello", 0).expect("room");
        assert_eq!(file.write_at(b"", 9_999).expect("nothing to do"), 0);
        assert_eq!(file.len().expect("a length"), 2_011);
        let bytes = contents(&file);
        assert_eq!((&bytes[..5], &bytes[2_006..]), (&b"hello"[..], &b"world"[..]));
        assert!(bytes[5..2_006].iter().all(|byte| *byte == 0), "the gap is zeros");
        let mut buffer = [7; 10];
        let count = file.read_at(&mut buffer, 2_009).expect("two bytes, or one");
        assert!((1..=2).contains(&count), "{count}");
        assert_eq!((&buffer[..count], &buffer[count..]), (&b"ld"[..count], &[7; 10][count..]));
        for beyond in [2_011, 5_000] {
            assert_eq!(file.read_at(&mut buffer, beyond).expect("the end"), 0);
        }
        assert_eq!(kind(file.read_exact_at(&mut buffer, 2_009)), Some(ErrorKind::UnexpectedEof));
    });
}

#[test]
fn a_length_is_set_in_both_directions() {
    on_each_disk(|_, directory| {
        let file = directory.create("log").expect("a new file");
        file.write_all_at(b"hello", 0).expect("room");
        file.set_len(2).expect("shorter");
        assert_eq!(contents(&file), b"he");
        file.set_len(6).expect("longer");
        assert_eq!(contents(&file), b"he\0\0\0\0", "what was cut off does not come back");
        file.sync_data().expect("a working disk");
    });
}

#[test]
fn allocating_extends_and_never_shortens() {
    on_each_disk(|_, directory| {
        let file = directory.create("log").expect("a new file");
        file.allocate(0).expect("nothing to do");
        file.write_all_at(b"hello", 0).expect("room");
        file.allocate(10_000).expect("space");
        assert_eq!(file.len().expect("a length"), 10_000);
        file.allocate(3).expect("nothing to do");
        assert_eq!(file.len().expect("a length"), 10_000);
        let bytes = contents(&file);
        assert_eq!(&bytes[..5], b"hello");
        assert!(bytes[5..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn one_lock_is_held_at_a_time() {
    on_each_disk(|disk, directory| {
        let lock = directory.lock("lock").expect("it is free");
        let again = disk.open_dir(directory.path()).expect("it exists");
        assert_eq!(kind(again.lock("lock")), Some(ErrorKind::WouldBlock));
        let _other = again.lock("other").expect("another file is another lock");
        drop(lock);
        let lock = again.lock("lock").expect("it is free again");
        // An open file holds no lock.
        let file = again.open("lock").expect("it exists");
        drop(lock);
        let _lock = again.lock("lock").expect("it is free again");
        drop(file);
        assert_eq!(directory.list().expect("a list"), ["lock", "other"], "the files of locks stay");
    });
}

#[test]
fn a_lock_is_waited_for() {
    let folder = Folder::new();
    let directory = Disk::system().open_dir(&folder.0).expect("a folder");
    let lock = directory.lock("lock").expect("it is free");
    assert_eq!(kind(directory.lock_within("lock", Duration::ZERO)), Some(ErrorKind::WouldBlock));
    let other = std::thread::spawn(move || drop(lock));
    directory.lock_within("lock", Duration::from_secs(60)).expect("it is free soon");
    other.join().expect("no panic");

    let directory = Simulation::new(1).disk().disk().open_dir("data").expect("a folder");
    let _lock = directory.lock("lock").expect("it is free");
    assert_eq!(kind(directory.lock_within("lock", Duration::from_secs(60))), Some(ErrorKind::WouldBlock));
}

#[test]
fn a_folder_is_no_file_and_a_file_is_no_folder() {
    on_each_disk(|disk, directory| {
        disk.open_dir(directory.path().join("folder")).expect("a folder below");
        directory.create("file").expect("a new file");
        assert_eq!(kind(directory.create("folder")), Some(ErrorKind::AlreadyExists));
        assert!(directory.open("folder").is_err() && directory.remove("folder").is_err());
        assert!(directory.rename("file", "folder").is_err() && directory.lock("folder").is_err());
        assert!(disk.open_dir(directory.path().join("file")).is_err());
        assert!(disk.open_dir(directory.path().join("file/below")).is_err());
        assert_eq!(directory.list().expect("a list"), ["file"]);
    });
}

#[test]
fn threads_share_a_file() {
    on_each_disk(|_, directory| {
        let file = directory.create("log").expect("a new file");
        std::thread::scope(|scope| {
            for number in 0..4_u8 {
                let file = &file;
                scope.spawn(move || file.write_all_at(&[number; 1_000], u64::from(number) * 1_000).expect("room"));
            }
        });
        let bytes = contents(&file);
        assert_eq!(bytes.len(), 4_000);
        assert!(bytes.chunks(1_000).zip(0..).all(|(part, number)| part.iter().all(|byte| *byte == number)));
    });
}
