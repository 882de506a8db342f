//! GPU nodes as the API shows them: capacity, labels of GPU Feature Discovery, taints, conditions. No probe.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use syringe_core::text::clean;

use super::node::{timed_out, unanswered};
use super::{Connection, patience};
use crate::error::Failure;

/// Nodes per page of a list: bounds the memory for one answer of the API server.
const PAGE: u32 = 250;

/// The resource of whole GPUs.
pub(crate) const GPU_RESOURCE: &str = "nvidia.com/gpu";

/// Reads all nodes that match `selector`, page by page, and hands each GPU node to `take`.
pub async fn each(connection: &Connection, selector: Option<&str>, mut take: impl FnMut(Node)) -> Result<u32, Failure> {
    let nodes: Api<Node> = Api::all(connection.client.clone());
    let mut page = ListParams::default().limit(PAGE);
    page.label_selector = selector.map(str::to_owned);
    let what = || format!("Listing nodes of context {}", connection.context);
    let mut seen = 0;
    loop {
        let list = patience::read(|| nodes.list(&page))
            .await
            .ok_or_else(|| timed_out(connection, what()))?
            .map_err(|error| unanswered(connection, what(), &error))?;
        for node in list.items {
            seen += 1;
            if is_gpu_node(&node) {
                take(node);
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(seen),
        }
    }
}

/// Whether a node has GPUs: by capacity, or by the labels that survive a device plugin that is down.
pub fn is_gpu_node(node: &Node) -> bool {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.is_some_and(|resources| resources.keys().any(|name| is_gpu_resource(name)))
        || node.labels().get("nvidia.com/gpu.present").is_some_and(|present| present == "true")
        || label_number(node, "nvidia.com/gpu.count").is_some_and(|count| count > 0)
        || node.labels().keys().any(|name| name.starts_with("feature.node.kubernetes.io/pci-") && name.contains("10de"))
}

/// `nvidia.com/gpu`, `nvidia.com/gpu.shared`, `nvidia.com/mig-1g.10gb` and their like.
pub fn is_gpu_resource(name: &str) -> bool {
    name.strip_prefix("nvidia.com/")
        .is_some_and(|rest| rest == "gpu" || rest.starts_with("gpu.") || rest.starts_with("mig-"))
}

/// GPU resources and their amounts.
pub fn gpu_resources(resources: &BTreeMap<String, Quantity>) -> BTreeMap<String, u32> {
    let gpus = resources.iter().filter(|(name, _)| is_gpu_resource(name));
    gpus.map(|(name, quantity)| (name.clone(), quantity.0.parse().unwrap_or(0))).collect()
}

/// Whole GPUs (`nvidia.com/gpu` or its shared name); `None` where the node offers none under that name.
pub(crate) fn gpu_count(resources: &BTreeMap<String, Quantity>) -> Option<u32> {
    let named = |name: &str| resources.get(name).and_then(|quantity| quantity.0.parse().ok());
    named(GPU_RESOURCE).or_else(|| named("nvidia.com/gpu.shared"))
}

/// A label that holds a number.
pub(crate) fn label_number(node: &Node, label: &str) -> Option<u32> {
    node.labels().get(label)?.parse().ok()
}

/// Conditions that speak of GPUs and are not in their healthy state: `type: reason, message`.
///
/// NVSentinel, node-problem-detector and the GPU Operator set conditions whose `True` means trouble; a few are named for
/// the healthy state.
pub(crate) fn gpu_conditions(node: &Node) -> Vec<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let speaks_of_gpus = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["gpu", "xid", "nvlink", "nvidia", "nvswitch", "dcgm", "acceleratedhardware"]
            .iter()
            .any(|word| name.contains(word))
    };
    conditions
        .iter()
        .filter(|condition| speaks_of_gpus(&condition.type_))
        .filter(|condition| {
            let healthy_when_true = ["Ready", "Healthy", "OK"].iter().any(|end| condition.type_.ends_with(end));
            condition.status != if healthy_when_true { "True" } else { "False" }
        })
        .map(|condition| {
            let reason = condition.reason.as_deref().unwrap_or("no reason");
            let message = clean(condition.message.as_deref().unwrap_or_default(), 160);
            format!("{} is {}: {reason}, {message}", condition.type_, condition.status)
        })
        .collect()
}
