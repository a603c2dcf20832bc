//! Descriptors of objects that the crate does not know.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use mio::unix::SourceFd;
use socket2::SockRef;

use super::Registry;
use crate::source::Interest;

impl Registry {
    pub(crate) fn add_descriptor(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        let added = self.0.register(&mut SourceFd(&fd.as_raw_fd()), mio::Token(token), kinds(interest));
        added.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                io::Error::new(error.kind(), "a file of this kind is always ready, so no loop can wait for it")
            }
            _ => error,
        })
    }

    /// Changes the interest in a descriptor, or adds the descriptor if it is not registered.
    pub(crate) fn change_descriptor(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        match self.0.reregister(&mut SourceFd(&fd.as_raw_fd()), mio::Token(token), kinds(interest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.add_descriptor(fd, token, interest),
            other => other,
        }
    }

    pub(crate) fn remove_descriptor(&self, fd: BorrowedFd<'_>) {
        // This fails only if the descriptor is not registered: its object has another one now.
        let _ = self.0.deregister(&mut SourceFd(&fd.as_raw_fd()));
    }
}

fn kinds(interest: Interest) -> mio::Interest {
    match interest {
        Interest { readable: true, writable: true } => mio::Interest::READABLE | mio::Interest::WRITABLE,
        Interest { readable: false, .. } => mio::Interest::WRITABLE,
        Interest { .. } => mio::Interest::READABLE,
    }
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, is_nonblocking: bool) -> io::Result<()> {
    // On Unix this is a flag of any file, not only of a socket.
    SockRef::from(&fd).set_nonblocking(is_nonblocking)
}
