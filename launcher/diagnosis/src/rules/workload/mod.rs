//! `GROUPS`: the rules about GPU processes (`processes`), and about jobs that wait for a lost GPU (`waiting_job`).

mod processes;
mod waiting_job;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] =
    &[RuleGroup::new(waiting_job::RULES, waiting_job::check), RuleGroup::new(processes::RULES, processes::check)];
