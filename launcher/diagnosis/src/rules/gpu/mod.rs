//! Rules about single GPUs: lost, memory, temperature, power, MIG.

mod gsp;
mod implausible_values;
mod memory;
mod mig;
mod power;
mod recovery;
mod refused_gpus;
mod siblings;
mod thermal;
mod unusable;

use crate::rule::group::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    unusable::GROUP,
    refused_gpus::GROUP,
    gsp::GROUP,
    memory::GROUP,
    thermal::GROUP,
    power::GROUP,
    siblings::GROUP,
    implausible_values::GROUP,
    mig::GROUP,
    recovery::GROUP,
];
