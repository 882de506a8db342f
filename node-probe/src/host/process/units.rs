//! `not_running`: finds services that systemd starts at boot (`data/units.tsv`) but that have no process.
//!
//! No program is run. A link in the folder of a target shows that a service is enabled, and the list of processes shows
//! whether the service runs.

use syringe_core::tsv::rows;

use super::daemons::Named;
use crate::in_root::Root;
use crate::paths::{Owner, Paths, is_initial_pid_namespace};

/// Folders of the boot targets. They contain a link for each service that the target starts.
const TARGETS: [&str; 3] = [
    "/etc/systemd/system/multi-user.target.wants",
    "/etc/systemd/system/graphical.target.wants",
    "/usr/lib/systemd/system/multi-user.target.wants",
];
/// Folders of unit files. The first file that is found is used. An empty file or a link to `/dev/null` disables the
/// service.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

const TABLE: &str = include_str!("data/units.tsv");

/// Returns the names of the services. Empty if not all processes of the node are visible.
pub(in crate::host) fn not_running(paths: &Paths, named: &[Named]) -> Vec<String> {
    if paths.owner == Owner::Workload || !is_initial_pid_namespace(&paths.proc) {
        return Vec::new();
    }
    let Ok(host) = Root::open(&paths.host) else { return Vec::new() };
    let enabled: Vec<String> = TARGETS.iter().filter_map(|target| host.find(target)?.names().ok()).flatten().collect();
    let is_stopped = |unit: &str, comm: &str| {
        enabled.iter().any(|name| name == unit)
            && !named.iter().any(|process| process.comm == comm)
            && runs_until_shutdown(&host, unit)
    };
    let units = rows(TABLE).filter_map(|row| match row[..] {
        [unit, comm] if is_stopped(unit, comm) => Some(unit.to_owned()),
        _ => None,
    });
    units.collect()
}

/// Returns whether the unit is a service that keeps running and that is not masked.
fn runs_until_shutdown(host: &Root, unit: &str) -> bool {
    // The names include links whose target cannot be read, such as links to /dev/null.
    let names = |folder: &str| host.find(folder).and_then(|folder| folder.names().ok()).unwrap_or_default();
    let folder = UNITS.iter().find(|folder| names(folder).iter().any(|name| name == unit));
    let file = folder.and_then(|folder| host.find(&format!("{folder}/{unit}")));
    let text = file.and_then(|file| file.text()).unwrap_or_default();
    text.contains("ExecStart=") && !text.contains("Type=oneshot")
}

#[cfg(test)]
mod tests {
    use super::super::daemons;
    use super::*;
    use crate::testing::Tree;

    const FILE: &str = "[Service]\nExecStart=/usr/bin/x\nRestart=always\n";

    fn stopped(tree: &Tree) -> Vec<String> {
        let paths = tree.paths();
        let (_, named) = daemons::read(&paths);
        not_running(&paths, &named)
    }

    /// Returns a node on which DCGM, the persistence daemon and the kubelet are enabled, and only the kubelet runs.
    fn node() -> Tree {
        let tree = Tree::new();
        for unit in ["nvidia-dcgm", "nvidia-persistenced", "kubelet", "nvidia-fabricmanager"] {
            let file = format!("usr/lib/systemd/system/{unit}.service");
            tree.file(&file, FILE);
            tree.link(&format!("etc/systemd/system/multi-user.target.wants/{unit}.service"), &format!("/{file}"));
        }
        tree.file("proc/700/comm", "kubelet\n").file("proc/700/cgroup", "0::/system.slice/kubelet.service\n");
        tree.link("proc/self/ns/pid", "pid:[4026531836]");
        tree
    }

    #[test]
    fn an_enabled_service_without_a_process_is_named() {
        let tree = node();
        assert_eq!(stopped(&tree), ["nvidia-persistenced.service", "nvidia-dcgm.service"]);
        tree.file("proc/701/comm", "nv-hostengine\n");
        assert_eq!(stopped(&tree), ["nvidia-persistenced.service"]);
    }

    #[test]
    fn a_masked_service_and_one_that_ends_by_itself_are_not_named() {
        let tree = node();
        tree.link("etc/systemd/system/nvidia-dcgm.service", "/dev/null");
        tree.file("usr/lib/systemd/system/nvidia-persistenced.service", format!("{FILE}Type=oneshot\n"));
        assert_eq!(stopped(&tree), Vec::<String>::new());
    }

    #[test]
    fn where_not_all_processes_are_visible_nothing_is_said() {
        let tree = node();
        let mut paths = tree.paths();
        let (_, named) = daemons::read(&paths);
        paths.owner = Owner::Workload;
        assert_eq!(not_running(&paths, &named), Vec::<String>::new());
        let other = node();
        std::fs::remove_file(other.path().join("proc/self/ns/pid")).expect("the link");
        other.link("proc/self/ns/pid", "pid:[4026532000]");
        assert_eq!(stopped(&other), Vec::<String>::new());
    }
}
