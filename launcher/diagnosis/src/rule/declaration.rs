//! `Rule`: the constant part of a finding (id, title, severity, action). `rules!`: declares a table of rules.
//! `About`, `InPlan`: properties of a rule. `XID_DOC` and the other constants: links to documentation.
//!
//! The file of each group begins with its table. `catalogue_of_rules` lists all rules. Clients rely on the ids: the
//! meaning of an id does not change, and an id is not reused. The functions of the group add the parts that depend on
//! the facts: the evidence, and sometimes the severity. The conclusions use the properties of a rule ([`About`],
//! [`InPlan`]), never its id.

use std::sync::LazyLock;

use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::tsv::rows;

/// The constant part of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable id of its findings.
    pub id: &'static str,
    pub title: &'static str,
    /// Highest severity of the findings of this rule. The facts can lower the severity. [`Rule::highest_severity`] is
    /// higher for some rules, and so is the severity of a finding about which a pod complains that cannot run.
    pub severity: Severity,
    pub class: Class,
    pub action: ActionCode,
    /// Text of the action, with the placeholders `{gpu}` and `{node}`.
    pub advice: &'static str,
    /// Documentation that the rule is based on.
    pub reference: Option<&'static str>,
    /// Meaning of a finding, for `docs/findings.md`.
    pub meaning: &'static str,
    /// The facts that the rule reads: fields of the report (`section.field`), fields of
    /// [`KubernetesFacts`](syringe_core::facts::kubernetes::node::KubernetesFacts) (`kubernetes.field`), kinds of
    /// kernel lines.
    pub reads: &'static str,
    pub about: About,
    pub in_plan: InPlan,
    /// The fault that a finding is a sign of, if several rules find signs of it. The signs become one finding.
    pub fault: Option<Fault>,
    /// 0: a cause. A larger number: an effect of faults with smaller numbers. Of findings with one severity, the cause
    /// is listed first.
    pub depth: u8,
}

impl Rule {
    pub(crate) const fn about(self, about: About) -> Self {
        Self { about, ..self }
    }

    /// Returns the highest severity of the findings of this rule, if no pod can get a GPU of the node because of its fault.
    pub fn highest_severity(&self) -> Severity {
        match self.about {
            About::Unavailable | About::ContainerRuntime if self.severity == Severity::Warning => Severity::Critical,
            _ => self.severity,
        }
    }

    /// Returns the name of DCGM's health code for the same fault, from `data/dcgm.tsv`.
    pub fn dcgm(&self) -> Option<&'static str> {
        static CODES: LazyLock<Vec<Vec<&str>>> = LazyLock::new(|| rows(include_str!("../data/dcgm.tsv")).collect());
        CODES.iter().find(|row| row[0] == self.id).and_then(|row| row.get(1).copied())
    }

    /// Returns whether the rule reads the group of fields with which a line of evidence starts, such as
    /// `telemetry.power` for `telemetry.power.limit_milliwatts is 400000`.
    pub(crate) fn reads_field_of(&self, line: &str) -> bool {
        self.reads.split(", ").any(|group| group.contains('.') && line.starts_with(group))
    }

    pub(crate) const fn in_plan(self, in_plan: InPlan) -> Self {
        Self { in_plan, ..self }
    }

    pub(crate) const fn fault(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    pub(crate) const fn depth(self, depth: u8) -> Self {
        Self { depth, ..self }
    }
}

/// A fault with several signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The signal quality of a PCIe link is poor.
    PcieLink,
    /// A GPU is too hot.
    Heat,
    /// A disk of the node fails.
    Disk,
    /// Host memory has uncorrectable errors.
    HostMemory,
    /// The host has no free memory.
    OutOfMemory,
    /// A limit of the operating system is reached.
    HostLimit,
}

/// Subject of a finding, for the health score and the stages of NVIDIA's stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum About {
    /// The GPUs, or the node as a whole.
    #[default]
    Gpus,
    /// The driver: no GPU can be used.
    Driver,
    /// The driver cannot be used, and the reason is not known. A finding with the reason replaces such a finding.
    DriverAbsent,
    /// The software that gives GPUs to containers: container runtime, CDI. The GPUs are not at fault.
    ContainerRuntime,
    /// A network card or a port. No GPU is at fault, also if the finding names the GPU next to it.
    Network,
    /// One container, or the use of GPUs by pods. The GPUs are not at fault.
    Workload,
    /// Pods cannot get the GPUs. A finding with the reason replaces such a finding.
    Unavailable,
}

impl About {
    /// Returns whether a finding lowers the health score.
    pub(crate) fn lowers_score(self) -> bool {
        !matches!(self, Self::ContainerRuntime | Self::Workload)
    }

    /// Returns whether the driver cannot be used.
    pub(crate) fn is_driver(self) -> bool {
        matches!(self, Self::Driver | Self::DriverAbsent)
    }
}

/// Effect of a finding on the plan for its GPU or node, in addition to its action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InPlan {
    #[default]
    None,
    /// The GPU fell off the bus: a reboot may not bring it back.
    PowerCycle,
    /// The GPU is in a state that prevents its start and that a warm reboot does not clear.
    ColdStart,
    /// The GPU fell off the bus and responds again: a reboot is sufficient.
    LostBefore,
    /// The process cannot be killed, so the drain does not wait for it.
    UnkillableProcess,
    /// The program with the error has ended. Other work on the GPU may continue.
    OtherWorkContinues,
    /// All work on the GPU may continue.
    WorkContinues,
    /// Other components depend on the repair: the action is the first step of the plan.
    ComesFirst,
    /// Like `ComesFirst`. The action starts Fabric Manager.
    StartsFabricManager,
    /// The cause is outside the GPUs, so no GPU is returned because of this finding.
    SharedCause,
    /// The node is being removed: nothing on it is repaired.
    NodeLeaves,
    /// Every program that has run on the GPU since the error may have computed wrong results.
    ResultsSuspect,
}

pub(crate) const XID_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/xid-errors/");
/// NVIDIA's documentation of row remapping, containment and recovery (Ampere and later).
pub(crate) const MEMORY_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/");
/// NVIDIA's documentation of page retirement (before Ampere).
pub(crate) const RETIREMENT_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/dynamic-page-retirement/");
/// NVIDIA's guide to debugging GPUs.
pub(crate) const DEBUG_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/gpu-debug-guidelines/");
pub(crate) const FABRIC_DOC: Option<&str> = Some("https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/");
pub(crate) const IMEX_DOC: Option<&str> = Some("https://docs.nvidia.com/multi-node-nvlink-systems/imex-guide/");
/// NCCL's guide to problems with GPUDirect, ACS, the IOMMU and shared memory.
pub(crate) const NCCL_DOC: Option<&str> =
    Some("https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html");
/// NVIDIA's documentation of time-slicing, which does not isolate memory.
pub(crate) const SHARING_DOC: Option<&str> =
    Some("https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/gpu-sharing.html");
pub(crate) const MIG_DOC: Option<&str> = Some("https://docs.nvidia.com/datacenter/tesla/mig-user-guide/");
pub(crate) const PERSISTENCE_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/driver-persistence/");
/// NVML's reference: clock event reasons, error codes, power limits.
pub(crate) const NVML_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/nvml-api/");
/// The kernel's documentation of PCIe Advanced Error Reporting.
pub(crate) const AER_DOC: Option<&str> = Some("https://docs.kernel.org/PCI/pcieaer-howto.html");
pub(crate) const PLUGIN_DOC: Option<&str> =
    Some("https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/");

/// NVIDIA's troubleshooting guide for the GPU Operator.
pub(crate) const OPERATOR_DOC: Option<&str> =
    Some("https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/troubleshooting.html");
/// NVIDIA's issue about a toolkit that restarts the container runtime.
pub(crate) const TOOLKIT_ISSUE: Option<&str> = Some("https://github.com/NVIDIA/gpu-operator/issues/991");

/// NVIDIA's issue about containers that lose their GPUs ("Unknown Error").
pub(crate) const TOOLKIT_DOC: Option<&str> = Some("https://github.com/NVIDIA/nvidia-docker/issues/1730");

/// Declares the rules of a group: one constant for each rule, and `RULES` with all of them. `about` before the first
/// rule applies to all rules of the group.
///
/// ```text
/// about ContainerRuntime;
/// NAME: "id" Severity Class REFERENCE, "title",
///     Action "advice",
///     means "Meaning of a finding.", reads "section.field, kubernetes.field"[, about Workload][, in_plan PowerCycle]
///     [, depth 1][, fault PcieLink];
/// ```
macro_rules! rules {
    (about $about:ident; $($rules:tt)*) => { $crate::rule::rules!(@$about $($rules)*); };
    (@$all:ident $($name:ident: $id:literal $severity:ident $class:ident $reference:ident,
        $title:literal, $action:ident $advice:literal, means $meaning:literal, reads $facts:literal
        $(, about $about:ident)? $(, in_plan $effect:ident)? $(, depth $depth:literal)?
        $(, fault $fault:ident)?;)*) => {
        const ABOUT: $crate::rule::About = $crate::rule::About::$all;
        $(pub(crate) const $name: $crate::rule::Rule = $crate::rule::Rule {
            id: $id,
            title: $title,
            severity: syringe_core::classification::Severity::$severity,
            class: syringe_core::classification::Class::$class,
            action: syringe_core::classification::ActionCode::$action,
            advice: $advice,
            reference: $reference,
            meaning: $meaning,
            reads: $facts,
            about: ABOUT,
            in_plan: $crate::rule::InPlan::None,
            fault: None,
            depth: 0,
        }$(.about($crate::rule::About::$about))?$(.in_plan($crate::rule::InPlan::$effect))?$(.depth($depth))?
        $(.fault($crate::rule::Fault::$fault))?;)*
        /// The rules of this group.
        pub(crate) const RULES: &[$crate::rule::Rule] = &[$($name),*];
    };
    ($($rules:tt)*) => { $crate::rule::rules!(@Gpus $($rules)*); };
}
pub(crate) use rules;
