//! Rules about processes and jobs.

mod processes;
mod waiting_job;

use crate::rule::group::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[waiting_job::GROUP, processes::GROUP];
