//! The answer about one node: findings with evidence, the tool's own section, how it was read.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::diagnosis::{Diagnosis, Finding, Plan, Unknown, Verdict};
use syringe_core::facts::kernel_log::Coverage;

use crate::kubernetes::read::api_only_facts::ApiOnlyFacts;
use crate::reading::probe_note::ProbeNote;

/// Findings in one answer. The rest is counted: more than this is read by nobody.
const MAX_FINDINGS: usize = 40;

/// An answer about one node. `T` is the tool's own section.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Answer<T> {
    /// The worst finding in the sections of `judged`; without one, how much was read: `healthy` (all), `no_fault_found`
    /// (these sections only, no word about the node), `unknown` (not enough).
    pub verdict: Verdict,
    /// One or two sentences.
    pub summary: String,
    /// Sections that were read in full and judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<String>,
    /// Sections of which a part could not be read: `unknown` says what. The rest of them was judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged_in_part: Vec<String>,
    /// Sections that this tool does not read: nothing is said of them. `diagnose_gpu_node` reads all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_judged: Vec<String>,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// Findings left out of `findings` for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings_omitted: Option<usize>,
    /// What to do, once for each GPU or node that several findings ask something of: in this order, and nothing else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<Plan>,
    /// Limits of the verdict: what one reading, this log or these GPUs cannot tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_checked: Vec<String>,
    /// What could not be read: nothing is concluded from its absence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
    /// Windows that the kernel logs really cover.
    #[serde(skip_serializing_if = "CoverageOf::is_empty")]
    pub coverage: CoverageOf,
    /// What the Kubernetes API knows, where no probe could read the node. The tool's own section is then empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Box<ApiOnlyFacts>>,
    /// The tool's own section.
    #[serde(flatten)]
    pub section: T,
    /// How the facts were got.
    pub probe: ProbeNote,
}

/// What was looked at, where that is a window in time.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct CoverageOf {
    /// Kernel logs.
    pub kernel_log: Vec<Coverage>,
}

impl CoverageOf {
    fn is_empty(&self) -> bool {
        self.kernel_log.is_empty()
    }
}

impl<T> Answer<T> {
    /// Puts an answer together.
    pub fn new(diagnosis: Diagnosis, section: T, mut probe: ProbeNote) -> Self {
        let Diagnosis {
            verdict,
            summary,
            judged,
            judged_in_part,
            not_judged,
            mut findings,
            plan,
            not_checked,
            unknown,
            kernel_log,
        } = diagnosis;
        let omitted = findings.len().saturating_sub(MAX_FINDINGS);
        findings.truncate(MAX_FINDINGS);
        Self {
            verdict,
            summary,
            judged,
            judged_in_part,
            not_judged,
            findings,
            findings_omitted: (omitted > 0).then_some(omitted),
            plan,
            not_checked,
            unknown,
            coverage: CoverageOf { kernel_log },
            kubernetes: probe.api_only.take(),
            section,
            probe,
        }
    }
}
