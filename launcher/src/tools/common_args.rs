//! Arguments that several tools share: `NodeArgs`, `FleetArgs`. `node_name`, `pod_name`, `whole_gpu`: parse or check
//! names and GPUs. A command has the arguments of its tool: the same struct is used for the command line, MCP and the
//! JSON Schema.

use std::convert::Infallible;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::text::clean;

use kube_read::Failure;
use kube_read::objects::label_selector::LabelSelector;
use kube_read::objects::name_validation::{NODE_NAME, is_subdomain};

/// Arguments of a tool that reads one node.
#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeArgs {
    /// Kubernetes node
    #[arg(value_name = "NODE", help = NODE_HELP, value_parser = node_name)]
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

/// Arguments of a tool that reads one node, or all GPU nodes.
#[derive(clap::Args, Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetArgs {
    /// Node name (default: all GPU nodes)
    #[arg(value_name = "NODE", help = "Name of the node, or node/NAME; by default all GPU nodes", value_parser = node_name)]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// Without node_name: only nodes with these labels
    #[arg(
        short = 'l',
        long,
        value_name = "SELECTOR",
        help = "Only nodes with these labels",
        conflicts_with = "node_name"
    )]
    #[schemars(with = "Option<String>", length(max = 500))]
    pub selector: Option<LabelSelector>,
    /// Without node_name: at most this many nodes
    #[arg(long, value_name = "NODES", help = "At most this many nodes", conflicts_with = "node_name")]
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

impl FleetArgs {
    /// Rejects contradictory arguments. On the command line, clap rejects them.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Self { node_name, selector, limit, .. } = self;
        let refuse = |why: &str| Err(Failure::usage("The arguments", why, "Correct the argument."));
        match (node_name, selector.is_some() || limit.is_some(), limit) {
            (Some(_), true, _) => {
                refuse("selector and limit are for many nodes: leave out node_name, or leave out selector and limit")
            }
            (_, _, Some(0)) => refuse("limit must be at least 1"),
            _ => Ok(()),
        }
    }
}

/// Help text for the node argument of a command.
pub(super) const NODE_HELP: &str = "Name of the node, or node/NAME";

/// Resource types that kubectl prints and accepts in front of a node name.
const NODE_TYPES: [&str; 3] = ["node/", "nodes/", "no/"];
const POD_TYPES: [&str; 3] = ["pod/", "pods/", "po/"];

/// Parses the node argument of a command line: `NAME` or `node/NAME`.
pub(crate) fn node_name(text: &str) -> Result<String, &'static str> {
    Some(without_node_type(text)).filter(|name| is_subdomain(name)).ok_or(NODE_NAME)
}

/// Removes the type of `node/NAME`. The name is checked when the node is read.
pub(super) fn without_node_type(text: &str) -> String {
    without_type(text, &NODE_TYPES)
}

/// Parses the pod argument of a command line: `[NAMESPACE/]NAME` or `pod/NAME`.
pub(super) fn pod_name(text: &str) -> Result<String, Infallible> {
    Ok(without_type(text, &POD_TYPES))
}

fn without_type(text: &str, types: &[&str]) -> String {
    types.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text).to_owned()
}

/// Rejects a text that is not the UUID of a whole GPU.
pub(super) fn whole_gpu(tool: &str, uuid: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if uuid.starts_with("GPU-") && uuid.len() <= 80 && uuid.bytes().all(plain) {
        return Ok(());
    }
    let uuid = clean(uuid, 80);
    Err(Failure::usage(
        format!("The arguments of {tool}"),
        format!("'{uuid}' is not the UUID of a GPU"),
        "Use the UUID (GPU-…) from get_gpu_inventory: an index changes when a GPU is lost.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_have_its_type() {
        for text in ["gpu-1", "node/gpu-1", "nodes/gpu-1", "no/gpu-1"] {
            assert_eq!(node_name(text), Ok("gpu-1".to_owned()));
        }
        for text in ["gpu 1", "", "node/", "GPU-1", "pod/gpu-1"] {
            assert_eq!(node_name(text), Err(NODE_NAME), "{text}");
        }
    }
}
