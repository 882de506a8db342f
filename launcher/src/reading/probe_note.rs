//! How the facts of an answer were read.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::report::{Report, Scope, Source};

use crate::error::Failure;
use crate::kubernetes::read::api_only_facts::ApiOnlyFacts;
use crate::probe::{ProbeResult, Timings};
use crate::settings::ProbeMethod;

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
    pub(crate) api_only: Option<Box<ApiOnlyFacts>>,
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

impl ProbeNote {
    /// The note for a probe pod that brought back `report`.
    pub fn of_pod(node: &str, context: &str, probed: &ProbeResult) -> Self {
        let ProbeResult { report, via, removed, left_behind, timings, note, .. } = probed;
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
            api_only: None,
        }
    }

    /// The note where no probe ran, with why.
    pub(crate) fn without_probe(node: &str, context: &str, note: String) -> Self {
        Self {
            via: ProbeMethod::None.word(),
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
            api_only: None,
        }
    }

    /// The note for a probe that returned no facts; `None` where none was created.
    pub(crate) fn of_failed_probe(via: ProbeMethod, node: &str, context: &str, failure: &Failure) -> Option<Self> {
        let Failure { why, removed, left_behind, .. } = failure;
        if !removed && left_behind.is_none() {
            return None;
        }
        let note = Self::without_probe(node, context, format!("the probe returned no facts: {why}"));
        let via = via.word();
        Some(Self { via, removed: left_behind.is_none(), left_behind: left_behind.clone(), ..note })
    }
}
