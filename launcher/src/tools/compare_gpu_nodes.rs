//! `CompareGpuNodes`: the tool `compare_gpu_nodes`, which compares two nodes, or a node with its earlier state in an
//! archive that the user gave to the server. A model can specify only the names of nodes (`CompareNodesArgs`), not
//! files.

use std::collections::BTreeMap;

use kube_read::Failure;
use kube_read::objects::name_validation::{NODE_NAME, is_subdomain};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::text::clean;

use super::common_args::{NODE_HELP, node_name, without_node_type};
use crate::call::CallContext;
use crate::compare::{self, Comparison, Side};
use crate::outcome::{CommandAnswer, Outcome};
use crate::terminal::page::Page;
use crate::tools::tool::Tool;

pub(crate) struct CompareGpuNodes;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompareNodesArgs {
    /// Kubernetes node
    #[arg(value_name = "NODE", help = NODE_HELP, value_parser = node_name)]
    #[schemars(length(max = 253))]
    node_name: String,
    /// Another node (default: the node in the user's archive)
    #[arg(value_name = "OTHER", help = NODE_HELP, value_parser = node_name)]
    #[schemars(length(max = 253))]
    other_node: Option<String>,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    context: Option<String>,
}

impl Tool for CompareGpuNodes {
    const NAME: &'static str = "compare_gpu_nodes";
    const TITLE: &'static str = "Compare GPU nodes";
    const DESCRIPTION: &'static str = "What differs between two nodes, or what changed on a node since the user's archive: findings, GPUs, \
        counters, kernel events, settings; worst first.";
    const PROBES: bool = true;
    type Args = CompareNodesArgs;
    type Answer = Comparison;

    async fn call(call: CallContext, args: CompareNodesArgs) -> Result<Comparison, Failure> {
        let CompareNodesArgs { node_name, other_node, context } = args;
        let of_cluster = |name: &str| {
            let name = without_node_type(name.trim());
            let side = || Side {
                name: name.clone(),
                call: call.clone(),
                context: context.clone(),
                nodes: vec![name.clone()],
                unread: BTreeMap::new(),
                file: None,
            };
            is_subdomain(&name).then(side).ok_or_else(|| usage(format!("'{}': {NODE_NAME}", clean(&name, 80))))
        };
        let node = of_cluster(&node_name)?;
        let (earlier, later) = match (other_node, call.earlier.as_deref()) {
            (Some(other), _) => (of_cluster(&other)?, node),
            (None, Some(earlier)) => {
                let mut side = earlier.side(&call);
                side.keep_node(&node.name);
                (side, node)
            }
            (None, None) => {
                let why = "other_node is missing, and the user gave no archive to this server (gpu-syringe mcp --earlier FILE)";
                return Err(usage(why.to_owned()));
            }
        };
        if earlier.file.is_none() && earlier.name == later.name {
            return Err(usage("both names are the same node".to_owned()));
        }
        compare::compare(earlier, later).await
    }

    fn page(answer: &Comparison) -> Page {
        answer.page()
    }
}

fn usage(why: String) -> Failure {
    Failure::usage("The arguments of compare_gpu_nodes", why, "Name two nodes; list_gpu_nodes has the names.")
}

impl CommandAnswer for Comparison {
    fn outcome(&self) -> Outcome {
        Self::outcome(self)
    }

    fn names(&self) -> Vec<String> {
        Self::names(self)
    }
}
