//! Running containers that ask for GPUs and were given none.

use super::books::Books;
use super::rules::WITHOUT_GPU;
use crate::diagnosis::draft::Draft;
use crate::diagnosis::gpu_pods::{GpuContainer, GpuPod};
use crate::diagnosis::node::Node;
use crate::diagnosis::quote;

pub(super) fn judge(node: &Node<'_>, books: &Books<'_>) -> Vec<Draft> {
    let running = books.pods.iter().filter(|pod| pod.phase == "Running" && !pod.deleting);
    let containers = running.flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    containers.filter_map(|(pod, container)| empty_handed(node, books, pod, container)).collect()
}

fn empty_handed(node: &Node<'_>, books: &Books<'_>, pod: &GpuPod, container: &GpuContainer) -> Option<Draft> {
    let since = container.running_since.filter(|since| books.is_settled(Some(*since)))?;
    let mut own = books.bookings(pod);
    // A resource that a claim stands for is booked as a claim of the pod.
    if own.any(|booking| booking.claim.is_some() || booking.container == container.name) {
        return None;
    }
    // Only what a device plugin registered is booked; an administrator may add any other resource to a node.
    let registered = |resource: &str| {
        books.kubelet.registered.iter().any(|one| one.resource == resource)
            || books.kubelet.allocations.iter().any(|one| one.resource == resource)
    };
    let (resource, count) = container.requests.iter().find(|(resource, count)| **count > 0 && registered(resource))?;
    let name = quote::data(&pod.full_name());
    let asks = format!(
        "pod {name} container {} requests {count} {} and has run since {}",
        quote::data(&container.name),
        quote::data(resource),
        quote::time(since)
    );
    let mut draft = Draft::on_node(WITHOUT_GPU)
        .with_evidence(asks)
        .with_evidence("the kubelet has booked no device for it")
        .with_all_evidence(booted(node, since));
    draft.scope.pod_uid = Some(pod.uid.clone());
    Some(draft)
}

/// When the node was booted, where that was shortly before.
fn booted(node: &Node<'_>, since: jiff::Timestamp) -> Option<String> {
    let uptime = i64::try_from(node.host()?.uptime_seconds?).ok()?;
    let boot = node.now? - jiff::SignedDuration::from_secs(uptime);
    let after = since.duration_since(boot);
    (!after.is_negative() && after <= jiff::SignedDuration::from_mins(15))
        .then(|| format!("{} after the boot of the node", quote::span(after)))
}
