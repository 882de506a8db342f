//! The answer about one node: findings with evidence, the tool's own section, how it was read.

use diagnosis::finding::{Diagnosis, Finding, Plan, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::kernel_log::Coverage;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

use crate::cli::exit_status::{CommandAnswer, Outcome};
use crate::node_reading::probe_summary::ProbeSummary;
use kube_read::reads::api_only_facts::ApiOnlyFacts;

/// Maximum number of findings in one answer. The rest is counted.
const MAX_FINDINGS: usize = 40;

/// An answer about one node. `T` is the tool's own section.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NodeAnswer<T> {
    /// Whether too little was read to rule out a worse finding.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) undecided: bool,
    /// The worst finding in the sections of `checked`; without one, how much was read: `healthy` (all), `no_fault_found`
    /// (only these sections, not the whole node), `unknown` (not enough).
    pub verdict: Verdict,
    /// One or two sentences.
    pub summary: String,
    /// Sections that were read in full and checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checked: Vec<SectionName>,
    /// Sections of which a part could not be read. `unknown` says which. The rest of the section was checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partly_checked: Vec<SectionName>,
    /// Sections that this tool does not read. `diagnose_gpu_node` reads all sections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_requested: Vec<SectionName>,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// Findings left out of `findings` for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings_omitted: Option<usize>,
    /// What to do, once for each GPU or node with actions from several findings: these steps, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<Plan>,
    /// Limits of the verdict: what one reading, this log or these GPUs cannot show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_checked: Vec<String>,
    /// What could not be read. Nothing is concluded from it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
    /// Time windows that the kernel logs really cover.
    #[serde(skip_serializing_if = "LogCoverage::is_empty")]
    pub coverage: LogCoverage,
    /// Facts from the Kubernetes API, if no probe could read the node. The section of the tool is then empty.
    #[serde(skip_serializing_if = "Option::is_none")]
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
            undecided,
        } = diagnosis;
        let omitted = findings.len().saturating_sub(MAX_FINDINGS);
        findings.truncate(MAX_FINDINGS);
        Self {
            undecided,
            verdict,
            summary,
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
