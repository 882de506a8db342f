//! The positional arguments of the commands, as kubectl users type them, and the options with the names of the tools' arguments.

use clap::Args;

use crate::tools::{FleetArgs, NodeArgs};
use kube_read::Failure;

/// Resource types that kubectl prints and accepts before a name.
const NODE_TYPES: [&str; 3] = ["node/", "nodes/", "no/"];
const POD_TYPES: [&str; 3] = ["pod/", "pods/", "po/"];

/// The node of a command.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeTarget {
    /// Name of the node, or node/NAME
    #[arg(value_name = "NODE", required_unless_present = "node_name")]
    node: Option<String>,
    /// The node, for scripts that name it as an argument of the tool
    #[arg(long, alias = "node", value_name = "NODE", conflicts_with = "node", hide = true)]
    node_name: Option<String>,
}

impl NodeTarget {
    pub(crate) fn of(node: Option<String>, node_name: Option<String>) -> Self {
        Self { node, node_name }
    }

    pub(crate) fn name(self) -> String {
        node_name(self.node.or(self.node_name).unwrap_or_default())
    }
}

impl From<NodeTarget> for NodeArgs {
    fn from(target: NodeTarget) -> Self {
        Self { node_name: target.name(), context: None }
    }
}

/// One node, or many.
#[derive(Args, Clone, Debug)]
pub(crate) struct FleetTarget {
    /// Name of the node, or node/NAME; by default all GPU nodes
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// The node, for scripts that name it as an argument of the tool
    #[arg(long, alias = "node", value_name = "NODE", conflicts_with = "node", hide = true)]
    node_name: Option<String>,
    /// Only nodes with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with_all = ["node", "node_name"])]
    selector: Option<String>,
    /// At most this many nodes
    #[arg(long, value_name = "NODES", conflicts_with_all = ["node", "node_name"])]
    limit: Option<u32>,
}

impl From<FleetTarget> for FleetArgs {
    fn from(target: FleetTarget) -> Self {
        let FleetTarget { node, node_name: named, selector, limit } = target;
        Self { node_name: node.or(named).map(node_name), selector, limit, context: None }
    }
}

/// The pod of a command.
#[derive(Args, Clone, Debug)]
pub(crate) struct PodTarget {
    /// Name of the pod, NAMESPACE/NAME or pod/NAME
    #[arg(value_name = "[NAMESPACE/]POD", required_unless_present = "pod")]
    target: Option<String>,
    /// The pod, for scripts that name it as an argument of the tool
    #[arg(long, value_name = "POD", conflicts_with = "target", hide = true)]
    pod: Option<String>,
}

impl PodTarget {
    /// Name and namespace. `namespace` is the value of `--namespace`.
    pub(crate) fn name_and_namespace(self, namespace: Option<String>) -> Result<(String, Option<String>), Failure> {
        let text = self.target.or(self.pod).unwrap_or_default();
        let text = without_type(&text, &POD_TYPES);
        let Some((prefix, name)) = text.split_once('/') else { return Ok((text.to_owned(), namespace)) };
        match namespace {
            Some(other) if other != prefix => Err(Failure::usage(
                "The arguments",
                format!("'{text}' is in namespace {prefix}, and --namespace is {other}"),
                "Name the namespace once.",
            )),
            _ => Ok((name.to_owned(), Some(prefix.to_owned()))),
        }
    }
}

fn node_name(text: String) -> String {
    without_type(&text, &NODE_TYPES).to_owned()
}

fn without_type<'a>(text: &'a str, types: &[&str]) -> &'a str {
    types.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str, namespace: Option<&str>) -> Result<(String, Option<String>), Failure> {
        PodTarget { target: Some(text.to_owned()), pod: None }.name_and_namespace(namespace.map(str::to_owned))
    }

    #[test]
    fn a_pod_is_named_as_for_kubectl() {
        let found = |name: &str, namespace: Option<&str>| Ok((name.to_owned(), namespace.map(str::to_owned)));
        assert_eq!(pod("train", None), found("train", None));
        assert_eq!(pod("pod/train", Some("ml")), found("train", Some("ml")));
        assert_eq!(pod("ml/train", None), found("train", Some("ml")));
        assert_eq!(pod("ml/train", Some("ml")), found("train", Some("ml")));
        assert!(pod("ml/train", Some("web")).is_err());
    }

    #[test]
    fn a_node_may_have_its_type() {
        for text in ["gpu-1", "node/gpu-1", "nodes/gpu-1", "no/gpu-1"] {
            assert_eq!(node_name(text.to_owned()), "gpu-1");
        }
    }
}
