//! `check`: finds running containers that request GPUs but have none.

use crate::evidence;
use crate::input::node::Node;
use crate::rule::Draft;
use crate::rules::kubernetes::usage::allocations::Allocations;
use crate::rules::kubernetes::usage::rules::WITHOUT_GPU;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::gpu_pod::{GpuContainer, GpuPod};

pub(super) fn check(node: &Node<'_>, all: &Allocations<'_>) -> Vec<Draft> {
    let running = all.pods.iter().filter(|pod| pod.phase == "Running" && !pod.deleting);
    let containers = running.flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    containers.filter_map(|(pod, container)| without_device(node, all, pod, container)).collect()
}

fn without_device(node: &Node<'_>, all: &Allocations<'_>, pod: &GpuPod, container: &GpuContainer) -> Option<Draft> {
    let since = container.running_since.filter(|since| all.is_settled(Some(*since)))?;
    let mut own = all.of_pod(pod);
    // If a claim provides the resource, the kubelet lists the allocation under the claim of the pod, not under the
    // container.
    if own.any(|allocation| allocation.claim.is_some() || allocation.container == container.name) {
        return None;
    }
    // The kubelet allocates only resources that a device plugin registered. An administrator may add any other resource
    // to a node.
    let registered = |resource: &str| {
        all.kubelet.registered.iter().any(|one| one.resource == resource)
            || all.kubelet.allocations.iter().any(|one| one.resource == resource)
    };
    let (resource, count) = container.requests.iter().find(|(resource, count)| **count > 0 && registered(resource))?;
    let name = evidence::data(&pod.full_name());
    let request = format!(
        "container {} of pod {name} requests {count} {} and has been running since {}",
        evidence::data(&container.name),
        evidence::data(resource),
        evidence::time(since)
    );
    let mut draft = Draft::on_node(WITHOUT_GPU)
        .with_evidence(request)
        .with_evidence("the kubelet has allocated no device to it")
        .with_all_evidence(booted(node, since));
    draft.scope.pod_uid = Some(pod.uid.clone());
    // A program that uses a GPU works, so the kubelet's list of allocations is wrong.
    let mut processes = node.processes().into_iter().flat_map(|section| &section.processes);
    if processes.any(|process| process.pod_uid.as_ref() == Some(&pod.uid) && !process.uses.is_empty()) {
        draft = draft
            .with_severity(Severity::Info)
            .with_evidence("its program uses a GPU")
            .with_action(ActionCode::Watch, LISTED_WRONG);
    }
    Some(draft)
}

/// Action for a container that uses a GPU which the kubelet has not recorded.
const LISTED_WRONG: &str = "No action now. The kubelet of {node} can give the GPU of this pod to another pod: recreate the pod when its work has ended.";

/// Returns how long after the boot of the node the container started, if it started shortly after the boot.
fn booted(node: &Node<'_>, since: jiff::Timestamp) -> Option<String> {
    let after = since.duration_since(node.booted()?);
    (!after.is_negative() && after <= jiff::SignedDuration::from_mins(15))
        .then(|| format!("{} after the boot of the node", evidence::span(after)))
}
