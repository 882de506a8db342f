//! CDI specifications of NVIDIA devices, compared with the node.
//!
//! Source: files in `/etc/cdi`, `/var/run/cdi` and the folders that are set in the configuration of the runtime.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The CDI specifications of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Cdi {
    /// Folders that were read, lowest precedence first.
    pub folders: Vec<String>,
    /// Specifications of NVIDIA devices, lowest precedence first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub specs: Vec<CdiSpec>,
    /// Files or folders that could not be read or parsed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// Number of specifications that belong to a single resource claim (dynamic resource allocation). They are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub claim_specs: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// One specification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CdiSpec {
    /// Path of the file.
    pub path: String,
    /// Kind of the devices: `nvidia.com/gpu`, `management.nvidia.com/gpu`, …
    pub kind: String,
    /// Names of the devices, as in the file.
    pub devices: Vec<String>,
    /// Time of the last change of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// Driver version in the names of the driver libraries that the specification mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Libraries that the specification mounts but that are not on the node; at most four.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_libraries: Vec<String>,
    /// Devices whose number in the file differs from their number on the node, or that are not on the node; at most eight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stale_devices: Vec<StaleDevice>,
}

/// A device file that differs between a specification and the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StaleDevice {
    /// Path of the device file, e.g. `/dev/nvidia-uvm`.
    pub path: String,
    /// Device number in the specification, e.g. `511:0`; `None` if the specification has no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_spec: Option<String>,
    /// Device number on the node, e.g. `508:0`; `None` if the node has no such device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_node: Option<String>,
}
