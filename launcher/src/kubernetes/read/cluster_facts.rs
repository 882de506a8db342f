//! The facts about a node that the rules take from Kubernetes.
//!
//! A node without `nvidia.com/gpu` in its capacity may have a broken device plugin, serve its GPUs by dynamic resource
//! allocation (as an extended resource, too), or belong to a cluster that gives out no GPUs at all. Only such a node costs
//! further requests.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::diagnosis::ClusterFacts;
use tokio::time::timeout;

use crate::kubernetes::client::connection::Connection;
use crate::kubernetes::model::node_gpus;
use crate::kubernetes::model::resources::gpu_resources;
use crate::kubernetes::read::{claims, nodes, pods};

/// Time for the further requests: a diagnosis without their answers is still worth having.
const TIME: Duration = Duration::from_secs(5);

/// Facts of the node object, with what it does not tell by itself.
pub(crate) async fn facts(connection: &Connection, kubernetes: &Node, time: Duration) -> ClusterFacts {
    let mut facts = node_gpus::cluster_facts(kubernetes);
    if facts.gpu_capacity.unwrap_or(0) > 0 || facts.other_gpu_resources {
        return facts;
    }
    let name = kubernetes.name_any();
    let asked = async { tokio::join!(by_dra(connection, &name), has_plugin(connection, kubernetes)) };
    if let Ok((dra, plugin)) = timeout(time.min(TIME), asked).await {
        (facts.gpu_dra, facts.gpu_plugin_in_cluster) = (dra, plugin);
    }
    facts
}

/// Whether a driver of dynamic resource allocation publishes GPUs of the node. `None`: nobody said.
async fn by_dra(connection: &Connection, node: &str) -> Option<bool> {
    let mut unknown = Vec::new();
    match claims::read(connection, Some(node), &mut unknown).await {
        Ok(Some(dra)) => Some(dra.devices_on(node).next().is_some()),
        Ok(None) if unknown.is_empty() => Some(false),
        _ => None,
    }
}

/// Whether somebody gives out NVIDIA GPUs in this cluster: labels of the GPU Operator or GPU Feature Discovery on the node,
/// a pod of theirs on it, or another node that offers GPUs.
async fn has_plugin(connection: &Connection, kubernetes: &Node) -> Option<bool> {
    if kubernetes.labels().keys().any(|label| label.starts_with("nvidia.com/")) {
        return Some(true);
    }
    let of_vendor = |name: &str| {
        let vendor = name.contains("nvidia") || name.contains("gpu");
        vendor
            && ["device-plugin", "operator", "feature-discovery", "dra-driver"].iter().any(|part| name.contains(part))
    };
    let pods = pods::on_node(connection, &kubernetes.name_any()).await.ok()?;
    if pods.iter().any(|pod| of_vendor(&pod.metadata.name)) {
        return Some(true);
    }
    let (_, offering) = nodes::collect(connection, None, offers, |_| ()).await.ok()?;
    Some(!offering.is_empty())
}

fn offers(node: &Node) -> bool {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.is_some_and(|resources| gpu_resources(resources).values().any(|count| *count > 0))
}
