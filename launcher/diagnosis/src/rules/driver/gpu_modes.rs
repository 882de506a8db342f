//! Rules about modes that an administrator sets on a GPU: persistence mode, compute mode.

use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, NVML_DOC, PERSISTENCE_DOC, rules};

rules! {
    PERSISTENCE: "persistence-off" Info Driver PERSISTENCE_DOC, "Persistence mode is off",
        UpdateSoftware "Run nvidia-persistenced on {node}. Without it, the GPU state and the volatile error counters \
            are reset when the last client exits.",
        means "Without persistence mode, the driver initializes a GPU when its first client starts, and resets its volatile \
            counters when the last client exits.",
        reads "inventory.persistence_mode, host.daemons";
    PROHIBITED: "compute-mode-prohibited" Critical Driver NVML_DOC, "The compute mode of the GPU is Prohibited",
        UpdateSoftware "Set the compute mode of {gpu} on {node} to Default (nvidia-smi -c DEFAULT).",
        means "The compute mode of the GPU is set to Prohibited: no CUDA program can start on it.",
        reads "inventory.compute_mode";
    EXCLUSIVE: "shared-gpu-in-exclusive-mode" Info Driver NVML_DOC, "A GPU is offered to several pods, but accepts one process",
        UpdateSoftware "Start the MPS control daemon on {node}, if the GPUs are shared with MPS. For time-slicing, set the compute mode of \
            {gpu} to Default (nvidia-smi -c DEFAULT): the second program on it gets the CUDA error 46.",
        means "The compute mode of the GPU is Exclusive Process, no MPS daemon is running, and the device plugin offers the GPU several times: \
            only the first program can use it.",
        reads "inventory.compute_mode, host.daemons, kubelet.registered, kubelet.allocations";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = without_persistence(node);
    let prohibited = |gpu: &&Gpu| {
        node.inventory_of(gpu).is_some_and(|inventory| inventory.compute_mode.as_deref() == Some("prohibited"))
    };
    drafts.extend(exclusive(node));
    let gpus = node.gpus.iter().filter(prohibited);
    drafts.extend(gpus.map(|gpu| Draft::on_gpu(PROHIBITED, gpu).with_evidence("compute mode: prohibited")));
    drafts
}

/// Finds GPUs in exclusive mode that the device plugin offers several times, on a node without MPS.
fn exclusive(node: &Node<'_>) -> Vec<Draft> {
    let no_daemon = node.host().is_some_and(|host| host.daemons.mps == Some(false));
    let Some(kubelet) = node.kubelet().filter(|_| no_daemon) else { return Vec::new() };
    let by_name = kubelet.registered.iter().any(|one| one.resource.ends_with(".shared") && !one.devices.is_empty());
    let replicated = kubelet.allocations.iter().any(|one| one.replicas.is_some_and(|count| count > 1));
    if !by_name && !replicated {
        return Vec::new();
    }
    let is_exclusive =
        |gpu: &&Gpu| node.inventory_of(gpu).is_some_and(|one| one.compute_mode.as_deref() == Some("exclusive_process"));
    let line = "compute mode: exclusive_process; no MPS daemon is running, and the GPUs are offered several times";
    node.gpus.iter().filter(is_exclusive).map(|gpu| Draft::on_gpu(EXCLUSIVE, gpu).with_evidence(line)).collect()
}

fn without_persistence(node: &Node<'_>) -> Vec<Draft> {
    let daemon = node.host().and_then(|host| host.daemons.persistenced);
    let off = node
        .gpus
        .iter()
        .filter(|gpu| node.inventory_of(gpu).is_some_and(|inventory| inventory.persistence_mode == Some(false)));
    let evidence = if daemon == Some(false) {
        "persistence mode off, nvidia-persistenced not running"
    } else {
        "persistence mode off"
    };
    off.map(|gpu| Draft::on_gpu(PERSISTENCE, gpu).with_evidence(evidence)).collect()
}
