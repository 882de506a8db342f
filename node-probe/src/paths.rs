//! `Paths`: the paths of the host's files as seen from the probe, and the owner of the root: node or workload.
//! `own_cgroup`, `is_initial_pid_namespace`: the cgroups of the probe, and whether its procfs shows every process.
//!
//! In a privileged pod with `hostPID`, the host's file system is `/proc/1/root`. If PID 1 cannot be opened (a kubelet
//! that runs inside a container: kind, k3d, Talos), the file system is the root of the kubelet's process, which is in
//! no pod. On the node itself, and in a container with its own PID namespace, the file system is `/`. The probe uses
//! its own `/proc`, `/sys` and `/dev`: a privileged pod has the host's devices, and sysfs has no namespaces.
//!
//! In an ephemeral container, process 1 and its root belong to the workload: files there are read as files of that
//! workload, and are not trusted ([`Owner::Workload`]). Namespaces and cgroups show which of these cases applies. If
//! the case is unknown, the root is treated as the root of a workload.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{cgroup, files};

/// The inode number that the kernel gives to the initial PID namespace (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The roots of all files that the probe reads. In tests they are below a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paths {
    /// Path of the host's file system.
    pub(crate) host: PathBuf,
    /// Path of a procfs with the host's processes.
    pub(crate) proc: PathBuf,
    pub(crate) sys: PathBuf,
    pub(crate) dev: PathBuf,
    /// The owner of `host`.
    pub(crate) owner: Owner,
}

/// The owner of the file system that is read as the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Owner {
    /// The root belongs to the node, or to the container of the probe. Programs that root owns there may be run.
    Node,
    /// The root belongs to a workload. None of its programs is run, and its NVML library is loaded without privileges.
    Workload,
}

impl Paths {
    /// Returns the roots on this machine.
    pub(crate) fn of_this_machine() -> Self {
        let proc = Path::new("/proc");
        let (host, owner) = host(proc);
        Self { host, proc: proc.into(), sys: "/sys".into(), dev: "/dev".into(), owner }
    }

    /// Returns all paths below one directory (with `etc`, `usr`, `proc`, `sys`, `dev`), for tests and saved file trees.
    pub(crate) fn below(root: &Path) -> Self {
        let at = |name: &str| root.join(name);
        Self { host: root.into(), proc: at("proc"), sys: at("sys"), dev: at("dev"), owner: Owner::Node }
    }

    /// Returns whether the paths belong to a test or a saved tree, where plain files represent device files.
    pub(crate) fn is_saved_tree(&self) -> bool {
        self.dev != Path::new("/dev")
    }
}

/// Returns the root of the host, and its owner.
fn host(proc: &Path) -> (PathBuf, Owner) {
    let opens = |root: &Path| files::names(&root.join("etc")).is_ok();
    let mounts = |process: &str| files::link(&proc.join(process).join("ns/mnt")).ok();
    let (own, init) = (PathBuf::from("/"), proc.join("1/root"));
    // If process 1 and the probe have the same mounts, the probe is on the node itself, or process 1 is in the probe's
    // container.
    if mounts("self").is_some_and(|ours| mounts("1") == Some(ours)) {
        return (own, Owner::Node);
    }
    if sees_the_nodes_processes(proc) {
        let root = Some(init).filter(|root| opens(root)).or_else(|| kubelet_roots(proc).find(|root| opens(root)));
        return (root.unwrap_or(own), Owner::Node);
    }
    if opens(&init) { (init, Owner::Workload) } else { (own, Owner::Node) }
}

/// Returns whether process 1 is the init of the node: of the machine, or of a node that is itself a container.
fn sees_the_nodes_processes(proc: &Path) -> bool {
    let init = || files::text(&proc.join("1/cgroup")).unwrap_or_default();
    is_initial_pid_namespace(proc) || cgroup::is_init_of_a_node(&init(), &own_cgroup(proc))
}

/// Returns `/proc/PID/root` of each of root's processes that is named `kubelet` and is in no pod. A process chooses its own
/// name: without this check, the files of a pod with a program named kubelet would count as the host's.
fn kubelet_roots(proc: &Path) -> impl Iterator<Item = PathBuf> {
    let processes = files::pids(proc).unwrap_or_default().into_iter().map(|pid| proc.join(pid.to_string()));
    let own = own_cgroup(proc);
    let is_kubelet = move |process: &PathBuf| {
        let text = |name: &str| files::text(&process.join(name));
        let may_be = |cgroup: String| cgroup::may_be_the_kubelets(&cgroup, &own);
        text("comm").as_deref() == Some("kubelet") && text("cgroup").is_some_and(may_be) && files::is_of_root(process)
    };
    processes.filter(is_kubelet).map(|process| process.join("root"))
}

/// Returns the cgroups of the probe, which show where the kubelet has its pods.
pub(crate) fn own_cgroup(proc: &Path) -> String {
    files::text(&proc.join("self/cgroup")).unwrap_or_default()
}

/// Returns whether this procfs shows every process of the machine. With kind, `hostPID` gives the PID namespace of the kind
/// node, not the PID namespace of the machine.
pub(crate) fn is_initial_pid_namespace(proc: &Path) -> bool {
    files::link(&proc.join("self/ns/pid")).is_ok_and(|target| target.as_os_str() == INITIAL_PID_NAMESPACE)
}

#[cfg(test)]
impl crate::testing::Tree {
    /// Returns all paths below this tree.
    pub(crate) fn paths(&self) -> Paths {
        Paths::below(self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_pod_that_calls_itself_kubelet_is_not_the_host() {
        const UID: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";
        const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let taken = |comm: &str, cgroup: Option<&str>| {
            let tree = Tree::new();
            tree.file("proc/self/cgroup", format!("0::/system.slice/docker-{ID}.scope/kubelet.slice/kubepods.slice\n"));
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
            format!("0::/../docker-{ID}.scope\n"),
            format!("0::/../../{ID}\n"),
            // Containers outside of Kubernetes whose processes create cgroups.
            format!("0::/docker/{ID}/a/b\n"),
            "0::/machine.slice/systemd-nspawn@x.service/payload\n".to_owned(),
            "0::/machine.slice/machine-x.scope\n".to_owned(),
            "0::/lxc.payload.x/system.slice/kubelet.service\n".to_owned(),
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/kubelet.service\n".to_owned(),
            "0::/../../../../system.slice/x.service/kubelet.service\n".to_owned(),
        ];
        for cgroup in &of_pods {
            assert!(!taken("kubelet", Some(cgroup)), "{cgroup}");
        }
        assert!(!taken("kubelet", None), "the owner is unknown");
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

    const INITIAL: &str = "pid:[4026531836]";
    const OTHER: &str = "pid:[4026532201]";

    /// Returns the result for a process in the PID namespace `pid`, if process 1 has these mounts and cgroups.
    fn seen(pid: &str, same_mounts: bool, own: &str, init: &str) -> (bool, Owner) {
        let tree = Tree::new();
        tree.folder("proc/1/root/etc").link("proc/self/ns/pid", pid).link("proc/self/ns/mnt", "mnt:[1]");
        tree.link("proc/1/ns/mnt", if same_mounts { "mnt:[1]" } else { "mnt:[2]" });
        tree.file("proc/self/cgroup", own).file("proc/1/cgroup", init);
        let (root, owner) = host(&tree.path().join("proc"));
        (root == tree.path().join("proc/1/root"), owner)
    }

    #[test]
    fn namespaces_and_cgroups_decide_who_owns_the_root_of_process_1() {
        const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let pod = format!("0::/kubepods.slice/cri-containerd-{ID}.scope\n");
        let neighbour = format!("0::/../docker-{ID}.scope\n");
        assert_eq!(seen(INITIAL, false, &pod, "0::/init.scope\n"), (true, Owner::Node), "a pod with hostPID");
        assert_eq!(seen(OTHER, false, &pod, "0::/init.scope\n"), (true, Owner::Node), "a pod with hostPID on kind");
        assert_eq!(seen(OTHER, true, "0::/\n", "0::/\n"), (false, Owner::Node), "the probe's own container");
        assert_eq!(seen(OTHER, false, "0::/\n", &neighbour), (true, Owner::Workload), "beside a workload");
        assert_eq!(seen(OTHER, false, &pod, &pod), (true, Owner::Workload), "with the node's cgroup paths");
        assert_eq!(seen(OTHER, false, "0::/\n", "0::/\n"), (true, Owner::Workload), "the owner is unknown");
        assert_eq!(seen(OTHER, false, "", ""), (true, Owner::Workload), "no cgroups");
    }

    #[test]
    fn unreadable_facts_do_not_make_a_root_trusted() {
        let tree = Tree::new();
        tree.folder("proc/1/root/etc");
        assert_eq!(host(&tree.path().join("proc")).1, Owner::Workload);
        // A process of the workload that is named kubelet has no effect.
        tree.file("proc/7/comm", "kubelet\n").file("proc/7/cgroup", "0::/kubelet.service\n").folder("proc/7/root/etc");
        assert_eq!(host(&tree.path().join("proc")), (tree.path().join("proc/1/root"), Owner::Workload));
    }
}
