//! All rules in groups, in the order in which they are applied.

pub(crate) mod containers;
pub(crate) mod driver;
pub(crate) mod gpu;
pub(crate) mod kubernetes;
pub(crate) mod links;
pub(crate) mod log;
pub(crate) mod workload;

use std::sync::LazyLock;

use crate::input::node::Node;
use crate::rule::declaration::Rule;
use crate::rule::draft::Draft;
use crate::rules::containers::{cdi, container, runtime};
use crate::rules::driver::{driver_log, driver_not_loaded, driver_setup, driver_unusable, persistence};
use crate::rules::gpu::{gsp, implausible, memory, mig, power, recovery, refused_gpus, siblings, thermal, unusable};
use crate::rules::kubernetes::{gpus, nvidia_stack, usage};
use crate::rules::links::{fabric_manager, nvlink_events, nvlink_state, pcie};
use crate::rules::log::{coverage, other_devices, xid, xid_history};
use crate::rules::workload::{collective, processes};

/// Rules about one subject.
struct RuleGroup {
    rules: &'static [Rule],
    judge: fn(&Node<'_>) -> Vec<Draft>,
}

/// All groups. `recovery` runs after them and adds to their findings. `lost` and `driver` apply the rules of
/// `refused_gpus`.
const GROUPS: &[RuleGroup] = &[
    RuleGroup { rules: unusable::RULES, judge: unusable::judge },
    RuleGroup { rules: refused_gpus::RULES, judge: |_| Vec::new() },
    RuleGroup { rules: driver_unusable::RULES, judge: driver_unusable::judge },
    RuleGroup { rules: driver_setup::RULES, judge: driver_setup::judge },
    RuleGroup { rules: fabric_manager::RULES, judge: fabric_manager::judge },
    RuleGroup { rules: persistence::RULES, judge: persistence::judge },
    RuleGroup {
        rules: driver_not_loaded::RULES,
        judge: |node| driver_not_loaded::reason_of_log(node).into_iter().collect(),
    },
    RuleGroup { rules: gsp::RULES, judge: gsp::judge },
    RuleGroup { rules: driver_log::RULES, judge: driver_log::judge },
    RuleGroup { rules: memory::RULES, judge: memory::judge },
    RuleGroup { rules: xid::RULES, judge: xid::judge },
    RuleGroup { rules: xid_history::RULES, judge: xid_history::judge },
    RuleGroup { rules: nvlink_state::RULES, judge: nvlink_state::judge },
    RuleGroup { rules: nvlink_events::RULES, judge: nvlink_events::judge },
    RuleGroup { rules: pcie::RULES, judge: pcie::judge },
    RuleGroup { rules: thermal::RULES, judge: thermal::judge },
    RuleGroup { rules: power::RULES, judge: power::judge },
    RuleGroup { rules: siblings::RULES, judge: siblings::judge },
    RuleGroup { rules: implausible::RULES, judge: implausible::judge },
    RuleGroup { rules: collective::RULES, judge: |node| collective::judge(node).into_iter().collect() },
    RuleGroup { rules: mig::RULES, judge: mig::judge },
    RuleGroup { rules: processes::RULES, judge: processes::judge },
    RuleGroup { rules: gpus::RULES, judge: gpus::judge },
    RuleGroup { rules: runtime::RULES, judge: runtime::judge },
    RuleGroup { rules: cdi::RULES, judge: cdi::judge },
    RuleGroup { rules: usage::RULES, judge: usage::judge },
    RuleGroup { rules: container::RULES, judge: container::judge },
    RuleGroup { rules: coverage::RULES, judge: coverage::judge },
    RuleGroup { rules: other_devices::RULES, judge: other_devices::judge },
    RuleGroup { rules: nvidia_stack::RULES, judge: nvidia_stack::judge },
    RuleGroup { rules: recovery::RULES, judge: |_| Vec::new() },
];

/// The findings of all groups, before they are merged and named.
pub(crate) fn drafts(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = GROUPS.iter().flat_map(|group| (group.judge)(node)).collect();
    recovery::apply(node, &mut drafts);
    nvidia_stack::apply(node, &mut drafts);
    usage::apply(node, &mut drafts);
    coverage::add_start_of_log(node, &mut drafts);
    drafts
}

static ALL: LazyLock<Vec<Rule>> = LazyLock::new(|| GROUPS.iter().flat_map(|group| group.rules).copied().collect());

/// Every rule, group by group.
pub fn catalogue_of_rules() -> &'static [Rule] {
    &ALL
}
