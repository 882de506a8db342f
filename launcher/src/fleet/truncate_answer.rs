//! Truncates the lists of an answer about many nodes to a byte budget.

use crate::answer::fleet::FleetAnswer;
use crate::byte_budget;

/// Bytes of an answer about up to 50 nodes: 9,000 tokens of 4 bytes.
const FEW_NODES_BYTES: usize = 36_000;
/// Bytes of an answer about any number of nodes: 18,000 tokens.
const MANY_NODES_BYTES: usize = 72_000;
/// Truncates each list to its share of the answer's bytes. The nodes get the bytes that the other lists do not use.
pub(super) fn truncate_lists(answer: &mut FleetAnswer) {
    let nodes = answer.totals.gpu_nodes;
    let most = (FEW_NODES_BYTES + nodes.saturating_sub(50) * 40).min(MANY_NODES_BYTES);
    let some = |omitted: usize| (omitted > 0).then_some(omitted);
    answer.findings_omitted = some(byte_budget::truncate(&mut answer.findings, most / 4));
    answer.outliers_omitted = some(byte_budget::truncate(&mut answer.outliers, most / 6));
    answer.failed_omitted = some(byte_budget::truncate(&mut answer.failed, most / 8));
    answer.skipped_omitted = some(byte_budget::truncate(&mut answer.skipped, most / 16));
    answer.groups_omitted = some(byte_budget::truncate(&mut answer.groups, most / 8));
    answer.left_behind_omitted = some(byte_budget::truncate(&mut answer.left_behind, most / 16));
    let details = std::mem::take(&mut answer.nodes);
    let left = most.saturating_sub(byte_budget::size(answer) + 40);
    answer.nodes = details;
    answer.nodes_omitted = some(byte_budget::truncate(&mut answer.nodes, left));
}
