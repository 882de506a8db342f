//! Where the host's files are, seen from the probe.
//!
//! In a privileged pod with `hostPID` the host's file system is `/proc/1/root`. Where PID 1 cannot be opened (a kubelet that
//! runs inside a container: kind, k3d, Talos), it is the root of the kubelet's process, which is in no pod. On the node
//! itself it is `/`.
//! `/proc`, `/sys` and `/dev` are the probe's own: a privileged pod has the host's devices, and sysfs is not namespaced.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::{cgroup, files};

/// The roots of everything that the probe reads. Tests point them at a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The host's file system.
    pub host: PathBuf,
    /// procfs with the host's processes.
    pub proc: PathBuf,
    /// sysfs.
    pub sys: PathBuf,
    /// Device nodes.
    pub dev: PathBuf,
}

impl Paths {
    /// The roots on this machine: the first of `/proc/1/root`, the kubelet's root and `/` that can be opened.
    pub fn of_this_machine() -> Self {
        let opens = |root: &Path| fs::read_dir(root.join("etc")).is_ok();
        let init = PathBuf::from("/proc/1/root");
        let host = if opens(&init) {
            init
        } else {
            kubelet_roots(Path::new("/proc")).find(|root| opens(root)).unwrap_or_else(|| PathBuf::from("/"))
        };
        Self { host, proc: "/proc".into(), sys: "/sys".into(), dev: "/dev".into() }
    }

    /// Everything below one directory (`etc`, `usr`, `proc`, `sys`, `dev` in it). For tests and saved file trees.
    pub fn below(root: &Path) -> Self {
        Self { host: root.into(), proc: root.join("proc"), sys: root.join("sys"), dev: root.join("dev") }
    }
}

/// `/proc/PID/root` of each process that is called `kubelet` and runs in no pod. A process chooses its name by itself: a
/// pod's program that calls itself kubelet would have its files taken for the host's, libraries among them.
fn kubelet_roots(proc: &Path) -> impl Iterator<Item = PathBuf> {
    let processes = files::pids(proc).unwrap_or_default().into_iter().map(|pid| proc.join(pid.to_string()));
    let is_kubelet = |process: &PathBuf| {
        let text = |name: &str| files::text(&process.join(name));
        text("comm").as_deref() == Some("kubelet") && text("cgroup").is_some_and(|cgroup| !cgroup::names_pod(&cgroup))
    };
    processes.filter(is_kubelet).map(|process| process.join("root"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;

    #[test]
    fn a_pod_that_calls_itself_kubelet_is_not_the_host() {
        const UID: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";
        const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let taken = |comm: &str, cgroup: Option<&str>| {
            let tree = Tree::new();
            tree.file("proc/uptime", "1 1\n").file("proc/700/comm", format!("{comm}\n"));
            if let Some(cgroup) = cgroup {
                tree.file("proc/700/cgroup", cgroup);
            }
            let found: Vec<PathBuf> = kubelet_roots(&tree.path().join("proc")).collect();
            assert!(found.iter().all(|root| *root == tree.path().join("proc/700/root")), "{found:?}");
            found.len() == 1
        };
        let of_host = [
            "0::/system.slice/kubelet.service\n".to_owned(),
            format!("0::/system.slice/docker-{ID}.scope/kubelet.slice/kubelet.service\n"),
            "0::/podruntime/kubelet\n".to_owned(),
            "0::/../../../system.slice/kubelet.service\n".to_owned(),
            "12:pids:/system.slice/kubelet.service\n1:name=systemd:/system.slice/kubelet.service\n0::/\n".to_owned(),
        ];
        for cgroup in &of_host {
            assert!(taken("kubelet", Some(cgroup)), "{cgroup}");
            assert!(!taken("kubelet-helper", Some(cgroup)), "another name");
        }
        let of_pods = [
            format!("0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{ID}.scope\n", UID.replace('-', "_")),
            format!("12:pids:/\n4:memory:/kubepods/burstable/pod{UID}/{ID}\n0::/\n"),
            format!("0::/../../pod{UID}/{ID}\n"),
            format!("0::/../cri-containerd-{ID}.scope\n"),
            format!("0::/../crio-{ID}.scope/container\n"),
        ];
        for cgroup in &of_pods {
            assert!(!taken("kubelet", Some(cgroup)), "{cgroup}");
        }
        assert!(!taken("kubelet", None), "nobody knows whose it is");
    }

    #[test]
    fn a_pods_kubelet_does_not_hide_the_nodes_own() {
        let tree = Tree::new();
        for (pid, cgroup) in [(7, "0::/../pod0f8a/x\n"), (800, "0::/kubelet.slice/kubelet.service\n")] {
            tree.file(&format!("proc/{pid}/comm"), "kubelet\n").file(&format!("proc/{pid}/cgroup"), cgroup);
        }
        let found: Vec<PathBuf> = kubelet_roots(&tree.path().join("proc")).collect();
        assert_eq!(found, [tree.path().join("proc/800/root")]);
    }
}
