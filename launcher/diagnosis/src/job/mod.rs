//! `explain_job`: compares the pods (`Member`) of one job, and finds the pod, GPU, port or node that differs from the
//! others. `JobExplanation`: the result, with the `JobState`, the `Suspect`s and the compared values.
//!
//! ```text
//!   PodFacts, Report, Diagnosis ──▶ observe (one member: values of the table FACTS, events, findings) ─┐
//!   PodFacts of pods without a report ─────────────────────────────────────────────────────────────────┴─▶ explain_job
//! ```
//!
//! A job waits for its slowest pod, so a fact that all pods share does not explain why one pod delays the others. Only
//! a value that differs from the value of the majority is evidence against a pod. `facts` contains the table of the
//! values, `compare` finds the values that differ, `nccl` evaluates NCCL's report about the ranks, `suspects` sorts the
//! suspected pods, and `state` determines the state of the job.

mod compare;
mod facts;
mod nccl;
mod observe;
mod state;
mod suspects;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::Serialize;
use syringe_core::facts::kubernetes::PodFacts;

use crate::finding::Action;
pub use observe::{Observed, observe};

/// One pod of a job.
#[derive(Clone, Debug)]
pub struct Member {
    /// Index of the pod in the job, from the controller or the environment: `17`, `worker 17`, `1/3`: pod 3 of group 1.
    pub rank: Option<String>,
    /// Role of the pod: `worker`, `master`. Empty if the controller has no roles.
    pub role: String,
    /// The pod. `log_lines` contains the end of its log if the pod failed first.
    pub pod: PodFacts,
    /// Addresses of the pod.
    pub addresses: Vec<String>,
    /// Since when the node of the pod is not Ready, if it is not (`pod.node_not_ready` has the reason).
    pub node_lost: Option<Timestamp>,
    /// The values of the pod on its node. `Err` contains the reason why they were not read.
    pub observed: Result<Observed, String>,
}

/// State of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Not all pods have started.
    Starting,
    /// Most GPUs compute.
    Computing,
    /// The pods run, but most GPUs do not compute.
    Waiting,
    /// A pod failed.
    Failed,
    /// All pods ended without an error.
    Finished,
    /// The GPUs could not be read.
    #[default]
    Unknown,
}

/// Why a pod may delay the others, the most suspicious reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Suspicion {
    /// The pod never started.
    NeverStarted,
    /// The pod failed, and the others failed later.
    FailedFirst,
    /// A process of the pod is stopped, stuck or missing.
    ProcessStopped,
    /// Its GPU, a link or the fabric had the first fault.
    Fault,
    /// Its GPU or network card is slower than others.
    Slower,
    /// NCCL reports that it lags, is missing or has an error.
    NcclClaim,
    /// Its software or hardware differs.
    Differs,
    /// Its GPUs work differently.
    WorksDifferently,
}

/// Name of a pod of the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MemberName {
    /// Index of the pod in the job. With several GPUs per pod, the ranks of its processes follow from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<String>,
    /// The pod.
    pub pod: String,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A value that differs from that of the majority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Difference {
    /// The fact: `SM clock`, `image`, the id of a finding.
    pub fact: String,
    /// The GPU, port or process.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// The value.
    pub value: String,
    /// The value of the majority.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub common: String,
}

/// Pods that differ from the others in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Suspect {
    /// The reason.
    pub because: Suspicion,
    /// The pods.
    pub members: Vec<MemberName>,
    /// Number of pods that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub members_omitted: usize,
    /// Time of the first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The facts that differ.
    pub facts: Vec<Difference>,
    /// Number of facts that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub facts_omitted: usize,
    /// Later events and failures of other pods that follow from this one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub echoes: String,
}

/// A fact that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Compared {
    /// The fact.
    #[schemars(extend("x-text" = "own"))]
    pub fact: &'static str,
    /// The value of the majority. Empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub common: String,
    /// Number of pods with a value.
    pub pods: usize,
    /// Number of pods with another value.
    #[serde(skip_serializing_if = "is_zero")]
    pub differ: usize,
}

/// State of a job, and the pods that differ from the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct JobExplanation {
    /// State of the job.
    pub state: JobState,
    /// The answer in one or two sentences.
    pub summary: String,
    /// Pods that differ, worst first. Empty if nothing differs.
    pub suspects: Vec<Suspect>,
    /// Number of suspects that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub suspects_omitted: usize,
    /// Unusual facts that most pods share. They make no pod suspect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
    /// The compared facts.
    pub compared: Vec<Compared>,
    /// The recommended action.
    pub action: Action,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl JobExplanation {
    /// Adds the identified cause of the failure of the first suspect, from the explanation of its pod.
    pub fn because_of(&mut self, summary: &str, action: &Action) {
        // The summary of the job names the pod.
        let cause = summary.split_once("): ").map_or(summary, |(_, cause)| cause);
        self.summary = format!("{} Its cause: {cause}", self.summary);
        self.action = action.clone();
    }
}

impl Member {
    fn name(&self) -> MemberName {
        MemberName { rank: self.rank.clone(), pod: self.pod.name.clone(), node: self.pod.node.clone() }
    }
}

impl MemberName {
    /// Formats the name of the pod: `rank 17 (pod train-17, node gpu-18)`.
    pub fn in_words(&self) -> String {
        let node = self.node.as_ref().map(|node| format!(", node {node}")).unwrap_or_default();
        match &self.rank {
            Some(rank) if rank.starts_with(|letter: char| letter.is_alphabetic()) => {
                format!("{rank} (pod {}{node})", self.pod)
            }
            Some(rank) => format!("rank {rank} (pod {}{node})", self.pod),
            None => format!("pod {}{}", self.pod, node.replacen(", ", " on ", 1)),
        }
    }
}

/// Compares the pods of a job. `missing`: indices of pods that the job should have but that do not exist.
pub fn explain_job(members: &[Member], missing: &[u64]) -> JobExplanation {
    let mut compared = compare::compare(members);
    let said = nccl::read(members);
    compared.odd.extend(said.odd);
    let found = suspects::of(members, &compared);
    state::explained(members, missing, compared, found, (said.progress, said.words))
}
