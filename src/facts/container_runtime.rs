//! The container runtime of a node: configuration files, handlers, and the running process.
//!
//! Source: the runtime's configuration files with their drop-ins, and `/proc`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The runtime that the kubelet uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ContainerRuntime {
    /// Name of the runtime: `containerd` or `cri-o`.
    pub name: String,
    /// Path of the main configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_path: Option<String>,
    /// Paths of the drop-in files, in the order in which they are applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_ins: Vec<String>,
    /// Schema version of containerd's main configuration file: 1, 2 or 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_version: Option<u32>,
    /// Whether `handlers` is complete: every file was found and read. If `false`, there may be handlers that are not listed.
    pub complete: bool,
    /// Handler of pods without a RuntimeClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_handler: Option<String>,
    /// Configured handlers, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<RuntimeHandler>,
    /// Whether the runtime resolves CDI devices, according to its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdi_enabled: Option<bool>,
    /// Start time of the runtime process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Time of the last change of the newest configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_changed_at: Option<Timestamp>,
    /// Path of the newest configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_changed_path: Option<String>,
    /// Configuration of NVIDIA's container runtime, if it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toolkit: Option<ToolkitConfig>,
}

/// One handler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RuntimeHandler {
    /// Name of the handler, to which a RuntimeClass refers.
    pub name: String,
    /// `io.containerd.runc.v2` for containerd, `oci` or `vm` for CRI-O. `None` if the configuration does not set the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_type: Option<String>,
    /// Program of the handler (`BinaryName`, `runtime_path`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// Whether that program exists. `None` if the handler sets no path, or if this is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary_exists: Option<bool>,
}

impl RuntimeHandler {
    /// Returns whether the handler runs NVIDIA's runtime, according to its name or its program.
    pub fn is_nvidia(&self) -> bool {
        self.name.contains("nvidia") || self.binary.as_deref().is_some_and(|binary| binary.contains("nvidia-container"))
    }
}

/// `config.toml` of nvidia-container-runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ToolkitConfig {
    /// Path of the file.
    pub path: String,
    /// `auto`, `legacy`, `cdi`, `jit-cdi` or `csv`; `None` if the file does not set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Kind of the CDI devices, if the mode is `cdi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_kind: Option<String>,
}
