//! The operating system's network, through mio.

mod clock;
mod datagram;
#[cfg(unix)]
mod descriptor;
mod poller;
mod socket;

pub(crate) use clock::Clock;
pub(crate) use datagram::DatagramSocket;
#[cfg(unix)]
pub(crate) use descriptor::set_nonblocking;
pub(crate) use poller::{Poller, Registry, Waker};
pub(crate) use socket::{Listener, Stream, reserve_port};

/// Returns 64 random bits from the operating system.
///
/// If there is no random source, returns bits of the clock: the result seeds jitter and ids, never
/// keys.
pub(crate) fn entropy() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let since_epoch = Clock::start().unix_time();
        since_epoch.as_nanos() as u64
    })
}

/// Returns 128 random bits from the operating system, or `None`: secrets have no fallback.
pub(crate) fn secret() -> Option<[u8; 16]> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).is_ok().then_some(bits)
}

/// Pins this thread to one of the processors that it may use: the processor with this index, modulo
/// their number.
#[cfg(all(feature = "pin", target_os = "linux"))]
pub(crate) fn pin_to_processor(index: usize) -> std::io::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let allowed = sched_getaffinity(None)?;
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect();
    let mut only = CpuSet::new();
    only.set(processors[index % processors.len().max(1)]);
    Ok(sched_setaffinity(None, &only)?)
}

/// Leaves the thread where it is: outside Linux, the system places the threads.
#[cfg(all(feature = "pin", not(target_os = "linux")))]
#[allow(clippy::unnecessary_wraps)] // as on Linux
pub(crate) fn pin_to_processor(_: usize) -> std::io::Result<()> {
    Ok(())
}
