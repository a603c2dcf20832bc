//! What the operating system reports about the process: on Linux, in the files of `/proc/self`,
//! which are in memory. Reading them takes microseconds.

#[cfg(target_os = "linux")]
use std::fs;

/// The figures of the process.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))] // elsewhere there are none
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pub(super) cpu_s: f64,
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
    /// Open descriptors, if the system counts them: to count a million of them here takes too long.
    pub(super) descriptors: Option<u64>,
    pub(super) descriptors_max: Option<u64>,
}

#[cfg(not(target_os = "linux"))]
impl Process {
    pub(super) fn read() -> Option<Self> {
        None
    }
}

/// The ticks of a second in which Linux reports processor time, on all architectures that it has
/// today.
#[cfg(target_os = "linux")]
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(target_os = "linux")]
impl Process {
    /// Reads the figures; `None` if there are none.
    pub(super) fn read() -> Option<Self> {
        let text = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        let (stat, status) = (text("stat")?, text("status")?);
        let resident_kib = number_after(&status, "VmRSS:")?;
        // A system without this count reports a size of 0.
        let descriptors = fs::metadata("/proc/self/fd").ok().map(|folder| folder.len()).filter(|count| *count > 0);
        Some(Self {
            cpu_s: cpu_s(&stat)?,
            resident_bytes: resident_kib * 1_024,
            threads: number_after(&status, "Threads:")?,
            descriptors,
            descriptors_max: text("limits").and_then(|limits| number_after(&limits, "Max open files")),
        })
    }
}

/// Returns the number behind a name at the beginning of a line.
#[cfg(target_os = "linux")]
fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Returns the processor time in the text of `stat`. The name of the program, in parentheses, may
/// contain anything.
#[cfg(target_os = "linux")]
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok().map(f64::from);
    Some((next()? + next()?) / TICKS_PER_SECOND)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_matter() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 9 1 1";
        assert_eq!(cpu_s(stat), Some(3.0));
        assert_eq!(cpu_s("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let process = Process::read().expect("figures");
        assert!(process.resident_bytes > 1 << 20 && process.threads > 0 && process.descriptors_max > Some(0));
    }
}
