//! `read`: reads the container runtime of the node: the running program, its configuration, and its start time.
//!
//! The path of the configuration is in the arguments of the process (`--config`); without a process, the known paths are
//! read. Several containerds may be running (for Docker, or for the host on Bottlerocket and Talos). A containerd whose
//! configuration disables the CRI plugin, which the kubelet uses, is skipped.

pub(in crate::host) mod cdi;
mod config_file;
pub(crate) mod container_devices;
pub(super) mod container_view;
mod containerd;
mod crio;
mod handlers;
mod toolkit;

use syringe_core::facts::container_runtime::ContainerRuntime;

use crate::host::process;
use crate::host::process::daemons::Named;
use crate::in_root::Root;
use crate::paths::{Owner, Paths};

/// Paths of containerd's configuration, more specific paths first: k3s, RKE2, k0s, MicroK8s, kops, Talos.
const CONFIGS: [&str; 7] = [
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/etc/k0s/containerd.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
    "/etc/containerd/config-kops.toml",
    "/etc/cri/containerd.toml",
    DEFAULT_CONFIG,
];

/// The path that containerd reads without `--config`.
const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";

/// Returns the runtime, and the CDI folders in its configuration.
pub(in crate::host) fn read(paths: &Paths, named: &[Named]) -> Option<(ContainerRuntime, Option<Vec<String>>)> {
    if paths.owner == Owner::Workload {
        return None;
    }
    let host = Root::open(&paths.host).ok()?;
    let boot = process::boot_time(paths);
    let of_node = |name: &'static str| named.iter().filter(move |process| process.comm == name && process.of_node());
    let crio = of_node("crio").next();
    let containerd = of_node("containerd").find_map(|process| {
        let path = config_of(&process::arguments(&paths.proc, process.pid)?);
        (!containerd::serves_no_kubelet(&host, &path)).then_some((Some(process), path))
    });
    let (mut facts, folders, process) = match (containerd, crio) {
        // CRI-O has priority over containerd: Docker's containerd may run in addition to CRI-O, with a configuration
        // that does not disable the CRI plugin.
        (_, Some(crio)) => {
            let (facts, folders) = crio::read(&host);
            (facts, folders, Some(crio))
        }
        (Some((process, path)), None) => {
            let (facts, folders) = containerd::read(&host, &path);
            (facts, folders, process)
        }
        (None, None) => {
            let path = CONFIGS.iter().find(|path| host.find(path).is_some())?;
            let (facts, folders) = containerd::read(&host, path);
            // It is not known whether this runtime is running.
            (ContainerRuntime { complete: false, ..facts }, folders, None)
        }
    };
    facts.started_at = process.and_then(|process| process::start_time(&paths.proc, boot, process.pid));
    handlers::look_for_binaries(&host, &mut facts.handlers);
    facts.toolkit = toolkit::read(&host, &facts.handlers);
    Some((facts, folders))
}

/// Returns the configuration file in containerd's arguments.
fn config_of(arguments: &[String]) -> String {
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        let value = match word.as_str() {
            "--config" | "-config" | "-c" | "--c" => words.next().cloned(),
            word => ["--config=", "-config=", "-c="].iter().find_map(|name| word.strip_prefix(name).map(str::to_owned)),
        };
        if let Some(path) = value.filter(|path| path.starts_with('/')) {
            return path;
        }
    }
    DEFAULT_CONFIG.to_owned()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
