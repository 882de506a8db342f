//! `GROUPS`: the rules about the container runtime, CDI, containers and their environment, and pods that do not start.

mod cdi;
mod container;
mod container_view;
mod failed_pods;
mod runtime;
mod runtime_settings;
mod starting_pods;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(runtime::RULES, runtime::check).with_unread(runtime::unread_handler),
    RuleGroup::new(runtime_settings::RULES, runtime_settings::check),
    RuleGroup::new(cdi::RULES, cdi::check).with_unread(cdi::unread_files),
    RuleGroup::new(container::RULES, container::check),
    RuleGroup::new(container_view::RULES, container_view::check),
    RuleGroup::new(failed_pods::RULES, |_| Vec::new()).with_refine(failed_pods::refine),
    RuleGroup::new(starting_pods::RULES, starting_pods::check).with_refine(|_, drafts| starting_pods::refine(drafts)),
];
