//! `read`: finds processes by name: GPU daemons, time services, NVIDIA's Kubernetes software, runtimes, kubelets.
//! `Named`: a process that was found. `DAEMONS`, `TIME_SERVICES`, `STACK`: tables of the names.
//!
//! Source: `/proc/*/comm`, which the kernel truncates to 15 bytes.
//!
//! Limits: only the name is checked. Outside the PID namespace of the host, a daemon that is not visible may still be
//! running.

use syringe_core::facts::host::Daemons;

use crate::paths::Paths;
use crate::{cgroup, files, paths};

/// Names of NVIDIA's software for Kubernetes.
pub(in crate::host) const STACK: [&str; 8] = [
    "nvidia-device-p",
    "nvidia-gpu-devi",
    "gpu-kubelet-plu",
    COMPUTE_DOMAIN,
    "gpu-feature-dis",
    "nvidia-mig-mana",
    TOOLKIT,
    "nvidia-validato",
];

/// The programs of ComputeDomains: the kubelet plugin, and the daemon that starts IMEX in a pod.
pub(in crate::host) const COMPUTE_DOMAIN: &str = "compute-domain-";

/// The pod of the GPU Operator that installs NVIDIA's container toolkit.
pub(in crate::host) const TOOLKIT: &str = "nvidia-toolkit";

/// Names of container runtimes, kubelets and programs that contain a kubelet.
const OF_KUBERNETES: [&str; 6] = ["containerd", "crio", "kubelet", "k3s-server", "k3s-agent", "kubelite"];

/// Names of the daemons of a GPU node.
pub(in crate::host) const DAEMONS: [&str; 5] =
    ["nvidia-persiste", "nv-fabricmanage", "nvidia-imex", "nv-hostengine", "nvidia-cuda-mps"];

/// Names of the time services.
pub(in crate::host) const TIME_SERVICES: [&str; 5] = ["chronyd", "systemd-timesyn", "ntpd", "ptp4l", "phc2sys"];

/// Maximum number of processes with the same name: a user could start ten thousand.
const MAX_OF_ONE_NAME: usize = 32;

/// A process that has the name of a daemon or of another listed program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct Named {
    /// The kernel's name of the process.
    pub(in crate::host) comm: &'static str,
    pub(in crate::host) pid: u32,
    /// UID of the process's pod.
    pod_uid: Option<String>,
    is_outside_of_pods: bool,
    /// Whether the process belongs to root.
    of_root: bool,
}

impl Named {
    /// Returns whether the process is a service of the node: it belongs to root and is not in a pod.
    pub(in crate::host) fn of_node(&self) -> bool {
        self.of_root && self.is_outside_of_pods
    }

    /// Returns whether the process is not in a pod. A user of the node can have started it.
    pub(in crate::host) fn is_outside_of_pods(&self) -> bool {
        self.is_outside_of_pods
    }

    /// Returns the UID of the process's pod.
    pub(in crate::host) fn pod_uid(&self) -> Option<String> {
        self.pod_uid.clone()
    }
}

/// Reads every process. If `/proc` cannot be listed, the state of all daemons is unknown.
pub(in crate::host) fn read(paths: &Paths) -> (Daemons, Vec<Named>) {
    let mut named: Vec<Named> = Vec::new();
    let pids = files::pids(&paths.proc).unwrap_or_default();
    let own = paths::own_cgroup(&paths.proc);
    let mut complete = true;
    for pid in &pids {
        let process = paths.proc.join(pid.to_string());
        let comm = match files::head(&process.join("comm"), 32) {
            Ok(comm) => comm,
            Err(error) => {
                complete &= files::has_exited(&error);
                continue;
            }
        };
        let comm = comm.trim_ascii_end();
        let mut names = DAEMONS.iter().chain(&STACK).chain(&OF_KUBERNETES).chain(&TIME_SERVICES).copied();
        if let Some(name) = names.find(|name| name.as_bytes() == comm) {
            let cgroup = files::text(&process.join("cgroup")).unwrap_or_default();
            let found = Named {
                comm: name,
                pid: *pid,
                pod_uid: cgroup::parse(&cgroup, &own).pod_uid,
                is_outside_of_pods: cgroup::may_be_the_kubelets(&cgroup, &own),
                of_root: files::is_of_root(&process),
            };
            // Processes of pods never displace processes of the node from the list.
            let alike = |other: &&Named| other.comm == name && other.of_node() == found.of_node();
            if named.iter().filter(alike).count() < MAX_OF_ONE_NAME {
                named.push(found);
            }
        }
    }
    let all_visible = complete && !pids.is_empty() && paths::is_initial_pid_namespace(&paths.proc);
    let [persistenced, fabric_manager, imex, dcgm, mps] = DAEMONS.map(|name| {
        let is_running = named.iter().any(|process| process.comm == name);
        (is_running || all_visible).then_some(is_running)
    });
    (Daemons { persistenced, fabric_manager, imex, dcgm, mps }, named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_daemon_is_found_by_the_first_fifteen_bytes_of_its_name() {
        let tree = Tree::new();
        tree.file("proc/700/comm", "nvidia-persiste\n").file("proc/701/comm", "nv-fabricmanage\n");
        tree.file("proc/702/comm", "nvidia-imex-ctl\n").file("proc/self/comm", "nv-hostengine\n");
        tree.link("proc/self/ns/pid", "pid:[4026531836]");
        let (daemons, named) = read(&tree.paths());
        assert_eq!((daemons.persistenced, daemons.fabric_manager), (Some(true), Some(true)));
        assert_eq!((daemons.imex, daemons.dcgm, daemons.mps), (Some(false), Some(false), Some(false)));
        assert_eq!(named.iter().map(|process| process.pid).collect::<Vec<_>>(), [700, 701]);
    }

    #[test]
    fn in_another_pid_namespace_not_seen_is_not_absent() {
        let tree = Tree::new();
        tree.file("proc/1/comm", "nv-hostengine\n").link("proc/self/ns/pid", "pid:[4026532201]");
        let (daemons, _) = read(&tree.paths());
        assert_eq!((daemons.dcgm, daemons.fabric_manager), (Some(true), None));
    }

    #[test]
    fn pods_that_take_the_name_of_a_service_do_not_push_it_out() {
        let tree = Tree::new();
        for pid in 100..100 + 2 * u32::try_from(MAX_OF_ONE_NAME).expect("small") {
            let pod = "0::/kubepods.slice/kubepods-pod0f8a7c2e_11aa_4bbb_8ccc_123456789abc.slice/x.scope\n";
            tree.file(&format!("proc/{pid}/comm"), "containerd\n").file(&format!("proc/{pid}/cgroup"), pod);
        }
        tree.file("proc/900/comm", "containerd\n").file("proc/900/cgroup", "0::/system.slice/containerd.service\n");
        let (_, named) = read(&tree.paths());
        let of_node: Vec<u32> = named.iter().filter(|process| process.of_node()).map(|process| process.pid).collect();
        assert_eq!((named.len(), of_node), (MAX_OF_ONE_NAME + 1, vec![900]));
        assert_eq!(named[0].pod_uid().as_deref(), Some("0f8a7c2e-11aa-4bbb-8ccc-123456789abc"));
    }
}
