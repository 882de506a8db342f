//! Tests that the program reads driver, container runtime, CDI files and NVIDIA's stack from a file tree.

use std::path::Path;

use syringe_core::facts::host::Host;

use crate::{Run, data, node_probe};

const UID: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";

/// Writes files below a new root. Only its owner can change a folder.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, text).expect("a file");
    }
    root
}

fn read(root: &Path, more: &[&str]) -> (Host, Vec<String>) {
    let root = root.to_str().expect("UTF-8");
    let words: Vec<&str> = ["--root", root, "host"].iter().chain(more).copied().collect();
    let Run { report, .. } = node_probe(&words, &[]);
    let section = report.sections.host.clone().expect("the section");
    let codes = section.problems.iter().map(|problem| problem.code.clone()).collect();
    (data(Some(section)), codes)
}

const GPU: &str = "sys/bus/pci/devices/0000:17:00.0";

/// Returns a k3s node with a GPU and without a loaded driver: the module exists only for the previous kernel.
fn node_of_k3s() -> tempfile::TempDir {
    tree(&[
        (&format!("{GPU}/vendor"), "0x10de\n"),
        (&format!("{GPU}/class"), "0x030200\n"),
        (&format!("{GPU}/device"), "0x26b9\n"),
        ("proc/modules", "ext4 1 1 - Live 0x0\n"),
        ("proc/stat", "btime 1763688000\n"),
        ("proc/sys/kernel/osrelease", "6.8.0-88-generic\n"),
        ("proc/sys/fs/inotify/max_user_instances", "128\n"),
        ("proc/700/comm", "containerd\n"),
        ("proc/700/cgroup", "0::/system.slice/k3s.service\n"),
        ("proc/700/cmdline", "containerd\0-c\0/var/lib/rancher/k3s/agent/etc/containerd/config.toml\0"),
        ("proc/700/stat", "700 (containerd) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 6000 0 0"),
        ("var/lib/rancher/k3s/agent/etc/containerd/config.toml", "version = 3\n"),
        (
            "etc/cdi/nvidia.yaml",
            "kind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n",
        ),
        ("lib/modules/6.8.0-86-generic/updates/dkms/nvidia.ko.zst", ""),
        ("lib/modules/6.8.0-88-generic/modules.dep", "kernel/fs/x.ko:\n"),
        ("var/lib/kubelet/device-plugins/kubelet.sock", ""),
        (
            &format!("var/log/pods/gpu-operator_nvidia-driver-daemonset-x_{UID}/nvidia-driver-ctr/0.log"),
            "2026-11-21T02:31:07Z stderr F modprobe: ERROR: could not insert 'nvidia': Key was rejected by service\n",
        ),
    ])
}

#[test]
fn a_tree_of_k3s_shows_runtime_cdi_modules_and_sockets() {
    let root = node_of_k3s();
    let (host, problems) = read(root.path(), &[]);
    assert_eq!(problems, Vec::<String>::new());
    let runtime = host.container_runtime.expect("a runtime");
    assert_eq!((runtime.complete, runtime.handlers.len(), runtime.default_handler.as_deref()), (true, 1, Some("runc")));
    let cdi = host.cdi.expect("folders");
    assert_eq!((cdi.specs.len(), cdi.specs[0].stale_devices.len()), (1, 1), "{cdi:?}");
    let load = host.driver_load.expect("there is a GPU, and no module");
    assert_eq!(
        (load.kernels_with_module, load.kernels_without_module),
        (vec!["6.8.0-86-generic".to_owned()], vec!["6.8.0-88-generic".to_owned()])
    );
    let stack = host.nvidia_stack.expect("a node");
    assert_eq!((stack.plugin_sockets, stack.inotify.expect("a limit").instances_of_root), (Some(Vec::new()), Some(0)));
    assert_eq!(host.stack_log, None, "the log was not requested");
}

#[test]
fn the_log_of_the_stack_comes_back_only_where_it_is_asked_for() {
    let root = node_of_k3s();
    let (host, _) = read(root.path(), &["--stack-log", &format!("{UID}/nvidia-driver-ctr")]);
    let log = host.stack_log.expect("the log");
    assert_eq!(log.lines, ["modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"]);
    let (host, problems) = read(root.path(), &["--stack-log", &format!("{UID}/other")]);
    assert_eq!((host.stack_log, problems), (None, vec!["stack_log_missing".to_owned()]));
}

/// A deeply nested or invalid file of any kind only affects its own facts.
#[test]
fn files_that_make_no_sense_are_unread_and_harm_nothing() {
    let root = node_of_k3s();
    let deep = "[".repeat(100_000);
    for (path, text) in [
        ("var/lib/rancher/k3s/agent/etc/containerd/config.toml", format!("x = {deep}")),
        ("etc/cdi/nvidia.json", format!("{{\"kind\": \"nvidia.com/gpu\", \"devices\": {deep}")),
        ("etc/cdi/nvidia.yaml", "- ".repeat(100_000) + "nvidia"),
        ("etc/cdi/long.yaml", "nvidia: x\n".repeat(100_000)),
    ] {
        std::fs::write(root.path().join(path), text).expect("a file");
        let (host, _) = read(root.path(), &[]);
        assert!(host.cdi.is_some() && host.nvidia_stack.is_some(), "{path}");
    }
    let (host, _) = read(root.path(), &[]);
    assert!(!host.container_runtime.expect("a runtime").complete);
    let unread = host.cdi.expect("folders").unread;
    assert_eq!(unread.len(), 3, "{unread:?}");
}
