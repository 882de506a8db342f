//! `GROUPS`: the rules about GPU processes, and about jobs that wait for a lost GPU.

mod processes;
mod waiting_job;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] =
    &[RuleGroup::new(waiting_job::RULES, waiting_job::check), RuleGroup::new(processes::RULES, processes::check)];
