//! `pods_before_driver`: finds pods that still use an earlier driver.
//! `holders`: names the processes and modules that keep the loaded driver in use.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind};

/// Tolerance, because the times of one start of a node differ by seconds.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);
/// Maximum number of pods or modules that are listed.
const NAMED: usize = 4;
/// Phrases, in lower case, of messages about driver files or modules that an older pod can keep in use.
const OF_DRIVER: [&str; 4] =
    ["/proc/driver/nvidia", "driver/library version mismatch", "driver is in use", "mount operation failed"];
/// Modules that use the module nvidia and that the driver's installer does not always unload.
const USERS: [&str; 5] = ["gdrdrv", "nvidia_fs", "nvidia_peermem", "nv_peer_mem", "nvidia_vgpu_vfio"];

/// If a message is about files or modules of the driver, returns the GPU pods that started before the driver was loaded
/// or its pod started. Such pods keep the mounts of the earlier driver.
pub(super) fn pods_before_driver<'t>(node: &Node<'_>, told: impl IntoIterator<Item = &'t str>) -> Option<String> {
    let about_driver = told.into_iter().any(|text| {
        let text = text.to_ascii_lowercase();
        OF_DRIVER.iter().any(|words| text.contains(words))
    });
    let changed = driver_changed(node).filter(|_| about_driver)?;
    let pods = node.kubernetes.gpu_pods.iter().flatten().filter(|pod| !pod.is_node_software && !pod.deleting);
    let older = pods.filter_map(|pod| {
        let since = pod.containers.iter().filter_map(|container| container.running_since).min()?;
        (changed.duration_since(since) > TOLERANCE)
            .then(|| format!("{} (since {})", pod.full_name(), evidence::time(since)))
    });
    let older: Vec<String> = older.take(NAMED).collect();
    (!older.is_empty()).then(|| {
        format!(
            "The driver of {{node}} was started or changed at {}, and these pods with GPUs started before the driver: {}. They can hold files and \
             modules of the earlier driver: restart them, or drain the node.",
            evidence::time(changed),
            older.join(", ")
        )
    })
}

/// Returns when the driver was loaded or its pod started, whichever was last.
fn driver_changed(node: &Node<'_>) -> Option<Timestamp> {
    let pods = node.kubernetes.nvidia_pods.iter().flatten();
    let containers = pods
        .filter(|pod| pod.component == Component::Driver && !pod.deleting)
        .flat_map(|pod| pod.containers.iter().filter(|container| !container.init));
    let running = containers.filter(|container| container.state.kind == ContainerStateKind::Running);
    running.filter_map(|container| container.state.since).chain(node.driver_loaded()).max()
}

/// Returns a text about the users of the loaded driver module: processes on GPUs, or other modules.
pub(super) fn holders(node: &Node<'_>) -> Option<String> {
    let modules = &node.host()?.modules;
    let users: Vec<&str> = USERS.into_iter().filter(|user| modules.iter().any(|module| module == user)).collect();
    let processes = node.processes().map(|all| all.processes.len());
    let used = match processes {
        Some(0) => "no process was found on the GPUs".to_owned(),
        Some(count) => format!("{count} processes use the GPUs"),
        None => {
            return (!users.is_empty())
                .then(|| format!("loaded modules that use the nvidia module: {}", users.join(", ")));
        }
    };
    Some(if users.is_empty() {
        used
    } else {
        format!("{used}; loaded modules that use the nvidia module: {}", users.join(", "))
    })
}
