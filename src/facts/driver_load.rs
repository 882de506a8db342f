//! Facts about why the nvidia module is not loaded. They are read only if the node has GPUs without the module.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The kernel's requirements for modules, and the nvidia modules that exist on the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DriverLoad {
    /// Secure Boot (the EFI variable `SecureBoot`). `None`: the node has no EFI variables, or they could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// Lockdown mode: `none`, `integrity` or `confidentiality` (`/sys/kernel/security/lockdown`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lockdown: Option<String>,
    /// Whether the kernel loads only signed modules (`/sys/module/module/parameters/sig_enforce`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_enforced: Option<bool>,
    /// SELinux mode: `enforcing`, `permissive` or `disabled` (`/sys/fs/selinux/enforce`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    /// The newest SELinux denial to load a module in this boot, from `/var/log/audit/audit.log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_denial: Option<SelinuxDenial>,
    /// Whether `/lib/modules` could be listed, so that the two lists below are complete.
    pub modules_listed: bool,
    /// Kernels in `/lib/modules` that have an `nvidia.ko`, compressed or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels_with_module: Vec<String>,
    /// Kernels in `/lib/modules` that have no `nvidia.ko`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels_without_module: Vec<String>,
}

/// One `AVC` record of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SelinuxDenial {
    /// Time of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Text of the record, cleaned and truncated.
    pub record: String,
}
