//! `scan`, `held_by`: find the processes that have a GPU's device file open. Source: the links in `/proc/*/fd`.
//!
//! A GPU can only be reset if no process has it open. NVML's lists do not include processes without a context:
//! monitors, persistenced, or a container that only opened the device. The device number of the open file is compared,
//! because a tenant can name any file `/dev/nvidia0`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::io::Errno;

use super::read_stat;
use crate::paths::Paths;
use crate::{bounded, files};

/// Maximum time for the scan, which then stops. A node with 3,000 processes and 100,000 descriptors takes about 0.2 s.
const TIME: Duration = Duration::from_secs(2);

/// Maximum number of GPUs of one process. Device files in the `/dev` of a container can have any number.
const MAX_MINORS: usize = 128;

/// Major device number of the NVIDIA driver, which the kernel reserves for it.
const MAJOR: u32 = 195;
/// Names of the driver's devices in `/proc/devices`, with the major number of the GPUs.
const NAMES: [&str; 3] = ["nvidia", "nvidia-frontend", "nvidiactl"];
/// The first minor number that is not a GPU (nvidia-modeset, nvidiactl).
const FIRST_OTHER: u32 = 254;

/// Number of descriptors between two checks of the clock.
const BETWEEN_CHECKS: usize = 512;

/// The result of the scan.
#[derive(Debug, Default)]
pub(in crate::host) struct Holders {
    /// Minor numbers of the GPU device files that each process has open.
    pub(in crate::host) held: BTreeMap<u32, BTreeSet<u32>>,
    /// Number of processes that could not be read (the probe is not root).
    pub(in crate::host) refused: usize,
    /// Number of processes that were not read completely: not in time, or without a free descriptor.
    pub(in crate::host) skipped: usize,
}

/// The property that identifies an open file as the device file of a GPU.
#[derive(Clone, Debug)]
enum Gpus {
    /// A character device with one of these major numbers.
    Numbers(Vec<u32>),
    /// The path, in a saved tree.
    Paths,
}

impl Gpus {
    fn of(paths: &Paths) -> Self {
        if paths.is_saved_tree() { Self::Paths } else { Self::Numbers(majors(&paths.proc)) }
    }

    /// Returns the minor number of the GPU that a descriptor has open, from its link in `/proc/PID/fd`.
    fn minor(&self, link: &Path) -> Option<u32> {
        let path = || minor(fs::read_link(link).ok()?.to_str()?);
        let Self::Numbers(majors) = self else { return path() };
        // Reading the link opens no file, and sends no request to a file system that a tenant provides.
        let wanted = StatxFlags::TYPE;
        match statx(CWD, link, AtFlags::STATX_DONT_SYNC, wanted) {
            Ok(file) => {
                let is_device = FileType::from_raw_mode(file.stx_mode.into()) == FileType::CharacterDevice;
                let is_gpu = is_device && majors.contains(&file.stx_rdev_major) && file.stx_rdev_minor < FIRST_OTHER;
                is_gpu.then_some(file.stx_rdev_minor)
            }
            Err(Errno::ACCESS | Errno::PERM) => path(),
            Err(_) => None,
        }
    }
}

/// Returns the major device numbers of the driver.
fn majors(proc: &Path) -> Vec<u32> {
    let text = files::text(&proc.join("devices")).unwrap_or_default();
    let characters = text.split("Block devices").next().unwrap_or_default();
    let of_driver = characters.lines().filter_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        NAMES.contains(&name.trim()).then(|| number.parse().ok())?
    });
    let mut majors: Vec<u32> = of_driver.collect();
    majors.push(MAJOR);
    majors
}

/// Reads the descriptors of every process except this process and its child processes, of which one calls NVML.
pub(in crate::host) fn scan(paths: &Paths) -> io::Result<Holders> {
    let (proc, gpus) = (&paths.proc, Gpus::of(paths));
    let started = Instant::now();
    let pids = files::pids(proc)?;
    let own = std::process::id();
    let is_own_child = |pid: u32| read_stat(proc, pid).is_some_and(|stat| stat.parent == Some(own));
    let mut holders = Holders::default();
    for (done, &pid) in pids.iter().enumerate() {
        if started.elapsed() > TIME {
            holders.skipped = pids.len() - done;
            break;
        }
        if pid == own {
            continue;
        }
        match minors(&proc.join(pid.to_string()).join("fd"), &gpus, started) {
            Ok((minors, complete)) => {
                holders.skipped += usize::from(!complete);
                if !minors.is_empty() && !is_own_child(pid) {
                    holders.held.insert(pid, minors);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => holders.refused += 1,
            // A timeout is reported separately, as a problem of the section.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) if files::has_exited(&error) => {}
            // The probe has no descriptor or no memory left: the process may have a GPU open.
            Err(_) => holders.skipped += 1,
        }
    }
    Ok(holders)
}

/// Returns the minor numbers of the GPU device files that one process has open now.
pub(in crate::host) fn held_by(paths: &Paths, pid: u32) -> io::Result<BTreeSet<u32>> {
    let folder = paths.proc.join(pid.to_string()).join("fd");
    let (minors, complete) = minors(&folder, &Gpus::of(paths), Instant::now())?;
    if complete { Ok(minors) } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// Returns the minor numbers of the GPU device files that a `/proc/PID/fd` folder lists, and whether all descriptors
/// were read in time.
fn minors(folder: &Path, gpus: &Gpus, started: Instant) -> io::Result<(BTreeSet<u32>, bool)> {
    let (at, gpus) = (folder.to_owned(), gpus.clone());
    bounded::in_time(folder, move || {
        let mut minors = BTreeSet::new();
        for (number, entry) in fs::read_dir(at)?.enumerate() {
            if number % BETWEEN_CHECKS == BETWEEN_CHECKS - 1 && started.elapsed() > TIME {
                return Ok((minors, false));
            }
            minors.extend(gpus.minor(&entry?.path()));
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

    /// A tenant can give any file the name of a GPU's device file, and can give a GPU's device file any name.
    #[test]
    fn the_device_number_decides_and_not_the_name() {
        let tree = Tree::new();
        tree.file("proc/devices", "Character devices:\n  1 nvidia\n  5 nvidia-uvm\n\nBlock devices:\n  8 nvidia\n");
        assert_eq!(majors(&tree.paths().proc), [1, MAJOR]);
        let plain = tree.file("tmp/dev/nvidia0", "").path().join("tmp/dev/nvidia0");
        tree.link("tmp/gpu", "/dev/zero");
        tree.link("proc/700/fd/3", plain.to_str().expect("UTF-8"));
        // /dev/null is 1:3, /dev/zero 1:5 and /dev/tty 5:0.
        tree.link("proc/700/fd/4", "/dev/null")
            .link("proc/700/fd/5", tree.path().join("tmp/gpu").to_str().expect("UTF-8"));
        tree.link("proc/700/fd/6", "/dev/tty").link("proc/700/fd/7", "/nowhere/dev/nvidia9");
        let folder = tree.path().join("proc/700/fd");
        let found = minors(&folder, &Gpus::Numbers(vec![1, MAJOR]), Instant::now()).expect("it can be read");
        assert_eq!(found, (BTreeSet::from([3, 5]), true));
    }

    #[test]
    fn a_process_that_only_holds_the_device_is_found() {
        let tree = Tree::new();
        tree.link("proc/700/fd/4", "/dev/nvidia1")
            .link("proc/700/fd/5", "/dev/nvidia1")
            .link("proc/700/fd/6", "/dev/nvidia0");
        tree.link("proc/800/fd/0", "/dev/null").folder("proc/900");
        let own = std::process::id();
        tree.link(&format!("proc/{own}/fd/3"), "/dev/nvidia0");
        // The child process that calls NVML, on a real driver.
        tree.link("proc/901/fd/5", "/dev/nvidia0").file("proc/901/stat", format!("901 (exe) R {own} 1 1 0 -1 0 0"));
        tree.file("proc/800/stat", "800 (x) S 1 1 1 0 -1 0 0");
        let holders = scan(&tree.paths()).expect("proc is there");
        assert_eq!(holders.held, BTreeMap::from([(700, BTreeSet::from([0, 1]))]));
        assert_eq!((holders.refused, holders.skipped), (0, 0));
    }

    /// Without a free descriptor, a folder cannot be opened.
    #[test]
    fn a_process_whose_descriptors_cannot_be_read_has_not_exited() {
        let tree = Tree::new();
        tree.link("proc/700/fd", "fd").folder("proc/800");
        let holders = scan(&tree.paths()).expect("proc is there");
        assert_eq!((holders.held.len(), holders.skipped), (0, 1));
    }
}
