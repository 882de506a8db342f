//! `read`, `find`, `collect`: read one node by name, or all nodes that match.
//! `why_no_probe`, `must_be_ready`: recognize a node that cannot run a probe, with the reason (`NoProbe`).

use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};
use syringe_core::text::clean;

use crate::Failure;
use crate::client::api_error::{request_failed, timed_out};
use crate::client::connection::Connection;
use crate::client::lists;
use crate::client::lists::Freshness;
use crate::client::pagination::Query;
use crate::client::retry;
use crate::objects::{api_objects, name_validation, node_conditions};

/// Reads the node `name`.
pub async fn read(connection: &Connection, name: &str) -> Result<Node, Failure> {
    find(connection, name).await?.ok_or_else(|| {
        Failure::new(
            format!("Reading node {}", clean(name, name_validation::MAX_LENGTH)),
            format!("there is no such node in context {} ({})", connection.context, connection.server),
            "Run list_gpu_nodes to see node names.",
        )
    })
}

/// Reads the node `name`. `None` if the cluster has no such node.
pub async fn find(connection: &Connection, name: &str) -> Result<Option<Node>, Failure> {
    let what = || format!("Reading node {}", clean(name, name_validation::MAX_LENGTH));
    name_validation::check_node_name(name)?;
    let nodes: Api<Node> = Api::all(connection.client.clone());
    match retry::read(|| nodes.get_opt(name)).await {
        Some(Ok(node)) => Ok(node),
        Some(Err(error)) => Err(request_failed(connection, what(), &error)),
        None => Err(timed_out(connection, what())),
    }
}

/// The reason why no probe can run on a node, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProbe {
    pub why: String,
    pub next_step: &'static str,
}

/// Labels and taints of nodes that cannot run an arbitrary pod: name, value (empty for any value), and reason.
const NOT_A_MACHINE: [(&str, &str, &str); 4] = [
    ("type", "virtual-kubelet", "the node is a virtual node (virtual-kubelet)"),
    ("virtual-kubelet.io/provider", "", "the node is a virtual node (virtual-kubelet)"),
    ("eks.amazonaws.com/compute-type", "fargate", "the node is a Fargate node, on which EKS starts only one pod"),
    ("kubernetes.io/os", "windows", "the node runs Windows, but node-probe is a program for Linux"),
];

/// Returns why no probe can run on a node, according to its Node object.
pub fn why_no_probe(node: &Node) -> Option<NoProbe> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let of_taints = taints.iter().map(|taint| (taint.key.as_str(), taint.value.as_deref().unwrap_or_default()));
    let marks = node.labels().iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(of_taints);
    let kind = marks.into_iter().find_map(|(name, value)| {
        NOT_A_MACHINE.iter().find(|(known, of, _)| *known == name && (of.is_empty() || *of == value)).map(|row| row.2)
    });
    if let Some(kind) = kind {
        let next_step =
            "Use the provider's tools for this node; gpu-syringe reads only nodes that run Linux and a kubelet.";
        return Some(NoProbe { why: kind.to_owned(), next_step });
    }
    let why = node_conditions::why_not_ready(node)?;
    Some(NoProbe {
        why: format!("{why}; its kubelet would not start a pod, so nothing was created"),
        next_step: "Repair the node first (kubelet, network, power). The log of the kubelet on the node has details.",
    })
}

/// Rejects a node on which no probe can run.
pub fn must_be_ready(node: &Node) -> Result<(), Failure> {
    let Some(NoProbe { why, next_step }) = why_no_probe(node) else { return Ok(()) };
    Err(Failure::new(format!("Probing node {}", node.name_any()), why, next_step))
}

/// Reads all nodes that match `selector`, page by page, and creates a row for each node for which `matches` is true.
/// Also returns the number of nodes that were read.
pub async fn collect<R>(
    connection: &Connection,
    selector: Option<&str>,
    matches: impl Fn(&Node) -> bool,
    row: impl Fn(Node) -> R,
) -> Result<(u32, Vec<R>), Failure> {
    let query = Query { what: "Listing the nodes", path: "/api/v1/nodes", labels: selector, fields: None };
    let fresh = || (0, Vec::new());
    lists::fold(connection, &query, Freshness::Cached, fresh, |(seen, rows), node: api_objects::node::Node| {
        *seen += 1;
        let node = Node::from(node);
        if matches(&node) {
            rows.push(row(node));
        }
    })
    .await
}
