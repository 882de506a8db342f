//! What the processes of one container can open of the node's GPUs. Part of the `host` section where the probe was told a
//! container. Source: `/proc/PID/root/dev` and the kernel's answer to a process in the container's cgroup.
//!
//! A container may have a device file and yet not be allowed to open it: then NVML in it fails with "Unknown Error", while
//! the GPU and everybody else's use of it are fine.

use serde::{Deserialize, Serialize};

/// Device files of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ContainerAccess {
    /// The runtime's id of the container.
    pub container_id: String,
    /// The pod that its cgroup names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// `NVIDIA_VISIBLE_DEVICES` of its first process: what it was to be given.
    pub visible_devices: Option<String>,
    /// Device files of GPUs in its `/dev`.
    pub devices: Vec<ContainerDevice>,
}

/// One device file of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ContainerDevice {
    /// `nvidiactl`, `nvidia0`, `nvidia-uvm`, `nvidia-caps/nvidia-cap1`.
    pub name: String,
    /// Whether its device cgroup lets it open the file.
    pub access: Access,
    /// The node has another device under this name by now: the driver was loaded anew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// The device cgroup's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// For reading and writing.
    Allowed,
    /// Not for reading and writing.
    Denied,
    /// It could not be asked.
    #[default]
    Unknown,
}
