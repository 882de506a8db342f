//! `on_node`, `of_namespace`: list the pods of a node or namespace.
//! `allocated`, `allocated_on`, `requests_on`: add up the resources that the pods of each node use or request.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::Failure;
use crate::client::connection::Connection;
use crate::client::lists;
use crate::client::lists::Freshness;
use crate::client::pagination::Query;
use crate::objects::api_objects::pod::Pod as SentPod;
use crate::objects::api_objects::pod_requests::PodRequests;
use crate::objects::gpu_pod::Pod;
use crate::objects::gpu_requests;
use crate::objects::gpu_requests::ResourceCounts;
use crate::objects::nvidia_pod_facts;
use crate::objects::pod_requests;
use crate::objects::pod_requests::NodeRequests;

/// Up to this number of nodes, pods are listed for each node. For more nodes, one list of all pods is cheaper for the API
/// server.
pub const FEW_NODES: usize = 16;
/// Maximum number of parallel lists.
const AT_ONCE: usize = 8;
/// Field selector for pods that hold resources of a node.
const RUNNING: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// Reads the pods of one node, including terminated pods.
pub async fn on_node(connection: &Connection, node: &str, freshness: Freshness) -> Result<Vec<Pod>, Failure> {
    let fields = format!("spec.nodeName={node}");
    let query = Query {
        what: &format!("Listing the pods on node {node}"),
        path: "/api/v1/pods",
        labels: None,
        fields: Some(&fields),
    };
    lists::fold(connection, &query, freshness, Vec::new, |pods: &mut Vec<Pod>, sent: SentPod| {
        let nvidia = nvidia_pod_facts::nvidia_pod(&sent).map(Box::new);
        let daemon = nvidia_pod_facts::daemon_pod(&sent).map(Box::new);
        pods.push(Pod { nvidia, daemon, ..Pod::from(sent) });
    })
    .await
}

/// Reads the pods of a namespace, or of all namespaces, including terminated pods.
pub async fn of_namespace(connection: &Connection, namespace: Option<&str>) -> Result<Vec<Pod>, Failure> {
    let (what, path) = match namespace {
        Some(name) => (format!("Listing the pods of namespace {name}"), format!("/api/v1/namespaces/{name}/pods")),
        None => ("Listing the pods of all namespaces".to_owned(), "/api/v1/pods".to_owned()),
    };
    let query = Query { what: &what, path: &path, labels: None, fields: None };
    lists::fold(connection, &query, Freshness::Cached, Vec::new, |pods: &mut Vec<Pod>, sent: SentPod| {
        pods.push(Pod::from(sent));
    })
    .await
}

/// Returns the allocated amounts of each of `nodes`, from one list of pods per node. A node without an entry has no
/// allocated resources.
pub async fn allocated_on(
    connection: &Connection,
    nodes: &BTreeSet<String>,
) -> Result<HashMap<String, ResourceCounts>, Failure> {
    let each = stream::iter(nodes.clone()).map(|node| async move {
        let pods = on_node(connection, &node, Freshness::Cached).await?;
        Ok::<_, Failure>((node, gpu_requests::allocated(&pods)))
    });
    each.buffer_unordered(AT_ONCE).try_collect().await
}

/// Returns the allocated amounts of each node of the cluster, from one list of all pods.
pub async fn allocated(connection: &Connection) -> Result<HashMap<String, ResourceCounts>, Failure> {
    lists::fold(
        connection,
        &all(),
        Freshness::Cached,
        HashMap::new,
        |sums: &mut HashMap<String, ResourceCounts>, pod: PodRequests| {
            let held = pod_requests::gpus(&pod);
            if held.is_empty() {
                return;
            }
            match sums.get_mut(&pod.spec.node_name) {
                Some(sum) => gpu_requests::add(sum, &held),
                None => drop(sums.insert(pod.spec.node_name, held)),
            }
        },
    )
    .await
}

/// Returns the requests of the pods of each of `nodes`, for every resource.
pub async fn requests_on(
    connection: &Connection,
    nodes: &BTreeSet<String>,
) -> Result<HashMap<String, NodeRequests>, Failure> {
    let take = |held: &mut HashMap<String, NodeRequests>, pod| pod_requests::add_pod(held, nodes, pod);
    if nodes.len() > FEW_NODES {
        return lists::fold(connection, &all(), Freshness::Cached, HashMap::new, take).await;
    }
    let each = stream::iter(nodes.clone()).map(|node| async move {
        let fields = format!("spec.nodeName={node}");
        let what = format!("Listing the pods on node {node}");
        let query = Query { what: &what, path: "/api/v1/pods", labels: None, fields: Some(&fields) };
        lists::fold(connection, &query, Freshness::Cached, HashMap::new, take).await
    });
    let each: Vec<HashMap<_, _>> = each.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(each.into_iter().flatten().collect())
}

fn all() -> Query<'static> {
    Query { what: "Listing the pods", path: "/api/v1/pods", labels: None, fields: Some(RUNNING) }
}
