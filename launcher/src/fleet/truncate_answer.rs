//! `truncate_lists`: truncates the lists of an answer about many nodes to the maximum size of the answer.

use crate::answer::fleet::FleetAnswer;
use crate::answer::wire::byte_budget::{MAX_LISTS, size, truncate};

/// Truncates each list to its share of the answer's bytes. The nodes get the bytes that the other lists do not use.
pub(super) fn truncate_lists(answer: &mut FleetAnswer) {
    let some = |omitted: usize| (omitted > 0).then_some(omitted);
    answer.findings_omitted = some(truncate(&mut answer.findings, MAX_LISTS / 4));
    answer.outliers_omitted = some(truncate(&mut answer.outliers, MAX_LISTS / 6));
    answer.failed_omitted = some(truncate(&mut answer.failed, MAX_LISTS / 8));
    answer.skipped_omitted = some(truncate(&mut answer.skipped, MAX_LISTS / 16));
    answer.groups_omitted = some(truncate(&mut answer.groups, MAX_LISTS / 8));
    answer.left_behind_omitted = some(truncate(&mut answer.left_behind, MAX_LISTS / 16));
    let details = std::mem::take(&mut answer.nodes);
    let left = MAX_LISTS.saturating_sub(size(answer) + 40);
    answer.nodes = details;
    answer.nodes_omitted = some(truncate(&mut answer.nodes, left));
}
