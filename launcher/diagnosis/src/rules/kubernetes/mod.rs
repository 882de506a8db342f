//! `GROUPS`: the rules about Kubernetes: advertised, allocated and used GPUs, node state and conditions, notices of
//! other systems, DaemonSets, killed pods, ComputeDomains, NVIDIA's stack and its logs.

mod compute_domain;
mod conditions;
mod daemon_sets;
mod gpus;
mod killed_pods;
pub(crate) mod named_logs;
mod notices;
mod nvidia_stack;
pub(crate) mod stack_log;
mod unreached;
mod usage;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(gpus::RULES, gpus::check).with_refine(|_, drafts| gpus::refine(drafts)),
    RuleGroup::new(nvidia_stack::RULES, nvidia_stack::check)
        .with_refine(nvidia_stack::refine)
        .with_unread(nvidia_stack::unread_slices),
    RuleGroup::new(daemon_sets::RULES, daemon_sets::check).with_unread(daemon_sets::unread),
    RuleGroup::new(compute_domain::RULES, compute_domain::check).with_unread(compute_domain::unread),
    RuleGroup::new(killed_pods::RULES, killed_pods::check),
    RuleGroup::new(unreached::RULES, unreached::check),
    RuleGroup::new(notices::RULES, notices::check).with_refine(|_, drafts| notices::refine(drafts)),
    RuleGroup::new(usage::RULES, usage::check).with_refine(usage::refine),
];
