//! CDI specifications of NVIDIA devices, compared with the node. Source: files in `/etc/cdi`, `/var/run/cdi` and the folders that the
//! runtime is configured with.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The CDI specifications of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Cdi {
    /// Folders that were read, in rising precedence.
    pub folders: Vec<String>,
    /// Specifications of NVIDIA devices, in rising precedence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub specs: Vec<CdiSpec>,
    /// Files or folders that could not be read or parsed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// Specifications of single resource claims (dynamic resource allocation), which are not listed.
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
    /// The file.
    pub path: String,
    /// `nvidia.com/gpu`, `management.nvidia.com/gpu`, …
    pub kind: String,
    /// Names of its devices, as in the file.
    pub devices: Vec<String>,
    /// When the file was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// Version in the names of the driver libraries that it mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Libraries that it mounts and that are not on the node; at most four.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_libraries: Vec<String>,
    /// Devices whose number in the file differs from that of the node, or that the node does not have; at most eight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stale_devices: Vec<StaleDevice>,
}

/// A device file that differs between a specification and the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StaleDevice {
    /// `/dev/nvidia-uvm`.
    pub path: String,
    /// `511:0` in the file; `None` if the file has no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_spec: Option<String>,
    /// `508:0` on the node; `None`: the node has no such device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_node: Option<String>,
}
