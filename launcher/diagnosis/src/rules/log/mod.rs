//! Rules about Xids and other lines of the kernel log, and about how much of the log was read.

mod coverage;
mod other_devices;
#[cfg(test)]
mod past_events_tests;
mod xid;
mod xid_history;

use crate::rule::group::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[xid::GROUP, xid_history::GROUP, other_devices::GROUP, coverage::GROUP];
