//! Many nodes in one call: which, how many at the same time, and what of a thousand reports a reader gets to see.
//!
//! ```text
//!   mod ─ which nodes ─▶ walk ─ one probe each, bounded ─▶ row ─┐
//!                         └─ setbacks (who failed twice)         ├─▶ compare, conclude ─▶ answer (fits)
//!                                                      names ───┘
//! ```

mod answer;
mod compare;
mod conclude;
mod names;
mod row;
mod setbacks;
mod table;
mod walk;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use tokio::time::Instant;

pub use answer::{FailedNodes, FleetAnswer, FleetFinding, NodeDetail, ProbesNote, Totals};
pub use compare::{Group, Outlier};
pub use names::Names;
pub use setbacks::Setbacks;
pub(crate) use table::table;

use crate::cluster::{gpu_nodes, node_gpus};
use crate::error::Failure;
use crate::tools::Call;
use walk::{Outcome, Walk};

/// Which nodes are meant.
pub(crate) struct Which<'a> {
    pub(crate) context: Option<&'a str>,
    /// Label selector.
    pub(crate) selector: Option<&'a str>,
    /// At most so many.
    pub(crate) limit: Option<u32>,
}

/// Reads all GPU nodes that are meant, with one probe each that runs `node-probe` with `command`.
pub(crate) async fn survey(
    call: &Call,
    which: Which<'_>,
    tool: &'static str,
    command: &[String],
) -> Result<FleetAnswer, Failure> {
    let began = Instant::now();
    let connection = call.contexts.connect(which.context).await?;
    let listed = gpu_nodes::collect(&connection, which.selector, gpu_nodes::is_gpu_node, |node| node).await?;
    let mut nodes = listed.1;
    if nodes.is_empty() {
        return Err(no_nodes(&connection.context, which.selector));
    }
    call.syringe.sweep_in_background(&connection);
    let gpu_nodes = nodes.len();
    // Should the time not suffice, it is spent on those that Kubernetes has doubts about.
    nodes.sort_by_cached_key(|node| (!is_doubtful(node), node.name_any()));
    let limit = which.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let beyond_limit = nodes.split_off(limit.min(nodes.len())).iter().map(ResourceExt::name_any).collect();
    let walk = Walk { call, connection: &connection, tool, command, began };
    let outcomes = walk.visit(nodes, row::of).await;
    if call.cancel.is_cancelled() {
        return Err(Failure::new(
            "Reading the GPU nodes",
            "cancelled by the caller",
            "Call again when you want the answer.",
        ));
    }
    if let Some(failure) = common_failure(&outcomes) {
        return Err(failure);
    }
    let about = conclude::About {
        context: connection.context.clone(),
        gpu_nodes,
        beyond_limit,
        concurrency: call.settings.concurrency,
        total_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    Ok(conclude::conclude(about, outcomes))
}

fn is_doubtful(node: &Node) -> bool {
    let (capacity, allocatable) = node_gpus::offers(node, None);
    !node_gpus::problems(node, &capacity, &allocatable).is_empty()
}

fn no_nodes(context: &str, selector: Option<&str>) -> Failure {
    let among = selector.map(|selector| format!(" among those that match '{selector}'")).unwrap_or_default();
    Failure::new(
        "Choosing GPU nodes",
        format!("context {context} has no GPU node{among}"),
        "list_gpu_nodes shows what Kubernetes knows; a node counts by its nvidia.com/ resources or labels.",
    )
}

/// When nothing was read and everything that was tried failed for one reason, that reason is the answer.
fn common_failure(outcomes: &[(String, Outcome<row::Row>)]) -> Option<Failure> {
    let mut failures = Vec::new();
    for (_, outcome) in outcomes {
        match outcome {
            Outcome::Read(_) | Outcome::Skipped(_) => return None,
            Outcome::Failed(failure) => failures.push(failure),
            Outcome::NotReached => {}
        }
    }
    let first = *failures.first()?;
    let alike = failures.iter().all(|failure| failure.why == first.why) && failures.len() > 1;
    alike.then(|| {
        let what = format!(
            "Reading {} GPU nodes (the first {} failed alike; for one: {})",
            outcomes.len(),
            failures.len(),
            first.what
        );
        Failure::new(what, &first.why, first.next_step.clone()).leaving(first.left_behind.clone())
    })
}
