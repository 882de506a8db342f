//! Rules about modes that an administrator sets on a GPU: persistence mode, compute mode, and sharing by MPS.

use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, NVML_DOC, PERSISTENCE_DOC, SHARING_DOC, rules};
use syringe_core::classification::Severity;

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
    EXCLUSIVE: "shared-gpu-in-exclusive-mode" Warning Driver NVML_DOC, "A GPU is advertised to several pods, but accepts \
        only one process",
        UpdateSoftware "If the GPUs are shared with MPS, start the MPS control daemon on {node}. For time-slicing, \
            set the compute mode of {gpu} to Default (nvidia-smi -c DEFAULT). Until then, a second program gets the \
            CUDA error 46 on {gpu}.",
        means "The compute mode of the GPU is Exclusive Process, no MPS daemon is running, and the device plugin offers the GPU several times: \
            only the first program can use it.",
        reads "inventory.compute_mode, host.daemons, kubelet.registered, kubelet.allocations, kubernetes.labels.sharing_strategy";
    NO_MPS: "mps-daemon-missing" Warning Driver SHARING_DOC, "GPUs are shared by MPS, and no MPS daemon is running",
        UpdateSoftware "Check the pod of the MPS control daemon of {node} (mps-control-daemon of the device plugin): \
            check its log and the label nvidia.com/mps.capable. Then start the pods with GPUs again. Without the \
            daemon, CUDA programs run without the memory and thread limits of their share.",
        means "According to its labels, the device plugin shares the GPUs of the node by MPS, but no MPS control daemon is running. CUDA \
            programs then run without MPS, and without the limits of their share.",
        reads "kubernetes.labels.sharing_strategy, host.daemons";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = without_persistence(node);
    let prohibited = |gpu: &&Gpu| {
        node.inventory_of(gpu).is_some_and(|inventory| inventory.compute_mode.as_deref() == Some("prohibited"))
    };
    drafts.extend(exclusive(node));
    drafts.extend(without_mps(node));
    let gpus = node.gpus.iter().filter(prohibited);
    drafts.extend(gpus.map(|gpu| Draft::on_gpu(PROHIBITED, gpu).with_evidence("compute mode: prohibited")));
    drafts
}

/// Finds GPUs in exclusive mode that the device plugin advertises several times, on a node without MPS.
fn exclusive(node: &Node<'_>) -> Vec<Draft> {
    let no_daemon = node.host().is_some_and(|host| host.daemons.mps == Some(false));
    let Some(kubelet) = node.kubelet().filter(|_| no_daemon) else { return Vec::new() };
    let by_name = kubelet.registered.iter().any(|one| one.resource.ends_with(".shared") && !one.devices.is_empty());
    let replicated = kubelet.allocations.iter().any(|one| one.replicas.is_some_and(|count| count > 1));
    let by_label = node.kubernetes.labels.sharing_strategy.as_deref() == Some("time-slicing");
    if !by_name && !replicated && !by_label {
        return Vec::new();
    }
    // With MPS, the mode is right, and the daemon can be starting.
    let severity = if by_label { Severity::Warning } else { Severity::Info };
    let is_exclusive =
        |gpu: &&Gpu| node.inventory_of(gpu).is_some_and(|one| one.compute_mode.as_deref() == Some("exclusive_process"));
    let line = "compute mode: exclusive_process; no MPS daemon is running, and the GPUs are offered several times";
    let draft = |gpu: &Gpu| Draft::on_gpu(EXCLUSIVE, gpu).with_severity(severity).with_evidence(line);
    node.gpus.iter().filter(is_exclusive).map(draft).collect()
}

/// Finds a node whose device plugin shares the GPUs by MPS although the MPS daemon is not running. If the GPUs are in
/// exclusive mode, the rule about this mode reports it.
fn without_mps(node: &Node<'_>) -> Option<Draft> {
    let by_mps = node.kubernetes.labels.sharing_strategy.as_deref() == Some("mps");
    let no_daemon = node.host().is_some_and(|host| host.daemons.mps == Some(false));
    let line = "label nvidia.com/gpu.sharing-strategy=mps; no process nvidia-cuda-mps-control is running";
    let is_fault =
        by_mps && no_daemon && node.stack.is_settled && node.stack.advertises_gpus && node.shows_whole_node();
    is_fault.then(|| Draft::on_node(NO_MPS).with_evidence(line))
}

/// Action if the daemon is running: it sets the mode of a GPU only at its start.
const SET_FOR_GPU: &str = "Set persistence mode of {gpu} on {node} (nvidia-smi -pm 1): nvidia-persistenced is running, and the other GPUs may have the mode.";

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
    let draft = |gpu| {
        let draft = Draft::on_gpu(PERSISTENCE, gpu).with_evidence(evidence);
        let is_running = daemon == Some(true);
        let action = draft.action;
        if is_running { draft.with_action(action, SET_FOR_GPU) } else { draft }
    };
    off.map(draft).collect()
}
