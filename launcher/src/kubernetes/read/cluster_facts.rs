//! The facts about one node that the rules take from the cluster's API.
//!
//! A node without `nvidia.com/gpu` in its capacity may have a broken device plugin, serve its GPUs by dynamic resource
//! allocation (as an extended resource, too), or belong to a cluster that gives out no GPUs at all. Only such a node costs
//! further requests, and a pod of NVIDIA's stack that does not start one for its newest event.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::diagnosis::{KubernetesFacts, NvidiaPod, PodWarning, first_failing_pod};
use tokio::time::timeout;

use crate::kubernetes::client::connection::Connection;
use crate::kubernetes::client::lists::Freshness;
use crate::kubernetes::model::gpu_resource_names::gpu_resources;
use crate::kubernetes::model::{gpu_operator_labels, node_gpus};
use crate::kubernetes::read::existing_pods::ExistingPods;
use crate::kubernetes::read::{events, nodes, pods, resource_claims};

/// Time limit for the additional requests. A diagnosis without their answers is still useful.
const TIME: Duration = Duration::from_secs(5);

/// Facts from the node object and from the pods on it, if they were listed.
pub(crate) fn from_objects(kubernetes: &Node, existing_pods: Option<&ExistingPods>) -> KubernetesFacts {
    let mut facts = node_gpus::cluster_facts(kubernetes);
    facts.nvidia_pods = existing_pods.map(|existing_pods| existing_pods.nvidia_pods().to_vec());
    facts.runtime_classes = existing_pods.map(|existing_pods| existing_pods.runtime_classes().to_vec());
    facts
}

/// Adds facts that are neither in the node object nor in its pods.
pub(crate) async fn add_from_api(
    connection: &Connection,
    kubernetes: &Node,
    mut facts: KubernetesFacts,
    time: Duration,
) -> KubernetesFacts {
    let name = kubernetes.name_any();
    let failing = first_failing_pod(&facts).map(|(pod, _)| pod.clone());
    let warning = async {
        let NvidiaPod { namespace, name, .. } = failing.as_ref()?;
        events::newest_warning(connection, namespace, name).await.ok()?
    };
    let offers = facts.gpu_capacity.unwrap_or(0) > 0 || facts.other_gpu_resources;
    // Each request has its own time limit, so that a long list of nodes does not prevent the others.
    let time = time.min(TIME);
    let other_nodes = async { if offers { None } else { Some(other_nodes(connection, kubernetes, &facts).await) } };
    let by_dra = async { if offers { None } else { by_dra(connection, &name).await } };
    let (warning, dra, other_nodes) =
        tokio::join!(timeout(time, warning), timeout(time, by_dra), timeout(time, other_nodes));
    let (warning, dra, other_nodes) = (warning.ok().flatten(), dra.ok().flatten(), other_nodes.ok().flatten());
    if !offers {
        let OtherNodes { plugin, pci_label } = other_nodes.unwrap_or_default();
        (facts.gpu_dra, facts.gpu_plugin_in_cluster, facts.pci_label_elsewhere) = (dra, plugin, pci_label);
    }
    let pods = facts.nvidia_pods.iter_mut().flatten();
    if let Some((pod, event)) =
        pods.into_iter().find(|pod| failing.as_ref().is_some_and(|one| one.uid == pod.uid)).zip(warning)
    {
        let events::NodeEvent { reason, message, count, last, severity: _ } = event;
        pod.warning = Some(PodWarning { reason, message, count, last });
    }
    facts
}

/// Whether a driver of dynamic resource allocation publishes GPUs of the node. `None`: not known.
async fn by_dra(connection: &Connection, node: &str) -> Option<bool> {
    let mut unknown = Vec::new();
    match resource_claims::read(connection, Some(node), &mut unknown).await {
        Ok(Some(dra)) => Some(dra.devices_on(node).next().is_some()),
        Ok(None) if unknown.is_empty() => Some(false),
        _ => None,
    }
}

/// Facts from the other nodes of the cluster.
#[derive(Default)]
struct OtherNodes {
    /// Whether NVIDIA GPUs are advertised in this cluster.
    plugin: Option<bool>,
    /// Whether another node has the label of node feature discovery for NVIDIA's PCI devices.
    pci_label: Option<bool>,
}

/// GPUs are advertised in the cluster if the node has labels or a pod of the GPU Operator or GPU Feature Discovery, or if
/// another node advertises GPUs.
async fn other_nodes(connection: &Connection, kubernetes: &Node, facts: &KubernetesFacts) -> OtherNodes {
    let here = kubernetes.labels().keys().any(|label| label.starts_with("nvidia.com/"))
        || has_plugin_pod(connection, kubernetes, facts).await.unwrap_or(false);
    let labelled = facts.labels.pci_present;
    if here && labelled {
        return OtherNodes { plugin: Some(true), pci_label: None };
    }
    let tells = |node: &Node| offers(node) || gpu_operator_labels::has_pci_label(node);
    let row = |node: Node| (offers(&node), gpu_operator_labels::has_pci_label(&node));
    let Ok((_, rows)) = nodes::collect(connection, None, tells, row).await else {
        return OtherNodes { plugin: here.then_some(true), pci_label: None };
    };
    OtherNodes {
        plugin: Some(here || rows.iter().any(|(offers, _)| *offers)),
        pci_label: Some(!labelled && rows.iter().any(|(_, labelled)| *labelled)),
    }
}

/// Whether a pod on the node has a name of NVIDIA's software that advertises GPUs.
async fn has_plugin_pod(connection: &Connection, kubernetes: &Node, facts: &KubernetesFacts) -> Option<bool> {
    if let Some(pods) = facts.nvidia_pods.as_ref().filter(|pods| !pods.is_empty()) {
        return Some(!pods.is_empty());
    }
    let of_vendor = |name: &str| {
        let vendor = name.contains("nvidia") || name.contains("gpu");
        vendor
            && ["device-plugin", "operator", "feature-discovery", "dra-driver"].iter().any(|part| name.contains(part))
    };
    let pods = pods::on_node(connection, &kubernetes.name_any(), Freshness::Cached).await.ok()?;
    Some(pods.iter().any(|pod| of_vendor(&pod.metadata.name)))
}

fn offers(node: &Node) -> bool {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.is_some_and(|resources| gpu_resources(resources).values().any(|count| *count > 0))
}
