//! `matching_fails`: checks whether no pod of the node matches the kubelet's allocations or the GPU processes.
//! `Unmatched`: the numbers of pods and processes without a match.
//!
//! A single pod without devices, or a single process of a deleted pod, is a separate fault. If no pod and no process
//! matches, the data describes different pods: the API and the node were read at different times, the kubelet's state
//! is stale, or another node responded. Such a mismatch is not a reason to delete a pod or to stop a process.

use std::collections::BTreeSet;

use crate::input::node::Node;
use crate::input::processes::is_service;

/// If GPU processes of at least this many pods have no pod in the API, the list of pods is from another time or node.
/// It is unlikely that a process of each of these pods outlived its pod.
const SEVERAL: usize = 3;

/// Numbers of pods and processes without a match.
pub(crate) struct Unmatched {
    /// Running pods that request GPUs, but have no allocation in the kubelet.
    pub(crate) pods: usize,
    /// GPU processes of pods that the API does not list.
    pub(crate) processes: usize,
}

/// Returns the numbers of unmatched pods and processes if no pod matches an allocation or a process, and either both
/// numbers are above zero, or the processes are of several pods.
pub(crate) fn matching_fails(node: &Node<'_>) -> Option<Unmatched> {
    let live = node.kubernetes.live_pod_uids.as_ref()?;
    let running = node.kubernetes.gpu_pods.iter().flatten().filter(|pod| {
        let is_running = pod.phase == "Running" && !pod.deleting && !pod.has_claims;
        is_running && pod.containers.iter().any(|container| container.running_since.is_some())
    });
    let running: Vec<_> = running.collect();
    let kubelet = node.kubelet()?;
    let has_devices = |pod: &&syringe_core::facts::kubernetes::gpu_pod::GpuPod| {
        kubelet.allocations.iter().any(|allocation| allocation.is_of(&pod.uid, &pod.namespace, &pod.name))
    };
    let processes = node.processes()?.processes.iter();
    let mut of_pods = processes.filter(|process| !process.uses.is_empty() && !is_service(process));
    let (mut unknown, mut known) = (0, 0);
    let mut unknown_pods = BTreeSet::new();
    for uid in of_pods.by_ref().filter_map(|process| process.pod_uid.as_ref()) {
        if live.contains(uid) {
            known += 1;
        } else {
            unknown += 1;
            unknown_pods.insert(uid);
        }
    }
    let none = known == 0 && !running.iter().any(has_devices);
    let is_enough = (unknown > 0 && !running.is_empty()) || unknown_pods.len() >= SEVERAL;
    (none && is_enough).then_some(Unmatched { pods: running.len(), processes: unknown })
}
