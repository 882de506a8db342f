//! GPU device files of one container, and whether the container may open them. Part of the `host` section if the probe
//! was given a container. Source: `/proc/PID/root/dev`, and the result of an open in the cgroup of the container.
//!
//! A container can have a device file and still not be allowed to open it. Then NVML in the container fails with
//! "Unknown Error", although the GPU is healthy.

use serde::{Deserialize, Serialize};

/// Device files of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ContainerAccess {
    /// Container id of the container runtime.
    pub container_id: String,
    /// UID of the pod, from the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// `NVIDIA_VISIBLE_DEVICES` of its first process: the devices that it requests.
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
    /// Whether its device cgroup allows access to the file.
    pub access: Access,
    /// Whether the node now has a different device with this name, because the driver was loaded again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// Access according to the device cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Reading and writing is allowed.
    Allowed,
    /// Reading or writing is denied.
    Denied,
    /// The access could not be checked.
    #[default]
    Unknown,
}
