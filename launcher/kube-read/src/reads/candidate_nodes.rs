//! `candidates`: lists all GPU nodes for a Pending pod, with the reasons against each node.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::Failure;
use crate::client::connection::Connection;
use crate::objects::node_labels::is_gpu_node;
use crate::objects::pod_requests::NodeRequests;
use crate::objects::scheduler_filters::{Candidate, candidate, requested};
use crate::reads::{nodes, pods};

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
