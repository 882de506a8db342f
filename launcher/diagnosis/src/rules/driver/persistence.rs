//! Persistence mode, which keeps the driver state when no client runs.

use crate::input::node::Node;
use crate::rule::{Draft, PERSISTENCE_DOC, rules};

rules! {
    PERSISTENCE: "persistence-off" Warning Driver PERSISTENCE_DOC, "Persistence mode is off",
        UpdateSoftware "Run nvidia-persistenced on {node}. Without it, the GPU state and the volatile error counters \
            are reset when the last client exits.",
        means "Without persistence mode the driver initializes a GPU for each first client, and resets its volatile \
            counters when the last client exits.",
        reads "inventory.persistence_mode, host.daemons";
}

/// One finding for each GPU without persistence mode.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
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
