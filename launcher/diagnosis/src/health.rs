//! Types of the health of a node and its GPUs: `Health`, `GpuHealth`, `Deduction` (of points from the score),
//! `HealthStatus`. `conclusion::health` computes the values.

use serde::{Deserialize, Serialize};

use syringe_core::pci::PciAddress;

/// Score and status of the node and of each GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Health {
    /// Score of the node: score of its worst GPU, minus points for findings about the whole node. `None` if no GPU is
    /// known and no fault was found.
    pub score: Option<u32>,
    /// Status of the node, from all findings. Findings about pods and the container runtime do not lower the score.
    pub status: HealthStatus,
    /// Deductions for the node as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deductions: Vec<Deduction>,
    /// One entry per GPU in NVML, on the PCI bus or in the kernel log.
    pub gpus: Vec<GpuHealth>,
}

/// Health of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct GpuHealth {
    /// NVML index; `None` for a GPU that NVML does not list.
    pub index: Option<u32>,
    /// UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// 100: no fault; 0: not usable.
    pub score: u32,
    /// Status.
    pub status: HealthStatus,
    /// Pods to which the GPU or a part of it is allocated, as `namespace/name`, or their UIDs if the names are unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// Number of pods left out of `pods`.
    #[serde(skip_serializing_if = "syringe_core::facts::is_zero")]
    pub pods_omitted: u32,
    /// Deductions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deductions: Vec<Deduction>,
}

/// Deducted points and the reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Deduction {
    /// Points.
    pub points: u32,
    /// Id of the finding.
    #[schemars(extend("x-text" = "own"))]
    pub finding: String,
    /// The reason.
    pub why: String,
}

/// Health status. `Unknown` is not healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// No fault was found, and enough was read for this conclusion.
    Healthy,
    /// Not enough was read for a conclusion.
    #[default]
    Unknown,
    /// The GPU works, but has a defect.
    Degraded,
    /// The GPU should not get new work.
    Unhealthy,
}
