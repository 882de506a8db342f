//! `DriverLoad`: why the nvidia module is not loaded: Secure Boot, lockdown, SELinux, modules on disk.
//!
//! Read only on GPU nodes without the module. With the module, only a SELinux denial of NVIDIA's device files is read.

use jiff::Timestamp;
use syringe_macros::facts;

/// The kernel's requirements for modules, and the nvidia modules on the node.
#[facts(omit(Option, Vec))]
pub struct DriverLoad {
    /// Secure Boot (the EFI variable `SecureBoot`). `None`: the node has no EFI variables, or they could not be read.
    pub secure_boot: Option<bool>,
    /// Lockdown mode: `none`, `integrity` or `confidentiality` (`/sys/kernel/security/lockdown`).
    pub lockdown: Option<String>,
    /// Whether the kernel loads only signed modules (`/sys/module/module/parameters/sig_enforce`).
    pub signature_enforced: Option<bool>,
    /// SELinux mode: `enforcing`, `permissive` or `disabled` (`/sys/fs/selinux/enforce`).
    pub selinux: Option<String>,
    /// The newest SELinux denial in this boot, from `/var/log/audit/audit.log`: to load a module, or to use NVIDIA's
    /// device files if the module is loaded.
    pub selinux_denial: Option<SelinuxDenial>,
    /// Whether `/lib/modules` could be listed, so that `kernels_with_module` and `kernels_without_module` are complete.
    pub modules_listed: bool,
    /// Kernels in `/lib/modules` that have an `nvidia.ko`, compressed or not.
    pub kernels_with_module: Vec<String>,
    /// Kernels in `/lib/modules` that have no `nvidia.ko`.
    pub kernels_without_module: Vec<String>,
}

/// One `AVC` record of the audit log.
#[facts(omit(Option))]
pub struct SelinuxDenial {
    /// Time of the record.
    pub at: Option<Timestamp>,
    /// Text of the record, cleaned and truncated.
    pub record: String,
}
