//! The families of rules, in the order in which they are applied.

use std::sync::LazyLock;

use super::draft::Draft;
use super::node::Node;
use super::rules::Rule;
use super::{
    cdi, cluster, collective, container, coverage, driver, driver_load, driver_log, driver_setup, fabric_manager, gsp,
    implausible, lost, memory, mig, nvlink, nvlink_state, pcie, persistence, power, processes, recovery, refused,
    runtime, siblings, stack, thermal, usage, xid, xid_history,
};

/// Rules about one subject.
struct Family {
    rules: &'static [Rule],
    judge: fn(&Node<'_>) -> Vec<Draft>,
}

/// All families. `recovery` runs after them and adds to their findings. `lost` and `driver` apply the rules of
/// `refused`.
const FAMILIES: &[Family] = &[
    Family { rules: lost::RULES, judge: lost::judge },
    Family { rules: refused::RULES, judge: |_| Vec::new() },
    Family { rules: driver::RULES, judge: driver::judge },
    Family { rules: driver_setup::RULES, judge: driver_setup::judge },
    Family { rules: fabric_manager::RULES, judge: fabric_manager::judge },
    Family { rules: persistence::RULES, judge: persistence::judge },
    Family { rules: driver_load::RULES, judge: |node| driver_load::reason_of_log(node).into_iter().collect() },
    Family { rules: gsp::RULES, judge: gsp::judge },
    Family { rules: driver_log::RULES, judge: driver_log::judge },
    Family { rules: memory::RULES, judge: memory::judge },
    Family { rules: xid::RULES, judge: xid::judge },
    Family { rules: xid_history::RULES, judge: xid_history::judge },
    Family { rules: nvlink_state::RULES, judge: nvlink_state::judge },
    Family { rules: nvlink::RULES, judge: nvlink::judge },
    Family { rules: pcie::RULES, judge: pcie::judge },
    Family { rules: thermal::RULES, judge: thermal::judge },
    Family { rules: power::RULES, judge: power::judge },
    Family { rules: siblings::RULES, judge: siblings::judge },
    Family { rules: implausible::RULES, judge: implausible::judge },
    Family { rules: collective::RULES, judge: |node| collective::judge(node).into_iter().collect() },
    Family { rules: mig::RULES, judge: mig::judge },
    Family { rules: processes::RULES, judge: processes::judge },
    Family { rules: cluster::RULES, judge: cluster::judge },
    Family { rules: runtime::RULES, judge: runtime::judge },
    Family { rules: cdi::RULES, judge: cdi::judge },
    Family { rules: usage::RULES, judge: usage::judge },
    Family { rules: container::RULES, judge: container::judge },
    Family { rules: coverage::RULES, judge: coverage::judge },
    Family { rules: stack::RULES, judge: stack::judge },
    Family { rules: recovery::RULES, judge: |_| Vec::new() },
];

/// The findings of all families, before they are merged and named.
pub(super) fn drafts(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = FAMILIES.iter().flat_map(|family| (family.judge)(node)).collect();
    recovery::apply(node, &mut drafts);
    stack::apply(node, &mut drafts);
    usage::apply(node, &mut drafts);
    coverage::say_what_is_before(node, &mut drafts);
    drafts
}

static ALL: LazyLock<Vec<Rule>> = LazyLock::new(|| FAMILIES.iter().flat_map(|family| family.rules).copied().collect());

/// Every rule, family by family.
pub fn catalogue_of_rules() -> &'static [Rule] {
    &ALL
}
