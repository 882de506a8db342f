//! Reads pods and their GPUs: the pods of one node, and sums for all nodes of the cluster.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;

use crate::error::Failure;
use crate::kubernetes::client::connection::Connection;
use crate::kubernetes::client::pagination;
use crate::kubernetes::client::pagination::Query;
use crate::kubernetes::model::gpu_requests;
use crate::kubernetes::model::gpu_requests::ResourceCounts;
use crate::kubernetes::model::nvidia_pod_facts;
use crate::kubernetes::model::pod_requests::{self, NodeRequests};
use crate::kubernetes::model::slim::Pod;

/// Up to this number, pods are listed for each node. Beyond that, one list of all pods is cheaper for the API server.
const FEW_NODES: usize = 16;
/// Maximum number of parallel lists.
const AT_ONCE: usize = 8;

/// The pods of one node, including ended ones.
pub(crate) async fn on_node(connection: &Connection, node: &str) -> Result<Vec<Pod>, Failure> {
    let fields = format!("spec.nodeName={node}");
    let query = Query {
        what: &format!("Listing the pods on node {node}"),
        path: "/api/v1/pods",
        labels: None,
        fields: Some(&fields),
    };
    pagination::fold(connection, &query, Vec::new, |pods: &mut Vec<Pod>, PodOfNode(pod)| pods.push(pod)).await
}

/// A pod in the list of one node. The list has at most some hundred pods, so pods of NVIDIA's stack are read completely.
struct PodOfNode(Pod);

impl<'de> Deserialize<'de> for PodOfNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let mut pod = Pod::deserialize(&object).map_err(D::Error::custom)?;
        // An invalid object is not a pod of the stack.
        let whole = k8s_openapi::api::core::v1::Pod::deserialize(object).ok();
        pod.nvidia = whole.as_ref().and_then(nvidia_pod_facts::nvidia_pod).map(Box::new);
        Ok(Self(pod))
    }
}

/// The allocated amounts of each of `nodes`. A node without an entry has nothing allocated.
pub(crate) async fn allocated_on(
    connection: &Connection,
    nodes: &BTreeSet<String>,
) -> Result<HashMap<String, ResourceCounts>, Failure> {
    if nodes.len() <= FEW_NODES {
        let each = stream::iter(nodes.clone()).map(|node| async move {
            let pods = on_node(connection, &node).await?;
            Ok::<_, Failure>((node, gpu_requests::allocated(&pods)))
        });
        return each.buffer_unordered(AT_ONCE).try_collect().await;
    }
    let query = Query {
        what: "Listing the pods",
        path: "/api/v1/pods",
        labels: None,
        fields: Some("spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"),
    };
    pagination::fold(connection, &query, HashMap::new, |sums: &mut HashMap<String, ResourceCounts>, pod: Pod| {
        let node = pod.spec.node_name.as_str();
        let held = gpu_requests::effective_requests(&pod);
        if held.is_empty() || !nodes.contains(node) {
            return;
        }
        match sums.get_mut(node) {
            Some(sum) => gpu_requests::add(sum, &held),
            None => drop(sums.insert(node.to_owned(), held)),
        }
    })
    .await
}

/// The requests of the pods of each of `nodes`, for every resource.
pub(crate) async fn requests_on(
    connection: &Connection,
    nodes: &BTreeSet<String>,
) -> Result<HashMap<String, NodeRequests>, Failure> {
    let take = |held: &mut HashMap<String, NodeRequests>, pod| pod_requests::add_pod(held, nodes, pod);
    let mut all = HashMap::new();
    if nodes.len() > FEW_NODES {
        let fields = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
        let query = Query { what: "Listing the pods", path: "/api/v1/pods", labels: None, fields: Some(fields) };
        return pagination::fold(connection, &query, HashMap::new, take).await;
    }
    for node in nodes {
        let fields = format!("spec.nodeName={node}");
        let what = format!("Listing the pods on node {node}");
        let query = Query { what: &what, path: "/api/v1/pods", labels: None, fields: Some(&fields) };
        all.extend(pagination::fold(connection, &query, HashMap::new, take).await?);
    }
    Ok(all)
}
