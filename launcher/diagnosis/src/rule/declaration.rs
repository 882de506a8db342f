//! The constant part of a finding (id, title, highest severity, class, action, reference), in tables.
//!
//! The file of each group begins with its table; `catalogue_of_rules` lists them all. Programs rely on the ids: an id does
//! not change its meaning and is not reused. The functions of the group add what depends on the facts: evidence, and
//! sometimes the severity.

use syringe_core::classification::{ActionCode, Class, Severity};

/// The constant part of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable id of its findings.
    pub id: &'static str,
    /// Title.
    pub title: &'static str,
    /// Highest severity of its findings. The facts can lower it.
    pub severity: Severity,
    /// What is at fault.
    pub class: Class,
    /// The usual action.
    pub action: ActionCode,
    /// Text of the action, with the placeholders `{gpu}` and `{node}`.
    pub advice: &'static str,
    /// Documentation that the rule is based on.
    pub reference: Option<&'static str>,
    /// What a finding of it means, for `docs/findings.md`.
    pub meaning: &'static str,
    /// The facts that it reads: fields of the report (`section.field`), fields of [`KubernetesFacts`](syringe_core::facts::kubernetes::node::KubernetesFacts)
    /// (`kubernetes.field`), kinds of kernel lines.
    pub reads: &'static str,
}

/// NVIDIA's Xid catalogue.
pub(crate) const XID_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/xid-errors/");
/// NVIDIA on row remapping, containment and recovery (Ampere on).
pub(crate) const MEMORY_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/");
/// NVIDIA on page retirement (before Ampere).
pub(crate) const RETIREMENT_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/dynamic-page-retirement/");
/// NVIDIA's guide to debugging GPUs.
pub(crate) const DEBUG_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/gpu-debug-guidelines/");
/// NVIDIA's Fabric Manager guide.
pub(crate) const FABRIC_DOC: Option<&str> = Some("https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/");
/// NVIDIA's MIG guide.
pub(crate) const MIG_DOC: Option<&str> = Some("https://docs.nvidia.com/datacenter/tesla/mig-user-guide/");
/// NVIDIA on persistence.
pub(crate) const PERSISTENCE_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/driver-persistence/");
/// NVML's reference: clock event reasons, error codes, power limits.
pub(crate) const NVML_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/nvml-api/");
/// The kernel on PCIe Advanced Error Reporting.
pub(crate) const AER_DOC: Option<&str> = Some("https://docs.kernel.org/PCI/pcieaer-howto.html");
/// Kubernetes on device plugins.
pub(crate) const PLUGIN_DOC: Option<&str> =
    Some("https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/");

/// NVIDIA's guide to trouble with the GPU Operator.
pub(crate) const OPERATOR_DOC: Option<&str> =
    Some("https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/troubleshooting.html");
/// NVIDIA on a toolkit that restarts the container runtime.
pub(crate) const TOOLKIT_ISSUE: Option<&str> = Some("https://github.com/NVIDIA/gpu-operator/issues/991");

/// NVIDIA on containers that lose their GPUs ("Unknown Error").
pub(crate) const TOOLKIT_DOC: Option<&str> = Some("https://github.com/NVIDIA/nvidia-docker/issues/1730");

/// Declares the rules of a group: one constant for each rule, and `RULES` with all of them.
///
/// ```text
/// NAME: "id" Severity Class REFERENCE, "title",
///     Action "advice",
///     means "What a finding of it means.", reads "section.field, kubernetes.field";
/// ```
macro_rules! rules {
    ($($name:ident: $id:literal $severity:ident $class:ident $reference:ident,
        $title:literal, $action:ident $advice:literal $(, means $meaning:literal, reads $facts:literal)?;)*) => {
        $(pub(crate) const $name: $crate::rule::declaration::Rule = $crate::rule::declaration::Rule {
            id: $id,
            title: $title,
            severity: syringe_core::classification::Severity::$severity,
            class: syringe_core::classification::Class::$class,
            action: syringe_core::classification::ActionCode::$action,
            advice: $advice,
            reference: $reference,
            meaning: concat!($($meaning)?),
            reads: concat!($($facts)?),
        };)*
        /// The rules of this group.
        pub(crate) const RULES: &[$crate::rule::declaration::Rule] = &[$($name),*];
    };
}
pub(crate) use rules;
