//! `GROUPS`: the rules about Xids and other lines of the kernel log, about absent devices, and about the period that
//! the log covers.

mod absent_devices;
mod after_repair;
#[cfg(test)]
mod after_repair_tests;
mod coverage;
mod host_lines;
mod other_devices;
#[cfg(test)]
mod past_events_tests;
#[cfg(test)]
mod recurrence_tests;
mod xid;
mod xid_history;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(xid::RULES, xid::check),
    RuleGroup::new(xid_history::RULES, xid_history::check).with_refine(|node, drafts| {
        after_repair::refine(node, drafts);
        xid_history::join_repeats(drafts);
    }),
    RuleGroup::new(absent_devices::RULES, |node| absent_devices::check(node).into_iter().collect()),
    RuleGroup::new(other_devices::RULES, other_devices::check),
    RuleGroup::new(host_lines::RULES, host_lines::check),
    RuleGroup::new(coverage::RULES, coverage::check)
        .with_refine(|node, drafts| {
            coverage::add_start_of_log(node, drafts);
            coverage::join_unrecognized(drafts);
        })
        .with_unread(coverage::unread_log),
];
