//! The process's limit of open files, which bounds its connections.

#[cfg(unix)]
use ccomet::Config;

#[cfg(unix)]
const BELOW: &str = "the limit of open files (ulimit -Hn, LimitNOFILE=) is below limits.connections_max: connections beyond it wait \
                     in the kernel until others close";

/// Raises the soft limit of open files to the hard limit, and logs whether that is below the number
/// of connections that the settings allow: as a warning, if that number was chosen explicitly.
#[cfg(unix)]
pub(crate) fn raise_limit(connections_max: usize) {
    if sealed::fault!("soft-limit-not-raised") {
        return;
    }
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < connections_max as u64 => {
            let is_default = connections_max == Config::default().limits.connections_max;
            if is_default {
                tracing::info!(limit, connections_max, "{BELOW}");
            } else {
                tracing::warn!(limit, connections_max, "{BELOW}");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

/// Leaves the limit unchanged: this system has no such limit.
#[cfg(not(unix))]
pub(crate) fn raise_limit(_: usize) {}
