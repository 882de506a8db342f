//! Reads facts from a Node object: GPU model, driver version, taints, capacity, use of each resource, number of GPUs,
//! problems. `cluster_facts`: the facts that the rules use.
//!
//! GPUs of device plugins and GPUs of dynamic resource allocation are both converted to amounts by name.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::text::clean;
use syringe_core::unknown::FROM_REPORT;

use crate::objects::cordon;
use crate::objects::dra::Dra;
use crate::objects::gpu_operator_labels;
use crate::objects::gpu_requests;
use crate::objects::gpu_requests::{ResourceCounts, ResourceUse};
use crate::objects::gpu_resource_names::{GPU_RESOURCE, count, gpu_count, gpu_resources, is_gpu_resource};
use crate::objects::node_conditions::{
    gpu_conditions, gpu_conditions_since, is_ready, ready_since, unhealthy_conditions,
};
use crate::objects::node_labels::{self, label_number, replicas};
use crate::objects::platform_signals;

/// Labels with the GPU model, the most reliable first: GPU Feature Discovery, then the cloud providers.
const MODEL_LABELS: [&str; 4] = [
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
];

pub fn model(node: &Node, dra: Option<&Dra>) -> Option<String> {
    let labelled = MODEL_LABELS.iter().find_map(|name| node.labels().get(*name));
    labelled.map(|value| clean(value, 80)).or_else(|| {
        let name = node.name_any();
        dra?.devices_on(&name).find_map(|(_, device)| device.product.clone())
    })
}

/// Returns the driver version from the labels of GPU Feature Discovery: one label since 0.16, three before.
pub fn driver_version(node: &Node, dra: Option<&Dra>) -> Option<String> {
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

/// Returns the taints as `key=value:effect`.
pub fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let text = |key: &str, value: &str, effect: &str| match value {
        "" => format!("{key}:{effect}"),
        value => format!("{key}={value}:{effect}"),
    };
    taints.iter().map(|taint| text(&taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect)).collect()
}

pub fn capacity_and_allocatable(node: &Node, dra: Option<&Dra>) -> (ResourceCounts, ResourceCounts) {
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

/// Returns the use of each resource.
pub fn uses(node: &Node, allocated: Option<&ResourceCounts>, dra: Option<&Dra>) -> Vec<ResourceUse> {
    let (capacity, allocatable) = capacity_and_allocatable(node, dra);
    gpu_requests::uses(&capacity, &allocatable, allocated, |resource| replicas(node, resource))
}

/// Returns the number of physical GPUs: the maximum of the label nvidia.com/gpu.count, the DRA devices and the
/// capacity.
pub fn physical_gpus(node: &Node, uses: &[ResourceUse], dra: Option<&Dra>) -> u64 {
    let counted = label_number(node, "nvidia.com/gpu.count").map(u64::from);
    let name = node.name_any();
    let published = dra.map_or(0, |dra| dra.devices_on(&name).filter(|(_, device)| device.is_whole()).count() as u64);
    let whole = uses.iter().filter(|one| one.resource == GPU_RESOURCE || one.resource == "nvidia.com/gpu.shared");
    let offered = whole.map(|one| one.capacity / u64::from(one.replicas.unwrap_or(1))).max().unwrap_or(0);
    counted.unwrap_or(0).max(published).max(offered)
}

/// Returns the problems that Kubernetes reports.
pub fn problems(node: &Node, capacity: &ResourceCounts, allocatable: &ResourceCounts) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_ready(node) {
        problems.push("not Ready".to_owned());
    }
    // The amounts include the devices of dynamic resource allocation, under the names of their drivers.
    let offers_any = capacity.values().any(|count| *count > 0);
    let facts = KubernetesFacts { gpu_dra: Some(offers_any), ..cluster_facts(node) };
    if facts.advertises_no_gpus() {
        problems.push(format!(
            "advertises no {GPU_RESOURCE}: the NVIDIA device plugin is not running, or finds no healthy GPU"
        ));
    }
    for (resource, has) in capacity {
        let gives = allocatable.get(resource).copied().unwrap_or(0);
        if gives < *has {
            let what = if resource == GPU_RESOURCE { "GPUs" } else { resource };
            // The device plugin reports these GPUs as unhealthy, or does not run.
            problems.push(format!("{} of {has} {what} not allocatable", has - gives));
        }
    }
    problems.extend(gpu_conditions(node));
    problems
}

/// Returns whether the object was made from a report of node-probe. Nothing about Kubernetes is known then.
pub fn is_from_report(node: &Node) -> bool {
    node.annotations().contains_key(FROM_REPORT)
}

/// Returns the data from the Node object that the rules use.
pub fn cluster_facts(node: &Node) -> KubernetesFacts {
    if is_from_report(node) {
        return KubernetesFacts::default();
    }
    let status = node.status.as_ref();
    let quantities = |read: fn(&k8s_openapi::api::core::v1::NodeStatus) -> Option<_>| status.and_then(read);
    let info = status.and_then(|status| status.node_info.as_ref());
    let replicas = replicas(node, GPU_RESOURCE);
    let gpus = |resources: Option<_>| resources.as_ref().and_then(gpu_count).map(|count| count / replicas);
    KubernetesFacts {
        node: Some(node.name_any()),
        gpu_capacity: gpus(quantities(|status| status.capacity.clone())),
        gpu_allocatable: gpus(quantities(|status| status.allocatable.clone())),
        gpu_label_count: label_number(node, "nvidia.com/gpu.count"),
        instance_type: node.labels().get("node.kubernetes.io/instance-type").map(|name| clean(name, 63)),
        other_gpu_resources: !others(node).is_empty(),
        other_gpus_withheld: withheld(node),
        gpu_conditions: gpu_conditions(node),
        gpu_conditions_since: gpu_conditions_since(node),
        ready: Some(is_ready(node)),
        ready_since: ready_since(node),
        os_image: info.map(|info| clean(&info.os_image, 120)),
        runtime_version: info.map(|info| clean(&info.container_runtime_version, 60)),
        labels: gpu_operator_labels::from_node(node),
        conditions: unhealthy_conditions(node),
        taints: taints(node),
        states: node_labels::states(node),
        decisions: platform_signals::decisions(node),
        cordon_notes: cordon::notes(node),
        created: node.metadata.creation_timestamp.as_ref().map(|time| time.0),
        deleting: node.metadata.deletion_timestamp.is_some(),
        // The other fields, such as the time of the read, are not in the Node object.
        ..KubernetesFacts::default()
    }
}

/// Domains of the resources of other vendors' GPUs.
const OTHER_VENDORS: [&str; 6] = ["amd.com", "intel.com", "habana.ai", "huawei.com", "cambricon.com", "mthreads.com"];

/// Returns whether this may be a resource with which other software offers NVIDIA GPUs, whole or in parts:
/// `volcano.sh/vgpu-number`, `aliyun.com/gpu-mem`.
fn is_of_other_software(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else { return false };
    domain != "nvidia.com" && rest.contains("gpu") && !OTHER_VENDORS.iter().any(|vendor| domain.ends_with(vendor))
}

/// Returns the GPU resources other than nvidia.com/gpu (MIG, renamed, of other software) that the node has.
fn others(node: &Node) -> Vec<(&String, u64)> {
    let capacity = node.status.iter().flat_map(|status| status.capacity.iter().flatten());
    let is_other = |name: &str| {
        is_of_other_software(name) || is_gpu_resource(name) && name != GPU_RESOURCE && name != "nvidia.com/gpu.shared"
    };
    let amounts = capacity.filter(|(name, _)| is_other(name)).map(|(name, amount)| (name, count(&amount.0)));
    amounts.filter(|(_, amount)| *amount > 0).collect()
}

/// Returns these resources if pods can get none of them: the plugin that registered them does not run, or marks all
/// devices as unhealthy.
fn withheld(node: &Node) -> Vec<String> {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let Some(allocatable) = allocatable else { return Vec::new() };
    let others = others(node);
    let gives = |name: &String| allocatable.get(name).is_some_and(|amount| count(&amount.0) > 0);
    if others.iter().any(|(name, _)| gives(name)) {
        return Vec::new();
    }
    others.into_iter().map(|(name, amount)| format!("{}: {amount}", clean(name, 80))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gpus_under_another_name_are_told_from_none() {
        let of = |capacity: serde_json::Value| {
            let node = json!({"metadata": {"name": "gpu-1"}, "status": {"capacity": capacity}});
            cluster_facts(&serde_json::from_value(node).expect("a node")).other_gpu_resources
        };
        assert!(of(json!({"nvidia.com/mig-1g.10gb": "7"})) && of(json!({"nvidia.com/GA102GL_A10": "1"})));
        assert!(of(json!({"volcano.sh/vgpu-number": "40"})) && of(json!({"tke.cloud.tencent.com/qgpu-core": "400"})));
        assert!(!of(json!({"amd.com/gpu": "8"})) && !of(json!({"gpu.intel.com/i915": "1", "aliyun.com/gpu-mem": "0"})));
        assert!(!of(json!({"nvidia.com/gpu": "8", "cpu": "64"})) && !of(json!({"nvidia.com/mig-1g.10gb": "0"})));
    }

    #[test]
    fn resources_of_which_pods_get_none_are_withheld() {
        let of = |allocatable: serde_json::Value| {
            let capacity = json!({"volcano.sh/vgpu-number": "40", "volcano.sh/vgpu-memory": "184272", "cpu": "64"});
            let node =
                json!({"metadata": {"name": "gpu-1"}, "status": {"capacity": capacity, "allocatable": allocatable}});
            cluster_facts(&serde_json::from_value(node).expect("a node")).other_gpus_withheld
        };
        let all = ["volcano.sh/vgpu-memory: 184272", "volcano.sh/vgpu-number: 40"];
        assert_eq!(of(json!({"volcano.sh/vgpu-number": "0", "cpu": "64"})), all);
        assert!(of(json!({"volcano.sh/vgpu-number": "40"})).is_empty());
    }
}
