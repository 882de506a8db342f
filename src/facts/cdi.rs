//! `Cdi`, `CdiSpec`: the CDI specifications of NVIDIA devices on a node, and how they differ from the node.
//!
//! Part of the `host` section.
//!
//! Source: files in `/etc/cdi`, `/var/run/cdi` and the folders that are set in the configuration of the runtime.

use jiff::Timestamp;
use syringe_macros::facts;

use super::is_zero;

/// The CDI specifications of a node.
#[facts(omit(Vec, u32, !folders))]
pub struct Cdi {
    /// Folders that were read, lowest precedence first.
    pub folders: Vec<String>,
    /// Specifications of NVIDIA devices, lowest precedence first.
    pub specs: Vec<CdiSpec>,
    /// Files or folders that could not be read or parsed.
    pub unread: Vec<String>,
    /// Number of specifications that belong to a single resource claim (dynamic resource allocation). They are not listed.
    pub claim_specs: u32,
}

/// One specification.
#[facts(omit(Option, Vec, !devices))]
pub struct CdiSpec {
    /// Path of the file.
    pub path: String,
    /// Kind of the devices: `nvidia.com/gpu`, `management.nvidia.com/gpu`, …
    pub kind: String,
    /// Names of the devices, as in the file.
    pub devices: Vec<String>,
    /// Time of the last change of the file.
    pub changed_at: Option<Timestamp>,
    /// Driver version in the names of the driver libraries that the specification mounts.
    pub driver_version: Option<String>,
    /// Libraries that the specification mounts but that are not on the node; at most four.
    pub missing_libraries: Vec<String>,
    /// Devices whose number in the file differs from their number on the node, or that are not on the node; at most eight.
    pub stale_devices: Vec<StaleDevice>,
}

/// A device file that differs between a specification and the node.
#[facts(omit(Option))]
pub struct StaleDevice {
    /// Path of the device file, e.g. `/dev/nvidia-uvm`.
    pub path: String,
    /// Device number in the specification, e.g. `511:0`; `None` if the specification has no number.
    pub in_spec: Option<String>,
    /// Device number on the node, e.g. `508:0`; `None` if the node has no such device.
    pub on_node: Option<String>,
}
