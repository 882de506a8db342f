//! The `health` section: a score that explains itself. Computed from the other sections, never read.

use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;

/// Score and status of the node and of each GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Health {
    /// The node: its worst GPU, less what concerns the whole node. `None` where no GPU is known and no fault was found:
    /// nothing was judged.
    pub score: Option<u32>,
    /// The node's status.
    pub status: HealthStatus,
    /// What cost points on the node as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deductions: Vec<Deduction>,
    /// One entry per GPU that NVML, PCI or the kernel log names.
    pub gpus: Vec<GpuHealth>,
}

/// One GPU's health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct GpuHealth {
    /// NVML index; `None` for a GPU that NVML does not list.
    pub index: Option<u32>,
    /// UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// 100 is without fault; 0 is not usable.
    pub score: u32,
    /// Status.
    pub status: HealthStatus,
    /// What cost points.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deductions: Vec<Deduction>,
}

/// Points lost, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Deduction {
    /// Points.
    pub points: u32,
    /// The finding that cost them (its stable id).
    pub finding: String,
    /// In words.
    pub why: String,
}

/// Health in one word. `Unknown` is not healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Nothing found, and enough was read to say so.
    Healthy,
    /// The facts do not suffice.
    #[default]
    Unknown,
    /// Works, with a defect that should be planned for.
    Degraded,
    /// Should not be given work.
    Unhealthy,
}
