//! SIGINT and SIGTERM, as readiness of a pipe.

#[cfg(unix)]
mod imp {
    use std::io::{self, Read};

    use signal_hook::consts::{SIGINT, SIGTERM};

    /// Becomes readable when the process is asked to stop.
    #[derive(Debug)]
    pub(crate) struct Signals(mio::net::UnixStream);

    impl Signals {
        pub(crate) fn catch(registry: &mio::Registry, token: usize) -> io::Result<Self> {
            let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            for signal in [SIGINT, SIGTERM] {
                signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
            }
            let mut reader = mio::net::UnixStream::from_std(reader);
            registry.register(&mut reader, mio::Token(token), mio::Interest::READABLE)?;
            Ok(Self(reader))
        }

        /// How many signals came since the last call.
        pub(crate) fn take(&mut self) -> usize {
            let mut bytes = [0; 64];
            let mut count = 0;
            while let Ok(read @ 1..) = self.0.read(&mut bytes) {
                count += read;
            }
            count
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use std::io;

    /// Signals are caught on Unix only.
    #[derive(Debug)]
    pub(crate) struct Signals;

    impl Signals {
        pub(crate) fn catch(_: &mio::Registry, _: usize) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn take(&mut self) -> usize {
            0
        }
    }
}

pub(crate) use imp::Signals;
