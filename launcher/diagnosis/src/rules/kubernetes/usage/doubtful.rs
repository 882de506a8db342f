//! `check`: finds pods that request more GPUs than exist, and nodes on which no pod matches a GPU process or an
//! allocation.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::node::Node;
use crate::input::pods_match::{Unmatched, matching_fails};
use crate::rule::Draft;
use crate::rules::kubernetes::usage::rules::{MATCHING_FAILED, MORE_THAN_EXIST};
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;

/// Maximum number of pods in the evidence.
const NAMED: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = more_than_exist(node);
    if let Some(Unmatched { pods, processes }) = matching_fails(node) {
        let of_api = match pods {
            0 => "the API lists no running pod with GPUs on the node".to_owned(),
            pods => {
                let pods = evidence::count(pods, "running pod");
                format!("the kubelet has allocated no device to {pods} that requests GPUs")
            }
        };
        drafts.push(
            Draft::on_node(MATCHING_FAILED)
                .with_evidence(of_api)
                .with_evidence(format!("the API lists no pod for {} on the GPUs", programs(processes)))
                .with_evidence("no pod of the node matches an allocation or a process"),
        );
    }
    drafts
}

fn programs(count: usize) -> String {
    if count == 1 { "1 process".to_owned() } else { format!("{count} processes") }
}

/// Compares the requests of the pods with the devices that the kubelet lists, for each resource.
fn more_than_exist(node: &Node<'_>) -> Vec<Draft> {
    let (Some(pods), Some(kubelet)) = (&node.kubernetes.gpu_pods, node.kubelet()) else { return Vec::new() };
    let holds = |pod: &&GpuPod| matches!(pod.phase.as_str(), "Running" | "Pending") && !pod.deleting && !pod.has_claims;
    let mut requested: BTreeMap<&str, (u64, Vec<String>)> = BTreeMap::new();
    for pod in pods.iter().filter(holds) {
        for (resource, count) in pod.containers.iter().flat_map(|container| &container.requests) {
            let (sum, names) = requested.entry(resource).or_default();
            *sum = sum.saturating_add(*count);
            names.push(format!("{} ({count})", evidence::name(&pod.full_name())));
        }
    }
    let mut drafts = Vec::new();
    for (resource, (sum, names)) in requested {
        let registered = kubelet.registered.iter().filter(|one| one.resource == resource);
        let registered: usize = registered.map(|one| one.devices.len()).sum();
        let capacity = node.kubernetes.gpu_capacity.filter(|_| resource == "nvidia.com/gpu").unwrap_or(0);
        let most = u64::from(capacity).max(registered as u64);
        // If the allocations show that the devices are shared, each device can be requested several times.
        let mut allocated = kubelet.allocations.iter().filter(|one| one.resource == resource).peekable();
        let known = registered > 0 && allocated.peek().is_some();
        if known && allocated.all(|one| one.replicas.is_none()) && sum > most {
            drafts.push(
                Draft::on_node(MORE_THAN_EXIST)
                    .with_evidence(format!("the pods of the node request {sum} of {most} {}", evidence::data(resource)))
                    .with_evidence(format!("pods: {}", evidence::some(&names, NAMED))),
            );
        }
    }
    drafts
}
