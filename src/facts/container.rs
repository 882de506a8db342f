//! `ContainerAccess`: the GPU device files of one container, and whether the container may open them.
//!
//! Part of the `host` section if a container was passed to the probe. Source: `/proc/PID/root/dev`, and the result of
//! opening the files in the cgroup of the container.
//!
//! A container can have a device file and still not be allowed to open it. Then NVML in the container fails with
//! "Unknown Error", although the GPU is healthy.

use serde::{Deserialize, Serialize};
use syringe_macros::facts;

use super::container_view::ContainerView;

/// Device files of one container.
#[facts(omit(pod_uid, view))]
pub struct ContainerAccess {
    /// Container id of the container runtime.
    pub container_id: String,
    /// UID of the pod, from the cgroup.
    pub pod_uid: Option<String>,
    /// `NVIDIA_VISIBLE_DEVICES` of the first process of the container: the devices that the container requests.
    pub visible_devices: Option<String>,
    /// Device files of GPUs in `/dev` of the container.
    pub devices: Vec<ContainerDevice>,
    /// What the programs of the container see. Older probes do not report it.
    pub view: Option<ContainerView>,
}

/// One device file of a container.
#[facts(omit(bool))]
pub struct ContainerDevice {
    /// Name below `/dev`: `nvidiactl`, `nvidia0`, `nvidia-uvm`, `nvidia-caps/nvidia-cap1`.
    pub name: String,
    /// Whether the device cgroup of the container allows access to the file.
    pub access: Access,
    /// Whether the node now has a different device with this name, because the driver was reloaded.
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
