//! `read_fleet`: answers a call about many nodes (`NodeSelection`): lists the GPU nodes, reads them, and aggregates the
//! results.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::answer::fleet::FleetAnswer;
use crate::call::CallContext;
use crate::fleet::parallel_reads::{NodeOutcome, ParallelReads};
use crate::fleet::{aggregate, node_row};
use kube_read::Failure;
use kube_read::objects::{node_facts as node_gpus, node_labels};
use kube_read::reads::{daemon_sets, nodes};
use syringe_core::probe_command::ReadCommand;

/// Maximum number of leftover pods that one failure lists. The other pods are counted.
const MAX_LEFT: usize = 5;

/// The nodes that a call selects.
pub(crate) struct NodeSelection<'a> {
    pub(crate) context: Option<&'a str>,
    /// Label selector.
    pub(crate) selector: Option<&'a str>,
    /// Maximum number of nodes.
    pub(crate) limit: Option<u32>,
}

/// Reads all selected GPU nodes, with one probe each that runs `node-probe` with `command`.
pub(crate) async fn read_fleet(
    call: &CallContext,
    selection: NodeSelection<'_>,
    tool: &'static str,
    command: &ReadCommand,
) -> Result<FleetAnswer, Failure> {
    let began = Instant::now();
    let connection = call.with_deadline("Listing the GPU nodes", call.contexts.connect(selection.context)).await?;
    let listing = nodes::collect(&connection, selection.selector, node_labels::is_gpu_node, |node| node);
    let sets = async {
        if command.is_of_everything() { Some(daemon_sets::list(&connection, call.time_left()).await) } else { None }
    };
    let (listed, daemon_sets) = tokio::join!(call.with_deadline("Listing the GPU nodes", listing), sets);
    let mut nodes = listed?.1;
    if nodes.is_empty() {
        return Err(no_nodes(&connection.context, selection.selector));
    }
    call.prober.sweep_in_background(&connection);
    let gpu_nodes = nodes.len();
    // Nodes with problems come first, because the time of the call may not be enough for all nodes.
    nodes.sort_by_cached_key(|node| (!has_problems(node), node.name_any()));
    let limit = selection.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let beyond_limit = nodes.split_off(limit.min(nodes.len())).iter().map(ResourceExt::name_any).collect();
    let daemon_sets = daemon_sets.as_ref();
    let walk = ParallelReads { call, connection: &connection, tool, command, daemon_sets, ask_nccl: &BTreeMap::new() };
    let outcomes = walk.run(nodes, node_row::from_reading).await;
    if call.cancel.is_cancelled() {
        let failure = Failure::new("Reading the GPU nodes", "cancelled by the caller", "Call again.");
        return Err(failure.leaving(left_behind(&outcomes)));
    }
    if let Some(failure) = common_failure(&outcomes) {
        return Err(failure);
    }
    let about = aggregate::CallSummary {
        context: connection.context.clone(),
        gpu_nodes,
        beyond_limit,
        concurrency: call.settings.nodes_at_once(),
        total_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    Ok(aggregate::aggregate(about, outcomes))
}

fn has_problems(node: &Node) -> bool {
    let (capacity, allocatable) = node_gpus::capacity_and_allocatable(node, None);
    !node_gpus::problems(node, &capacity, &allocatable).is_empty()
}

fn no_nodes(context: &str, selector: Option<&str>) -> Failure {
    let among = selector.map(|selector| format!(" among those that match '{selector}'")).unwrap_or_default();
    Failure::new(
        "Choosing GPU nodes",
        format!("context {context} has no GPU node{among}"),
        "Run list_gpu_nodes to see the GPU nodes. A GPU node has nvidia.com/ resources or labels.",
    )
}

/// Returns the failure of the call if no node was read and all tried nodes failed for the same reason. Nodes that were
/// not tried count only if the reason applies to every node.
fn common_failure(outcomes: &[(String, NodeOutcome<node_row::NodeRow>)]) -> Option<Failure> {
    let mut failures = Vec::new();
    let mut all_tried = true;
    for (_, outcome) in outcomes {
        match outcome {
            NodeOutcome::Read(_) | NodeOutcome::Unprobed(..) | NodeOutcome::Skipped(_) => return None,
            NodeOutcome::Failed(failure) => failures.push(failure),
            NodeOutcome::NotReached => all_tried = false,
        }
    }
    let first = *failures.first()?;
    let alike = failures.iter().all(|failure| failure.is_like(first)) && failures.len() > 1;
    if !alike || !(all_tried || first.cause.is_cluster_wide()) {
        return None;
    }
    let what = format!(
        "Reading {} GPU nodes (the first {} failed for the same reason; for example: {})",
        outcomes.len(),
        failures.len(),
        first.what
    );
    let (left, deleted) = (left_behind(outcomes), failures.iter().any(|failure| failure.deleted));
    Some(Failure::new(what, &first.why, first.next_step.clone()).deleted(deleted && left.is_none()).leaving(left))
}

/// Returns the first objects that are left behind, and the number of the other objects.
fn left_behind(outcomes: &[(String, NodeOutcome<node_row::NodeRow>)]) -> Option<String> {
    let of_node = |outcome: &'_ NodeOutcome<node_row::NodeRow>| match outcome {
        NodeOutcome::Read(row) => row.left_behind.clone(),
        NodeOutcome::Failed(failure) | NodeOutcome::Unprobed(_, failure) => failure.left_behind.clone(),
        NodeOutcome::Skipped(_) | NodeOutcome::NotReached => None,
    };
    let left: Vec<String> = outcomes.iter().filter_map(|(_, outcome)| of_node(outcome)).collect();
    let more = left.len().checked_sub(MAX_LEFT).filter(|more| *more > 0);
    let more = more.map(|more| format!("; and {more} more like these (gpu-syringe sweep deletes them)"));
    let named = left.iter().take(MAX_LEFT).cloned().collect::<Vec<_>>().join("; ");
    (!left.is_empty()).then(|| named + &more.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube_read::failure::Cause;

    fn failed(why: &str, left: Option<&str>, everywhere: bool) -> (String, NodeOutcome<node_row::NodeRow>) {
        let failure = Failure::new("Probing", why, "Look.").leaving(left.map(str::to_owned));
        let failure = if everywhere { failure.because_of(Cause::CreateForbidden) } else { failure };
        ("gpu".to_owned(), NodeOutcome::Failed(failure))
    }

    #[test]
    fn a_failure_names_several_pods_that_are_left_behind() {
        let failure = common_failure(&[failed("no", None, false), failed("no", Some("b"), false)]).expect("alike");
        assert_eq!(failure.left_behind.as_deref(), Some("b"));
        let many: Vec<_> = (0..MAX_LEFT + 2).map(|_| failed("no", Some("pod"), false)).collect();
        let left = common_failure(&many).and_then(|failure| failure.left_behind).expect("left");
        assert!(left.contains("and 2 more"), "{left}");
    }

    #[test]
    fn a_failure_of_some_nodes_is_not_assumed_for_the_others() {
        let not_reached = || ("gpu".to_owned(), NodeOutcome::NotReached);
        assert!(common_failure(&[failed("hung", None, false), failed("hung", None, false), not_reached()]).is_none());
        assert!(common_failure(&[failed("403", None, true), failed("403", None, true), not_reached()]).is_some());
    }
}
