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
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = without_persistence(node);
    let prohibited = |gpu: &&Gpu| {
        node.inventory_of(gpu).is_some_and(|inventory| inventory.compute_mode.as_deref() == Some("prohibited"))
    };
    let gpus = node.gpus.iter().filter(prohibited);
    drafts.extend(gpus.map(|gpu| Draft::on_gpu(PROHIBITED, gpu).with_evidence("compute mode: prohibited")));
    drafts
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
