//! `ProbeSummary`: the field `probe` of an answer: how the facts were read, and what remains in the cluster.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::report::{Report, ReportScope, Source};

use crate::probe::{ProbeResult, Timings};
use crate::settings::ProbeMethod;
use kube_read::reads::api_only_facts::ApiOnlyFacts;
use kube_read::{Connection, Failure};
use syringe_macros::omit;

/// How the facts were read, and what remains in the cluster.
#[omit(Option, Vec, version, !api_only)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProbeSummary {
    /// The probe method.
    #[schemars(extend("x-text" = "own"))]
    pub via: &'static str,
    /// The node.
    pub node: String,
    /// The kubeconfig context.
    pub context: String,
    /// `hardware`, `file` for replayed facts (the demo), or `api` if no probe ran.
    pub source: Source,
    /// Version of node-probe; empty if no probe ran.
    pub version: String,
    /// The part of the node that the probe could see. Absent if the probe could see the whole node.
    pub scope: Option<ReportScope>,
    /// The time when the facts were read.
    pub taken_at: Option<jiff::Timestamp>,
    /// Whether the object of the probe pod is certainly deleted. The kubelet stops the container a moment later.
    pub deleted: bool,
    /// What remains in the cluster, and how to remove it.
    pub left_behind: Option<String>,
    /// A process of the probe that stays on the node although the pod is deleted, and how to find this process.
    pub process_left: Option<String>,
    /// Notes about the probe (a retry, a probe that did not exit).
    pub note: Option<String>,
    /// The step that makes a probe possible, if no probe ran. The note ends with this step.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) next_step: Option<String>,
    /// Methods that `--via auto` did not use, and why. Each method is listed only in the first answer to which it applies.
    pub passed_over: Vec<String>,
    /// Duration of each phase.
    pub timings_ms: TimingsMs,
    /// The facts that replace the report of a probe. They are moved to a field of the answer.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) api_only: Option<Box<ApiOnlyFacts>>,
}

/// Duration of each phase in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct TimingsMs {
    /// Time until the pod was created in the API.
    pub create: u64,
    /// Time from the creation to the start of the probe.
    pub start: u64,
    /// Time from the start of the probe until the report was complete.
    pub exec: u64,
    /// Time from the complete report until the pod was deleted.
    pub remove: u64,
    /// Total.
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

impl ProbeSummary {
    /// Returns the summary of a probe that returned a report.
    pub fn of_pod(node: &str, context: &str, probed: &ProbeResult) -> Self {
        let ProbeResult { report, via, deleted, left_behind, process_left, timings, note, passed_over, .. } = probed;
        let Report { source, probe_version, taken_at, scope, .. } = report;
        Self {
            via: via.as_str(),
            node: node.to_owned(),
            context: context.to_owned(),
            source: source.clone(),
            version: syringe_core::text::clean(probe_version, 40),
            scope: *scope,
            taken_at: *taken_at,
            deleted: *deleted,
            left_behind: left_behind.clone(),
            process_left: process_left.clone(),
            note: note.clone(),
            next_step: None,
            passed_over: passed_over.clone(),
            timings_ms: (*timings).into(),
            api_only: None,
        }
    }

    /// Returns why nothing was read on the node.
    pub(crate) fn why_unread(self) -> String {
        self.note.unwrap_or_else(|| "no probe ran".to_owned())
    }

    /// Returns the summary if no probe ran, with the reason.
    pub(crate) fn without_probe(node: &str, context: &str, taken_at: Timestamp, note: String) -> Self {
        Self {
            via: ProbeMethod::None.as_str(),
            node: node.to_owned(),
            context: context.to_owned(),
            source: Source::Api,
            version: String::new(),
            scope: None,
            taken_at: Some(taken_at),
            deleted: true,
            left_behind: None,
            process_left: None,
            note: Some(note),
            next_step: None,
            passed_over: Vec::new(),
            timings_ms: TimingsMs::default(),
            api_only: None,
        }
    }

    /// Returns the summary of a probe that returned no facts; `None` if no probe was created.
    pub(crate) fn of_failed_probe(
        via: ProbeMethod,
        node: &str,
        connection: &Connection,
        failure: &Failure,
    ) -> Option<Self> {
        let Failure { why, deleted, left_behind, process_left, .. } = failure;
        if !deleted && left_behind.is_none() {
            return None;
        }
        let note = format!("the probe returned no facts: {why}");
        let note = Self::without_probe(node, &connection.context, connection.now(), note);
        let via = failure.via.unwrap_or(via.as_str());
        let (left_behind, process_left) = (left_behind.clone(), process_left.clone());
        Some(Self { via, deleted: left_behind.is_none(), left_behind, process_left, ..note })
    }
}
