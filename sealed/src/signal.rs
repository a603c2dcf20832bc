//! Signals of the process, delivered as readiness of pipes.

#[cfg(unix)]
mod imp {
    use std::io::{self, Read};
    use std::os::unix::net::UnixStream;

    use signal_hook::consts::{FORBIDDEN, SIGINT, SIGTERM};

    /// Becomes readable when one of the requested signals arrives.
    #[derive(Debug, Default)]
    pub(crate) struct Signals {
        stops: Option<mio::net::UnixStream>,
        delivered: Vec<(i32, mio::net::UnixStream)>,
    }

    impl Signals {
        /// Catches the signals that ask the process to stop.
        pub(crate) fn catch_stops(&mut self, registry: &mio::Registry, token: usize) -> io::Result<()> {
            self.stops = Some(catch(&[SIGINT, SIGTERM], registry, token)?);
            Ok(())
        }

        /// Catches a signal for delivery to the service.
        pub(crate) fn catch(&mut self, signal: i32, registry: &mio::Registry, token: usize) -> io::Result<()> {
            if FORBIDDEN.contains(&signal) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "this signal cannot be caught"));
            }
            if self.delivered.iter().all(|(held, _)| *held != signal) {
                self.delivered.push((signal, catch(&[signal], registry, token)?));
            }
            Ok(())
        }

        /// Returns how many stop signals have arrived since the last call.
        pub(crate) fn take_stops(&mut self) -> usize {
            self.stops.as_mut().map_or(0, count)
        }

        /// Appends the other signals that have arrived since the last call to `into`, each once.
        pub(crate) fn take(&mut self, into: &mut Vec<i32>) {
            for (signal, pipe) in &mut self.delivered {
                if count(pipe) > 0 {
                    into.push(*signal);
                }
            }
        }
    }

    fn catch(signals: &[i32], registry: &mio::Registry, token: usize) -> io::Result<mio::net::UnixStream> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
        }
        let mut reader = mio::net::UnixStream::from_std(reader);
        registry.register(&mut reader, mio::Token(token), mio::Interest::READABLE)?;
        Ok(reader)
    }

    fn count(pipe: &mut mio::net::UnixStream) -> usize {
        let mut bytes = [0; 64];
        let mut count = 0;
        while let Ok(read @ 1..) = pipe.read(&mut bytes) {
            count += read;
        }
        count
    }
}

#[cfg(not(unix))]
mod imp {
    use std::io;

    /// Signals can be caught on Unix only.
    #[derive(Debug, Default)]
    pub(crate) struct Signals;

    #[allow(clippy::unused_self)] // as on Unix
    impl Signals {
        pub(crate) fn catch_stops(&mut self, _: &mio::Registry, _: usize) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn catch(&mut self, _: i32, _: &mio::Registry, _: usize) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn take_stops(&mut self) -> usize {
            0
        }

        pub(crate) fn take(&mut self, _: &mut Vec<i32>) {}
    }
}

pub(crate) use imp::Signals;
