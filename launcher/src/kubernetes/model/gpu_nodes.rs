//! GPU nodes as the API shows them: capacity, labels of GPU Feature Discovery, taints, conditions. No probe.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use syringe_core::text::clean;

use crate::error::Failure;
use crate::kubernetes::Connection;
use crate::kubernetes::client::pages;
use crate::kubernetes::client::pages::Query;
use crate::kubernetes::model::resources::{GPU_RESOURCE, count, is_gpu_resource};
use crate::kubernetes::model::slim;

/// Conditions of one node that are told.
const MOST_CONDITIONS: usize = 32;

/// Reads all nodes that match `selector`, page by page, and makes a row of each one that `is_wanted`. Returns the number of
/// nodes that were looked at, too.
pub(crate) async fn collect<R>(
    connection: &Connection,
    selector: Option<&str>,
    is_wanted: impl Fn(&Node) -> bool,
    row: impl Fn(Node) -> R,
) -> Result<(u32, Vec<R>), Failure> {
    let query = Query { what: "Listing the nodes", path: "/api/v1/nodes", labels: selector, fields: None };
    let fresh = || (0, Vec::new());
    pages::fold(connection, &query, fresh, |(seen, rows), node: slim::Node| {
        *seen += 1;
        let node = Node::from(node);
        if is_wanted(&node) {
            rows.push(row(node));
        }
    })
    .await
}

/// Whether a node has GPUs: by capacity, or by the labels that survive a device plugin that is down.
pub fn is_gpu_node(node: &Node) -> bool {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.is_some_and(|resources| resources.keys().any(|name| is_gpu_resource(name)))
        || node.labels().get("nvidia.com/gpu.present").is_some_and(|present| present == "true")
        || label_number(node, "nvidia.com/gpu.count").is_some_and(|count| count > 0)
        || node.labels().keys().any(|name| name.starts_with("feature.node.kubernetes.io/pci-") && name.contains("10de"))
}

/// Whole GPUs (`nvidia.com/gpu` or its shared name); `None` where the node offers none under that name.
pub(crate) fn gpu_count(resources: &BTreeMap<String, Quantity>) -> Option<u32> {
    let named =
        |name: &str| resources.get(name).map(|quantity| count(&quantity.0)).and_then(|count| u32::try_from(count).ok());
    let whole = named(GPU_RESOURCE);
    // Renamed shares leave the old name behind with nothing in it.
    whole.filter(|count| *count > 0).or_else(|| named("nvidia.com/gpu.shared")).or(whole)
}

/// Into how many shares one unit of `resource` is cut on this node (time-slicing, MPS): 1 where it is not.
pub(crate) fn replicas(node: &Node, resource: &str) -> u32 {
    let plain = resource.trim_end_matches(".shared");
    let label = match plain.strip_prefix("nvidia.com/mig-") {
        Some(_) => format!("{plain}.replicas"),
        None => "nvidia.com/gpu.replicas".to_owned(),
    };
    label_number(node, &label).unwrap_or(1).max(1)
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
        .take(MOST_CONDITIONS)
        .map(|condition| {
            let reason = condition.reason.as_deref().unwrap_or("no reason");
            let message = clean(condition.message.as_deref().unwrap_or_default(), 160);
            let (name, status, reason) = (clean(&condition.type_, 80), clean(&condition.status, 20), clean(reason, 80));
            format!("{name} is {status}: {reason}, {message}")
        })
        .collect()
}
