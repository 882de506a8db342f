//! `read`: reads traces of NVIDIA's Kubernetes software: plugin sockets, validation files, processes, inotify limits.
//!
//! The traces are sockets of device plugins, registrations of DRA drivers, validation files of the GPU Operator, processes,
//! and the inotify limits that device plugins may reach.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use syringe_core::facts::nvidia_stack::{Inotify, NvidiaStack, StackProcess, TimestampedFile};
use syringe_core::text::clean;

use crate::host::process;
use crate::host::process::daemons::{Named, STACK};
use crate::in_root::Root;
use crate::paths::{Owner, Paths};
use crate::{bounded, files};

/// The kubelet's folder for device plugins is fixed, independent of its root directory.
const PLUGINS: &str = "/var/lib/kubelet/device-plugins";

/// The folder of plugin registrations is in the kubelet's root directory, which differs for k0s and MicroK8s.
const REGISTRY: [&str; 3] = [
    "/var/lib/kubelet/plugins_registry",
    "/var/lib/k0s/kubelet/plugins_registry",
    "/var/snap/microk8s/common/var/lib/kubelet/plugins_registry",
];

/// Folder in which the GPU Operator's validator stores the results of successful checks.
const VALIDATIONS: &str = "/run/nvidia/validations";

/// Maximum number of files in one folder, and of processes.
const MAX_LISTED: usize = 16;

/// Time limit for counting inotify instances: 100,000 descriptors take about 0.2 s.
const COUNT_TIME: Duration = Duration::from_millis(400);

/// Maximum number of descriptors of one process that are read.
const MAX_DESCRIPTORS: usize = 10_000;

/// Process names (`comm`) of kubelets and of programs that contain a kubelet.
const KUBELETS: [&str; 4] = ["kubelet", "k3s-server", "k3s-agent", "kubelite"];

/// Reads all traces. `has_gpus`: whether there are NVIDIA GPUs on the bus.
pub(in crate::host) fn read(paths: &Paths, named: &[Named], has_gpus: bool) -> Option<NvidiaStack> {
    if paths.owner == Owner::Workload {
        return None;
    }
    let host = Root::open(&paths.host).ok()?;
    let boot = process::boot_time(paths);
    let started = |process: &Named| process::start_time(&paths.proc, boot, process.pid);
    // Some distributions run a process `kubelet` in addition to their own program. Therefore, `kubelet` is searched first.
    let kubelet =
        KUBELETS.iter().find_map(|name| named.iter().find(|process| process.comm == *name && process.of_node()));
    let plugin_sockets = sockets(&host, PLUGINS, "kubelet.sock");
    let registry_sockets = REGISTRY.iter().find_map(|folder| sockets(&host, folder, ""));
    let registered = |sockets: &Option<Vec<TimestampedFile>>| {
        sockets.as_ref().is_some_and(|sockets| sockets.iter().any(|socket| socket.name.contains("nvidia")))
    };
    let count = has_gpus && !registered(&plugin_sockets) && !registered(&registry_sockets);
    // A process without a pod counts only if it is a service of the node: a user of the node can choose any process name.
    let belongs = |process: &Named| process.of_node() || process.pod_uid().is_some();
    let of_stack = |process: &&Named| STACK.contains(&process.comm) && belongs(process);
    let mut processes: Vec<&Named> = named.iter().filter(of_stack).collect();
    // Processes of the node are first, because a process in a pod can choose any name.
    processes.sort_by_key(|process| !process.of_node());
    bounded::cut(&mut processes, MAX_LISTED, "processes of NVIDIA's software for Kubernetes");
    Some(NvidiaStack {
        kubelet_started_at: kubelet.and_then(started),
        plugin_sockets,
        registry_sockets,
        validations: listed(&host, VALIDATIONS, |_| true).unwrap_or_default(),
        processes: processes
            .into_iter()
            .map(|process| StackProcess {
                name: process.comm.to_owned(),
                pid: process.pid,
                pod_uid: process.pod_uid().map(|uid| clean(&uid, 64)),
                started_at: started(process),
            })
            .collect(),
        inotify: inotify(paths, count),
    })
}

/// Returns the sockets in a folder, except for `but`; `None` if the folder does not exist.
fn sockets(host: &Root, folder: &str, but: &str) -> Option<Vec<TimestampedFile>> {
    listed(host, folder, |name| name.ends_with(".sock") && name != but)
}

fn listed(host: &Root, folder: &str, wanted: impl Fn(&str) -> bool) -> Option<Vec<TimestampedFile>> {
    let names = host.find(folder)?.names().ok()?;
    let mut names: Vec<String> = names.into_iter().filter(|name| wanted(name)).collect();
    // NVIDIA's entries come first, so that they are never cut.
    names.sort_by_key(|name| !name.contains("nvidia"));
    bounded::cut(&mut names, MAX_LISTED, &format!("entries of {folder}"));
    names.sort_unstable();
    let stamped = names.into_iter().map(|name| TimestampedFile {
        at: host.find(&format!("{folder}/{name}")).and_then(|file| file.changed_at()),
        name: clean(&name, 100),
    });
    Some(stamped.collect())
}

/// Returns the limits. The usage is only read if `count` is set, because it needs all descriptors of all processes.
fn inotify(paths: &Paths, count: bool) -> Option<Inotify> {
    let folder = paths.proc.join("sys/fs/inotify");
    let limit = |name: &str| files::number::<u64>(&folder.join(name));
    let inotify = Inotify {
        max_user_instances: limit("max_user_instances"),
        max_user_watches: limit("max_user_watches"),
        instances_of_root: None,
    };
    let most = inotify.max_user_instances?;
    let (instances, complete) = if count { instances_of_root(paths, Instant::now()) } else { (0, false) };
    // A count that reaches the limit is sufficient, even if not all descriptors were read.
    Some(Inotify { instances_of_root: (complete || (count && instances >= most)).then_some(instances), ..inotify })
}

/// Returns the number of inotify descriptors in a `/proc/PID/fd`, and whether all were read.
fn inotify_descriptors(folder: &Path) -> io::Result<(u64, bool)> {
    let at = folder.to_owned();
    bounded::in_time(folder, move || {
        let mut descriptors = fs::read_dir(at)?;
        let is_inotify = |entry: &fs::DirEntry| {
            fs::read_link(entry.path())
                .is_ok_and(|target| matches!(target.to_str(), Some("anon_inode:inotify" | "inotify")))
        };
        let found = descriptors.by_ref().take(MAX_DESCRIPTORS).filter_map(Result::ok).filter(is_inotify).count();
        Ok((u64::try_from(found).unwrap_or(u64::MAX), descriptors.next().is_none()))
    })
}

/// Returns the number of inotify descriptors of root's processes, and whether all were read.
fn instances_of_root(paths: &Paths, started: Instant) -> (u64, bool) {
    let Ok(pids) = files::pids(&paths.proc) else { return (0, false) };
    let (mut instances, mut complete) = (0, true);
    for pid in pids {
        if started.elapsed() > COUNT_TIME {
            return (instances, false);
        }
        let process = paths.proc.join(pid.to_string());
        if !files::is_of_root(&process) {
            continue;
        }
        match inotify_descriptors(&process.join("fd")) {
            Ok((found, all)) => {
                instances += found;
                complete &= all;
            }
            Err(error) => complete &= !matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::TimedOut),
        }
    }
    (instances, complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::daemons;
    use crate::testing::Tree;

    fn read_tree(tree: &Tree) -> NvidiaStack {
        let paths = tree.paths();
        let (_, named) = daemons::read(&paths);
        read(&paths, &named, true).expect("a node")
    }

    #[test]
    fn sockets_registrations_and_validations_come_with_their_times() {
        let tree = Tree::new();
        tree.file("var/lib/kubelet/device-plugins/kubelet.sock", "")
            .file("var/lib/kubelet/device-plugins/nvidia-gpu.sock", "");
        tree.file("var/lib/kubelet/device-plugins/kubelet_internal_checkpoint", "");
        tree.file("run/nvidia/validations/driver-ready", "").file("proc/sys/fs/inotify/max_user_instances", "128\n");
        let stack = read_tree(&tree);
        let sockets = stack.plugin_sockets.expect("the folder is there");
        assert_eq!((sockets.len(), sockets[0].name.as_str(), sockets[0].at.is_some()), (1, "nvidia-gpu.sock", true));
        assert_eq!((stack.registry_sockets, stack.validations[0].name.as_str()), (None, "driver-ready"));
        let inotify = stack.inotify.expect("the limit is there");
        assert_eq!((inotify.max_user_instances, inotify.instances_of_root), (Some(128), None), "there is a plugin");
    }

    #[test]
    fn instances_are_counted_where_no_plugin_has_a_socket() {
        let tree = Tree::new();
        tree.file("proc/sys/fs/inotify/max_user_instances", "2\n").folder("var/lib/kubelet/device-plugins");
        tree.link("proc/7/fd/1", "anon_inode:inotify")
            .link("proc/7/fd/2", "anon_inode:[eventfd]")
            .link("proc/8/fd/9", "inotify");
        let inotify = read_tree(&tree).inotify.expect("the limit is there");
        assert_eq!((inotify.max_user_instances, inotify.instances_of_root), (Some(2), Some(2)));
    }

    #[test]
    fn a_plugin_of_the_node_and_one_of_a_pod_are_told_apart() {
        const POD: &str = "0::/kubepods.slice/kubepods-pod0f8a7c2e_11aa_4bbb_8ccc_123456789abc.slice/x.scope\n";
        let tree = Tree::new();
        tree.file("proc/stat", "btime 1763688000\n")
            .file("proc/90/stat", "90 (nvidia-device-p) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 500 0 0");
        for (pid, comm, cgroup) in [
            (80, "nvidia-device-p", POD),
            (90, "nvidia-device-p", "0::/system.slice/nvidia-k8s-device-plugin.service\n"),
            (91, "kubelet", "0::/kubelet.service\n"),
            // A process in a container whose pod is unknown.
            (92, "nvidia-device-p", "0::/../cri-containerd-x.scope\n"),
        ] {
            tree.file(&format!("proc/{pid}/comm"), format!("{comm}\n")).file(&format!("proc/{pid}/cgroup"), cgroup);
        }
        let processes = read_tree(&tree).processes;
        let seen: Vec<(u32, bool, bool)> =
            processes.iter().map(|found| (found.pid, found.pod_uid.is_some(), found.started_at.is_some())).collect();
        assert_eq!(seen, [(90, false, true), (80, true, false)]);
    }
}
