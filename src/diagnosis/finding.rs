//! The shape of a conclusion: what is wrong, where, on what evidence, and the one thing to do about it.

use serde::{Deserialize, Serialize};

use super::stack_link::StackLink;
use crate::facts::kernel_log::Coverage;
use crate::pci::PciAddress;

/// What the rules have to say about one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Diagnosis {
    /// The worst finding; without one above `info`, how much was read to say so.
    pub verdict: Verdict,
    /// One or two sentences for a person.
    pub summary: String,
    /// Sections of the report that were read in full and judged. The verdict speaks of these and of `judged_in_part` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<String>,
    /// Sections of which a part could not be read. `unknown` says what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged_in_part: Vec<String>,
    /// Sections that were not asked for: nothing is said of what they would tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_judged: Vec<String>,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What to do, once for each GPU or node that more than one finding asks something of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<Plan>,
    /// What no reading of facts can tell, and what these GPUs or this log do not offer: the limits of the verdict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_checked: Vec<String>,
    /// What could not be read, so that nothing is concluded from its absence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
    /// The kernel logs that were read and the window each covers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernel_log: Vec<Coverage>,
    /// The way of the GPUs from the PCI bus to the scheduler, link by link. Empty for a node without GPUs. Answers show it in
    /// a section of their own.
    #[serde(skip)]
    pub stack: Vec<StackLink>,
}

/// One conclusion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Finding {
    /// Stable identifier of the rule's conclusion, e.g. `gpu-off-bus`.
    pub id: String,
    /// How bad.
    pub severity: Severity,
    /// Whose fault it is.
    pub class: Class,
    /// What it concerns.
    pub scope: Scope,
    /// The PCI address of each GPU that it is about. A finding about several has an empty scope, and names them in its
    /// evidence: this is for whoever has to join it to a GPU.
    #[serde(skip)]
    pub addresses: Vec<PciAddress>,
    /// In a few words.
    pub title: String,
    /// Facts that the conclusion rests on, quoted with their values and times.
    pub evidence: Vec<String>,
    /// The one thing to do.
    pub action: Action,
    /// Where the rule comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing to do, or history.
    #[default]
    Info,
    /// Works; plan something.
    Warning,
    /// Work on it is failing or will fail.
    Critical,
    /// Out of service.
    Fatal,
}

/// What kind of thing is at fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The program that ran on the GPU.
    #[default]
    Application,
    /// Driver, firmware, or how they are set up.
    Driver,
    /// The GPU or its board.
    Hardware,
    /// NVLink, NVSwitch, PCIe.
    Fabric,
    /// Heat.
    Thermal,
    /// Power supply.
    Power,
}

/// What a finding concerns. Empty for the node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Scope {
    /// Kubernetes node, where it is known.
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
    /// UID of the pod concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Action {
    /// One of a closed list.
    pub code: ActionCode,
    /// The same in words, with names filled in.
    pub text: String,
}

/// How a text refers to the plan of a GPU, to that of the node, and to that of the place that it has named.
pub(super) const PLAN_OF_GPU: &str = "the plan of";
pub(super) const PLAN_FOR_NODE: &str = "the plan for";
pub(super) const ITS_PLAN: &str = "its plan";

impl Action {
    /// Whether its text refers to a plan, which whoever quotes it has to give as well.
    pub fn refers_to_plan(&self) -> bool {
        [PLAN_OF_GPU, PLAN_FOR_NODE, ITS_PLAN].iter().any(|words| self.text.contains(words))
    }
}

/// The closed list of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActionCode {
    /// Nothing.
    #[default]
    None,
    /// Look again later.
    Watch,
    /// Restart the pod.
    RestartPod,
    /// Update driver or firmware, or set something up.
    UpdateSoftware,
    /// Reset the GPU.
    ResetGpu,
    /// Drain the node, then reset the GPU.
    DrainAndReset,
    /// Drain the node, then reboot it.
    DrainAndReboot,
    /// Check cables, seating and slots.
    CheckCabling,
    /// Contact the vendor; the part is likely to be returned (RMA).
    ContactVendor,
}

/// The one plan for a GPU, or for the node: its findings ask for nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Plan {
    /// The GPU or node, in words.
    pub subject: String,
    /// The strongest action that its findings ask for.
    pub action: ActionCode,
    /// What may go on until the first disruptive step, and what may not.
    pub until_then: String,
    /// What to do, in this order.
    pub steps: Vec<String>,
    /// Ids of the findings that it answers.
    pub findings: Vec<String>,
    /// The PCI address of each GPU that it is about; none where it is about the node.
    #[serde(skip)]
    pub addresses: Vec<PciAddress>,
}

impl Plan {
    /// The plan as one action: what may go on, then the steps.
    pub fn as_action(&self) -> Action {
        let steps = std::iter::once(&self.until_then).chain(&self.steps).map(String::as_str);
        Action { code: self.action, text: steps.collect::<Vec<_>>().join(" ") }
    }
}

impl Diagnosis {
    /// What to do about a finding: the plan that answers it, else its own action. `gpus`: the GPUs that are asked about,
    /// since the plans of two GPUs may answer findings of the same id.
    pub fn action_for(&self, finding: &Finding, gpus: &[PciAddress]) -> Action {
        let answers = |plan: &&Plan| {
            let about = plan.addresses.is_empty() || plan.addresses.iter().any(|address| gpus.contains(address));
            about && plan.findings.contains(&finding.id)
        };
        self.plan.iter().find(answers).map_or_else(|| finding.action.clone(), Plan::as_action)
    }
}

/// Something that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Unknown {
    /// Section of the report.
    pub section: String,
    /// NVML index, where it is about one GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// Why, and what to do.
    pub why: String,
}

/// A node in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing above `info` was found, every section was asked for, and those that decide on health were read.
    Healthy,
    /// Nothing above `info` was found in the sections that were asked for. They are not all, so this is no word about the
    /// node.
    NoFaultFound,
    /// The facts do not suffice to say `healthy`.
    #[default]
    Unknown,
    /// The worst finding is a warning.
    Warning,
    /// The worst finding is critical.
    Critical,
    /// The worst finding is fatal.
    Fatal,
}
