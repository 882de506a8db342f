//! `read_job`: reads the nodes of the pods of a job, several at the same time, and compares the pods with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use diagnosis::explanation;
use diagnosis::explanation::types::{Cause, Explanation};
use diagnosis::job::{Member, Observed, explain_job, observe};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube_read::client::api_error::section_unknown;
use kube_read::objects::job_ranks::{self, JobRank, RankedPods};
use kube_read::objects::named_owner::NamedOwner;
use kube_read::objects::node_conditions;
use kube_read::objects::pod_facts;
use kube_read::reads::pod::ReadPod;
use kube_read::reads::{daemon_sets, events, nodes, pod, pod_log};
use kube_read::{Connection, Failure};
use syringe_core::facts::kubernetes::pod::PodFacts;
use syringe_core::probe_command::{PodUid, ReadCommand};
use syringe_core::report::Source;
use syringe_core::unknown::Unknown;
use tokio::time::Instant;

use crate::answer::fleet::{FailedNodes, ProbesSummary};
use crate::answer::job::{JobAnswer, SuspectPod};
use crate::call::CallContext;
use crate::fleet::parallel_reads::{NodeOutcome, ParallelReads};
use crate::node_reading::read_node::NodeReading;
use crate::settings::ProbeMethod;

/// Up to this number, each node is read with its own request. For more nodes, one list of all nodes is cheaper for the
/// API server.
const FEW_NODES: usize = 8;
/// Maximum number of parallel requests for nodes and logs.
const AT_ONCE: usize = 8;
/// Maximum number of logs that are read. The logs of the pods that failed first are read. The pods of a job often fail
/// within one second.
const LOGS: usize = 64;
/// Maximum number of lines from the log of a suspect in the answer.
const LOG_LINES: usize = 10;
/// Maximum number of bytes of a list of names.
const NAMES_BYTES: usize = 300;
/// The name of the NCCL data in `unknown`.
const NCCL: &str = "nccl";
const NOT_ASKED: &str = "NCCL in the job was not asked; to allow the question, use --ask-nccl";
const NO_TIME: &str =
    "NCCL in the job was not asked: there was not enough time, or the probe or its policy does not permit the question";
/// Maximum number of pods in which NCCL is queried.
const ASKED: usize = 2;
const WHAT: &str = "Reading the nodes of the job";

/// The data about the pods of the job from reading one node.
struct NodePart {
    observed: BTreeMap<usize, Observed>,
    /// The explanation of the pod in the worst state, if that pod is on the node.
    worst: Option<Explanation>,
    /// Whether NCCL was queried.
    has_nccl: bool,
    /// Why no probe ran.
    unread: Option<String>,
    took_ms: u64,
    left_behind: Option<String>,
    deleted: bool,
    passed_over: Vec<String>,
}

/// Reads the nodes of all pods of `read`, and compares the pods. `job`: the owner or the labels of the pods, as text.
pub(crate) async fn read_job(
    call: &CallContext,
    connection: &Connection,
    job: String,
    read: ReadPod,
) -> Result<JobAnswer, Failure> {
    let began = Instant::now();
    let ReadPod { facts: mut worst, no_events, all, selected_of, .. } = read;
    let owners: BTreeSet<String> =
        all.iter().flat_map(|pod| pod.owner_references()).map(|owner| owner.name.clone()).collect();
    let RankedPods { pods, missing } = job_ranks::of(all);
    let member = |(place, pod): (JobRank, Pod)| Member {
        rank: place.rank,
        role: place.role,
        addresses: addresses(&pod),
        node_lost: None,
        pod: pod_facts::from_pod(&pod),
        observed: Err("its node was not read".to_owned()),
    };
    let mut members: Vec<Member> = pods.into_iter().map(member).collect();
    read_logs(connection, &mut members).await;
    // The data from Kubernetes is sufficient to choose the pod that is explained together with its node.
    let known = explain_job(&members, &missing).suspects.into_iter().next();
    if let Some(first) =
        known.and_then(|suspect| suspect.members.into_iter().next()).filter(|first| first.pod != worst.name)
    {
        let named = NamedOwner::named(&first.pod);
        worst = pod::read(connection, &worst.namespace, &named).await.map_or(worst, |read| read.facts);
    }
    if let Some(same) = members.iter().find(|member| member.pod.name == worst.name) {
        worst.log_lines.clone_from(&same.pod.log_lines);
    }
    // The events of the owner contain the reason why a pod of the job does not exist.
    if let Some(first) = members.first_mut().filter(|_| !missing.is_empty()) {
        let refused = events::of_failed_creates(connection, &worst.namespace).await.unwrap_or_default();
        let of_owner = refused.into_iter().filter(|refused| owners.contains(&refused.name));
        first.pod.related_warnings.extend(of_owner.map(|refused| refused.event));
    }
    let mut on_nodes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, Member { pod, .. }) in members.iter().enumerate() {
        if let Some(node) = pod.node.as_ref().filter(|_| pod.phase != "Succeeded" && pod.wants_gpus) {
            on_nodes.entry(node.clone()).or_default().push(index);
        }
    }
    let (mut objects, mut failures) = read_objects(call, connection, on_nodes.keys().cloned().collect()).await?;
    for node in &objects {
        let why = node_conditions::why_not_ready(node);
        for index in on_nodes[&node.name_any()].iter().filter(|_| why.is_some()) {
            let member = &mut members[*index];
            (member.pod.node_ready, member.pod.node_not_ready) = (Some(false), why.clone());
            member.node_lost = node_conditions::ready_since(node);
        }
    }
    call.prober.sweep_in_background(connection);
    // The nodes of pods that are not running come first, because the time of the call may not be enough for all nodes.
    let runs = |node: &Node| on_nodes[&node.name_any()].iter().all(|index| members[*index].pod.phase == "Running");
    objects.sort_by_cached_key(|node| (runs(node), node.name_any()));
    let daemon_sets = daemon_sets::list(connection, call.settings.node_time()).await;
    let summarise = |node: &Node, reading: NodeReading| {
        let own = on_nodes[&node.name_any()].iter().map(|index| (*index, &members[*index].pod));
        NodePart::of(reading, own, &worst)
    };
    let command = ReadCommand::everything();
    let can_ask =
        if call.settings.via == ProbeMethod::None { BTreeMap::new() } else { pods_to_ask(&members, &on_nodes) };
    let not_allowed = !can_ask.is_empty() && !call.settings.ask_nccl;
    let ask_nccl = if call.settings.ask_nccl { can_ask } else { BTreeMap::new() };
    let is_asked = |node: &&Node| ask_nccl.contains_key(&node.name_any());
    let asked: Vec<Node> = objects.iter().filter(is_asked).cloned().collect();
    let daemon_sets = Some(&daemon_sets);
    let reads = ParallelReads {
        call,
        connection,
        tool: "explain_gpu_pod",
        command: &command,
        daemon_sets,
        ask_nccl: &ask_nccl,
    };
    let mut outcomes = reads.run(objects, &summarise).await;
    // An older policy or an older probe may reject the command with the NCCL query. Also, the processes of the job must
    // not be able to hide their node. So the node is read again without the query after any failure.
    let has_failed = |node: &Node| {
        outcomes
            .iter()
            .any(|(name, outcome)| *name == node.name_any() && outcome.is_without_report(|part| part.unread.is_some()))
    };
    let refused: Vec<Node> = asked.into_iter().filter(has_failed).collect();
    if !refused.is_empty() {
        let call = &CallContext { failure_backoff: Arc::default(), ..call.clone() };
        let again = ParallelReads { call, ask_nccl: &BTreeMap::new(), ..reads }.run(refused, &summarise).await;
        // If there is no time for the second read, the failure of the first read is returned.
        let again: Vec<_> =
            again.into_iter().filter(|(_, outcome)| !matches!(outcome, NodeOutcome::NotReached)).collect();
        outcomes.retain(|(name, _)| !again.iter().any(|(other, _)| other == name));
        outcomes.extend(again);
    }
    let mut observed = Vec::new();
    let (mut of_worst, mut left_behind, mut times, mut deleted) = (None, Vec::new(), Vec::new(), true);
    let (mut passed_over, mut has_nccl) = (Vec::new(), false);
    for (node, outcome) in outcomes {
        let (part, failure) = match outcome {
            NodeOutcome::Read(part) => (Some(part), None),
            NodeOutcome::Unprobed(part, failure) => (Some(part), Some(failure)),
            NodeOutcome::Failed(failure) => (None, Some(failure)),
            NodeOutcome::Skipped(why) => {
                failures.push((node.clone(), why, String::new()));
                (None, None)
            }
            NodeOutcome::NotReached => {
                let next = "Call again with more --concurrency or a longer --call-timeout.".to_owned();
                failures.push((node.clone(), "the time of the call ended before this node was read".to_owned(), next));
                (None, None)
            }
        };
        if let Some(Failure { why, next_step, left_behind: left, .. }) = failure {
            left_behind.extend(left);
            failures.push((node.clone(), why, next_step.to_string()));
        }
        if let Some(part) = part {
            times.push(part.took_ms);
            has_nccl |= part.has_nccl;
            left_behind.extend(part.left_behind);
            deleted &= part.deleted;
            passed_over.extend(part.passed_over);
            of_worst = of_worst.or(part.worst);
            match part.unread {
                Some(why) if !failures.iter().any(|(known, ..)| *known == node) => {
                    failures.push((node, why, String::new()))
                }
                Some(_) => {}
                None => observed.extend(part.observed),
            }
        }
    }
    if call.cancel.is_cancelled() {
        return Err(
            Failure::new(WHAT, "cancelled by the caller", "Call again.").leaving(left_behind.into_iter().next())
        );
    }
    for (index, values) in observed {
        members[index].observed = Ok(values);
    }
    let mut explanation = explain_job(&members, &missing);
    let is_first =
        explanation.suspects.first().is_none_or(|first| first.members.iter().any(|one| one.pod == worst.name));
    let has_ended = !matches!(worst.phase.as_str(), "Succeeded") && worst.running().next().is_none();
    let suspect_pod = (is_first && has_ended).then(|| {
        let explained = of_worst.unwrap_or_else(|| explanation::explain(&worst, None, Some("its node was not read")));
        let Explanation { cause, summary, action, .. } = explained;
        let from = worst.log_lines.len().saturating_sub(LOG_LINES);
        SuspectPod { pod: worst.name.clone(), cause, summary, action, log_lines: worst.log_lines[from..].to_vec() }
    });
    if let Some(SuspectPod { cause, summary, action, .. }) = &suspect_pod
        && !matches!(cause, Cause::None | Cause::Unknown)
    {
        explanation.because_of(summary, action);
    }
    let no_events = no_events.map(|failure| section_unknown("events", &failure));
    let why_no_nccl = match (not_allowed, ask_nccl.is_empty() || has_nccl) {
        (true, _) => Some(NOT_ASKED),
        (false, false) => Some(NO_TIME),
        (false, true) => None,
    };
    let probes = ProbesSummary {
        concurrency: call.settings.nodes_at_once(),
        deleted: deleted && left_behind.is_empty(),
        total_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        passed_over,
        ..ProbesSummary::default()
    };
    Ok(JobAnswer {
        explanation,
        job: format!("{job} in namespace {}", worst.namespace),
        context: connection.context.clone(),
        phases: selected_of.unwrap_or_default(),
        suspect_pod,
        not_read: by_reason(failures),
        unknown: no_events.into_iter().chain(why_no_nccl.map(|why| Unknown::new(NCCL, why))).collect(),
        left_behind,
        probes: probes.with_times(times),
    })
}

impl NodePart {
    fn of<'a>(reading: NodeReading, members: impl Iterator<Item = (usize, &'a PodFacts)>, worst: &PodFacts) -> Self {
        let NodeReading { report, diagnosis, note, .. } = reading;
        let is_unread = report.source == Source::Api;
        let (mut observed, mut explained) = (BTreeMap::new(), None);
        for (index, pod) in members {
            if pod.name == worst.name {
                explained = Some(explanation::explain(worst, Some((&report, &diagnosis)), None));
            }
            if !is_unread {
                observed.insert(index, observe(pod, &report, &diagnosis));
            }
        }
        Self {
            observed,
            worst: explained,
            has_nccl: report.nccl.is_some(),
            unread: is_unread.then(|| note.clone().why_unread()),
            took_ms: note.timings_ms.total,
            deleted: note.deleted,
            left_behind: note.left_behind.or(note.process_left),
            passed_over: note.passed_over,
        }
    }
}

/// Reads the last log lines of the pods that failed first.
async fn read_logs(connection: &Connection, members: &mut [Member]) {
    let failed = members.iter().enumerate().filter_map(|(index, Member { pod, .. })| {
        let end = pod.end().filter(|end| end.exit_code != 0 && !end.never_ran())?;
        // A program that is stopped because another program failed often exits because of a signal.
        let order = (end.finished, end.exit_code > 128, index);
        Some((order, pod.namespace.clone(), pod.name.clone(), end.container.to_owned(), end.was_restarted))
    });
    let mut failed: Vec<_> = failed.collect();
    failed.sort();
    failed.truncate(LOGS);
    let reads = stream::iter(failed).map(|((.., index), namespace, name, container, restarted)| async move {
        (index, pod_log::tail(connection, &namespace, &name, &container, restarted).await)
    });
    for (index, lines) in reads.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        let lines = lines.unwrap_or_default();
        members[index].pod.log_lines = lines.iter().map(|line| line.trim_start().to_owned()).collect();
    }
}

/// Returns the nodes on which NCCL is queried, with the pod on each node. Every process of a job responds for all
/// processes, so one pod is sufficient. A second pod is queried because the processes of the first pod may be stopped.
fn pods_to_ask(members: &[Member], on_nodes: &BTreeMap<String, Vec<usize>>) -> BTreeMap<String, PodUid> {
    let runs = |pod: &PodFacts| pod.phase == "Running" && pod.running().next().is_some();
    let running: Vec<&PodFacts> = members.iter().map(|member| &member.pod).filter(|pod| runs(pod)).collect();
    if running.len() < 2 {
        return BTreeMap::new();
    }
    let mut asked = BTreeMap::new();
    for pod in running {
        let node = pod.node.as_ref().filter(|node| on_nodes.contains_key(*node));
        if let (Some(node), Ok(uid)) = (node, pod.uid.parse()) {
            asked.entry(node.clone()).or_insert(uid);
        }
        if asked.len() == ASKED {
            break;
        }
    }
    asked
}

/// Returns the IP addresses of a pod. A pod that ended has none, because another pod may have its addresses now.
fn addresses(pod: &Pod) -> Vec<String> {
    let has_ended = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let Some(status) = pod.status.as_ref().filter(|one| !one.phase.as_deref().is_some_and(has_ended)) else {
        return Vec::new();
    };
    let more = status.pod_ips.iter().flatten().map(|address| address.ip.clone());
    status.pod_ip.iter().cloned().chain(more).collect()
}

/// The nodes that were not read: name, reason, next step.
type NotRead = Vec<(String, String, String)>;

/// Reads the objects of the nodes.
async fn read_objects(
    call: &CallContext,
    connection: &Connection,
    names: BTreeSet<String>,
) -> Result<(Vec<Node>, NotRead), Failure> {
    let mut found = Vec::new();
    if names.len() > FEW_NODES {
        let listing = nodes::collect(connection, None, |node| names.contains(&node.name_any()), |node| node);
        found = call.with_deadline(WHAT, listing).await?.1;
    }
    let known: BTreeSet<String> = found.iter().map(ResourceExt::name_any).collect();
    let missing: Vec<String> = names.difference(&known).cloned().collect();
    let reads = stream::iter(missing).map(|name| async move {
        let read = call.with_deadline(WHAT, nodes::read(connection, &name)).await;
        (name, read)
    });
    let mut not_read = Vec::new();
    for (name, read) in reads.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        match read {
            Ok(node) => found.push(node),
            Err(Failure { why, next_step, .. }) => not_read.push((name, why, next_step.to_string())),
        }
    }
    Ok((found, not_read))
}

fn by_reason(failures: NotRead) -> Vec<FailedNodes> {
    let mut reasons: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (node, why, next_step) in failures {
        reasons.entry((why, next_step)).or_default().push(node);
    }
    FailedNodes::by_reason(reasons, NAMES_BYTES)
}
