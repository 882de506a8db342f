//! What a node says of itself: its conditions with their ages, and the labels that speak of GPUs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::text::clean;

use crate::kubernetes::model::gpu_nodes;

/// Conditions of one node: far more than any has.
const MOST_CONDITIONS: usize = 64;

/// A condition of the node.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Condition {
    /// Name.
    pub name: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// Reason, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In words; only of a condition that is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long it has been so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<i64>,
}

/// The conditions of a node, with their ages.
pub(crate) fn conditions(node: &Node) -> Vec<Condition> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let trouble = gpu_nodes::gpu_conditions(node);
    let now = Timestamp::now();
    let one = |condition: &k8s_openapi::api::core::v1::NodeCondition| {
        let as_it_should = match condition.type_.as_str() {
            "Ready" => condition.status == "True",
            name if trouble.iter().any(|text| text.starts_with(&format!("{name} is "))) => false,
            name if ["Pressure", "Unavailable"].iter().any(|end| name.ends_with(end)) => condition.status == "False",
            _ => true,
        };
        let message = condition.message.as_deref().filter(|_| !as_it_should).map(|text| clean(text, 200));
        let since = condition.last_transition_time.as_ref();
        Condition {
            name: clean(&condition.type_, 80),
            status: clean(&condition.status, 20),
            reason: condition.reason.as_deref().map(|reason| clean(reason, 80)),
            message: message.filter(|text| !text.is_empty()),
            for_seconds: since.map(|since| (now.as_second() - since.0.as_second()).max(0)),
        }
    };
    conditions.iter().take(MOST_CONDITIONS).map(one).collect()
}

/// Labels that speak of GPUs, under their full names: without the prefix they select nothing.
pub(crate) fn gpu_labels(node: &Node) -> BTreeMap<String, String> {
    /// What each CUDA version number is tells nothing about the node.
    const NOISE: [&str; 4] = ["cuda.driver.", "cuda.driver-version.", "cuda.runtime.", "cuda.runtime-version."];
    // What an operator deploys where is no news, unless it holds something back: `paused-for-mig-change`, `false`.
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
