//! All rules in groups, in the order in which they are applied.

use std::sync::LazyLock;

use super::draft::Draft;
use super::node::Node;
use super::rules::Rule;
use super::{
    cdi, collective, container, driver, driver_log, driver_not_loaded, driver_setup, fabric_manager, gsp, implausible,
    kernel_log_coverage, kubernetes_gpus, lost, memory, mig, nvidia_stack, nvlink_events, nvlink_state, other_devices,
    pcie, persistence, power, processes, recovery, refused_gpus, runtime, siblings, thermal, usage, xid, xid_history,
};

/// Rules about one subject.
struct RuleGroup {
    rules: &'static [Rule],
    judge: fn(&Node<'_>) -> Vec<Draft>,
}

/// All groups. `recovery` runs after them and adds to their findings. `lost` and `driver` apply the rules of
/// `refused_gpus`.
const GROUPS: &[RuleGroup] = &[
    RuleGroup { rules: lost::RULES, judge: lost::judge },
    RuleGroup { rules: refused_gpus::RULES, judge: |_| Vec::new() },
    RuleGroup { rules: driver::RULES, judge: driver::judge },
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
    RuleGroup { rules: kubernetes_gpus::RULES, judge: kubernetes_gpus::judge },
    RuleGroup { rules: runtime::RULES, judge: runtime::judge },
    RuleGroup { rules: cdi::RULES, judge: cdi::judge },
    RuleGroup { rules: usage::RULES, judge: usage::judge },
    RuleGroup { rules: container::RULES, judge: container::judge },
    RuleGroup { rules: kernel_log_coverage::RULES, judge: kernel_log_coverage::judge },
    RuleGroup { rules: other_devices::RULES, judge: other_devices::judge },
    RuleGroup { rules: nvidia_stack::RULES, judge: nvidia_stack::judge },
    RuleGroup { rules: recovery::RULES, judge: |_| Vec::new() },
];

/// The findings of all groups, before they are merged and named.
pub(super) fn drafts(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = GROUPS.iter().flat_map(|group| (group.judge)(node)).collect();
    recovery::apply(node, &mut drafts);
    nvidia_stack::apply(node, &mut drafts);
    usage::apply(node, &mut drafts);
    kernel_log_coverage::add_start_of_log(node, &mut drafts);
    drafts
}

static ALL: LazyLock<Vec<Rule>> = LazyLock::new(|| GROUPS.iter().flat_map(|group| group.rules).copied().collect());

/// Every rule, group by group.
pub fn catalogue_of_rules() -> &'static [Rule] {
    &ALL
}
