//! `GROUPS`: the rules about the driver: unusable, not loaded, setup, GPU modes, kernel log, version, start of CUDA.

mod cuda_start;
mod driver_log;
mod driver_not_loaded;
mod driver_setup;
mod driver_unusable;
mod driver_versions;
mod gpu_modes;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(driver_unusable::RULES, driver_unusable::check),
    RuleGroup::new(driver_setup::RULES, driver_setup::check),
    RuleGroup::new(gpu_modes::RULES, gpu_modes::check),
    RuleGroup::new(driver_not_loaded::RULES, driver_not_loaded::check),
    RuleGroup::new(driver_log::RULES, driver_log::check),
    RuleGroup::new(driver_versions::RULES, driver_versions::check),
    RuleGroup::new(cuda_start::RULES, cuda_start::check)
        .with_refine(cuda_start::refine)
        .with_unread(cuda_start::unread),
];
