//! Rules about the driver: not loaded, wrong version, its setup, its log.

mod driver_log;
mod driver_not_loaded;
mod driver_setup;
mod driver_unusable;
mod persistence;

use crate::rule::group::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] =
    &[driver_unusable::GROUP, driver_setup::GROUP, persistence::GROUP, driver_not_loaded::GROUP, driver_log::GROUP];
