//! What a rule is: the fixed part of a conclusion (id, title, usual severity, class, action, source), kept as tables.
//!
//! Each family file opens with its table; `catalogue_of_rules` lists them all. Ids are a contract with whoever reads
//! findings by program: they do not change their meaning and are not used again. What varies with the facts (evidence,
//! sometimes the severity) is added by the family's functions.

use super::{ActionCode, Class, Severity};

/// The fixed part of a conclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable id of its findings.
    pub id: &'static str,
    /// What it says, in a few words.
    pub title: &'static str,
    /// The gravest severity that a finding of it can have. The facts may make it milder.
    pub severity: Severity,
    /// Whose fault it is.
    pub class: Class,
    /// The usual action.
    pub action: ActionCode,
    /// The action in words; `{gpu}` and `{node}` stand for names.
    pub advice: &'static str,
    /// Where the rule comes from.
    pub reference: Option<&'static str>,
}

/// NVIDIA's Xid catalogue.
pub(super) const XID_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/xid-errors/");
/// NVIDIA on row remapping, containment and recovery (Ampere on).
pub(super) const MEMORY_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/");
/// NVIDIA on page retirement (before Ampere).
pub(super) const RETIREMENT_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/dynamic-page-retirement/");
/// NVIDIA's guide to debugging GPUs.
pub(super) const DEBUG_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/gpu-debug-guidelines/");
/// NVIDIA's Fabric Manager guide.
pub(super) const FABRIC_DOC: Option<&str> = Some("https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/");
/// NVIDIA's MIG guide.
pub(super) const MIG_DOC: Option<&str> = Some("https://docs.nvidia.com/datacenter/tesla/mig-user-guide/");
/// NVIDIA on persistence.
pub(super) const PERSISTENCE_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/driver-persistence/");
/// NVML's reference: clock event reasons, error codes, power limits.
pub(super) const NVML_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/nvml-api/");
/// The kernel on PCIe Advanced Error Reporting.
pub(super) const AER_DOC: Option<&str> = Some("https://docs.kernel.org/PCI/pcieaer-howto.html");
/// Kubernetes on device plugins.
pub(super) const PLUGIN_DOC: Option<&str> =
    Some("https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/");

/// NVIDIA's guide to trouble with the GPU Operator.
pub(super) const OPERATOR_DOC: Option<&str> =
    Some("https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/troubleshooting.html");
/// NVIDIA on a toolkit that restarts the container runtime.
pub(super) const TOOLKIT_ISSUE: Option<&str> = Some("https://github.com/NVIDIA/gpu-operator/issues/991");

/// NVIDIA on containers that lose their GPUs ("Unknown Error").
pub(super) const TOOLKIT_DOC: Option<&str> = Some("https://github.com/NVIDIA/nvidia-docker/issues/1730");

/// Declares a family's rules: a constant each, and `RULES` with all of them.
macro_rules! rules {
    ($($name:ident: $id:literal $severity:ident $class:ident $reference:ident,
        $title:literal, $action:ident $advice:literal;)*) => {
        $(pub(super) const $name: $crate::diagnosis::rules::Rule = $crate::diagnosis::rules::Rule {
            id: $id,
            title: $title,
            severity: $crate::diagnosis::Severity::$severity,
            class: $crate::diagnosis::Class::$class,
            action: $crate::diagnosis::ActionCode::$action,
            advice: $advice,
            reference: $reference,
        };)*
        /// The rules of this family.
        pub(super) const RULES: &[$crate::diagnosis::rules::Rule] = &[$($name),*];
    };
}
pub(super) use rules;
