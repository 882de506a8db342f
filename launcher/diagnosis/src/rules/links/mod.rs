//! Rules about NVLink, NVSwitch and PCIe.

mod fabric_manager;
mod nvlink_events;
mod nvlink_state;
mod pcie;

use crate::rule::group::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] =
    &[fabric_manager::GROUP, nvlink_state::GROUP, nvlink_events::GROUP, pcie::GROUP];
