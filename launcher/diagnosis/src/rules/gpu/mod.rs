//! Rules about single GPUs: lost, memory, temperature, power, MIG.

pub(crate) mod gsp;
pub(crate) mod implausible;
pub(crate) mod memory;
pub(crate) mod mig;
pub(crate) mod power;
pub(crate) mod recovery;
pub(crate) mod refused_gpus;
pub(crate) mod siblings;
pub(crate) mod thermal;
pub(crate) mod unusable;
