//! Where the host's files are, seen from the probe.
//!
//! In a privileged pod with `hostPID` the host's file system is `/proc/1/root`. Where PID 1 cannot be opened (a kubelet that
//! runs inside a container: kind, k3d, Talos), it is the root of the kubelet's process. On the node itself it is `/`.
//! `/proc`, `/sys` and `/dev` are the probe's own: a privileged pod has the host's devices, and sysfs is not namespaced.

use std::fs;
use std::path::{Path, PathBuf};

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
            kubelet_root().filter(|root| opens(root)).unwrap_or_else(|| PathBuf::from("/"))
        };
        Self { host, proc: "/proc".into(), sys: "/sys".into(), dev: "/dev".into() }
    }

    /// Everything below one directory (`etc`, `usr`, `proc`, `sys`, `dev` in it). For tests and saved file trees.
    pub fn below(root: &Path) -> Self {
        Self { host: root.into(), proc: root.join("proc"), sys: root.join("sys"), dev: root.join("dev") }
    }
}

/// `/proc/PID/root` of the process that is called `kubelet`.
fn kubelet_root() -> Option<PathBuf> {
    fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm.trim_end() == "kubelet").then(|| entry.path().join("root"))
    })
}
