//! Rules about GPUs in Kubernetes: advertised, allocated, used, and the software that serves them.

mod gpus;
mod nvidia_stack;
mod stack_log;
mod usage;

use crate::rule::group::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[gpus::GROUP, nvidia_stack::GROUP, usage::GROUP];
