//! `read`, `read_or_api_only`, `read_with_object`: read the Node object, run the probe (`ReadRequest`), and make the
//! diagnosis (`NodeReading`). `with_kubernetes`: adds the data from the Kubernetes API if no probe ran. `section`:
//! returns a section of the report.

use std::time::Duration;

use diagnosis::finding::Diagnosis;
use diagnosis::first_failing_pod;
use diagnosis::stack_stage::{Stage, StageState};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::linked_pod::LinkedPod;
use syringe_core::facts::kubernetes::node::{KubernetesFacts, KubernetesInput, NvidiaPod};
use syringe_core::probe_command::{ReadCommand, StackContainer};
use syringe_core::report::{Report, Section, Source};
use syringe_core::section_name::SectionName;
use syringe_core::since::Since;
use syringe_core::text::clean;

use crate::call::CallContext;
use crate::node_reading::probe_summary::ProbeSummary;
use crate::node_reading::{container_scope, node_problem};
use crate::probe::{ProbeRequest, ProbeResult, TargetContainer, api_only};
use crate::settings::ProbeMethod;
use kube_read::Connection;
use kube_read::Failure;
use kube_read::client::api_error::unread_input;
use kube_read::failure::{Cause, PolicyKind};
use kube_read::objects::daemon_sets::DaemonSet;
use kube_read::objects::node_conditions::is_silent;
use kube_read::objects::node_facts as node_gpus;
use kube_read::reads::api_only_facts::{ApiOnlyFacts, Unprobed};
use kube_read::reads::existing_pods::ExistingPods;
use kube_read::reads::node_lifecycle::{self, Lifecycle};
use kube_read::reads::nodes::NoProbe;
use kube_read::reads::{api_only_facts, cluster_facts, daemon_sets, linked_pods, node_log, nodes};

/// Time of a call that is reserved for the deletion of the pod.
pub(crate) const RESERVED_FOR_DELETION: Duration = Duration::from_secs(2);

/// The reason why no probe ran with `--via none`.
const NOT_WANTED: &str = "gpu-syringe was started with --via none";

/// Code of the problem of a node whose report is not in the archive.
const NOT_IN_ARCHIVE: &str = "not_in_archive";

/// Note about kernel lines that cannot be compared with other facts.
const LOG_FILES: &str = " The kernel lines come from log files that the kubelet serves: these files do not show whether a fault was fixed \
    later, unless the driver logged the fix (reload, reset).";

/// A node that was read.
pub(crate) struct NodeReading {
    pub(crate) report: Report,
    pub(crate) diagnosis: Diagnosis,
    pub(crate) note: ProbeSummary,
    /// The pods on the node before or after the probe, if they could be listed.
    pub(crate) existing_pods: Option<ExistingPods>,
    /// Data from the Kubernetes API about the node.
    pub(crate) cluster: KubernetesFacts,
}

/// A node whose Node object was already read.
pub(crate) struct NodeToRead<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) kubernetes: &'a Node,
    /// The pods on the node, listed before the probe, or the failure to list them. `None` if they are not needed.
    pub(crate) existing_pods: Option<Result<ExistingPods, Failure>>,
    /// The DaemonSets of the cluster, or the failure to list them. `None` if they are not needed.
    pub(crate) daemon_sets: Option<&'a Result<Vec<DaemonSet>, Failure>>,
    /// Time for the probe, including the deletion of its pod.
    pub(crate) time: Duration,
    /// Additional time if node-probe is uploaded.
    pub(crate) upload_time: Duration,
}

impl<'a> NodeToRead<'a> {
    /// Returns a node that is to be read in the remaining time of the call.
    pub(crate) fn new(
        call: &CallContext,
        connection: &'a Connection,
        kubernetes: &'a Node,
        existing_pods: Option<Result<ExistingPods, Failure>>,
        daemon_sets: Option<&'a Result<Vec<DaemonSet>, Failure>>,
    ) -> Self {
        let time = call.time_left();
        Self { connection, kubernetes, existing_pods, daemon_sets, time, upload_time: Duration::ZERO }
    }
}

/// The request for a probe that only reads the node.
pub(crate) struct ReadRequest {
    command: ReadCommand,
    /// The container that the request is about.
    target: Option<TargetContainer>,
    /// A container whose log is read if no container of NVIDIA's software fails.
    quiet_log: Option<StackContainer>,
}

impl<C: Into<ReadCommand>> From<C> for ReadRequest {
    fn from(command: C) -> Self {
        Self { command: command.into(), target: None, quiet_log: None }
    }
}

impl ReadRequest {
    /// Returns a request for all sections, and for details of one container.
    pub(crate) fn everything_about(target: Option<TargetContainer>) -> Self {
        let id = target.as_ref().and_then(|target| target.id.clone());
        Self { command: ReadCommand::everything().with_container(id), target, quiet_log: None }
    }

    /// Adds the log of a container of NVIDIA's software in the pod that the call is about. If the container `failed`,
    /// its log replaces the log of the first container of the node that fails.
    pub(crate) fn with_log(mut self, container: Option<StackContainer>, failed: bool) -> Self {
        if failed {
            self.command.stack_log = container;
        } else {
            self.quiet_log = container;
        }
        self
    }
}

/// Reads `node_name` with one probe.
pub(crate) async fn read(
    call: &CallContext,
    context: Option<&str>,
    node_name: &str,
    tool: &'static str,
    ask: impl Into<ReadRequest>,
) -> Result<NodeReading, Failure> {
    let connection = call.with_deadline(&reading_node(node_name), call.contexts.connect(context)).await?;
    let ask = ask.into();
    if !ask.command.is_of_everything() {
        let kubernetes = read_node_object(call, &connection, node_name).await?;
        return read_or_api_only(call, &connection, &kubernetes, tool, ask).await;
    }
    call.prober.sweep_in_background(&connection);
    let found = call.with_deadline(&reading_node(node_name), nodes::find(&connection, node_name)).await?;
    match found {
        Some(kubernetes) => read_or_api_only(call, &connection, &kubernetes, tool, ask).await,
        None => read_machine(call, &connection, node_name, tool, ask).await,
    }
}

/// Reads the data about a name for which no Node object exists: of a NodeClaim or Machine, or of a node that was
/// deleted or never joined. Fails if the API has no data about the name.
async fn read_machine(
    call: &CallContext,
    connection: &Connection,
    name: &str,
    tool: &'static str,
    ask: ReadRequest,
) -> Result<NodeReading, Failure> {
    let lifecycle = node_lifecycle::read(connection, name, None, call.time_left()).await;
    if let Some(machine) = lifecycle.machines.iter().find(|machine| machine.node.is_some())
        && let Some(node) = machine.node.as_deref().filter(|node| *node != name)
        && let Some(kubernetes) = call.with_deadline(&reading_node(node), nodes::find(connection, node)).await?
    {
        let mut read = read_or_api_only(call, connection, &kubernetes, tool, ask).await?;
        let named = format!("{} {} is node {node}.", machine.kind, machine.name);
        read.note.note = Some(named + &read.note.note.map(|note| format!(" {note}")).unwrap_or_default());
        return Ok(read);
    }
    if lifecycle.is_empty() {
        // `nodes::read` returns the failure for a node that does not exist.
        return Err(match nodes::read(connection, name).await {
            Err(failure) => failure,
            Ok(_) => Failure::new(reading_node(name), "the node was created just now", "Try again."),
        });
    }
    let why = format!("there is no node {name} in context {}", connection.context);
    let mut kubernetes = Node::default();
    kubernetes.metadata.name = Some(name.to_owned());
    let mut read = without_probe(connection, &kubernetes, None, &why, NO_NODE_STEP);
    read.cluster = KubernetesFacts { ready: None, no_node: true, ..read.cluster };
    read.add_lifecycle(&lifecycle);
    read.note.api_only = Some(Box::new(ApiOnlyFacts::of(&lifecycle)));
    Ok(read)
}

/// Next step for a name without a Node object.
const NO_NODE_STEP: &str = "See the findings. To list the nodes that joined the cluster, run: gpu-syringe nodes.";

fn reading_node(node_name: &str) -> String {
    format!("Looking at node {}", clean(node_name, 253))
}

/// Reads the Node object, before the probe.
pub(crate) async fn read_node_object(
    call: &CallContext,
    connection: &Connection,
    node_name: &str,
) -> Result<Node, Failure> {
    call.prober.sweep_in_background(connection);
    call.with_deadline(&reading_node(node_name), nodes::read(connection, node_name)).await
}

/// Probes a node whose Node object was already read. If no probe can run, the result contains only data from the
/// Kubernetes API.
pub(crate) async fn read_or_api_only(
    call: &CallContext,
    connection: &Connection,
    kubernetes: &Node,
    tool: &'static str,
    ask: impl Into<ReadRequest>,
) -> Result<NodeReading, Failure> {
    let ask = ask.into();
    let (since, with_log) = (ask.command.since.clone(), ask.command.sections.contains(&SectionName::Xid));
    let everything = ask.command.is_of_everything();
    // Without a probe, the pods are listed afterwards.
    let probed = call.settings.via != ProbeMethod::None && why_no_probe(call, kubernetes).is_none();
    let (name, left) = (kubernetes.name_any(), call.time_left());
    let pods =
        async { if everything && probed { Some(ExistingPods::on_node(connection, &name, left).await) } else { None } };
    let sets = async { if everything { Some(daemon_sets::list(connection, left).await) } else { None } };
    let (listed, daemon_sets) = tokio::join!(pods, sets);
    // Authentication and the read of the node have used part of the time of the call.
    let known = NodeToRead::new(call, connection, kubernetes, listed, daemon_sets.as_ref());
    let mut read = match read_with_object(call, known, tool, ask).await {
        Err(failure) if everything && failure.cause.leaves_kubernetes() => refused(connection, kubernetes, failure),
        read => read?,
    };
    if read.report.source == Source::Api {
        let log = async {
            if with_log { read.add_kernel_log(call, connection, kubernetes, since.as_ref()).await } else { Ok(()) }
        };
        let (unprobed, log) = tokio::join!(api_only_facts::read(connection, kubernetes, call.time_left()), log);
        let daemon_sets = daemon_sets.as_ref();
        let mut facts = read
            .add_unprobed(connection, kubernetes, unprobed, everything.then_some(daemon_sets), call.time_left())
            .await;
        facts.not_read.extend(log.err());
        read.note.api_only = Some(Box::new(facts));
    }
    if everything {
        read.add_linked_pods(connection, &name, call.time_left()).await;
    }
    Ok(read)
}

/// Completes the reading of one of many nodes. If no probe ran, adds the findings from the Kubernetes API, as in a call
/// about one node. After a failure, returns the failure alone, or with the reading if the API reports a problem of the
/// node. `pods`: the pods on the node, if they are already listed and no other data is to be read.
pub(crate) async fn with_kubernetes(
    connection: &Connection,
    kubernetes: &Node,
    daemon_sets: Option<&Result<Vec<DaemonSet>, Failure>>,
    pods: Option<Result<ExistingPods, Failure>>,
    read: Result<NodeReading, Failure>,
    time: Duration,
) -> Result<(NodeReading, Option<Failure>), Failure> {
    let (mut read, failure) = match read {
        Ok(read) if read.report.source == Source::Api => (read, None),
        Err(failure) if matches!(failure.cause, Cause::NoMethod { .. }) => {
            (refused(connection, kubernetes, failure.clone()), Some(failure))
        }
        read => return read.map(|read| (read, None)),
    };
    match pods {
        Some(pods) => {
            read.add_pods(connection, kubernetes, pods, daemon_sets, time).await;
            read.diagnosis = diagnosis::diagnose(&read.report, &read.cluster);
        }
        None => {
            let unprobed = api_only_facts::read(connection, kubernetes, time).await;
            read.add_unprobed(connection, kubernetes, unprobed, Some(daemon_sets), time).await;
        }
    }
    let has_problem = read.diagnosis.findings.iter().any(|finding| finding.severity > Severity::Info);
    match failure {
        Some(failure) if !has_problem => Err(failure),
        failure => Ok((read, failure)),
    }
}

/// Returns the result for a node whose probe was rejected or could not start.
fn refused(connection: &Connection, kubernetes: &Node, failure: Failure) -> NodeReading {
    let Failure { why, next_step, deleted, left_behind, process_left, .. } = failure;
    let mut read = without_probe(connection, kubernetes, None, &why, &next_step);
    if deleted {
        read.note.note.get_or_insert_default().push_str(" The pods that did not run the probe were deleted.");
    }
    (read.note.deleted, read.note.left_behind, read.note.process_left) =
        (left_behind.is_none(), left_behind, process_left);
    read
}

impl NodeReading {
    /// Adds the data from the Kubernetes API about a node without a probe, and makes the diagnosis again. `of_pods`:
    /// the DaemonSets of the cluster, if the pods of the node are needed.
    async fn add_unprobed(
        &mut self,
        connection: &Connection,
        kubernetes: &Node,
        unprobed: Unprobed,
        of_pods: Option<Option<&Result<Vec<DaemonSet>, Failure>>>,
        time: Duration,
    ) -> ApiOnlyFacts {
        let Unprobed { mut facts, lifecycle, existing_pods } = unprobed;
        if let Some(daemon_sets) = of_pods {
            self.add_pods(connection, kubernetes, existing_pods, daemon_sets, time).await;
            facts.add_pods_not_starting(self.cluster.starting_pods.as_deref().unwrap_or_default());
        }
        self.add_lifecycle(&lifecycle);
        facts
    }

    /// Adds the pods on the node if no probe ran, with the warnings about pods that do not start.
    async fn add_pods(
        &mut self,
        connection: &Connection,
        kubernetes: &Node,
        listed: Result<ExistingPods, Failure>,
        daemon_sets: Option<&Result<Vec<DaemonSet>, Failure>>,
        time: Duration,
    ) {
        let (existing_pods, failure) = match listed {
            Ok(existing_pods) => (Some(existing_pods), None),
            Err(failure) => (None, Some(failure)),
        };
        let of_pods = cluster_facts::from_objects(kubernetes, existing_pods.as_ref(), connection.now());
        let KubernetesFacts { nvidia_pods, runtime_classes, starting_pods, failed_pods, .. } = of_pods;
        let known = std::mem::take(&mut self.cluster);
        let mut facts = KubernetesFacts { nvidia_pods, runtime_classes, starting_pods, failed_pods, ..known };
        if let Some(daemon_sets) = daemon_sets {
            daemon_sets::add_to(&mut facts, kubernetes, daemon_sets, existing_pods.as_ref());
        }
        let failing = first_failing_pod(&facts).map(|(pod, _)| pod.clone());
        let mut facts = cluster_facts::add_warnings(connection, facts, failing, time).await;
        facts.live_pod_uids = existing_pods.as_ref().map(ExistingPods::uids);
        facts.gpu_pods = existing_pods.as_ref().map(|existing_pods| existing_pods.gpu_pods().to_vec());
        facts.unread.extend(failure.map(|failure| unread_input(KubernetesInput::Pods, &failure)));
        (self.cluster, self.existing_pods) = (facts, existing_pods);
    }

    /// Adds the pods that should advertise the GPUs if no pod does, and the pods that findings refer to, with their
    /// logs. Then makes the diagnosis again.
    async fn add_linked_pods(&mut self, connection: &Connection, node: &str, time: Duration) {
        let stages = &self.diagnosis.stack;
        let broken = stages.iter().any(|one| one.stage == Stage::Plugin && one.state == StageState::Broken);
        let found = self.diagnosis.findings.iter().any(|finding| finding.severity > Severity::Info);
        if !found {
            return;
        }
        if broken {
            let daemon_pods = self.existing_pods.as_ref().map(ExistingPods::daemon_pods).unwrap_or_default();
            let read = linked_pods::of_node(connection, node, &self.cluster, daemon_pods);
            let linked = tokio::time::timeout(time, read).await.unwrap_or_default();
            self.add_logs(linked);
        }
        let named = diagnosis::logs_to_read(&self.report, &self.cluster, &self.diagnosis);
        let named: Vec<_> = named.into_iter().cloned().collect();
        if !named.is_empty() {
            let read = linked_pods::named(connection, node, &named);
            let linked = tokio::time::timeout(time, read).await.unwrap_or_default();
            self.add_logs(linked);
        }
    }

    /// Adds pods with their logs, and makes the diagnosis again.
    fn add_logs(&mut self, linked: Vec<LinkedPod>) {
        if !linked.is_empty() {
            self.cluster.linked_pods.extend(linked);
            self.diagnosis = diagnosis::diagnose(&self.report, &self.cluster);
        }
    }

    /// Adds the Lease, the machines and the warnings of the node if no probe ran, and makes the diagnosis again.
    fn add_lifecycle(&mut self, lifecycle: &Lifecycle) {
        self.cluster.lease_renewed = lifecycle.lease_renewed;
        self.cluster.machines.clone_from(&lifecycle.machines);
        let warnings = lifecycle.events.iter().filter(|event| cluster_facts::is_telling(event)).cloned();
        self.cluster.warnings = warnings.map(cluster_facts::warning_of).collect();
        self.diagnosis = diagnosis::diagnose(&self.report, &self.cluster);
    }

    /// Adds kernel messages from the log endpoint of the kubelet if no probe ran. `Err` contains the reason why no
    /// message was read.
    pub(crate) async fn add_kernel_log(
        &mut self,
        call: &CallContext,
        connection: &Connection,
        kubernetes: &Node,
        since: Option<&Since>,
    ) -> Result<(), String> {
        let failed = |why: String| format!("kernel lines in the node's log files: {why}");
        // A kubelet that does not report also does not serve its log.
        if is_silent(kubernetes) {
            return Err(failed("the kubelet of the node does not report".to_owned()));
        }
        // The settings that restrict probes to some nodes also restrict the log files of the kubelet.
        call.settings.check_node_allowed(kubernetes).map_err(|refusal| failed(refusal.why))?;
        let since = since.map(|since| since.resolve(connection.now()));
        let log = node_log::read(connection, &kubernetes.name_any(), since, call.time_left()).await;
        let log = log.map_err(failed)?;
        self.report.sections.xid = Some(Section::read(log, Vec::new()));
        self.note.note.get_or_insert_default().push_str(LOG_FILES);
        self.diagnosis = diagnosis::diagnose(&self.report, &self.cluster);
        Ok(())
    }
}

/// Probes a node whose Node object was already read. If no probe can run, all facts of the node are unknown, and the
/// caller adds the data from the Kubernetes API.
pub(crate) async fn read_with_object(
    call: &CallContext,
    known: NodeToRead<'_>,
    tool: &'static str,
    ask: impl Into<ReadRequest>,
) -> Result<NodeReading, Failure> {
    let NodeToRead { connection, kubernetes, .. } = known;
    match read_or_refused(call, known, tool, ask).await {
        Err(Failure { why, next_step, deleted, cause: Cause::NoMethod { .. }, .. }) => {
            let mut read = without_probe(connection, kubernetes, None, &why, &next_step);
            if deleted {
                read.note.note.get_or_insert_default().push_str(" The pods that did not run the probe were deleted.");
            }
            Ok(read)
        }
        read => read,
    }
}

/// Works like [`read_with_object`], but fails if `--via auto` finds no method, so that an answer about many nodes contains
/// the reason only once.
pub(crate) async fn read_or_refused(
    call: &CallContext,
    known: NodeToRead<'_>,
    tool: &'static str,
    ask: impl Into<ReadRequest>,
) -> Result<NodeReading, Failure> {
    let NodeToRead { connection, kubernetes, existing_pods, daemon_sets, time, upload_time } = known;
    if call.settings.via == ProbeMethod::None {
        let next_step = "Start gpu-syringe with another --via to probe the node.";
        return Ok(without_probe(connection, kubernetes, None, NOT_WANTED, next_step));
    }
    call.settings.check_node_allowed(kubernetes)?;
    if let Some(NoProbe { why, next_step }) = why_no_probe(call, kubernetes) {
        return Ok(without_probe(connection, kubernetes, Some(why.clone()), &why, next_step));
    }
    let name = kubernetes.name_any();
    let ReadRequest { mut command, target, quiet_log } = ask.into();
    // If pods cannot be listed, the rules about pods have no result.
    let (existing_pods, mut not_listed) = match existing_pods.transpose() {
        Ok(existing_pods) => (existing_pods, None),
        Err(failure) => (None, Some(failure)),
    };
    let mut facts = cluster_facts::from_objects(kubernetes, existing_pods.as_ref(), connection.now());
    if let Some(daemon_sets) = daemon_sets {
        daemon_sets::add_to(&mut facts, kubernetes, daemon_sets, existing_pods.as_ref());
    }
    let container = first_failing_pod(&facts).map(|(pod, container)| (pod.clone(), container.to_owned()));
    let failing = container.as_ref().map(|(pod, _)| pod.clone());
    let wants_log = command.is_of_everything() && command.stack_log.is_none();
    if command.is_of_everything() {
        let failing_container = || {
            let (pod, container) = container.as_ref()?;
            format!("{}/{container}", pod.uid).parse::<StackContainer>().ok()
        };
        command.stack_log = command.stack_log.or_else(failing_container).or(quiet_log);
    }
    let deadline = time.saturating_sub(RESERVED_FOR_DELETION);
    let request = ProbeRequest { node: name.clone(), command: command.into(), tool, target, deadline, upload_time };
    // The future is in a box. Otherwise, its 27 KiB would be used while the call waits for the probe, many times in a
    // call about many nodes.
    let add_from_api = Box::pin(cluster_facts::add_from_api(connection, kubernetes, facts, failing, deadline));
    let (probed, cluster) = tokio::join!(probe(call, connection, request), add_from_api);
    let probed = match probed {
        Err(Failure { why, next_step, left_behind, cause: Cause::Policy(policy), .. }) => {
            // The message of an unknown policy describes what the policy rejects.
            let why = if policy.kind == PolicyKind::Unknown { why } else { format!("{} forbids it", policy.name) };
            let mut read = without_probe(connection, kubernetes, None, &why, &next_step);
            (read.note.deleted, read.note.left_behind) = (left_behind.is_none(), left_behind);
            return Ok(read);
        }
        Err(Failure { cause: Cause::NoReport, .. }) if let Some(no_probe) = nodes::why_no_probe(kubernetes) => {
            let NoProbe { why, next_step } = no_probe;
            return Ok(without_probe(connection, kubernetes, Some(why.clone()), &why, next_step));
        }
        probed => probed?,
    };
    let note = ProbeSummary::of_pod(&name, &connection.context, &probed);
    let mut report = probed.report;
    if let (Some((pod, container)), true) = (container, wants_log) {
        add_stack_log(connection, &mut report, &pod, &container).await;
    }
    let by_pod = matches!(probed.via, ProbeMethod::Pod | ProbeMethod::Logs | ProbeMethod::Inject);
    if by_pod && call.settings.runtime_class.is_none() {
        node_problem::replace_advice_to_use_a_pod(&mut report);
    }
    let existing_pods = match existing_pods {
        Some(existing_pods) => {
            let both = existing_pods.with_second_list(connection, &name, &report.sections, call.time_left()).await;
            both.map_err(|failure| not_listed = Some(failure)).ok()
        }
        None => None,
    };
    if let Some(existing_pods) = &existing_pods {
        existing_pods.add_pod_names(&mut report.sections);
    }
    let live_pod_uids = existing_pods.as_ref().map(ExistingPods::uids);
    let gpu_pods = existing_pods.as_ref().map(|existing_pods| existing_pods.gpu_pods().to_vec());
    let mut cluster = KubernetesFacts { live_pod_uids, gpu_pods, ..cluster };
    cluster.unread.extend(not_listed.map(|failure| unread_input(KubernetesInput::Pods, &failure)));
    container_scope::limit_to_container(&mut report, &mut cluster);
    // A call about many nodes runs on one thread. Its diagnoses run on the other threads.
    let diagnosing = tokio::spawn(async move { (diagnosis::diagnose(&report, &cluster), report, cluster) });
    let (diagnosis, report, cluster) =
        diagnosing.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    Ok(NodeReading { report, diagnosis, note, existing_pods, cluster })
}

/// Returns why no probe can run on a node. An archive can have a report of such a node, which was taken before.
fn why_no_probe(call: &CallContext, kubernetes: &Node) -> Option<NoProbe> {
    nodes::why_no_probe(kubernetes).filter(|_| call.settings.archive.is_none())
}

/// Adds the log of a failing container of NVIDIA's software from the API, if the probe could not read it on the node.
async fn add_stack_log(connection: &Connection, report: &mut Report, pod: &NvidiaPod, container: &str) {
    let host = report.sections.host.as_mut().and_then(|host| host.data.as_mut());
    let Some(host) = host.filter(|host| host.stack_log.is_none()) else { return };
    host.stack_log = linked_pods::log_of(connection, pod, container).await;
}

/// Returns the result for a node on which no probe ran: all facts of the node itself are unknown, with the reason.
/// `of_node`: the reason, if the cause is that no probe can run on this node.
fn without_probe(
    connection: &Connection,
    kubernetes: &Node,
    of_node: Option<String>,
    why: &str,
    next_step: &str,
) -> NodeReading {
    let now = connection.now();
    let report = api_only::report(why, next_step, now);
    let cluster = KubernetesFacts { no_probe: of_node, read_at: Some(now), ..node_gpus::cluster_facts(kubernetes) };
    let diagnosis = diagnosis::diagnose(&report, &cluster);
    let note = format!(
        "No probe ran: {}. Nothing was read on the node: this answer has only data from the Kubernetes API. \
            {next_step}",
        why.trim_end_matches('.')
    );
    let next_step = Some(next_step.to_owned()).filter(|step| !step.is_empty());
    let note = ProbeSummary {
        next_step,
        ..ProbeSummary::without_probe(&kubernetes.name_any(), &connection.context, connection.now(), note)
    };
    NodeReading { report, diagnosis, note, existing_pods: None, cluster }
}

async fn probe(call: &CallContext, connection: &Connection, request: ProbeRequest) -> Result<ProbeResult, Failure> {
    let node = request.node.clone();
    let probed = call.prober.probe(connection, request, call.on_phase.clone(), call.cancel.clone()).await?;
    if let Some(problem) = &probed.report.error {
        let mut failure = node_problem::failure(format!("Probing node {node}"), problem);
        if problem.code == NOT_IN_ARCHIVE {
            failure.cause = Cause::NoReport;
        }
        return Err(failure.deleted(probed.deleted).leaving(probed.left_behind));
    }
    Ok(probed)
}

/// Returns the section of a report, or the failure to read it, together with a note about the objects that the probe
/// left behind. The section is empty if no probe ran: in that case, the answer itself contains the reason and the data
/// from the Kubernetes API.
pub(crate) fn section<T: Default>(
    note: &ProbeSummary,
    name: SectionName,
    section: Option<Section<T>>,
) -> Result<T, Failure> {
    let ProbeSummary { node, left_behind, deleted, source, .. } = note;
    data_of(node, name, section)
        .map_err(|failure| failure.deleted(*deleted && *source != Source::Api).leaving(left_behind.clone()))
}

fn data_of<T: Default>(node: &str, name: SectionName, section: Option<Section<T>>) -> Result<T, Failure> {
    let missing = || Failure::new(format!("Reading {name} of node {node}"), "the section is missing", OLD_PROBE);
    let section = section.ok_or_else(missing)?;
    let problem = section.problems.into_iter().next();
    if problem.as_ref().is_some_and(|problem| problem.code == api_only::CODE) {
        return Ok(T::default());
    }
    section.data.ok_or_else(|| match problem {
        Some(problem) => node_problem::failure(format!("Reading {name} of node {node}"), &problem),
        None => missing(),
    })
}

const OLD_PROBE: &str = "The probe's image may be older than this launcher: specify a newer image with --image.";
