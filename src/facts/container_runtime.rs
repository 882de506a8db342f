//! `ContainerRuntime`, `RuntimeHandler`: configuration and process of the container runtime, in the `host` section.
//! `ToolkitConfig`: the configuration of NVIDIA's container runtime.
//!
//! Source: the runtime's configuration files with their drop-ins, and `/proc`.

use jiff::Timestamp;
use syringe_macros::facts;

/// The runtime that the kubelet uses.
#[facts(omit(Option, Vec))]
pub struct ContainerRuntime {
    /// Name of the runtime: `containerd` or `cri-o`.
    pub name: String,
    /// Path of the main configuration file.
    pub config_path: Option<String>,
    /// Paths of the drop-in files, in the order in which they are applied.
    pub drop_ins: Vec<String>,
    /// Schema version of containerd's main configuration file: 1, 2 or 3.
    pub config_version: Option<u32>,
    /// Whether `handlers` is complete: every file was found and read. If `false`, there may be handlers that are not listed.
    pub complete: bool,
    /// Handler of pods without a RuntimeClass.
    pub default_handler: Option<String>,
    /// Configured handlers, by name.
    pub handlers: Vec<RuntimeHandler>,
    /// Whether the runtime resolves CDI devices, according to its configuration.
    pub cdi_enabled: Option<bool>,
    /// Start time of the runtime process.
    pub started_at: Option<Timestamp>,
    /// Time of the last change of the newest configuration file.
    pub config_changed_at: Option<Timestamp>,
    /// Path of the newest configuration file.
    pub config_changed_path: Option<String>,
    /// Configuration of NVIDIA's container runtime, if it is installed.
    pub toolkit: Option<ToolkitConfig>,
}

/// One handler.
#[facts(omit(Option))]
pub struct RuntimeHandler {
    /// Name of the handler, to which a RuntimeClass refers.
    pub name: String,
    /// `io.containerd.runc.v2` for containerd, `oci` or `vm` for CRI-O. `None` if the configuration does not set the type.
    pub runtime_type: Option<String>,
    /// Program of the handler (`BinaryName`, `runtime_path`).
    pub binary: Option<String>,
    /// Whether the program of the handler exists. `None` if the handler sets no path, or if the existence is not known.
    pub binary_exists: Option<bool>,
}

impl RuntimeHandler {
    /// Returns whether the handler runs NVIDIA's runtime, according to its name or its program.
    pub fn is_nvidia(&self) -> bool {
        self.name.contains("nvidia") || self.binary.as_deref().is_some_and(|binary| binary.contains("nvidia-container"))
    }
}

/// `config.toml` of nvidia-container-runtime.
#[facts(omit(Option))]
pub struct ToolkitConfig {
    /// Path of the file.
    pub path: String,
    /// `auto`, `legacy`, `cdi`, `jit-cdi` or `csv`; `None` if the file does not set the mode.
    pub mode: Option<String>,
    /// Kind of the CDI devices, if the mode is `cdi`.
    pub default_kind: Option<String>,
}
