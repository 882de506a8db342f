//! `is_gpu_node`: whether a node has GPUs. `gpu_labels`, `replicas`, `label_number`: labels of a node about its GPUs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::text::clean;

use crate::objects::gpu_resource_names::is_gpu_resource;

/// Labels of cloud providers and Karpenter on nodes with GPUs of NVIDIA. They are set before any software of NVIDIA runs.
const CLOUD_LABELS: [&str; 4] = [
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "kubernetes.azure.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-manufacturer",
];

/// Whether a node has GPUs, according to its capacity, or to labels that remain when the device plugin is down.
pub fn is_gpu_node(node: &Node) -> bool {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.is_some_and(|resources| resources.keys().any(|name| is_gpu_resource(name)))
        || node.labels().get("nvidia.com/gpu.present").is_some_and(|present| present == "true")
        || label_number(node, "nvidia.com/gpu.count").is_some_and(|count| count > 0)
        || CLOUD_LABELS.iter().filter_map(|name| node.labels().get(*name)).any(|value| value.starts_with("nvidia"))
        || node.labels().keys().any(|name| name.starts_with("feature.node.kubernetes.io/pci-") && name.contains("10de"))
}

/// Returns the number of replicas of one unit of `resource` on this node (time-slicing, MPS), or 1 without sharing.
pub fn replicas(node: &Node, resource: &str) -> u32 {
    let plain = resource.trim_end_matches(".shared");
    let label = match plain.strip_prefix("nvidia.com/mig-") {
        Some(_) => format!("{plain}.replicas"),
        None => "nvidia.com/gpu.replicas".to_owned(),
    };
    label_number(node, &label).unwrap_or(1).max(1)
}

/// Returns the value of a label as a number.
pub fn label_number(node: &Node, label: &str) -> Option<u32> {
    node.labels().get(label)?.parse().ok()
}

/// Returns the labels about GPUs, with their full names.
pub fn gpu_labels(node: &Node) -> BTreeMap<String, String> {
    /// Redundant labels with parts of the CUDA version.
    const NOISE: [&str; 4] = ["cuda.driver.", "cuda.driver-version.", "cuda.runtime.", "cuda.runtime-version."];
    // The value `true` of a deploy label is normal. Only other values are relevant: `paused-for-mig-change`, `false`.
    let is_noise = |name: &str, value: &str| {
        NOISE.iter().any(|noise| name.starts_with(noise)) || (name.starts_with("gpu.deploy.") && value == "true")
    };
    let of_gpus = node
        .labels()
        .iter()
        .filter(|(name, value)| name.strip_prefix("nvidia.com/").is_some_and(|rest| !is_noise(rest, value)));
    of_gpus.take(40).map(|(name, value)| (clean(name, 120), clean(value, 63))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_keep_their_names_and_what_holds_something_back_is_no_noise() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "gpu-1", "labels": {
            "nvidia.com/gpu.product": "NVIDIA-A100",
            "nvidia.com/gpu.deploy.driver": "true",
            "nvidia.com/gpu.deploy.device-plugin": "paused-for-mig-change",
            "nvidia.com/cuda.driver.major": "570",
            "kubernetes.io/os": "linux",
        }}}))
        .expect("a node");
        let labels = gpu_labels(&node);
        let names: Vec<_> = labels.keys().map(String::as_str).collect();
        assert_eq!(names, ["nvidia.com/gpu.deploy.device-plugin", "nvidia.com/gpu.product"]);
    }
}
