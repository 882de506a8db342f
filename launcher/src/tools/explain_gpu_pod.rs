//! `ExplainGpuPod`: the tool `explain_gpu_pod`, which explains why a pod failed, hangs or is Pending, or which pod of a
//! job delays the other pods. `ExplainArgs`, `ExplainAnswer`: its arguments and its answer (`PodExplanation`, or the
//! answer about a job).

use std::collections::BTreeMap;

use diagnosis::explanation;
use diagnosis::explanation::types::{Cause, Explanation};
use diagnosis::finding::{Diagnosis, Finding};
use diagnosis::stack_stage::StackStage;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::pod::{ContainerLog, ContainerState, PodEvent, PodFacts, Termination};
use syringe_core::report::Source;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

use crate::answer::job::{self, JobAnswer};
use crate::answer::node_page::{foot, stack_line};
use crate::answer::wire::variant_name::variant_name;
use crate::call::CallContext;
use crate::fleet::read_job;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::read_node;
use crate::node_reading::read_node::ReadRequest;
use crate::outcome::{CommandAnswer, Outcome};
use crate::probe::TargetContainer;
use crate::terminal::page::Page;
use crate::terminal::style::{Paint, paint};
use crate::terminal::table::{age, second};
use crate::tools::common_args::pod_name;
use crate::tools::nodes_of_changes::{self, NodesOfChanges};
use crate::tools::tool::Tool;
use kube_read::Failure;
use kube_read::client::api_error::section_unknown;
use kube_read::client::connection::Connection;
use kube_read::objects::capacity_shortage;
use kube_read::objects::label_selector::LabelSelector;
use kube_read::objects::named_owner::NamedOwner;
use kube_read::objects::node_conditions::{is_ready, pressure, why_not_ready};
use kube_read::objects::pod_facts;
use kube_read::objects::scheduler_filters::{Candidate, grouped, requested};
use kube_read::objects::scheduling_joins::half_requests;
use kube_read::reads::pod::ReadPod;
use kube_read::reads::{
    candidate_nodes, claims_of_pod, events, helper_pods, linked_pods, owned_pods, pod, pod_log, resource_claims,
};
use syringe_macros::omit;

/// Maximum number of findings about the node in one answer.
const MAX_FINDINGS: usize = 8;

/// Maximum number of groups of nodes in one answer for a Pending pod.
const MAX_CANDIDATES: usize = 30;

pub struct ExplainGpuPod;

#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainArgs {
    /// Pod, NAMESPACE/POD, or an owner (job/NAME, pytorchjob/NAME, …), whose pods are compared
    #[arg(
        value_name = "POD",
        help = "Name of the pod, NAMESPACE/NAME, or its owner: job/NAME, deploy/NAME, sts/NAME, pytorchjob/NAME …",
        required_unless_present = "selector",
        value_parser = pod_name
    )]
    #[schemars(length(min = 1, max = 300))]
    pub pod: Option<String>,
    /// Instead of pod: the pods with these labels
    #[arg(
        short = 'l',
        long,
        value_name = "SELECTOR",
        help = "Explain the pods with these labels together, as one job",
        conflicts_with = "pod"
    )]
    #[schemars(with = "Option<String>", length(max = 500))]
    pub selector: Option<LabelSelector>,
    /// Namespace (default: that of the context)
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Kubeconfig context; default: current
    #[arg(skip)]
    pub context: Option<String>,
}

impl ExplainArgs {
    /// Returns the pod or the owner that the arguments specify.
    fn target(pod: &str) -> NamedOwner {
        NamedOwner::of_kind(pod).unwrap_or_else(|| NamedOwner::named(pod))
    }

    /// Moves the namespace of `NAMESPACE/NAME` into a separate argument. `KIND/NAME` is not changed.
    pub(crate) fn with_namespace_of_pod(self) -> Result<Self, Failure> {
        let pod = self.pod.as_deref().unwrap_or_default();
        let Some((prefix, name)) = pod.split_once('/').filter(|_| NamedOwner::of_kind(pod).is_none()) else {
            return Ok(self);
        };
        match &self.namespace {
            Some(other) if other != prefix => Err(Failure::usage(
                "The arguments",
                format!("'{pod}' is in namespace {prefix}, but --namespace is {other}"),
                "Name the namespace once.",
            )),
            _ => Ok(Self { namespace: Some(prefix.to_owned()), pod: Some(name.to_owned()), ..self }),
        }
    }
}

#[omit(Option, Vec, !node_findings)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PodExplanation {
    /// Name of the pod.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) name: String,
    /// The time of the answer, for the ages in the timeline on a terminal.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) taken_at: jiff::Timestamp,
    /// The cause with evidence, actions and timeline.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// The end of the log of the container that failed. Absent if the user may not read it.
    pub log_tail: Option<LogTail>,
    /// The pods of the owner that the call named; the answer explains the pod in the worst state.
    pub selected_of: Option<SelectedOf>,
    /// The pod's phase; `NotCreated` if its controller could not create it, `NoPods` for a job that is suspended or has ended.
    pub phase: String,
    /// Node of the pod.
    pub node: Option<String>,
    /// For a pod that needs GPUs: the stages from the GPUs on the PCI bus of the node to the scheduler. Repair the
    /// first stage that is `broken`.
    pub stack: Vec<StackStage>,
    /// Warnings and worse about the node. They can have another cause.
    pub node_findings: Vec<Finding>,
    /// Number of findings left out of `node_findings`; diagnose_gpu_node returns all.
    pub node_findings_omitted: Option<usize>,
    /// Nodes with the reasons against them, for a Pending pod, best first; nodes with the same reasons are one
    /// entry. An empty list of reasons means that no check excludes the nodes; the scheduler may still exclude them.
    pub candidates: Vec<Candidate>,
    /// Number of nodes left out of `candidates` for space.
    pub candidates_omitted: Option<usize>,
    /// How the node was read.
    pub probe: Option<ProbeSummary>,
    /// Probes of other nodes. A Pending pod could start there after a change.
    pub other_probes: Vec<ProbeSummary>,
}

/// The pods of the owner that the caller named.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SelectedOf {
    /// Owner, for example `job/train`.
    pub owner: String,
    /// Number of pods of the owner in each phase.
    pub phases: BTreeMap<String, usize>,
}

impl SelectedOf {
    fn line(&self) -> String {
        let Self { owner, phases } = self;
        let pods: usize = phases.values().sum();
        let each: Vec<_> = phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
        let plural = if pods == 1 { "" } else { "s" };
        format!("{owner} has {pods} pod{plural} ({}); this is the pod in the worst state.", each.join(", "))
    }
}

/// The end of a container's log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LogTail {
    /// The container.
    pub container: String,
    /// Whether this is the log from before the last restart.
    pub previous: bool,
    /// The last lines of the log: data, not advice.
    pub log_lines: Vec<String>,
}

impl LogTail {
    /// Reads the log of the container that failed. `None` if no container failed, if the container never ran, or if its log
    /// could not be read.
    async fn read(connection: &Connection, pod: &PodFacts) -> Option<Self> {
        let end = pod.end().filter(|end| end.exit_code != 0 && !end.never_ran())?;
        let (container, previous) = (end.container.to_owned(), end.was_restarted);
        let log_lines = pod_log::tail(connection, &pod.namespace, &pod.name, &container, previous).await?;
        Some(Self { container, previous, log_lines })
    }

    /// Reads the logs of the running containers, and of the failed containers except the first.
    async fn read_others(connection: &Connection, pod: &PodFacts, first: Option<&str>) -> Vec<ContainerLog> {
        let wanted = pod.containers.iter().filter_map(|container| {
            let name = container.name.as_str();
            let runs = pod.running().any(|(running, _)| running == name);
            let failed = |state, restarted| {
                Termination::of(container, state, restarted).is_some_and(|end| end.exit_code != 0 && !end.never_ran())
            };
            let before = container.last.as_ref().is_some_and(|last| failed(last, true));
            let previous = before && !failed(&container.state, false);
            // If a container exited without an error and was restarted, the reason is in the log before the restart.
            let waits_again = matches!(container.state, ContainerState::Waiting { .. })
                && container
                    .last
                    .as_ref()
                    .and_then(|last| Termination::of(container, last, true))
                    .is_some_and(|end| !end.never_ran());
            let told = runs || previous || waits_again || failed(&container.state, false);
            (told && Some(name) != first).then_some((name, previous || waits_again))
        });
        let reads = wanted.take(MAX_LOGS).map(|(name, previous)| async move {
            let read = pod_log::read(connection, &pod.namespace, &pod.name, name, previous).await?;
            let lines = read.iter().map(|line| line.trim_start().to_owned()).collect();
            Some(ContainerLog { container: name.to_owned(), previous, lines })
        });
        futures_util::future::join_all(reads).await.into_iter().flatten().collect()
    }
}

/// Maximum number of logs that are read in addition to the log of the container that failed.
const MAX_LOGS: usize = 3;

impl Tool for ExplainGpuPod {
    const NAME: &'static str = "explain_gpu_pod";
    const TITLE: &'static str = "Explain a GPU pod or job";
    const DESCRIPTION: &'static str = "Why a pod failed, hangs or is Pending: exit codes, events and OOM from Kubernetes, Xids, ECC and \
        stuck processes from its node. Of a job: which rank, pod, GPU or link holds the others up. Start here for a pod or job.";
    const PROBES: bool = true;
    type Args = ExplainArgs;
    type Answer = ExplainAnswer;

    async fn call(call: CallContext, args: ExplainArgs) -> Result<ExplainAnswer, Failure> {
        let pod = args.pod.as_deref().and_then(|pod| pod_name(pod).ok());
        let args = ExplainArgs { pod, ..args }.with_namespace_of_pod()?;
        let ExplainArgs { pod: text, selector, namespace, context } = args;
        if text.is_some() == selector.is_some() {
            return Err(Failure::usage("The arguments", "name either pod or selector", "Correct the arguments."));
        }
        let text = text.unwrap_or_default();
        let target = ExplainArgs::target(&text);
        let reading = async {
            let connection = call.contexts.connect(context.as_deref()).await?;
            let default_namespace = namespace.as_deref().unwrap_or_else(|| connection.client.default_namespace());
            if let Some(selector) = &selector {
                let read = pod::read_selected(&connection, default_namespace, selector).await?;
                return Ok((connection, read));
            }
            let mut read = pod::read(&connection, default_namespace, &target).await;
            // A namespace may have the name of a kind, such as `jobs`.
            if let (Err(_), None, Some(_), Some((prefix, name))) =
                (&read, &namespace, target.kind, text.split_once('/'))
            {
                read = pod::read(&connection, prefix, &NamedOwner::named(name)).await.or(read);
            }
            let mut read = read?;
            if read.selected_of.is_none() && read.facts.phase == "Running" && read.facts.wants_gpus {
                let object = read.object.as_ref();
                read.facts.siblings_not_running = match object {
                    Some(object) => owned_pods::not_running_beside(&connection, object).await,
                    None => Vec::new(),
                };
            }
            Ok((connection, read))
        };
        let (connection, mut read) = call.with_deadline("Reading the pod", reading).await?;
        let owner = selector.map_or_else(|| target.text(), |selector| format!("pods with labels {selector}"));
        if read.all.iter().filter(|pod| pod_facts::wants_gpus(pod)).count() > 1 {
            return Ok(ExplainAnswer::Job(Box::new(read_job(&call, &connection, owner, read).await?)));
        }
        let (namespace, others) = (read.facts.namespace.clone(), std::mem::take(&mut read.others));
        let selected_of = read.selected_of.take().map(|phases| SelectedOf { owner, phases });
        let answer = explain_one(&call, &connection, read).await;
        let answer = match answer.explanation.cause {
            Cause::None => explain_others(&call, &connection, &namespace, others, answer).await,
            _ => answer,
        };
        Ok(ExplainAnswer::Pod(Box::new(PodExplanation { selected_of, ..answer })))
    }

    fn page(answer: &ExplainAnswer) -> Page {
        let answer = match answer {
            ExplainAnswer::Pod(answer) => answer,
            ExplainAnswer::Job(answer) => return job::page(answer),
        };
        let Explanation { cause, certainty, summary, evidence, ruled_out, action, timeline, .. } = &answer.explanation;
        let mut text = Page::from(format!(
            "{} ({})  {summary}\n\n",
            paint(cause_word(*cause), cause_paint(*cause)),
            variant_name(certainty)
        ));
        if let Some(selected_of) = &answer.selected_of {
            text.push_str(&format!("    {}\n", selected_of.line()));
        }
        for line in evidence {
            text.push_str(&format!("    {line}\n"));
        }
        if !action.text.is_empty() {
            text.push_str(&format!("  → {}\n", action.text));
        }
        for line in ruled_out {
            text.push_str(&format!("\n  {line}\n"));
        }
        if let Some(LogTail { container, previous, log_lines }) = &answer.log_tail {
            let before = if *previous { ", before its last restart" } else { "" };
            text.push_str(&format!("\nLog of container {container}{before}:\n"));
            log_lines.iter().for_each(|line| text.push_quoted(&format!("    {line}\n")));
        }
        if !timeline.is_empty() {
            text.push_str("\n");
        }
        if answer.explanation.timeline_omitted > 0 {
            text.push_str(&format!("… {} older events left out\n", answer.explanation.timeline_omitted));
        }
        for entry in timeline {
            let seconds = answer.taken_at.duration_since(entry.time).as_secs();
            let ago = if seconds < 0 { String::new() } else { age(seconds) };
            text.push_quoted(&format!("{}  {ago:>7}  {:<10}  {}\n", second(entry.time), entry.source, entry.what));
        }
        for Candidate { node, reasons_against, used_by, used_by_omitted, .. } in &answer.candidates {
            let reasons =
                match (reasons_against.is_empty(), evidence.iter().any(|line| line.starts_with("scheduler: "))) {
                    (false, _) => reasons_against.join("; "),
                    (true, true) => format!("no reason found; see the scheduler's message above {NOT_CHECKED}"),
                    (true, false) => format!("no reason found {NOT_CHECKED}"),
                };
            text.push_str(&format!("\n{node}: {reasons}"));
            if !used_by.is_empty() {
                let more = if *used_by_omitted > 0 { format!(" and {used_by_omitted} more") } else { String::new() };
                text.push_str(&format!("\n    used by {}{more}", used_by.join(", ")));
            }
        }
        if !answer.candidates.is_empty() {
            text.push_str("\n");
        }
        text.push_omitted(answer.candidates_omitted, "more nodes");
        let stack = stack_line(&answer.stack);
        if !stack.is_empty() {
            text.push_str(&format!("\n{stack}"));
        }
        if !answer.node_findings.is_empty() {
            text.push_str("\n");
        }
        // One rule may return many findings. The JSON contains all of them.
        for alike in answer.node_findings.chunk_by(|one, other| one.id == other.id) {
            let times = if alike.len() > 1 { format!(", {} findings", alike.len()) } else { String::new() };
            text.push_str(&format!("On the node: {} ({}{times})\n", alike[0].title, alike[0].id));
        }
        text.push_omitted(answer.node_findings_omitted, "more findings on the node");
        for unknown in &answer.explanation.unknown {
            text.push_str("\n");
            text.push_unknown(unknown);
        }
        let probes = answer.probe.iter().chain(&answer.other_probes);
        text.push_str(&probes.map(foot).collect::<String>());
        text
    }
}

/// The answer about one pod, or about the pods of a job.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ExplainAnswer {
    /// One pod.
    Pod(Box<PodExplanation>),
    /// The pods of a job.
    Job(Box<JobAnswer>),
}

impl CommandAnswer for ExplainAnswer {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Pod(answer) => answer.outcome(),
            Self::Job(answer) => answer.outcome(),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Pod(answer) => answer.names(),
            Self::Job(answer) => answer.names(),
        }
    }
}

impl CommandAnswer for PodExplanation {
    fn outcome(&self) -> Outcome {
        match self.explanation.cause {
            Cause::None => Outcome::NothingFound,
            _ if !self.explanation.is_identified() => Outcome::Unknown,
            _ => Outcome::Found(Severity::Critical),
        }
    }

    fn names(&self) -> Vec<String> {
        vec![format!("pod/{}", self.name)]
    }
}

/// Explains one pod that was read.
async fn explain_one(call: &CallContext, connection: &Connection, read: ReadPod) -> PodExplanation {
    let ReadPod { object, facts: mut pod, no_events, .. } = read;
    pod.half_requests = object.as_ref().map(|object| half_requests(&requested(object))).unwrap_or_default();
    let name = pod.name.clone();
    let mut failed_probe = None;
    let read = read_node_of(call, connection, object.as_ref(), &mut pod).await.map_err(|failure| {
        let node = pod.node.clone().unwrap_or_default();
        failed_probe = ProbeSummary::of_failed_probe(call.settings.via, &node, connection, &failure);
        failure.to_string()
    });
    let pending = PendingPod::read(call, connection, object.as_ref(), &mut pod).await;
    let others = match &mut pod.capacity_shortage {
        Some(shortage) => nodes_of_changes::check_changes(call, connection, shortage).await,
        None => NodesOfChanges::default(),
    };
    let node_data = read.as_ref().ok().map(|read| (&read.report, &read.diagnosis));
    let unread_reason = match &read {
        Ok(read) if read.report.source == Source::Api => why_unread(read),
        Ok(_) => None,
        Err(why) => Some(why.as_str()),
    };
    let log_tail = LogTail::read(connection, &pod).await;
    let first = log_tail.as_ref().map(|tail| tail.container.as_str());
    pod.other_logs = LogTail::read_others(connection, &pod, first).await;
    let said = log_tail.iter().flat_map(|tail| &tail.log_lines).map(|line| line.trim_start().to_owned());
    pod.log_lines = said.collect();
    let has_others = pod.ready != Some(true) || !pod.siblings_not_running.is_empty();
    if let Some(object) = object.as_ref().filter(|_| has_others && pod.phase != "Succeeded") {
        let linked = linked_pods::of_pod(connection, object, &pod).await;
        if linked.is_empty() {
            pod.absent_provider = helper_pods::absent_provider(connection, &pod).await;
        }
        pod.linked_pods.extend(linked);
    }
    let refused = pod.events.iter().rev().find(|event| event.reason == "UnexpectedAdmissionError");
    let refused = refused.and_then(|event| event.time).or(pod.scheduled);
    if let (Ok(read), Some(node), Some(refused), Some("UnexpectedAdmissionError")) =
        (&read, pod.node.clone(), refused, pod.reason.as_deref())
    {
        let plugins = read.cluster.nvidia_pods.as_deref().unwrap_or_default();
        pod.linked_pods.extend(linked_pods::ended_near(connection, &node, plugins, refused).await);
    }
    let mut explanation = explanation::explain(&pod, node_data, unread_reason);
    // Reads the log of a component if the explanation recommends to read that log.
    if let (Ok(read), Some(node)) = (&read, pod.node.clone()) {
        let mut known = read.cluster.clone();
        known.linked_pods.extend(pod.linked_pods.iter().cloned());
        let named = diagnosis::named_in(&[explanation.action.text.as_str()], &known).into_iter().cloned();
        let named: Vec<_> = named.filter(|component| component.uid != pod.uid).collect();
        if !named.is_empty() {
            pod.linked_pods.extend(linked_pods::named(connection, &node, &named).await);
            explanation = explanation::explain(&pod, node_data, unread_reason);
        }
    }
    let NodePart { stack, findings, omitted: findings_omitted, unknown, probe } = NodePart::of(read.ok(), &pod);
    let PendingPod { candidates, omitted, not_listed } = pending;
    let of_tool = unknown.into_iter().chain(no_events.map(|failure| section_unknown("events", &failure)));
    explanation.unknown.extend(others.unknown);
    explanation.unknown.extend(of_tool.chain(not_listed.map(|why| Unknown::new("candidates", why))));
    let PodFacts { phase, node, .. } = pod;
    PodExplanation {
        name,
        taken_at: connection.now(),
        explanation,
        log_tail,
        selected_of: None,
        phase,
        node,
        stack,
        node_findings: findings,
        node_findings_omitted: (findings_omitted > 0).then_some(findings_omitted),
        candidates,
        candidates_omitted: (omitted > 0).then_some(omitted),
        probe: probe.or(failed_probe),
        other_probes: others.probes,
    }
}

/// Maximum number of other pods of an owner that are explained if the first pod has no problem.
const MAX_OTHERS: usize = 16;

/// Explains the other pods of an owner, and returns the first pod with a problem. A job often hangs because of one pod,
/// and the phase of all its pods is Running. Returns `first` if no other pod has a problem.
async fn explain_others(
    call: &CallContext,
    connection: &Connection,
    namespace: &str,
    others: Vec<String>,
    mut first: PodExplanation,
) -> PodExplanation {
    let left_out = others.len().saturating_sub(MAX_OTHERS);
    let explain = |name: String| async move {
        let read = pod::read(connection, namespace, &NamedOwner::named(&name)).await.map_err(|_| name)?;
        Ok(explain_one(call, connection, read).await)
    };
    let read = stream::iter(others.into_iter().take(MAX_OTHERS)).map(explain);
    let read: Vec<Result<PodExplanation, String>> =
        read.buffered(usize::from(call.settings.nodes_at_once())).collect().await;
    let unread: Vec<&str> = read.iter().filter_map(|one| one.as_ref().err().map(String::as_str)).collect();
    let not_read = match (unread.as_slice(), left_out) {
        ([], 0) => None,
        ([], _) => Some(format!("{left_out} more pods were not read")),
        (unread, _) => Some(format!("{} and {left_out} more pods were not read", unread.join(", "))),
    };
    // A pod with a known cause comes before a pod with an unknown cause.
    let with_problem = read.into_iter().flatten().filter(|answer| answer.explanation.cause != Cause::None);
    if let Some(found) = with_problem.min_by_key(|answer| answer.explanation.cause == Cause::Unknown) {
        return found;
    }
    if let Some(why) = not_read {
        first.explanation.cause = Cause::Unknown;
        first.explanation.unknown.push(Unknown::new("pods", why));
    }
    first
}

/// Reads the node of the pod; `Err` contains the reason why the node could not be read.
async fn read_node_of(
    call: &CallContext,
    connection: &Connection,
    object: Option<&Pod>,
    pod: &mut PodFacts,
) -> Result<read_node::NodeReading, Failure> {
    let Some(node) = pod.node.clone() else {
        return Err(Failure::new("Reading the node of the pod", "the pod has no node", "See the events of the pod."));
    };
    let object_of_node = read_node::read_node_object(call, connection, &node).await;
    pod.node_ready = object_of_node.as_ref().ok().map(is_ready);
    pod.node_not_ready = object_of_node.as_ref().ok().and_then(why_not_ready);
    // The kernel kills a container also if the whole node has no memory left. Only an event of the node shows this.
    if pod.end().is_some_and(|end| end.reason == "OOMKilled") {
        let of_node = events::of_node(connection, &node).await.unwrap_or_default();
        let newest = of_node.into_iter().find(|event| event.reason == "SystemOOM");
        pod.related_warnings.extend(newest.map(|event| PodEvent {
            time: event.last,
            reason: event.reason,
            message: format!("Node {node}: {}", event.message),
            count: event.count,
            field: String::new(),
            warning: true,
        }));
    }
    pod.node_pressure = object_of_node.as_ref().map(pressure).unwrap_or_default();
    let failed = pod.end().filter(|end| end.exit_code != 0 && !end.never_ran()).map(|end| end.container);
    let container = failed.or_else(|| Some(pod.running().next()?.0)).filter(|_| pod.is_gpu_stack);
    let log = container.and_then(|container| format!("{}/{container}", pod.uid).parse().ok());
    let ask = ReadRequest::everything_about(object.and_then(TargetContainer::first_with_gpu));
    let ask = ask.with_log(log, failed.is_some());
    let read = match object_of_node {
        Ok(node) => read_node::read_or_api_only(call, connection, &node, ExplainGpuPod::NAME, ask).await,
        Err(failure) => Err(failure),
    };
    let read = read?;
    pod.live_pod_uids.clone_from(&read.cluster.live_pod_uids);
    pod.runtime_handler = pod.runtime_class.as_ref().and_then(|class| {
        let classes = read.cluster.runtime_classes.as_deref().unwrap_or_default();
        classes.iter().find(|used| used.name == *class)?.handler.clone()
    });
    Ok(read)
}

/// The part of the answer about the node of the pod; empty if the node was not read.
#[derive(Default)]
struct NodePart {
    stack: Vec<StackStage>,
    /// Warnings and more severe findings, at most `MAX_FINDINGS`.
    findings: Vec<Finding>,
    /// Number of findings left out of `findings`.
    omitted: usize,
    unknown: Vec<Unknown>,
    probe: Option<ProbeSummary>,
}

impl NodePart {
    fn of(read: Option<read_node::NodeReading>, pod: &PodFacts) -> Self {
        let Some(read) = read else { return Self::default() };
        let Diagnosis { mut findings, mut unknown, mut stack, .. } = read.diagnosis;
        if !(pod.wants_gpus || pod.is_gpu_stack) {
            stack.clear();
        }
        findings.retain(|finding| finding.severity > Severity::Info);
        // If no probe ran, the explanation already has the reason.
        unknown.retain(|unknown| read.report.source != Source::Api || !is_of_node(unknown));
        let omitted = findings.len().saturating_sub(MAX_FINDINGS);
        findings.truncate(MAX_FINDINGS);
        Self { stack, findings, omitted, unknown, probe: Some(read.note) }
    }
}

/// Returns whether the entry is about sections of the node's report.
fn is_of_node(unknown: &Unknown) -> bool {
    SectionName::ALL.iter().any(|section| unknown.is_of(*section))
}

/// Returns why no probe ran on the node.
fn why_unread(read: &read_node::NodeReading) -> Option<&str> {
    let of_sections = read.diagnosis.unknown.iter().find(|unknown| is_of_node(unknown));
    of_sections.map(|unknown| unknown.why.as_str()).or(read.note.note.as_deref())
}

/// The GPU nodes as candidates for a Pending pod.
#[derive(Default)]
struct PendingPod {
    /// GPU nodes, most suitable first.
    candidates: Vec<Candidate>,
    /// Number of nodes left out of `candidates`.
    omitted: usize,
    /// Reason why the nodes could not be listed.
    not_listed: Option<String>,
}

impl PendingPod {
    /// Reads the GPU nodes if the pod is waiting for a node, and sets `pod.capacity_shortage`.
    async fn read(call: &CallContext, connection: &Connection, object: Option<&Pod>, pod: &mut PodFacts) -> Self {
        let Some(object) = object.filter(|_| waits_for_nodes(pod)) else { return Self::default() };
        let scheduler_message = pod.message.clone();
        let found = candidate_nodes::candidates(connection, object, scheduler_message.as_deref());
        let mut candidates = match call.with_deadline("Reading the GPU nodes", found).await {
            Ok(found) => {
                (pod.gpu_holders, pod.bound_devices) = (found.holders, found.bound_devices);
                found.nodes
            }
            Err(Failure { what, why, .. }) => {
                return Self { not_listed: Some(format!("{what}: {why}")), ..Self::default() };
            }
        };
        let message = scheduler_message.as_deref();
        if scheduler_message.as_deref().is_some_and(|message| message.contains("claim")) {
            let holders =
                call.with_deadline("Reading claims", async { Ok(resource_claims::holders(connection).await) });
            pod.claim_holders = holders.await.unwrap_or_default();
        }
        let not_offered = candidate_nodes::not_offered(connection, object, &candidates, message, call.time_left());
        let not_offered = call.with_deadline("Reading the nodes", async { Ok(not_offered.await) }).await.ok().flatten();
        let (not_offered, linked) = not_offered.unzip();
        pod.linked_pods = linked.unwrap_or_default();
        pod.capacity_shortage =
            not_offered.or_else(|| capacity_shortage::find(&candidates, &requested(object), message));
        if pod.capacity_shortage.is_none() {
            let of_claims = async { Ok(claims_of_pod::shortage(connection, object).await) };
            pod.capacity_shortage = call.with_deadline("Reading the claims", of_claims).await.ok().flatten();
        }
        candidates = grouped(candidates);
        let omitted = candidates.len().saturating_sub(MAX_CANDIDATES);
        candidates.truncate(MAX_CANDIDATES);
        Self { candidates, omitted, not_listed: None }
    }
}

/// The checks that only the scheduler makes, for a node that no check here excludes.
const NOT_CHECKED: &str = "(not checked: claims' devices, volumes, pod affinity, quota)";

/// Returns whether the pod is waiting for a node, not for a scheduling gate or a volume claim.
fn waits_for_nodes(pod: &PodFacts) -> bool {
    let claim =
        pod.message.as_ref().is_some_and(|message| message.to_ascii_lowercase().contains("persistentvolumeclaim"));
    pod.node.is_none() && pod.phase == "Pending" && pod.scheduling_gates.is_empty() && !claim
}

fn cause_paint(cause: Cause) -> Paint {
    match cause {
        Cause::None => Paint::Good,
        Cause::Unknown => Paint::Unknown,
        Cause::Application | Cause::Gpu | Cause::Node | Cause::Cluster => Paint::Critical,
    }
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

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_pod_is_named_as_for_kubectl() {
        let pod = |text: &str, namespace: Option<&str>| {
            let namespace = namespace.map(str::to_owned);
            let args = ExplainArgs { pod: pod_name(text).ok(), selector: None, namespace, context: None };
            args.with_namespace_of_pod().map(|args| (args.pod, args.namespace))
        };
        let found = |name: &str, namespace: Option<&str>| Ok((Some(name.to_owned()), namespace.map(str::to_owned)));
        assert_eq!(pod("train", None), found("train", None));
        assert_eq!(pod("pod/train", Some("ml")), found("train", Some("ml")));
        assert_eq!(pod("ml/train", None), found("train", Some("ml")));
        assert_eq!(pod("job/train", Some("ml")), found("job/train", Some("ml")));
        assert_eq!(pod("ml/train", Some("ml")), found("train", Some("ml")));
        assert!(pod("ml/train", Some("web")).is_err());
    }
}
