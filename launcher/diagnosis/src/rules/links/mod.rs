//! `GROUPS`: the rules about NVLink, NVSwitch, Fabric Manager and PCIe.

mod fabric_manager;
mod nvlink_events;
mod nvlink_state;
mod pcie;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(fabric_manager::RULES, fabric_manager::check),
    RuleGroup::new(nvlink_state::RULES, nvlink_state::check),
    RuleGroup::new(nvlink_events::RULES, nvlink_events::check),
    RuleGroup::new(pcie::RULES, pcie::check),
];
