//! The one shape of every probing tool's answer: problems first, evidence, then the tool's own section, then how it was got.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::diagnosis::{Diagnosis, Finding, Plan, Unknown, Verdict};
use syringe_core::facts::kernel_log::Coverage;
use syringe_core::report::{Report, Scope, Source};

use crate::answer::fleet::FleetAnswer;
use crate::kubernetes::read::api_only::KubernetesAlone;
use crate::probe::{Probed, Timings};
use crate::settings::Via;

/// Findings in one answer. The rest is counted: more than this is read by nobody.
const MOST_FINDINGS: usize = 40;

/// An answer about one node. `T` is the tool's own section.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Answer<T> {
    /// The worst finding in the sections of `judged`; without one, how much was read: `healthy` (all), `no_fault_found`
    /// (these sections only, no word about the node), `unknown` (not enough).
    pub verdict: Verdict,
    /// One or two sentences.
    pub summary: String,
    /// Sections that were judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<String>,
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
    pub kubernetes: Option<Box<KubernetesAlone>>,
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

/// How the facts were got, and what is left of it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProbeNote {
    /// The way in.
    pub via: &'static str,
    /// The node.
    pub node: String,
    /// The kubeconfig context.
    pub context: String,
    /// `hardware`, `file` for replayed facts (the demo), or `api` where no probe ran.
    pub source: Source,
    /// Version of node-probe; empty where none ran.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// How much of the node the probe could see. Absent: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// When the facts were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<jiff::Timestamp>,
    /// Whether nothing is left of the probe for certain.
    pub removed: bool,
    /// What is left on the cluster, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_behind: Option<String>,
    /// What is worth knowing of the way (a retry, a probe that did not end).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Duration of each phase.
    pub timings_ms: TimingsMs,
    /// What took the place of a probe; moves to the answer's own field.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) alone: Option<Box<KubernetesAlone>>,
}

/// Duration of each phase in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct TimingsMs {
    /// Until the API server had the pod.
    pub create: u64,
    /// From there until the probe ran.
    pub start: u64,
    /// Until its document was complete.
    pub exec: u64,
    /// Until the pod was gone.
    pub remove: u64,
    /// All of it.
    pub total: u64,
}

impl From<Timings> for TimingsMs {
    fn from(timings: Timings) -> Self {
        let Timings { create, start, exec, remove, total } = timings;
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            create: millis(create),
            start: millis(start),
            exec: millis(exec),
            remove: millis(remove),
            total: millis(total),
        }
    }
}

/// The answer of a tool that reads one node, or all of them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One node, in full.
    One(Box<Answer<T>>),
    /// Many nodes, by what stands out.
    Many(Box<FleetAnswer>),
}

impl<T> Answer<T> {
    /// Puts an answer together.
    pub fn new(diagnosis: Diagnosis, section: T, mut probe: ProbeNote) -> Self {
        let Diagnosis { verdict, summary, judged, not_judged, mut findings, plan, not_checked, unknown, kernel_log } =
            diagnosis;
        let omitted = findings.len().saturating_sub(MOST_FINDINGS);
        findings.truncate(MOST_FINDINGS);
        Self {
            verdict,
            summary,
            judged,
            not_judged,
            findings,
            findings_omitted: (omitted > 0).then_some(omitted),
            plan,
            not_checked,
            unknown,
            coverage: CoverageOf { kernel_log },
            kubernetes: probe.alone.take(),
            section,
            probe,
        }
    }
}

impl ProbeNote {
    /// The note for a probe pod that brought back `report`.
    pub fn of_pod(node: &str, context: &str, probed: &Probed) -> Self {
        let Probed { report, via, removed, left_behind, timings, note, .. } = probed;
        let Report { source, probe_version, taken_at, scope, .. } = report;
        Self {
            via: via.word(),
            node: node.to_owned(),
            context: context.to_owned(),
            source: source.clone(),
            version: syringe_core::text::clean(probe_version, 40),
            scope: *scope,
            taken_at: *taken_at,
            removed: *removed,
            left_behind: left_behind.clone(),
            note: note.clone(),
            timings_ms: (*timings).into(),
            alone: None,
        }
    }

    /// The note where no probe ran, with why.
    pub(crate) fn of_nothing(node: &str, context: &str, note: String) -> Self {
        Self {
            via: Via::None.word(),
            node: node.to_owned(),
            context: context.to_owned(),
            source: Source::Api,
            version: String::new(),
            scope: None,
            taken_at: Some(jiff::Timestamp::now()),
            removed: true,
            left_behind: None,
            note: Some(note),
            timings_ms: TimingsMs::default(),
            alone: None,
        }
    }
}
