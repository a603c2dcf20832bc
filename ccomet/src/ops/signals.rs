//! Signals that the server catches in addition to those that stop it: SIGHUP reloads the settings,
//! and the others are logged.

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};

/// Signals that would end the process by default, and that operators send to reload settings or to
/// reopen logs.
#[cfg(unix)]
pub(crate) const CAUGHT: &[i32] = &[SIGHUP, SIGUSR1, SIGUSR2];
#[cfg(not(unix))]
pub(crate) const CAUGHT: &[i32] = &[];

/// Returns whether a signal reloads the settings.
pub(crate) fn is_reload(signal: i32) -> bool {
    CAUGHT.first() == Some(&signal)
}

/// Returns the name of a signal.
#[cfg(unix)]
pub(crate) fn name(signal: i32) -> &'static str {
    match signal {
        SIGHUP => "SIGHUP",
        SIGUSR1 => "SIGUSR1",
        SIGUSR2 => "SIGUSR2",
        _ => "a signal",
    }
}

/// Returns the name of a signal. No signal is delivered on this system.
#[cfg(not(unix))]
pub(crate) fn name(_: i32) -> &'static str {
    "a signal"
}
