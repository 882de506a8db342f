//! `read`: reads the CPUs (present, online, governors) from sysfs. `sockets`: reads the CPUs and memory of each socket.

use std::collections::BTreeMap;
use std::path::Path;

use syringe_core::facts::host_levels::{Cpus, Socket};
use syringe_core::text::clean;

use crate::files;
use crate::paths::Paths;

const CPUS: &str = "devices/system/cpu";

/// Maximum number of CPUs whose governor is read. If there are more, only every second or third CPU (and so on) is
/// read.
const MAX_POLICIES: usize = 32;

/// Maximum number of NUMA nodes that are read. The GPU of a Grace module adds eight nodes without CPUs.
const MAX_NODES: usize = 128;

/// Maximum number of different governors in the report.
const MAX_GOVERNORS: usize = 8;

pub(super) fn read(paths: &Paths) -> Option<Cpus> {
    let folder = paths.sys.join(CPUS);
    let count =
        |name: &str| Some(list(&files::text(&folder.join(name))?).len()).and_then(|all| u32::try_from(all).ok());
    let (present, online) = (count("present")?, count("online")?);
    let policies = folder.join("cpufreq");
    let mut names = files::names(&policies).unwrap_or_default();
    names.retain(|name| name.starts_with("policy"));
    let mut governors = BTreeMap::new();
    for name in names.iter().step_by(names.len().div_ceil(MAX_POLICIES).max(1)) {
        if let Some(governor) = files::text(&policies.join(name).join("scaling_governor")) {
            *governors.entry(clean(&governor, 16)).or_default() += 1;
        }
    }
    while governors.len() > MAX_GOVERNORS {
        governors.pop_last();
    }
    let first = names.first().map(|name| policies.join(name));
    let first = |file: &str| files::text(&first.as_ref()?.join(file));
    let megahertz = |file: &str| first(file)?.parse::<u64>().ok().map(|kilohertz| kilohertz / 1000);
    Some(Cpus {
        present,
        online,
        smt: if online < present { files::text(&folder.join("smt/control")).map(|smt| clean(&smt, 16)) } else { None },
        frequency_driver: first("scaling_driver").map(|driver| clean(&driver, 24)),
        governors,
        minimum_megahertz: megahertz("scaling_min_freq"),
        maximum_megahertz: megahertz("cpuinfo_max_freq"),
    })
}

/// Returns the sockets, if there are several. A NUMA node belongs to the socket of its first CPU. Nodes without CPUs
/// (memory of a GPU, CXL) belong to no socket.
pub(super) fn sockets(paths: &Paths) -> Vec<Socket> {
    let sockets = all_sockets(&paths.sys).unwrap_or_default();
    if sockets.len() > 1 { sockets } else { Vec::new() }
}

fn all_sockets(sys: &Path) -> Option<Vec<Socket>> {
    let folder = sys.join("devices/system/node");
    let mut sockets: BTreeMap<u32, Socket> = BTreeMap::new();
    let names = files::names(&folder).ok()?;
    for name in names.iter().filter(|name| is_node(name)).take(MAX_NODES) {
        let node = folder.join(name);
        let cpus = list(&files::text(&node.join("cpulist")).unwrap_or_default());
        let Some(first) = cpus.first() else { continue };
        let package = sys.join(CPUS).join(format!("cpu{first}/topology/physical_package_id"));
        let number: u32 = files::number(&package)?;
        let meminfo = files::text(&node.join("meminfo"))?;
        let kibibytes: u64 = meminfo
            .lines()
            .find_map(|line| line.split_once("MemTotal:")?.1.trim().strip_suffix(" kB")?.parse().ok())?;
        let socket = sockets.entry(number).or_insert_with(|| Socket { socket: number, ..Socket::default() });
        socket.cpus += u32::try_from(cpus.len()).ok()?;
        socket.memory_bytes = socket.memory_bytes.saturating_add(kibibytes.saturating_mul(1024));
    }
    Some(sockets.into_values().collect())
}

fn is_node(name: &str) -> bool {
    name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Parses a list of CPUs: `0-3,8`. CPUs above the kernel's maximum of 8192 are omitted.
fn list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?.min(8191))
    };
    text.split(',').filter_map(range).flatten().take(8192).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn cpus_are_counted_and_their_governors_grouped() {
        let tree = Tree::new();
        tree.file("sys/devices/system/cpu/present", "0-127\n").file("sys/devices/system/cpu/online", "0-63,66\n");
        tree.file("sys/devices/system/cpu/smt/control", "off\n");
        for cpu in 0..128 {
            let governor = if cpu < 4 { "powersave\n" } else { "performance\n" };
            tree.file(&format!("sys/devices/system/cpu/cpufreq/policy{cpu}/scaling_governor"), governor);
        }
        let policy = "sys/devices/system/cpu/cpufreq/policy0";
        tree.file(&format!("{policy}/scaling_driver"), "acpi-cpufreq\n");
        tree.file(&format!("{policy}/scaling_min_freq"), "1500000\n");
        tree.file(&format!("{policy}/cpuinfo_max_freq"), "3700000\n");
        let cpus = read(&tree.paths()).expect("cpus");
        assert_eq!((cpus.present, cpus.online, cpus.smt.as_deref()), (128, 65, Some("off")));
        assert_eq!(cpus.governors.values().sum::<u32>(), 32, "a quarter of the CPUs was read");
        assert_eq!(cpus.governors.keys().collect::<Vec<_>>(), ["performance", "powersave"]);
        assert_eq!(cpus.frequency_driver.as_deref(), Some("acpi-cpufreq"));
        assert_eq!((cpus.minimum_megahertz, cpus.maximum_megahertz), (Some(1500), Some(3700)));
        assert_eq!(read(&Tree::new().paths()), None);
    }

    #[test]
    fn the_memory_of_a_gpu_belongs_to_no_socket() {
        let tree = Tree::new();
        let node = |number: u32, cpus: &str, kib: u64| {
            let folder = format!("sys/devices/system/node/node{number}");
            tree.file(&format!("{folder}/cpulist"), format!("{cpus}\n"));
            tree.file(
                &format!("{folder}/meminfo"),
                format!("\nNode {number} MemTotal:       {kib} kB\nNode {number} MemFree: 1 kB\n"),
            );
        };
        node(0, "0-1", 100);
        node(1, "2-3", 50);
        assert_eq!(sockets(&tree.paths()), [], "the sockets are unknown");
        for (cpu, package) in [(0, 0), (2, 0), (4, 1)] {
            tree.file(&format!("sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"), format!("{package}\n"));
        }
        assert_eq!(sockets(&tree.paths()), [], "there is one socket");
        node(2, "4-7", 150);
        node(3, "", 98_304);
        let found: Vec<(u32, u32, u64)> =
            sockets(&tree.paths()).iter().map(|one| (one.socket, one.cpus, one.memory_bytes)).collect();
        assert_eq!(found, [(0, 4, 150 * 1024), (1, 4, 150 * 1024)]);
    }

    #[test]
    fn a_list_of_cpus_is_limited() {
        assert_eq!(list("0-2,7"), [0, 1, 2, 7]);
        assert_eq!(list("0-4294967295").len(), 8192);
        assert_eq!(list("\n-,x,5-1"), [0_u32; 0]);
    }
}
