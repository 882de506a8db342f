//! What was read from a node: one file per section. Facts carry no opinion; `diagnosis` has those.
//!
//! Field names end in their unit. `None` means that the value could not be had: either the driver does not offer it (the
//! section's `unsupported` list names it) or reading it failed (the section's problems say why).

pub mod action;
pub mod container;
pub mod device_names;
pub mod ecc;
pub mod health;
pub mod host;
pub mod inventory;
pub mod kernel_log;
pub mod kubelet;
pub mod mig;
pub mod processes;
pub mod telemetry;
pub mod topology;

use serde::{Deserialize, Serialize};

/// Fields that the driver does not offer on these GPUs, so that `null` there is no defect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Unsupported {
    /// NVML indices.
    pub gpus: Vec<u32>,
    /// Field paths inside the GPU's entry, e.g. `fan_percent`, `temperature.memory_celsius`.
    pub fields: Vec<String>,
}

/// A setting that takes effect at the next reset or reboot: what is and what will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Mode {
    /// In force now.
    pub current: bool,
    /// In force after the next reset or reboot.
    pub pending: bool,
}
