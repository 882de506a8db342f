//! The GPUs of one node by Kubernetes' own account: what it has, what it may give out, what pods hold. Device plugins and
//! dynamic resource allocation speak different languages; here both become amounts by name.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::text::clean;

use crate::kubernetes::model::allocation;
use crate::kubernetes::model::allocation::{Amounts, ResourceUse};
use crate::kubernetes::model::dra::Dra;
use crate::kubernetes::model::gpu_nodes::{label_number, replicas};
use crate::kubernetes::model::resources::{GPU_RESOURCE, gpu_resources};

/// Labels that name the model, the surest first: GPU Feature Discovery, then the clouds'.
const MODEL_LABELS: [&str; 4] = [
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
];

/// The GPU's model.
pub(crate) fn model(node: &Node, dra: Option<&Dra>) -> Option<String> {
    let labelled = MODEL_LABELS.iter().find_map(|name| node.labels().get(*name));
    labelled.map(|value| clean(value, 80)).or_else(|| {
        let name = node.name_any();
        dra?.devices_on(&name).find_map(|(_, device)| device.product.clone())
    })
}

/// The driver's version from the labels of GPU Feature Discovery: one label since 0.16, three before.
pub(crate) fn driver_version(node: &Node, dra: Option<&Dra>) -> Option<String> {
    let label = |name: &str| node.labels().get(name).map(|value| clean(value, 40));
    let in_parts = || {
        let parts = ["major", "minor", "rev"].map(|part| label(&format!("nvidia.com/cuda.driver.{part}")));
        let parts: Vec<_> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        (!parts.is_empty()).then(|| parts.join("."))
    };
    let published = || {
        let name = node.name_any();
        dra?.devices_on(&name).find_map(|(_, device)| device.driver_version.clone())
    };
    label("nvidia.com/cuda.driver-version.full").or_else(in_parts).or_else(published)
}

/// Whether the kubelet is Ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Taints, `key=value:effect`.
pub(crate) fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let text = |key: &str, value: &str, effect: &str| match value {
        "" => format!("{key}:{effect}"),
        value => format!("{key}={value}:{effect}"),
    };
    taints.iter().map(|taint| text(&taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect)).collect()
}

/// Capacity and allocatable.
pub(crate) fn offers(node: &Node, dra: Option<&Dra>) -> (Amounts, Amounts) {
    let status = node.status.as_ref();
    let mut capacity = status.and_then(|status| status.capacity.as_ref()).map(gpu_resources).unwrap_or_default();
    let mut allocatable = status.and_then(|status| status.allocatable.as_ref()).map(gpu_resources).unwrap_or_default();
    if let Some(dra) = dra {
        for (name, device) in dra.devices_on(&node.name_any()) {
            let resource = device.resource(name);
            let unusable = device.taints.iter().any(|taint| !taint.ends_with(":None"));
            *allocatable.entry(resource.clone()).or_default() += u64::from(!unusable);
            *capacity.entry(resource).or_default() += 1;
        }
    }
    (capacity, allocatable)
}

/// The use of each resource.
pub(crate) fn uses(node: &Node, allocated: Option<&Amounts>, dra: Option<&Dra>) -> Vec<ResourceUse> {
    let (capacity, allocatable) = offers(node, dra);
    allocation::uses(&capacity, &allocatable, allocated, |resource| replicas(node, resource))
}

/// GPUs of the node as things that one could touch: what GPU Feature Discovery counted, else what the resources say.
pub(crate) fn physical_gpus(node: &Node, uses: &[ResourceUse], dra: Option<&Dra>) -> u64 {
    let counted = label_number(node, "nvidia.com/gpu.count").map(u64::from);
    let name = node.name_any();
    let published = dra.map_or(0, |dra| dra.devices_on(&name).filter(|(_, device)| device.is_whole()).count() as u64);
    let whole = uses.iter().filter(|one| one.resource == GPU_RESOURCE || one.resource == "nvidia.com/gpu.shared");
    let offered = whole.map(|one| one.capacity / u64::from(one.replicas.unwrap_or(1))).max().unwrap_or(0);
    counted.unwrap_or(0).max(published).max(offered)
}

/// What is wrong by Kubernetes' own account.
pub(crate) fn problems(node: &Node, capacity: &Amounts, allocatable: &Amounts) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_ready(node) {
        problems.push("not Ready".to_owned());
    }
    if capacity.values().sum::<u64>() == 0 {
        problems.push("advertises no GPUs: its device plugin is not running, or finds no healthy GPU".to_owned());
    }
    let names: BTreeSet<&String> = capacity.keys().collect();
    for name in names {
        let (has, gives) = (capacity[name], allocatable.get(name).copied().unwrap_or(0));
        if gives < has {
            problems.push(format!("{} of {has} {name} are unhealthy by the device plugin's account", has - gives));
        }
    }
    problems.extend(crate::kubernetes::model::gpu_nodes::gpu_conditions(node));
    problems
}
