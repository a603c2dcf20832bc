//! SIGHUP while the server starts: by default, it would end the process.

#[cfg(unix)]
mod imp {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use signal_hook::consts::SIGHUP;

    /// Holds SIGHUP until the server can reload its settings.
    pub(crate) struct HangUps(Arc<AtomicBool>);

    impl HangUps {
        /// Holds each SIGHUP from now on.
        pub(crate) fn hold() -> io::Result<Self> {
            let has_come = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(SIGHUP, has_come.clone())?;
            Ok(Self(has_come))
        }

        /// Delivers SIGHUP again if it has come: the settings may have changed since they were
        /// read. The server has to catch it by now.
        pub(crate) fn deliver(&self) -> io::Result<()> {
            if self.0.load(Ordering::SeqCst) { signal_hook::low_level::raise(SIGHUP) } else { Ok(()) }
        }
    }
}

#[cfg(not(unix))]
mod imp {
    /// This system has no SIGHUP.
    pub(crate) struct HangUps;

    impl HangUps {
        #[allow(clippy::unnecessary_wraps)] // as on Unix
        pub(crate) fn hold() -> std::io::Result<Self> {
            Ok(Self)
        }

        #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // as on Unix
        pub(crate) fn deliver(&self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

pub(crate) use imp::HangUps;
