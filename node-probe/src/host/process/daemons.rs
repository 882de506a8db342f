//! Finds the running daemons of a GPU node, NVIDIA's Kubernetes software, container runtimes and kubelets (`read`).
//!
//! Source: `/proc/*/comm`, which the kernel cuts at 15 bytes.
//!
//! Limits: only the name is checked. Outside the PID namespace of the host, a daemon that is not visible may still be
//! running.

use std::io::ErrorKind;

use syringe_core::facts::host::Daemons;

use crate::paths::Paths;
use crate::{cgroup, files, paths};

/// Names of the programs that are searched in addition to the daemons.
const NAMED: [&str; 14] = [
    "containerd",
    "crio",
    "kubelet",
    "k3s-server",
    "k3s-agent",
    "kubelite",
    "nvidia-device-p",
    "nvidia-gpu-devi",
    "gpu-kubelet-plu",
    "compute-domain-",
    "gpu-feature-dis",
    "nvidia-mig-mana",
    "nvidia-toolkit",
    "nvidia-validato",
];

/// Maximum number of processes with the same name: a user could start ten thousand.
const MAX_OF_ONE_NAME: usize = 32;

/// A daemon, and whether a process with its name was found.
struct Daemon {
    comm: &'static str,
    running: bool,
}

/// A process that has the name of a daemon or of another listed program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct Named {
    /// The kernel's name of the process.
    pub(in crate::host) comm: &'static str,
    pub(in crate::host) pid: u32,
    /// The content of the process's `/proc/PID/cgroup`.
    cgroup: String,
    /// Whether the process belongs to root.
    of_root: bool,
}

impl Named {
    /// Returns whether the process is a service of the node: it belongs to root and is not in a pod.
    pub(in crate::host) fn of_node(&self) -> bool {
        self.of_root && cgroup::may_be_the_kubelets(&self.cgroup)
    }

    /// Returns the UID of the process's pod.
    pub(in crate::host) fn pod_uid(&self) -> Option<String> {
        cgroup::parse(&self.cgroup).pod_uid
    }
}

/// Reads every process. If `/proc` cannot be listed, the state of all daemons is unknown.
pub(in crate::host) fn read(paths: &Paths) -> (Daemons, Vec<Named>) {
    let daemon = |comm| Daemon { comm, running: false };
    let mut daemons = [
        daemon("nvidia-persiste"),
        daemon("nv-fabricmanage"),
        daemon("nvidia-imex"),
        daemon("nv-hostengine"),
        daemon("nvidia-cuda-mps"),
    ];
    let mut named: Vec<Named> = Vec::new();
    let pids = files::pids(&paths.proc).unwrap_or_default();
    let mut complete = true;
    for pid in &pids {
        let process = paths.proc.join(pid.to_string());
        let comm = match files::head(&process.join("comm"), 32) {
            Ok(comm) => comm,
            Err(error) => {
                // Any error other than a timeout means that the process has exited.
                complete &= error.kind() != ErrorKind::TimedOut;
                continue;
            }
        };
        let comm = comm.trim_ascii_end();
        if let Some(daemon) = daemons.iter_mut().find(|daemon| daemon.comm.as_bytes() == comm) {
            daemon.running = true;
        }
        if let Some(name) = NAMED.into_iter().find(|name| name.as_bytes() == comm) {
            let cgroup = files::text(&process.join("cgroup")).unwrap_or_default();
            let of_root = files::is_of_root(&process);
            let found = Named { comm: name, pid: *pid, cgroup, of_root };
            // Processes of pods never displace those of the node from the list.
            let alike = |other: &&Named| other.comm == name && other.of_node() == found.of_node();
            if named.iter().filter(alike).count() < MAX_OF_ONE_NAME {
                named.push(found);
            }
        }
    }
    let all_visible = complete && !pids.is_empty() && paths::is_initial_pid_namespace(&paths.proc);
    let [persistenced, fabric_manager, imex, dcgm, mps] =
        daemons.map(|daemon| (daemon.running || all_visible).then_some(daemon.running));
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
        assert_eq!(named, []);
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
