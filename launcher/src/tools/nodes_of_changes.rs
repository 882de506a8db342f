//! `check_changes`: reads the nodes on which a pending pod could start after a change (`NodesOfChanges`), and corrects
//! changes that do not help.

use std::collections::BTreeMap;

use diagnosis::finding::Finding;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::classification::Severity;
use syringe_core::facts::inventory::Inventory;
use syringe_core::facts::kubernetes::pod::{CapacityShortage, Change, CheckBefore};
use syringe_core::report::{Section, Source};
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;
use syringe_core::unknown::Unknown;

use crate::call::CallContext;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::read_node::{self, NodeReading, ReadRequest};
use crate::tools::explain_gpu_pod::ExplainGpuPod;
use crate::tools::tool::Tool;
use kube_read::Failure;
use kube_read::client::api_error::section_unknown;
use kube_read::client::connection::Connection;
use kube_read::objects::cordon;

/// The nodes that were read for the changes, each once.
#[derive(Default)]
pub(super) struct NodesOfChanges {
    nodes: BTreeMap<String, Option<(Node, NodeReading)>>,
    /// The probes that ran, or that left something behind.
    pub(super) probes: Vec<ProbeSummary>,
    /// What was not read of these nodes.
    pub(super) unknown: Vec<Unknown>,
}

/// Reads the node whose GPUs are not all allocatable, the node that has room and is excluded, and the nodes of the changes. Adds the most severe finding about
/// a node, and replaces changes that would use a faulty node or disturb a controller.
pub(super) async fn check_changes(
    call: &CallContext,
    connection: &Connection,
    shortage: &mut CapacityShortage,
) -> NodesOfChanges {
    let mut nodes = NodesOfChanges::default();
    if let Some((unhealthy, node)) = shortage.unhealthy.as_mut().zip(shortage.unhealthy_node.as_ref())
        && let Some(worst) = nodes.worst(call, connection, node).await
    {
        unhealthy.push_str(&format!(": {} ({})", worst.title, worst.id));
    }
    // A node is often cordoned because of a fault.
    if let Some((excluded, node)) = shortage.excluded.as_mut().zip(shortage.excluded_node.as_ref())
        && let Some(worst) = nodes.worst(call, connection, node).await
    {
        excluded.push_str(&format!("; the node has a fault: {} ({})", worst.title, worst.id));
        // The change that uncordons the node gets the same action.
        let is_uncordon = |change: &Change| change.check == Some(CheckBefore::Uncordon(node.clone()));
        if !shortage.changes.iter().any(is_uncordon) {
            let action = worst.action.text.trim_end_matches('.');
            shortage.changes.push(Change::from(format!("repair {node}, then let pods use it again: {action}")));
        }
    }
    for change in &mut shortage.changes {
        let Some(check) = change.check.clone() else { continue };
        nodes.correct(call, connection, change, &check).await;
    }
    nodes
}

impl NodesOfChanges {
    async fn correct(&mut self, call: &CallContext, connection: &Connection, change: &mut Change, check: &CheckBefore) {
        let (CheckBefore::Uncordon(node) | CheckBefore::Repair(node) | CheckBefore::Relabel { node, .. }) = check
        else {
            return;
        };
        let worst = self.worst(call, connection, node).await;
        let Some((object, read)) = self.nodes.get(node).and_then(Option::as_ref) else { return };
        let action = worst.as_ref().map(|worst| worst.action.text.trim_end_matches('.')).unwrap_or_default();
        let author = cordon::author(object);
        change.text = match (check, worst.as_ref()) {
            (CheckBefore::Uncordon(_), _) if author.is_some() => {
                let author = author.unwrap_or_default();
                format!("wait until the controller that has cordoned {node} has finished ({author})")
            }
            (CheckBefore::Uncordon(_), Some(worst)) => {
                format!("repair {node} before it is uncordoned: {} ({}). {action}", worst.title, worst.id)
            }
            (CheckBefore::Repair(_), Some(_)) => {
                format!("repair the GPUs of {node} that are not allocatable: {action}")
            }
            (CheckBefore::Relabel { .. }, Some(worst)) => {
                format!("repair {node} before the pod uses it: {} ({}). {action}", worst.title, worst.id)
            }
            (CheckBefore::Relabel { label, .. }, None) if let Some(other) = with_suffix(object, label) => {
                format!(
                    "select {other} in the pod: feature discovery adds this ending, because the GPUs of {node} are divided (time-slicing, MPS or MIG)"
                )
            }
            (CheckBefore::Relabel { label, .. }, None)
                if Section::data_of(&read.report.sections.inventory).is_some_and(|gpus| fulfils(gpus, label)) =>
            {
                format!(
                    "restart feature discovery on {node} (delete its pod), and do not change the nodeSelector: {node} has the GPUs of {label}, so \
                     the label of the node is out of date"
                )
            }
            _ => return,
        };
    }

    /// Returns the most severe finding about a node, if it is critical.
    async fn worst(&mut self, call: &CallContext, connection: &Connection, node: &str) -> Option<Finding> {
        if !self.nodes.contains_key(node) {
            let read = self.read(call, connection, node).await;
            self.nodes.insert(node.to_owned(), read);
        }
        let (_, read) = self.nodes.get(node)?.as_ref()?;
        let severe = read.diagnosis.findings.iter().filter(|finding| finding.severity >= Severity::Critical);
        severe.min_by_key(|finding| std::cmp::Reverse(finding.severity)).cloned()
    }

    async fn read(&mut self, call: &CallContext, connection: &Connection, node: &str) -> Option<(Node, NodeReading)> {
        let object = read_node::read_node_object(call, connection, node).await;
        let object = object.map_err(|failure| self.add_failure(call, connection, node, &failure)).ok()?;
        let ask = ReadRequest::everything_about(None);
        let read = read_node::read_or_api_only(call, connection, &object, ExplainGpuPod::NAME, ask).await;
        let read = read.map_err(|failure| self.add_failure(call, connection, node, &failure)).ok()?;
        if read.report.source == Source::Api {
            let why = read.note.note.clone().unwrap_or_default();
            self.unknown.push(Unknown::new(SectionName::Host, format!("node {node}: {why}")));
        }
        self.probes.push(read.note.clone());
        Some((object, read))
    }

    fn add_failure(&mut self, call: &CallContext, connection: &Connection, node: &str, failure: &Failure) {
        self.unknown.push(section_unknown(&format!("node {node}"), failure));
        self.probes.extend(ProbeSummary::of_failed_probe(call.settings.via, node, connection, failure));
    }
}

/// Returns the product label of a node, if it is this label with the ending of divided GPUs: `-SHARED`, `-MIG-1g.10gb`.
fn with_suffix(node: &Node, label: &str) -> Option<String> {
    let (name, product) = label.split_once('=').filter(|(name, _)| *name == "nvidia.com/gpu.product")?;
    let own = node.labels().get(name)?;
    let ending = own.strip_prefix(product)?;
    (ending == "-SHARED" || ending.starts_with("-MIG-")).then(|| format!("{name}={}", clean(own, 63)))
}

/// Returns whether the GPUs of a node are those that a label of feature discovery describes.
fn fulfils(inventory: &Inventory, label: &str) -> bool {
    let gpus = &inventory.gpus;
    match label.split_once('=') {
        Some(("nvidia.com/gpu.product", product)) => {
            let is_it = |name: &String| name.replace(' ', "-") == product;
            !gpus.is_empty() && gpus.iter().all(|gpu| gpu.name.as_ref().is_some_and(is_it))
        }
        Some(("nvidia.com/gpu.count", count)) => count.parse() == Ok(gpus.len()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use syringe_core::facts::inventory::GpuInventory;

    use super::*;

    #[test]
    fn the_ending_of_divided_gpus_is_part_of_the_product() {
        let node = |product: &str| Node {
            metadata: kube::api::ObjectMeta {
                labels: Some([("nvidia.com/gpu.product".to_owned(), product.to_owned())].into()),
                ..Default::default()
            },
            ..Node::default()
        };
        let wanted = "nvidia.com/gpu.product=NVIDIA-L40S";
        for (own, expected) in [("-SHARED", true), ("-MIG-1g.10gb", true), ("", false), ("-LX", false)] {
            assert_eq!(with_suffix(&node(&format!("NVIDIA-L40S{own}")), wanted).is_some(), expected, "{own}");
        }
    }

    #[test]
    fn a_label_of_the_hardware_is_compared_with_the_gpus() {
        let gpu = GpuInventory { name: Some("NVIDIA L40S".into()), ..GpuInventory::default() };
        let inventory = Inventory { gpus: vec![gpu.clone(), gpu], ..Inventory::default() };
        let all = ["gpu.product=NVIDIA-L40S", "gpu.product=NVIDIA-A10", "gpu.count=2", "gpu.count=8", "gpu.family=ada"];
        let found = all.map(|label| fulfils(&inventory, &format!("nvidia.com/{label}")));
        assert_eq!(found, [true, false, true, false, false]);
    }
}
