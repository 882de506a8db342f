//! `read`: reads the state of the host: file systems, RAID arrays, clock, limits, CPUs, pressure, kernel taint.

mod clock;
mod cpus;
mod file_systems;

use std::path::Path;

use syringe_core::facts::host_levels::{DegradedArray, HostLevels, Level, Limits, Pressure};
use syringe_core::text::clean;

use crate::host::process::daemons::Named;
use crate::paths::{Owner, Paths};
use crate::{bounded, files};

/// Maximum number of degraded arrays in the report.
const MAX_ARRAYS: usize = 8;

/// A larger value means that there is no limit: systemd sets the number of open files to 2⁶³ - 1.
const MAX_LIMIT: u64 = 1 << 40;

/// Reads the state of the host. `None` if the file system belongs to a workload.
pub(super) fn read(paths: &Paths, named: &[Named]) -> Option<HostLevels> {
    if paths.owner == Owner::Workload {
        return None;
    }
    let mdstat = files::text(&paths.proc.join("mdstat")).unwrap_or_default();
    let mut degraded_arrays = degraded_arrays(&mdstat);
    bounded::cut(&mut degraded_arrays, MAX_ARRAYS, "degraded arrays");
    Some(HostLevels {
        file_systems: file_systems::read(paths),
        degraded_arrays,
        clock: clock::read(paths, named),
        limits: limits(&paths.proc),
        cpus: cpus::read(paths),
        sockets: cpus::sockets(paths),
        pressure: pressure(&paths.proc),
        kernel_taint: files::number(&paths.proc.join("sys/kernel/tainted")),
    })
}

/// Parses `/proc/mdstat`. The line `… [devices/working] [U_]` follows the line with the name of the array.
fn degraded_arrays(mdstat: &str) -> Vec<DegradedArray> {
    let mut arrays: Vec<DegradedArray> = Vec::new();
    let mut current: Option<(&str, Option<&str>)> = None;
    for line in mdstat.lines() {
        if let Some((name, rest)) = line.split_once(" : ") {
            let mut words = rest.split_whitespace();
            let is_array = name.starts_with("md") && words.next() == Some("active");
            current = is_array.then(|| (name, words.find(|word| word.starts_with("raid"))));
        } else if let Some((name, level)) = current {
            if let Some((devices, working)) = line.split_whitespace().find_map(devices_of).filter(|(all, up)| up < all)
            {
                arrays.push(DegradedArray {
                    name: clean(name, 32),
                    level: level.map(|level| clean(level, 16)),
                    devices,
                    working,
                    is_rebuilding: false,
                });
            }
            let is_of_last = arrays.last().is_some_and(|array| array.name == name);
            if let Some(last) = arrays.last_mut().filter(|_| is_of_last && line.contains("recovery =")) {
                last.is_rebuilding = true;
            }
        }
    }
    arrays
}

/// Parses `[2/1]`.
fn devices_of(word: &str) -> Option<(u32, u32)> {
    let (devices, working) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
    Some((devices.parse().ok()?, working.parse().ok()?))
}

fn limits(proc: &Path) -> Option<Limits> {
    let number = |path: &str| files::number::<u64>(&proc.join("sys").join(path));
    let threads = files::text(&proc.join("loadavg"))
        .and_then(|text| text.split(' ').nth(3)?.split_once('/')?.1.parse().ok())
        .zip(number("kernel/threads-max").into_iter().chain(number("kernel/pid_max")).min());
    let open_files = files::text(&proc.join("sys/fs/file-nr")).and_then(|text| {
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.nth(1)?.ok()?))
    });
    let connections = number("net/netfilter/nf_conntrack_count").zip(number("net/netfilter/nf_conntrack_max"));
    let is_limit = |pair: &(u64, u64)| pair.1 <= MAX_LIMIT;
    let level = |pair: Option<(u64, u64)>| pair.filter(is_limit).map(|(used, limit)| Level { used, limit });
    let limits = Limits { threads: level(threads), open_files: level(open_files), connections: level(connections) };
    (limits != Limits::default()).then_some(limits)
}

/// Returns the pressure of the last five minutes, without values below one percent.
fn pressure(proc: &Path) -> Option<Pressure> {
    let percent = |name: &str| {
        let text = files::text(&proc.join("pressure").join(name))?;
        let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
        let average = full.split(' ').find_map(|word| word.strip_prefix("avg300="))?;
        average.split('.').next()?.parse::<u32>().ok().filter(|percent| (1..=100).contains(percent))
    };
    let pressure = Pressure { memory_percent: percent("memory"), io_percent: percent("io") };
    (pressure != Pressure::default()).then_some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn only_arrays_with_missing_devices_are_reported() {
        let mdstat = "Personalities : [raid1] [raid6] [raid0]\n\
            md127 : active raid0 nvme2n1[1] nvme1n1[0]\n      7501212672 blocks super 1.2 512k chunks\n\n\
            md0 : active raid1 sdb1[1] sda1[0]\n      1046528 blocks super 1.2 [2/2] [UU]\n      [=>...]  resync = 5.0% (1/2)\n\n\
            md1 : active (auto-read-only) raid1 sda2[0]\n      1046528 blocks super 1.2 [2/1] [U_]\n      bitmap: 1/2 pages\n\n\
            md2 : active raid6 sdc[0] sdd[1]\n      5 blocks level 6, 512k chunk, algorithm 2 [4/3] [UUU_]\n      \
            [==>..]  recovery = 12.6% (37043392/292945152) finish=127.5min speed=33440K/sec\n\n\
            md3 : inactive sde[0](S)\n      5 blocks [2/1]\n\nunused devices: <none>\n";
        let found = degraded_arrays(mdstat);
        let short: Vec<(&str, Option<&str>, u32, u32, bool)> = found
            .iter()
            .map(|array| {
                (array.name.as_str(), array.level.as_deref(), array.devices, array.working, array.is_rebuilding)
            })
            .collect();
        assert_eq!(short, [("md1", Some("raid1"), 2, 1, false), ("md2", Some("raid6"), 4, 3, true)]);
        for rubbish in [
            "",
            "md0 : active",
            "md0 : active raid1\n[/]\n[x/1]\n[-1/2] [99999999999/1]\n",
            "\u{1b}[2J : active\n[2/1]",
        ] {
            assert_eq!(degraded_arrays(rubbish), [], "{rubbish:?}");
        }
    }

    #[test]
    fn limits_and_pressure_are_read_where_the_kernel_has_them() {
        let tree = Tree::new();
        tree.file("proc/loadavg", "0.52 0.58 0.59 2/31000 4242\n").file("proc/sys/kernel/threads-max", "900000\n");
        tree.file("proc/sys/kernel/pid_max", "32768\n").file("proc/sys/fs/file-nr", "1200\t0\t2466170\n");
        tree.file(
            "proc/pressure/memory",
            "some avg10=9.00 avg60=9.00 avg300=9.00 total=9\nfull avg10=1.00 avg60=40.10 avg300=31.99 total=5\n",
        );
        tree.file(
            "proc/pressure/io",
            "some avg10=9.00 avg60=9.00 avg300=9.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.40 total=5\n",
        );
        let proc = tree.paths().proc;
        let limits = limits(&proc).expect("limits");
        assert_eq!(limits.threads, Some(Level { used: 31_000, limit: 32_768 }));
        assert_eq!(limits.open_files, Some(Level { used: 1200, limit: 2_466_170 }));
        assert_eq!(limits.connections, None, "the kernel tracks no connections");
        assert_eq!(pressure(&proc), Some(Pressure { memory_percent: Some(31), io_percent: None }));
        tree.file("proc/sys/fs/file-nr", "1200\t0\t9223372036854775807\n");
        assert_eq!(super::limits(&proc).and_then(|limits| limits.open_files), None, "there is no limit");
        let empty = Tree::new().paths();
        assert_eq!((super::limits(&empty.proc), pressure(&empty.proc)), (None, None));
    }

    #[test]
    fn files_of_a_workload_say_nothing_about_the_host() {
        let tree = Tree::new();
        tree.file("proc/sys/kernel/tainted", "128\n");
        let paths = tree.paths();
        assert_eq!(read(&paths, &[]).expect("a node").kernel_taint, Some(128));
        assert_eq!(read(&Paths { owner: Owner::Workload, ..paths }, &[]), None);
    }
}
