//! `NodeAnswer`: the answer about one node, with findings, the tool's own section, how the node was read, and the
//! checked times (`LogCoverage`).

use diagnosis::finding::{Diagnosis, Finding, Plan, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::kernel_log::Coverage;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

use crate::node_reading::probe_summary::ProbeSummary;
use crate::outcome::{CommandAnswer, Outcome};
use kube_read::reads::api_only_facts::ApiOnlyFacts;
use syringe_macros::omit;

/// Maximum number of findings in one answer. The other findings are counted.
const MAX_FINDINGS: usize = 40;

/// An answer about one node. `T` is the tool's own section.
#[omit(Option, Vec, !findings)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NodeAnswer<T> {
    /// Whether unread data may hide a worse finding.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) undecided: bool,
    /// Severity of the worst finding in the sections of `checked`. If there is no finding: `healthy` (everything was
    /// read), `no_fault_found` (only these sections were read, not the whole node) or `unknown` (too little was read).
    pub verdict: Verdict,
    /// One or two sentences.
    pub summary: String,
    /// The node.
    pub node: String,
    /// Sections that were read in full and checked.
    pub checked: Vec<SectionName>,
    /// Sections that were read in part; `unknown` lists the missing parts. The rest of each section was checked.
    pub partly_checked: Vec<SectionName>,
    /// Sections that this tool does not read. `diagnose_gpu_node` reads all sections.
    pub not_requested: Vec<SectionName>,
    /// Findings, worst first.
    pub findings: Vec<Finding>,
    /// Number of findings left out of `findings`.
    pub findings_omitted: Option<usize>,
    /// Steps to take, in this order. There is one plan for each GPU or node that has actions from several findings.
    pub plan: Vec<Plan>,
    /// Limits of the verdict: what one reading, this log or these GPUs cannot show.
    pub not_checked: Vec<String>,
    /// Data that could not be read. The verdict draws no conclusion from it.
    pub unknown: Vec<Unknown>,
    /// Time windows that the kernel logs actually cover.
    #[serde(skip_serializing_if = "LogCoverage::is_empty")]
    pub coverage: LogCoverage,
    /// Facts from the Kubernetes API, if no probe could read the node. The section of the tool is then empty.
    pub kubernetes: Option<Box<ApiOnlyFacts>>,
    /// The section of the tool.
    #[serde(flatten)]
    pub section: T,
    /// How the facts were read.
    pub probe: ProbeSummary,
}

/// Time windows that were checked.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct LogCoverage {
    /// Kernel logs.
    pub kernel_log: Vec<Coverage>,
}

impl LogCoverage {
    fn is_empty(&self) -> bool {
        self.kernel_log.is_empty()
    }
}

impl<T> CommandAnswer for NodeAnswer<T> {
    fn outcome(&self) -> Outcome {
        let found = Outcome::of_verdict(self.verdict);
        if self.undecided { found.of_incomplete() } else { found }
    }

    fn names(&self) -> Vec<String> {
        vec![format!("node/{}", self.probe.node)]
    }
}

impl<T> NodeAnswer<T> {
    /// Creates an answer.
    pub fn new(diagnosis: Diagnosis, section: T, mut probe: ProbeSummary) -> Self {
        let Diagnosis {
            verdict,
            summary,
            checked,
            partly_checked,
            not_requested,
            mut findings,
            plan,
            not_checked,
            unknown,
            kernel_log,
            stack: _,
            health: _,
            pod_names: _,
            undecided,
        } = diagnosis;
        let omitted = findings.len().saturating_sub(MAX_FINDINGS);
        findings.truncate(MAX_FINDINGS);
        Self {
            undecided,
            verdict,
            summary,
            node: probe.node.clone(),
            checked,
            partly_checked,
            not_requested,
            findings,
            findings_omitted: (omitted > 0).then_some(omitted),
            plan,
            not_checked,
            unknown,
            coverage: LogCoverage { kernel_log },
            kubernetes: probe.api_only.take(),
            section,
            probe,
        }
    }
}
