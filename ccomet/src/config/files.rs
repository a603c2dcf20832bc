//! Files that the settings name, and the file of the settings. None of them can occupy the memory,
//! or hold up the thread that reads it, without a bound.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Reads a regular file of at most so many bytes. A pipe or a device, which could keep its reader
/// waiting forever, is an error, and so is a longer file.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is a pipe or a device, and has to be a regular file: reading it might never end",
        ));
    }
    read_any(path, bytes_max)
}

/// Reads a file, a pipe or a device that ends after at most so many bytes. Waits until it ends.
pub(crate) fn read_any(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let message = format!("it is longer than {bytes_max} bytes, and was probably named by mistake");
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}
