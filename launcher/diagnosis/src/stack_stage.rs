//! `Stage`: a stage between the PCI bus and the scheduler. `StageState`: its state. `StackStage`: a stage with its
//! state, in answers.

use serde::{Deserialize, Serialize};

/// One stage between the GPUs on the PCI bus and the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StackStage {
    /// The stage.
    pub stage: Stage,
    /// State of the stage.
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
    /// The device plugin or the DRA driver is running.
    Plugin,
    /// The devices are registered with the kubelet, or a ResourceSlice lists them (dynamic resource allocation).
    Registration,
    /// The devices are in the node's capacity.
    Capacity,
    /// The devices are in the node's allocatable resources.
    Allocatable,
}

/// State of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// The stage works.
    Ok,
    /// This is the first stage that does not work.
    Broken,
    /// The stage does not work because of an earlier stage.
    Blocked,
    /// The facts about the stage were not read, or do not show its state.
    Unknown,
    /// This node does not need the stage.
    NotApplicable,
}
