//! `explain_gpu_pod`: why a pod failed, hangs or waits, from what Kubernetes says and what its node says.

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::diagnosis::{Diagnosis, Finding, Severity, StackLink, Unknown};
use syringe_core::explanation::{self, Cause, Explanation, PodFacts};
use syringe_core::report::Source;

use crate::call::Call;
use crate::error::Failure;
use crate::kubernetes::client::api_error::section_unknown;
use crate::kubernetes::client::connection::Connection;
use crate::kubernetes::model::conditions::is_ready;
use crate::kubernetes::model::placement::{Candidate, requested};
use crate::kubernetes::model::room;
use crate::kubernetes::read::pod::ReadPod;
use crate::kubernetes::read::{candidates, pod};
use crate::probe::TargetContainer;
use crate::reading::probe_note::ProbeNote;
use crate::reading::read_node;
use crate::reading::read_node::ReadRequest;
use crate::text::node_answer::{foot, stack_line};
use crate::text::table::second;
use crate::tools::tool::Tool;
use crate::variant_name::variant_name;

/// Findings about the node in one answer.
const MAX_FINDINGS: usize = 8;

/// Nodes in one answer for a pod that waits.
const MAX_CANDIDATES: usize = 30;

/// The tool.
pub struct ExplainGpuPod;

/// Arguments.
#[derive(Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainArgs {
    /// Pod
    #[arg(long, value_name = "POD")]
    #[schemars(length(min = 1, max = 253))]
    pub pod: String,
    /// Its namespace
    #[arg(id = "pod_namespace", long = "pod-namespace", value_name = "NAMESPACE", default_value = "default")]
    #[serde(default = "default_namespace")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Kubeconfig context; the current one by default
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

fn default_namespace() -> String {
    "default".into()
}

/// The answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PodExplanation {
    /// Cause, evidence, action, timeline.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// The pod's phase; `NotCreated` where its controller could not create it.
    pub phase: String,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The way of the node's GPUs from the PCI bus to the scheduler, link by link, for a pod that needs them. The first that is
    /// `broken` is the one to mend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<StackLink>,
    /// What the rules find on that node, warnings and worse, whoever caused it.
    pub node_findings: Vec<Finding>,
    /// Findings left out of `node_findings`; diagnose_gpu_node has all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_findings_omitted: Option<usize>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
    /// For a pod that waits: GPU nodes and what stands against each, the likeliest first. An empty list of objections means
    /// that nothing was found against the node, not that the scheduler must agree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// Nodes left out of `candidates` for space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates_omitted: Option<usize>,
    /// How the node was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeNote>,
}

impl Tool for ExplainGpuPod {
    const NAME: &'static str = "explain_gpu_pod";
    const TITLE: &'static str = "Explain a GPU pod";
    const DESCRIPTION: &'static str = "Why a pod failed, hangs or is Pending: exit codes, events and OOM from Kubernetes, Xids, ECC and \
        stuck processes from its node, in one timeline. Says whether it was the application, the GPU, the node or the cluster.";
    const PROBES: bool = true;
    type Args = ExplainArgs;
    type Answer = PodExplanation;

    async fn call(call: Call, args: ExplainArgs) -> Result<PodExplanation, Failure> {
        let ExplainArgs { pod: name, namespace, context } = args;
        let reading = async {
            let connection = call.contexts.connect(context.as_deref()).await?;
            let read = pod::read(&connection, &namespace, &name).await?;
            Ok((connection, read))
        };
        let (connection, read) = call.within("Reading the pod", reading).await?;
        let ReadPod { object, facts: mut pod, no_events } = read;
        let read = read_node_of(&call, &connection, object.as_ref(), &mut pod).await;
        let waiting = Waiting::look(&call, &connection, object.as_ref(), &mut pod).await;
        let node_says = read.as_ref().ok().map(|read| (&read.report, &read.diagnosis));
        let why_not = match &read {
            Ok(read) if read.report.source == Source::Api => read.note.note.as_deref(),
            Ok(_) => None,
            Err(why) => Some(why.as_str()),
        };
        let explanation = explanation::explain(&pod, node_says, why_not);
        let (Diagnosis { findings: mut node_findings, mut unknown, mut stack, .. }, probe) = match read {
            Ok(read) => (read.diagnosis, Some(read.note)),
            Err(_) => (Diagnosis::default(), None),
        };
        if !(pod.wants_gpus || pod.is_gpu_stack) {
            stack.clear();
        }
        node_findings.retain(|finding| finding.severity > Severity::Info);
        let surplus = node_findings.len().saturating_sub(MAX_FINDINGS);
        node_findings.truncate(MAX_FINDINGS);
        let node_findings_omitted = (surplus > 0).then_some(surplus);
        let Waiting { candidates, omitted, not_listed } = waiting;
        unknown.extend(no_events.map(|failure| section_unknown("events", &failure)));
        unknown.extend(not_listed.map(|why| Unknown { section: "candidates".into(), gpu: None, why }));
        let PodFacts { phase, node, .. } = pod;
        Ok(PodExplanation {
            explanation,
            phase,
            node,
            stack,
            node_findings,
            node_findings_omitted,
            unknown,
            candidates,
            candidates_omitted: (omitted > 0).then_some(omitted),
            probe,
        })
    }

    fn table(answer: &PodExplanation) -> String {
        let Explanation { cause, certainty, summary, evidence, ruled_out, action, timeline, .. } = &answer.explanation;
        let mut text = format!("{} ({})  {summary}\n\n", cause_word(*cause), variant_name(certainty));
        for line in evidence {
            text.push_str(&format!("    {line}\n"));
        }
        if !action.text.is_empty() {
            text.push_str(&format!("  → {}\n", action.text));
        }
        for line in ruled_out {
            text.push_str(&format!("\n  {line}\n"));
        }
        if !timeline.is_empty() {
            text.push('\n');
        }
        if answer.explanation.timeline_omitted > 0 {
            text.push_str(&format!("… {} older events left out\n", answer.explanation.timeline_omitted));
        }
        for moment in timeline {
            text.push_str(&format!("{}  {:<10}  {}\n", second(moment.time), moment.source, moment.what));
        }
        for Candidate { node, against, held_by, .. } in &answer.candidates {
            let against = if against.is_empty() { NO_OBJECTION.to_owned() } else { against.join("; ") };
            text.push_str(&format!("\n{node}: {against}"));
            if !held_by.is_empty() {
                text.push_str(&format!("\n    used by {}", held_by.join(", ")));
            }
        }
        if !answer.candidates.is_empty() {
            text.push('\n');
        }
        if let Some(omitted) = answer.candidates_omitted {
            text.push_str(&format!("… and {omitted} more nodes\n"));
        }
        let stack = stack_line(&answer.stack);
        if !stack.is_empty() {
            text.push_str(&format!("\n{stack}"));
        }
        if !answer.node_findings.is_empty() {
            text.push('\n');
        }
        // One rule may have many findings; what they say is in the JSON.
        for alike in answer.node_findings.chunk_by(|one, other| one.id == other.id) {
            let times = if alike.len() > 1 { format!(", {} findings", alike.len()) } else { String::new() };
            text.push_str(&format!("On the node: {} ({}{times})\n", alike[0].title, alike[0].id));
        }
        if let Some(omitted) = answer.node_findings_omitted {
            text.push_str(&format!("… and {omitted} more findings on the node\n"));
        }
        for unknown in &answer.unknown {
            text.push_str(&format!("\nUNKNOWN  {}: {}\n", unknown.section, unknown.why));
        }
        text + &answer.probe.as_ref().map(foot).unwrap_or_default()
    }
}

/// Reads the pod's node; `Err` says in words why it could not be read.
async fn read_node_of(
    call: &Call,
    connection: &Connection,
    object: Option<&Pod>,
    pod: &mut PodFacts,
) -> Result<read_node::NodeReading, String> {
    let Some(node) = pod.node.clone() else { return Err("it has no node".to_owned()) };
    let looked = read_node::look(call, connection, &node).await;
    pod.node_ready = looked.as_ref().ok().map(is_ready);
    let ask = ReadRequest::everything_about(object.and_then(TargetContainer::first_with_gpu));
    let read = match looked {
        Ok(node) => read_node::read_or_ask_kubernetes(call, connection, &node, ExplainGpuPod::NAME, ask).await,
        Err(failure) => Err(failure),
    };
    let read = read.map_err(|failure| failure.to_string())?;
    pod.runtime_handler = pod.runtime_class.as_ref().and_then(|class| {
        let classes = read.cluster.runtime_classes.as_deref().unwrap_or_default();
        classes.iter().find(|used| used.name == *class)?.handler.clone()
    });
    Ok(read)
}

/// What a pod waits for, on the side of the nodes.
#[derive(Default)]
struct Waiting {
    /// GPU nodes, the likeliest first.
    candidates: Vec<Candidate>,
    /// Nodes left out of `candidates`.
    omitted: usize,
    /// Why the nodes could not be listed.
    not_listed: Option<String>,
}

impl Waiting {
    /// Looks at the GPU nodes, where the pod waits for one; what they have of what it requests goes into `pod`.
    async fn look(call: &Call, connection: &Connection, object: Option<&Pod>, pod: &mut PodFacts) -> Self {
        let Some(object) = object.filter(|_| waits_for_nodes(pod)) else { return Self::default() };
        let said = pod.message.clone();
        let found = candidates::candidates(connection, object, said.as_deref());
        let mut candidates = match call.within("Looking for nodes", found).await {
            Ok(found) => found,
            Err(Failure { what, why, .. }) => {
                return Self { not_listed: Some(format!("{what}: {why}")), ..Self::default() };
            }
        };
        pod.room = room::of(&candidates, &requested(object), said.as_deref());
        let omitted = candidates.len().saturating_sub(MAX_CANDIDATES);
        candidates.truncate(MAX_CANDIDATES);
        Self { candidates, omitted, not_listed: None }
    }
}

/// Text for a node that no check excludes.
const NO_OBJECTION: &str =
    "no reason found; see the scheduler's message above (not checked: claims' devices, volumes, pod affinity, quota)";

/// Whether it waits for a node, and for nothing that has to do with none of them: a gate, a volume claim.
fn waits_for_nodes(pod: &PodFacts) -> bool {
    let claim =
        pod.message.as_ref().is_some_and(|message| message.to_ascii_lowercase().contains("persistentvolumeclaim"));
    pod.node.is_none() && pod.phase == "Pending" && pod.scheduling_gates.is_empty() && !claim
}

fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Application => "APPLICATION",
        Cause::Gpu => "GPU",
        Cause::Node => "NODE",
        Cause::Cluster => "CLUSTER",
        Cause::None => "NO PROBLEM FOUND",
        Cause::Unknown => "UNKNOWN",
    }
}
