//! `drafts`, `unread`: run all rules, and list the facts that they need but that were not read. `catalogue_of_rules`:
//! lists all rules. `about`: the subject of a rule. The rules in one folder do not use rules in another folder.

mod comparisons;
mod containers;
mod driver;
mod gpu;
mod host;
pub(crate) mod kubernetes;
mod links;
mod log;
mod workload;

use std::sync::LazyLock;

use crate::input::node::Node;
use crate::rule::{About, Draft, Rule, RuleGroup, Unread};

/// Returns all groups, in the order in which they check and refine. `log` is last, because it refines the texts of all
/// other groups.
fn groups() -> impl Iterator<Item = &'static RuleGroup> {
    let folders = [
        gpu::GROUPS,
        driver::GROUPS,
        links::GROUPS,
        workload::GROUPS,
        host::GROUPS,
        containers::GROUPS,
        kubernetes::GROUPS,
        comparisons::GROUPS,
        log::GROUPS,
    ];
    folders.into_iter().flatten()
}

/// Returns the findings of all groups, before they are merged and named.
pub(crate) fn drafts(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = groups().flat_map(|group| (group.check)(node)).collect();
    groups().for_each(|group| (group.refine)(node, &mut drafts));
    kubernetes::named_logs::add(node, &mut drafts);
    drafts
}

/// Returns the facts that the groups need and that were not read.
pub(crate) fn unread(node: &Node<'_>) -> Vec<Unread> {
    groups().flat_map(|group| (group.unread)(node)).collect()
}

static ALL: LazyLock<Vec<Rule>> = LazyLock::new(|| groups().flat_map(|group| group.rules).copied().collect());

/// Returns the subject of the findings with this id.
pub(crate) fn about(id: &str) -> Option<About> {
    ALL.iter().find(|rule| rule.id == id).map(|rule| rule.about)
}

/// Returns every rule, group by group.
pub fn catalogue_of_rules() -> &'static [Rule] {
    &ALL
}
