//! `GROUPS`: the rules about single GPUs: unusable, rejected, memory, temperature, power, MIG, GSP, recovery,
//! comparison with others.

mod gsp;
mod memory;
mod mig;
mod power;
mod recovery;
mod refused_gpus;
mod siblings;
mod thermal;
mod unusable;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(unusable::RULES, unusable::check),
    RuleGroup::new(refused_gpus::RULES, refused_gpus::check).with_refine(refused_gpus::explain_absent_driver),
    RuleGroup::new(gsp::RULES, gsp::check),
    RuleGroup::new(memory::RULES, memory::check).with_unread(memory::unread_product),
    RuleGroup::new(thermal::RULES, thermal::check),
    RuleGroup::new(power::RULES, power::check),
    RuleGroup::new(siblings::RULES, siblings::check).with_refine(siblings::refine),
    RuleGroup::new(mig::RULES, mig::check),
    RuleGroup::new(recovery::RULES, recovery::check).with_refine(recovery::refine),
];
