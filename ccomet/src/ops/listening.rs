//! Listeners: the permissions of the files of Unix sockets, and what operators can do about a
//! listener that cannot be opened.

use std::io;
use std::path::Path;

/// Sets the permissions of the file of a Unix socket.
#[cfg(unix)]
pub(crate) fn permit(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Returns an error: this system has no such permissions.
#[cfg(not(unix))]
pub(crate) fn permit(_: &Path, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns whether there is something at a path that is not a socket.
#[cfg(unix)]
fn is_no_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;

    std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

#[cfg(not(unix))]
fn is_no_socket(_: &Path) -> bool {
    false
}

/// Returns what to do about a listener that cannot be opened, after a colon; empty if that is
/// unknown.
pub(crate) fn hint(error: &sealed::Error) -> &'static str {
    let sealed::Error::Listen { source, address } = error else { return "" };
    let path = address.strip_prefix("unix:").map(Path::new);
    match source.kind() {
        io::ErrorKind::AddrInUse if path.is_some_and(is_no_socket) => {
            ": there is a file, a directory or a symbolic link at this path that is no socket. Remove it, or choose \
             another path"
        }
        io::ErrorKind::InvalidInput if path.is_some() => {
            ": the path of a Unix socket has at most 107 bytes (on some systems 103). Choose a shorter path"
        }
        io::ErrorKind::AddrInUse => {
            ": another program, perhaps another ccomet, uses this address. Stop that program, or choose another address"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": this machine does not have this address. Choose one that it has, or 0.0.0.0"
        }
        io::ErrorKind::PermissionDenied => {
            ": a port below 1024 needs the capability CAP_NET_BIND_SERVICE, and a Unix socket a directory to which the \
             server may write"
        }
        io::ErrorKind::NotFound => ": the directory of the Unix socket does not exist. Create it",
        _ => "",
    }
}
