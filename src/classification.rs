//! Enums that classify kernel events and findings: `Severity`, `Class` of the fault and recommended `ActionCode`.

use serde::{Deserialize, Serialize};

/// Severity of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Information only; no action is needed.
    #[default]
    Info,
    /// The component works; plan an action.
    Warning,
    /// Workloads fail or will fail.
    Critical,
    /// The component is out of service.
    Fatal,
}

/// The cause of the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The program that ran on the GPU.
    #[default]
    Application,
    /// The driver, the firmware, or the configuration.
    Driver,
    /// The GPU or its board.
    Hardware,
    /// NVLink, NVSwitch or PCIe.
    Fabric,
    /// Temperature.
    Thermal,
    /// Power supply.
    Power,
}

/// The recommended action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActionCode {
    /// No action.
    #[default]
    None,
    /// Check again later.
    Watch,
    /// Change what the pod requests: it can never get this.
    ChangeRequest,
    /// Correct the program, its image or its configuration.
    FixApplication,
    /// Raise a limit of the pod, or use less.
    FixLimits,
    /// Restart the pod.
    RestartPod,
    /// Update the driver or firmware, or change the configuration.
    UpdateSoftware,
    /// Reset the GPU.
    ResetGpu,
    /// Drain the node, then reset the GPU.
    DrainAndReset,
    /// Drain the node, then reboot it.
    DrainAndReboot,
    /// Check fans, airflow and coolant.
    CheckCooling,
    /// Check cables, seating and slots.
    CheckCabling,
    /// Contact the vendor; an RMA is likely.
    ContactVendor,
}
