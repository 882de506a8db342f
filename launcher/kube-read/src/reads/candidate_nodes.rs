//! `candidates`: lists all GPU nodes for a Pending pod, with the reasons against each node. `offer`: why no node has the resource.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use syringe_core::facts::kubernetes::daemon_set::DaemonSetRole;
use syringe_core::facts::kubernetes::pod::CapacityShortage;

use crate::Failure;
use crate::client::connection::Connection;
use crate::objects::daemon_sets::{self, DaemonSet};
use crate::objects::gpu_resource_names::is_gpu_resource;
use crate::objects::node_labels::is_gpu_node;
use crate::objects::pod_requests::NodeRequests;
use crate::objects::scheduler_filters::{Candidate, candidate, requested};
use crate::reads::{daemon_sets as daemon_set_list, nodes, pods};

/// Returns every GPU node of the cluster, sorted by the number of reasons against the node (fewest first).
pub async fn candidates(
    connection: &Connection,
    pod: &Pod,
    scheduler_message: Option<&str>,
) -> Result<Vec<Candidate>, Failure> {
    let (_, nodes) = nodes::collect(connection, None, is_gpu_node, |node| node).await?;
    let names = nodes.iter().map(ResourceExt::name_any).collect();
    let held = pods::requests_on(connection, &names).await?;
    let wanted = requested(pod);
    let mut candidates: Vec<_> = nodes
        .iter()
        .map(|node| {
            let name = node.name_any();
            let nobody = NodeRequests::default();
            candidate(pod, node, &wanted, held.get(&name).unwrap_or(&nobody), scheduler_message)
        })
        .collect();
    candidates
        .sort_by(|one, other| (one.reasons_against.len(), &one.node).cmp(&(other.reasons_against.len(), &other.node)));
    Ok(candidates)
}

/// Maximum number of nodes that are named.
const NAMED: usize = 3;

/// Returns that no node of the cluster has the GPU resource that the pod requests, and what would offer it there. `None` if a node has
/// it, or if this could not be read.
pub async fn not_offered(
    connection: &Connection,
    pod: &Pod,
    candidates: &[Candidate],
    time: Duration,
) -> Option<CapacityShortage> {
    let wanted = requested(pod);
    let resource = wanted.keys().find(|name| is_gpu_resource(name))?;
    let has_it = |candidate: &Candidate| candidate.free.get(resource).is_some_and(|amount| amount.allocatable > 0);
    let offers_others = candidates.iter().any(|candidate| !candidate.offers.is_empty());
    if offers_others || candidates.iter().any(has_it) {
        return None;
    }
    // A node without any sign of GPUs may have them: then nothing has found them yet.
    let (count, mut nodes) = nodes::collect(connection, None, |_| true, |node| node).await.ok()?;
    let nobody = NodeRequests::default();
    nodes.retain(|node| candidate(pod, node, &wanted, &nobody, None).rejections.is_empty());
    // Nodes that the pod selects, or that look like nodes with GPUs.
    let selects =
        pod.spec.as_ref().is_some_and(|spec| spec.node_selector.as_ref().is_some_and(|selector| !selector.is_empty()));
    if !selects {
        nodes.retain(is_gpu_node);
    }
    let sets = daemon_set_list::list(connection, time).await.ok();
    let plugins = sets.as_deref().map(|sets| plugins_on(sets, &nodes));
    let names: Vec<String> = nodes.iter().take(NAMED).map(ResourceExt::name_any).collect();
    let of_nodes = if names.is_empty() { String::new() } else { format!(" on {}", names.join(", ")) };
    let changes = match plugins {
        Some(plugins) if plugins.is_empty() => vec![
            format!(
                "if a node has GPUs, install what offers them{of_nodes}: the cluster has no DaemonSet of a device plugin or DRA driver of NVIDIA \
                 (device plugin, or the GPU Operator)"
            ),
            "otherwise add nodes with GPUs".to_owned(),
        ],
        Some(plugins) => vec![
            format!("find out why the device plugin registers no GPU{of_nodes}: {}", plugins.join("; ")),
            format!("see diagnose_gpu_node{of_nodes}; if no node has a GPU, add one that has"),
        ],
        None => vec![format!(
            "find out whether a node has GPUs, and whether a device plugin runs there (diagnose_gpu_node{of_nodes})"
        )],
    };
    let whole = if count == 1 {
        "the only node of the cluster does not offer it".to_owned()
    } else {
        format!("none of the {count} nodes of the cluster offers it")
    };
    Some(CapacityShortage {
        problem: Some(format!("no node offers {resource}")),
        shortage: format!("requests {resource}, and {whole}"),
        changes,
        needs_all: false,
        never_fits: false,
        fits_now: None,
    })
}

/// Returns the DaemonSets that offer GPUs, each with the reason why it has no pod on the nodes.
fn plugins_on(sets: &[DaemonSet], nodes: &[Node]) -> Vec<String> {
    let any = Node::default();
    let node = nodes.first().unwrap_or(&any);
    let facts = daemon_sets::on_node(sets, node, &[]).into_iter().filter(|set| set.role == DaemonSetRole::GpuPlugin);
    facts
        .map(|set| {
            let why = set.mismatch.filter(|_| !nodes.is_empty());
            let why = why.map(|why| format!(" has no pod on {}: {why}", node.name_any()));
            format!("DaemonSet {}/{}{}", set.namespace, set.name, why.unwrap_or_default())
        })
        .take(NAMED)
        .collect()
}
