//! Arguments that several tools share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::text::clean;

use kube_read::Failure;

/// Arguments of a tool that reads one node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeArgs {
    /// Kubernetes node
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// Kubeconfig context; the current one by default
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// Arguments of a tool that reads one node, or all GPU nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetArgs {
    /// Node name (default: all GPU nodes)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// Without node_name: only nodes with these labels
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub selector: Option<String>,
    /// Without node_name: at most this many nodes
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
    /// Kubeconfig context; the current one by default
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

impl FleetArgs {
    /// Rejects contradictory arguments. On the command line clap does this.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Self { node_name, selector, limit, .. } = self;
        let refuse = |why: &str| Err(Failure::new("The arguments", why, "Fix them: see the tool's input schema."));
        match (node_name, selector.is_some() || limit.is_some(), limit) {
            (Some(_), true, _) => {
                refuse("selector and limit are for many nodes: leave out node_name, or leave out both")
            }
            (_, _, Some(0)) => refuse("limit must be at least 1"),
            _ => Ok(()),
        }
    }
}

/// Rejects a text that is not the UUID of a whole GPU.
pub(super) fn whole_gpu(tool: &str, uuid: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if uuid.starts_with("GPU-") && uuid.len() <= 80 && uuid.bytes().all(plain) {
        return Ok(());
    }
    let uuid = clean(uuid, 80);
    Err(Failure::new(
        format!("The arguments of {tool}"),
        format!("'{uuid}' is not the UUID of a GPU"),
        "Use the UUID (GPU-…) from get_gpu_inventory: an index changes when a GPU is lost.",
    ))
}
