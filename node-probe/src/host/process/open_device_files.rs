//! Finds the processes that have a GPU's device file open (`scan`, `held_by`). Source: the links in `/proc/*/fd`.
//!
//! A reset needs a GPU that no process has open. NVML's lists do not include processes without a context: monitors,
//! persistenced, or a container that only opened the device. Limits: the path is read, not the device number.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{bounded, files};

/// Time for the scan. A node with 3,000 processes and 100,000 descriptors takes about 0.2 s. After this time the scan
/// stops.
const TIME: Duration = Duration::from_secs(2);

/// Maximum number of GPUs of one process. Device files in the `/dev` of a container can have any number.
const MAX_MINORS: usize = 128;

/// Number of descriptors between two checks of the clock.
const BETWEEN_CHECKS: usize = 512;

/// The result of the scan.
#[derive(Debug, Default)]
pub(in crate::host) struct Holders {
    /// Minor numbers of the GPU device files that each process has open.
    pub(in crate::host) held: BTreeMap<u32, BTreeSet<u32>>,
    /// Number of processes that could not be read (the probe is not root).
    pub(in crate::host) refused: usize,
    /// Number of processes that were not read in time.
    pub(in crate::host) skipped: usize,
}

/// Reads the descriptors of every process except this one.
pub(in crate::host) fn scan(proc: &Path) -> io::Result<Holders> {
    let started = Instant::now();
    let pids = files::pids(proc)?;
    let mut holders = Holders::default();
    for (done, &pid) in pids.iter().enumerate() {
        if started.elapsed() > TIME {
            holders.skipped = pids.len() - done;
            break;
        }
        if pid == std::process::id() {
            continue;
        }
        match minors(&proc.join(pid.to_string()).join("fd"), started) {
            Ok((minors, complete)) => {
                holders.skipped += usize::from(!complete);
                if !minors.is_empty() {
                    holders.held.insert(pid, minors);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => holders.refused += 1,
            // This error is a problem of the section.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            // The process has exited.
            Err(_) => {}
        }
    }
    Ok(holders)
}

/// Returns the minor numbers of the GPU device files that one process has open now.
pub(in crate::host) fn held_by(proc: &Path, pid: u32) -> io::Result<BTreeSet<u32>> {
    let (minors, complete) = minors(&proc.join(pid.to_string()).join("fd"), Instant::now())?;
    if complete { Ok(minors) } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// Returns the minor numbers in a `/proc/PID/fd`, and whether all descriptors were read in time.
fn minors(folder: &Path, started: Instant) -> io::Result<(BTreeSet<u32>, bool)> {
    let at = folder.to_owned();
    bounded::in_time(folder, move || {
        let mut minors = BTreeSet::new();
        for (number, entry) in fs::read_dir(at)?.enumerate() {
            if number % BETWEEN_CHECKS == BETWEEN_CHECKS - 1 && started.elapsed() > TIME {
                return Ok((minors, false));
            }
            let target = fs::read_link(entry?.path());
            minors.extend(target.ok().and_then(|target| minor(target.to_str()?)));
            if minors.len() > MAX_MINORS {
                return Ok((minors, false));
            }
        }
        Ok((minors, true))
    })
}

/// Returns 3 for `/dev/nvidia3`, also below another root or if the file was deleted.
fn minor(target: &str) -> Option<u32> {
    let target = target.strip_suffix(" (deleted)").unwrap_or(target);
    let digits = target.rsplit_once("/dev/nvidia")?.1;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) { None } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn only_device_files_of_gpus_count() {
        for (target, expected) in [
            ("/dev/nvidia0", Some(0)),
            ("/dev/nvidia12", Some(12)),
            ("/run/nvidia/driver/dev/nvidia3", Some(3)),
            ("/dev/nvidia3 (deleted)", Some(3)),
            ("/dev/nvidiactl", None),
            ("/dev/nvidia-uvm", None),
            ("/dev/nvidia", None),
            ("/home/dev/nvidia3.log", None),
            ("socket:[1234]", None),
        ] {
            assert_eq!(minor(target), expected, "{target}");
        }
    }

    #[test]
    fn a_process_that_only_holds_the_device_is_found() {
        let tree = Tree::new();
        tree.link("proc/700/fd/4", "/dev/nvidia1")
            .link("proc/700/fd/5", "/dev/nvidia1")
            .link("proc/700/fd/6", "/dev/nvidia0");
        tree.link("proc/800/fd/0", "/dev/null").folder("proc/900");
        tree.link(&format!("proc/{}/fd/3", std::process::id()), "/dev/nvidia0");
        let holders = scan(&tree.paths().proc).expect("proc is there");
        assert_eq!(holders.held, BTreeMap::from([(700, BTreeSet::from([0, 1]))]));
        assert_eq!((holders.refused, holders.skipped), (0, 0));
    }
}
