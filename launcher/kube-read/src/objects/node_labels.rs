//! `is_gpu_node`: whether a node has GPUs. `gpu_labels`, `label_number`: read labels of a node. `replicas`: the shares
//! of each GPU. `states`: the labels in which operators and monitors report an unfinished or unhealthy state.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::text::clean;

use crate::objects::gpu_resource_names::is_gpu_resource;
use crate::objects::platform_signals;

/// Returns whether a label shows that NVIDIA is the vendor of the node's GPUs. Cloud providers and Karpenter set such
/// labels before any NVIDIA software runs: `cloud.google.com/gke-accelerator`,
/// `karpenter.k8s.aws/instance-gpu-manufacturer`.
fn names_vendor(name: &str, value: &str) -> bool {
    (name.contains("accelerator") || name.contains("gpu")) && value.starts_with("nvidia")
}

/// Returns whether a node has GPUs, according to its capacity, or to labels that remain when the device plugin is down.
pub fn is_gpu_node(node: &Node) -> bool {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.is_some_and(|resources| resources.keys().any(|name| is_gpu_resource(name)))
        || node.labels().get("nvidia.com/gpu.present").is_some_and(|present| present == "true")
        || label_number(node, "nvidia.com/gpu.count").is_some_and(|count| count > 0)
        || node.labels().iter().any(|(name, value)| names_vendor(name, value))
        || node.labels().keys().any(|name| name.starts_with("feature.node.kubernetes.io/pci-") && name.contains("10de"))
}

/// Maximum number of state labels that are returned for one node.
const MAX_STATES: usize = 8;
/// Words in the names of labels and annotations whose value is a state.
const OF_STATE: [&str; 7] = ["state", "status", "health", "upgrade", "remediation", "quarantine", "phase"];
/// Values that are healthy states or not states at all. The GPU Operator's own labels have separate rules.
const IN_ORDER: [&str; 23] = [
    "true",
    "false",
    "success",
    "succeeded",
    "upgrade-done",
    "done",
    "ready",
    "completed",
    "complete",
    "idle",
    "enabled",
    "disabled",
    "none",
    "healthy",
    "ok",
    "pass",
    "passed",
    "running",
    "active",
    "installed",
    "deployed",
    "normal",
    "production",
];
/// Prefixes of values that report a failure or a pause, regardless of the name of the label.
const FAILURES: [&str; 7] = ["fail", "error", "paused", "unhealthy", "degraded", "stuck", "pre-installed"];
/// Names of labels that rules already check.
const JUDGED: [&str; 1] = ["nvidia.com/mig.config.state"];

/// Returns whether an operator or a monitor reports a state with this label or annotation that is not finished and not
/// healthy.
pub fn reports_state(name: &str, value: &str) -> bool {
    let (key, value) = (name.to_ascii_lowercase(), value.to_ascii_lowercase());
    let failure = FAILURES.iter().any(|start| value.starts_with(start));
    // A failure may come with its reason. Other values with more than words are hashes, times and documents.
    let is_word = value.len() < 64 && value.bytes().all(|byte| byte.is_ascii_alphabetic() || b"-_ ".contains(&byte))
        || failure && value.len() < 240;
    let of_state = OF_STATE.iter().any(|word| key.contains(word));
    let judged = platform_signals::is_known_state(name)
        || JUDGED.contains(&name)
        || (name.starts_with("nvidia.com/") && value.starts_with("paused"));
    is_word && !value.is_empty() && !judged && (failure || (of_state && !IN_ORDER.contains(&value.as_str())))
}

/// Returns the labels and annotations in which operators and monitors report a state that is not finished and not
/// healthy.
pub fn states(node: &Node) -> Vec<String> {
    let all = node.labels().iter().chain(node.annotations());
    let reported = all.filter(|(name, value)| reports_state(name, value));
    reported.map(|(name, value)| clean(&format!("{name}={value}"), 320)).take(MAX_STATES).collect()
}

/// Label with the number of containers that can share a GPU, if GKE's device plugin shares the GPUs.
const SHARED_CLIENTS: &str = "cloud.google.com/gke-max-shared-clients-per-gpu";

/// Returns the number of replicas of one unit of `resource` on this node (time-slicing, MPS), or 1 without sharing.
pub fn replicas(node: &Node, resource: &str) -> u32 {
    let plain = resource.trim_end_matches(".shared");
    let label = match plain.strip_prefix("nvidia.com/mig-") {
        Some(_) => format!("{plain}.replicas"),
        None => "nvidia.com/gpu.replicas".to_owned(),
    };
    label_number(node, &label).or_else(|| label_number(node, SHARED_CLIENTS)).unwrap_or(1).max(1)
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
    fn states_that_are_neither_done_nor_healthy_are_kept() {
        let node: Node = serde_json::from_value(serde_json::json!({"metadata": {"name": "n",
            "labels": {"nvidia.com/gpu.deploy.driver": "pre-installed", "nvidia.com/gpu.deploy.dcgm": "true",
                "nvidia.com/mig.config.state": "failed", "x.io/upgrade-state": "done"},
            "annotations": {"x.io/last-state": "drain-failed", "x.io/state-hash": "0f3c91", "machine.io/state": "Done",
                "gpu.health/last-check": "FAILED: dcgmi diag r2: Memory - Fail GPU 3"}}}))
        .expect("a node");
        let found = [
            "nvidia.com/gpu.deploy.driver=pre-installed",
            "gpu.health/last-check=FAILED: dcgmi diag r2: Memory - Fail GPU 3",
            "x.io/last-state=drain-failed",
        ];
        assert_eq!(states(&node), found);
    }

    #[test]
    fn each_platform_names_the_shares_of_a_gpu_in_its_own_label() {
        let shares = |label: &str, resource: &str| {
            let node = json!({"metadata": {"name": "gpu-1", "labels": {label: "4"}}});
            replicas(&serde_json::from_value(node).expect("a node"), resource)
        };
        let (gpu, mig) = ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb");
        assert_eq!(shares("nvidia.com/gpu.replicas", gpu), 4);
        assert_eq!(shares("cloud.google.com/gke-max-shared-clients-per-gpu", gpu), 4);
        assert_eq!(shares("nvidia.com/mig-1g.10gb.replicas", mig), 4);
        assert_eq!(shares("kubernetes.io/os", gpu), 1);
    }

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
