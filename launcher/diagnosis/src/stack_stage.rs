//! One stage on the path of a GPU from the PCI bus to the scheduler, as answers show it.

use serde::{Deserialize, Serialize};

/// One stage of the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StackStage {
    /// The stage.
    pub stage: Stage,
    /// Its state.
    pub state: StageState,
    /// Evidence for the state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

/// The stages, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The GPUs are on the PCI bus.
    Pci,
    /// The driver is loaded and NVML responds.
    Driver,
    /// The container runtime gives GPUs to containers (container toolkit, CDI).
    Runtime,
    /// The device plugin or the DRA driver runs.
    Plugin,
    /// The devices are registered with the kubelet; with dynamic resource allocation: a ResourceSlice lists them.
    Registration,
    /// The node's capacity has them.
    Capacity,
    /// The node's allocatable has them.
    Allocatable,
}

/// State of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// It works.
    Ok,
    /// It is the first stage that does not work.
    Broken,
    /// It does not work, and an earlier stage explains that.
    Blocked,
    /// It was not read, or the facts do not show it.
    Unknown,
    /// This node does not need it.
    NotApplicable,
}
