//! Rules about the container runtime, CDI and one container.

mod cdi;
mod container;
mod runtime;

use crate::rule::group::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[runtime::GROUP, cdi::GROUP, container::GROUP];
