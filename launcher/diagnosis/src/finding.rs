//! Types of the diagnosis of a node: `Diagnosis`, its `Finding`s (with `Scope`, `Action`), its `Plan`s (with `Urgency`,
//! `Rma`), its `Verdict`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::unknown::Unknown;

use crate::health::Health;

use crate::stack_stage::StackStage;
use syringe_core::facts::kernel_log::Coverage;
use syringe_core::pci::PciAddress;
use syringe_core::section_name::SectionName;

/// The diagnosis of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Diagnosis {
    /// Severity of the worst finding. If no finding is above `info`, the verdict depends on how much was read.
    pub verdict: Verdict,
    /// The diagnosis in one or two sentences.
    pub summary: String,
    /// Sections of the report that were read in full and evaluated. The verdict covers only these sections and those in
    /// `partly_checked`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checked: Vec<SectionName>,
    /// Sections that were read in part: see `unknown`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partly_checked: Vec<SectionName>,
    /// Sections that were not requested. The verdict does not cover them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_requested: Vec<SectionName>,
    /// The findings, worst first.
    pub findings: Vec<Finding>,
    /// One plan for each GPU or node that several findings are about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<Plan>,
    /// Limits of the verdict: facts that cannot be read, or are not supported by GPUs or log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_checked: Vec<String>,
    /// Facts that could not be read. Nothing is concluded from missing values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
    /// The kernel logs that were read, each with the time window that it covers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernel_log: Vec<Coverage>,
    /// The stages from the GPUs on the PCI bus to the scheduler. Empty for a node without GPUs. Answers show the stages
    /// in a separate section.
    #[serde(skip)]
    pub stack: Vec<StackStage>,
    /// Score and status of the node and of each GPU. `get_gpu_health` shows them.
    #[serde(skip)]
    pub health: Health,
    /// True if too little was read to rule out a worse finding than those in `findings`.
    #[serde(skip)]
    pub undecided: bool,
    /// `namespace/name` of the pods with processes on the node, by UID.
    #[serde(skip)]
    pub pod_names: BTreeMap<String, String>,
}

/// One finding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Finding {
    /// Stable id, e.g. `gpu-off-bus`.
    #[schemars(extend("x-text" = "own"))]
    pub id: String,
    /// The severity.
    pub severity: Severity,
    /// The kind of fault.
    pub class: Class,
    /// The node, GPU, process or pod that the finding is about.
    pub scope: Scope,
    /// PCI addresses of the GPUs of the finding. If there are several GPUs, the scope is empty, and only this field and
    /// the evidence list them.
    #[serde(skip)]
    pub addresses: Vec<PciAddress>,
    /// True if programs on the GPU continue to run although the finding is critical or fatal.
    #[serde(skip)]
    pub work_continues: bool,
    /// A short title.
    #[schemars(extend("x-text" = "own"))]
    pub title: String,
    /// The reason of the fault: the message of the failed component, if it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The facts behind the finding, with their values and times.
    pub evidence: Vec<String>,
    /// The recommended action.
    pub action: Action,
    /// Documentation that the rule is based on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-text" = "own"))]
    pub reference: Option<String>,
    /// DCGM's health code for the same fault, e.g. `DCGM_FR_NVLINK_DOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-text" = "own"))]
    pub dcgm: Option<String>,
}

impl Finding {
    /// Returns the title with the reason, if a reason is known.
    pub fn headline(&self) -> String {
        self.reason.as_ref().map_or_else(|| self.title.clone(), |reason| format!("{}: {reason}", self.title))
    }
}

/// The object that a finding is about. Empty for the node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Scope {
    /// Kubernetes node, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// NVML index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// GPU or MIG UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// PCI address of the GPU or switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
    /// Process id on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// UID of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// `namespace/name` of the pod, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

impl Scope {
    /// Returns whether the finding is about the node as a whole.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A recommended action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Action {
    /// Code of the action.
    pub code: ActionCode,
    /// The action as a text, with the names of GPU and node.
    pub text: String,
}

/// Phrases with which a text refers to the plan of a GPU, to the plan of the node, or to the plan of the GPU or node
/// that the text names.
pub(crate) const PLAN_OF_GPU: &str = "the plan of";
pub(crate) const PLAN_FOR_NODE: &str = "the plan for";
pub(crate) const ITS_PLAN: &str = "its plan";

impl Action {
    /// Returns whether the text refers to a plan, so that an answer with this action must contain the plan.
    pub fn refers_to_plan(&self) -> bool {
        [PLAN_OF_GPU, PLAN_FOR_NODE, ITS_PLAN].iter().any(|words| self.text.contains(words))
    }
}

/// The plan for a GPU or for the node. It replaces the actions of its findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Plan {
    /// Name of the GPU or node.
    pub subject: String,
    /// The strongest action of the findings that the plan resolves.
    pub action: ActionCode,
    /// When the plan must be carried out.
    pub urgency: Urgency,
    /// The work that may continue until the first step that interrupts work.
    pub before_plan: String,
    /// The steps, in order.
    pub steps: Vec<String>,
    /// What happens if a pod on these GPUs is deleted before the plan is carried out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub if_pod_deleted: String,
    /// Which results of the work on these GPUs can be trusted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub results: String,
    /// Whether to return the GPU to the vendor (RMA).
    pub rma: Rma,
    /// Ids of the findings that the plan resolves.
    #[schemars(extend("x-text" = "own"))]
    pub findings: Vec<String>,
    /// PCI addresses of the plan's GPUs; empty for a plan of the node.
    #[serde(skip)]
    pub addresses: Vec<PciAddress>,
}

/// When a plan must be carried out. The most urgent finding decides.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Work is not affected. At the next maintenance.
    #[default]
    NextMaintenance,
    /// Running work may finish; new work must not start.
    WhenJobsEnd,
    /// Work fails or computes wrong results.
    Now,
}

/// Whether to return a GPU to the vendor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Rma {
    /// The GPU need not be returned.
    #[default]
    No,
    /// Return the GPU if the fault occurs again after the steps.
    IfRepeated,
    /// Run NVIDIA's field diagnostic first. Return the GPU if the diagnostic fails.
    IfDiagnosticFails,
    /// The GPU must be returned.
    Yes,
}

impl Plan {
    /// Returns the plan as one action: which work may continue, then the steps.
    pub fn as_action(&self) -> Action {
        let steps = std::iter::once(&self.before_plan).chain(&self.steps).map(String::as_str);
        Action { code: self.action, text: steps.collect::<Vec<_>>().join(" ") }
    }
}

impl Diagnosis {
    /// Returns the plan that resolves a finding, or else the action of the finding. `gpus`: the GPUs of the answer.
    /// They are needed because plans of different GPUs can resolve findings with the same id.
    pub fn action_for(&self, finding: &Finding, gpus: &[PciAddress]) -> Action {
        let answers = |plan: &&Plan| {
            let about = plan.addresses.is_empty() || plan.addresses.iter().any(|address| gpus.contains(address));
            about && plan.findings.contains(&finding.id)
        };
        self.plan.iter().find(answers).map_or_else(|| finding.action.clone(), Plan::as_action)
    }
}

/// The verdict about a node.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No finding is above `info`, all sections were requested, and the decisive sections were read.
    Healthy,
    /// No finding is above `info`, but not all sections were requested. The state of the other sections is not known.
    NoFaultFound,
    /// Not enough was read for `healthy`.
    #[default]
    Unknown,
    /// The worst finding is a warning.
    Warning,
    /// The worst finding is critical.
    Critical,
    /// The worst finding is fatal.
    Fatal,
}
