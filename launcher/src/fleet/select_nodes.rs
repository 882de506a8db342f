//! `select_nodes`: selects the nodes of a command by their names or by a label selector (`SelectedNodes`).

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube_read::objects::node_labels::is_gpu_node;
use kube_read::reads::nodes;
use kube_read::{Connection, Failure};

use crate::call::CallContext;

/// The nodes of a command.
pub(crate) struct SelectedNodes {
    /// The named nodes, or the GPU nodes among the nodes that match the selector.
    pub(crate) nodes: Vec<Node>,
    /// The names of all matching nodes. `None` if the command has no names and no selector.
    pub(crate) only: Option<std::collections::BTreeSet<String>>,
}

/// Returns the nodes with these names. Without names, or with the name `all`, returns all GPU nodes that match the
/// selector.
pub(crate) async fn select_nodes(
    call: &CallContext,
    connection: &Connection,
    what: &str,
    names: &[String],
    selector: Option<&str>,
) -> Result<SelectedNodes, Failure> {
    let is_all = names.is_empty() || names == ["all"];
    let listing = nodes::collect(connection, selector, |_| true, |node| node);
    let (_, mut found) = call.with_deadline("Listing the nodes", listing).await?;
    if !is_all {
        if let Some(missing) = names.iter().find(|name| found.iter().all(|node| node.name_any() != **name)) {
            // This request fails with the message that the node does not exist.
            nodes::read(connection, missing).await?;
        }
        found.retain(|node| names.contains(&node.name_any()));
    }
    let only = (!is_all || selector.is_some()).then(|| found.iter().map(ResourceExt::name_any).collect());
    found.retain(|node| !is_all || is_gpu_node(node));
    if found.is_empty() {
        let next = "Name the nodes. gpu-syringe nodes lists the GPU nodes.";
        return Err(Failure::new(what, format!("context {} has no such GPU node", connection.context), next));
    }
    Ok(SelectedNodes { nodes: found, only })
}
