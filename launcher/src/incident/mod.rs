//! `incident`: creates one timeline (`Incident`) of kernel events, Kubernetes events, pods, driver loads, GPU resets
//! and boots of nodes. `IncidentArgs`: the arguments of the command.
//!
//! Modules: `entry`: the parts of a timeline. `node_timeline`: the entries from the report of a node. `kubernetes`: the
//! entries from the API. `html`: the timeline as one page. The answer also contains gaps: a time without data is not a
//! time without a fault.

mod entry;
mod html;
mod kubernetes;
mod node_timeline;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use diagnosis::Verdict;
use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube_read::client::lists::Freshness;
use kube_read::objects::gpu_pod::Pod;
use kube_read::objects::label_selector::LabelSelector;
use kube_read::reads::events::ObjectEvent;
use kube_read::reads::{daemon_sets, events, nodes, pods};
use kube_read::{Connection, Failure};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use syringe_core::classification::Severity;
use syringe_core::probe_command::ReadCommand;
use syringe_core::report::{Report, Section, Source};
use syringe_core::since::Since;
use syringe_macros::omit;

pub(crate) use self::entry::{Entry, EntryKind, Gap, GapKind};
use self::entry::{Lane, NODE_LANE};
pub(crate) use self::node_timeline::{NodeTimeline, lane, severity, what};
use crate::answer::wire::untrusted_text;
use crate::answer::wire::variant_name::variant_name;
use crate::archives::{self, RawRecords};
use crate::call::CallContext;
use crate::fleet::{NodeOutcome, ParallelReads, select_nodes};
use crate::node_reading::read_node::NodeReading;
use crate::outcome::Outcome;
use crate::output_file;
use crate::settings::{ArchiveNote, ProbeMethod};
use crate::terminal::page::Page;
use crate::terminal::style::named;
use crate::terminal::table::{cell, new_table, second};
use crate::tools::node_name;

/// Faults of several nodes within this time may have one cause.
const SAME_FAULT: SignedDuration = SignedDuration::from_mins(2);
/// Maximum number of parallel lists of pods.
const LISTS_AT_ONCE: usize = 8;
/// The option that names the file.
const FILE_OPTION: &str = "--html";

#[derive(clap::Args, Debug)]
pub(crate) struct IncidentArgs {
    /// Nodes, or `all`; by default all GPU nodes
    #[arg(value_name = "NODE", value_parser = node_name)]
    node: Vec<String>,
    /// Only nodes with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "node")]
    selector: Option<LabelSelector>,
    /// At most this many nodes
    #[arg(long, value_name = "NODES", conflicts_with = "node", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Start of the period: a duration back from now (24h, 7d) or an RFC 3339 time
    #[arg(long, value_name = "WHEN", default_value = "24h")]
    since: Since,
    /// Also write the timeline as one HTML page into this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replace the file of --html if it exists
    #[arg(long, requires = "html")]
    force: bool,
}

/// What happened on nodes.
#[omit(Option, left_behind)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Incident {
    summary: String,
    /// Start of the period.
    from: Timestamp,
    /// End of the period: the time of the answer.
    to: Timestamp,
    context: String,
    /// The archive of the answer.
    archive: Option<ArchiveNote>,
    /// Critical and fatal entries, oldest first. Entries of several nodes within two minutes, and equal entries, are
    /// one fault.
    faults: Vec<Fault>,
    nodes: Vec<NodeLanes>,
    /// What happened, oldest first.
    entries: Vec<Entry>,
    /// What is not known.
    gaps: Vec<Gap>,
    /// Nodes beyond `--limit`.
    nodes_omitted: Option<usize>,
    /// Objects that probes left on the cluster. `gpu-syringe sweep` deletes them.
    left_behind: Vec<String>,
    /// The HTML page.
    html: Option<PathBuf>,
}

/// A critical or fatal entry.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Fault {
    at: Timestamp,
    node: String,
    lane: String,
    what: String,
    /// Other nodes with a critical or fatal entry within two minutes.
    also_on: BTreeSet<String>,
}

/// A node with the objects that have entries.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct NodeLanes {
    node: String,
    /// The verdict of the diagnosis now. Absent if nothing is known.
    verdict: Option<Verdict>,
    /// The diagnosis now.
    diagnosis: Option<String>,
    lanes: Vec<Lane>,
}

/// The data from the probe of a node and its diagnosis. Without a probe, only `unread` and `left_behind` certainly have
/// a value.
#[derive(Default)]
struct NodePart {
    timeline: NodeTimeline,
    verdict: Option<Verdict>,
    diagnosis: Option<String>,
    /// Why no probe ran, and the next step.
    unread: Option<String>,
    /// Objects that the probe left on the cluster.
    left_behind: Option<String>,
    /// NVML indices of the GPUs of each pod, by `namespace/name`.
    gpus_of_pods: BTreeMap<String, Vec<u32>>,
}

/// Reads the nodes and creates the timeline.
pub(crate) async fn incident(call: CallContext, args: IncidentArgs) -> Result<Incident, Failure> {
    let IncidentArgs { node: names, selector, limit, since, html, force } = args;
    // The file is checked first, so that no node is probed if the file cannot be written.
    html.as_deref().map_or(Ok(()), |file| output_file::check_free(file, force, FILE_OPTION))?;
    let what = "Making the timeline";
    let connection = call.with_deadline(what, call.contexts.connect(None)).await?;
    let mut nodes = select_nodes(&call, &connection, what, &names, selector.as_deref()).await?.nodes;
    nodes.sort_by_key(ResourceExt::name_any);
    let omitted = nodes.split_off(nodes.len().min(limit.map_or(usize::MAX, |limit| limit as usize))).len();
    call.prober.sweep_in_background(&connection);
    let to = connection.now();
    let from = since.resolve(to);
    if from >= to {
        let why = format!("--since is not before the end of the period, {to:.0}");
        return Err(Failure::usage(what, why, "Use an earlier time, or a duration such as 24h."));
    }
    let pods = stream::iter(&nodes).map(|node| async {
        let name = node.name_any();
        let pods = call.with_deadline(what, pods::on_node(&connection, &name, Freshness::Cached)).await;
        (name, pods)
    });
    let names: Vec<_> = nodes.iter().map(ResourceExt::name_any).collect();
    let logs = archives::raw_records(&call.settings, &names)?;
    let (mut parts, pods, events) = tokio::join!(
        read_nodes(&call, &connection, &nodes, &logs, (from, to)),
        pods.buffer_unordered(LISTS_AT_ONCE).collect::<BTreeMap<_, _>>(),
        call.with_deadline(what, events::of_nodes_and_pods(&connection)),
    );
    if call.cancel.is_cancelled() {
        let left = parts.into_values().find_map(|part| part.left_behind);
        return Err(Failure::new(what, "cancelled by the caller", "Run the command again.").leaving(left));
    }
    let mut incident = Incident {
        from,
        to,
        context: connection.context.clone(),
        archive: call.settings.archive.as_deref().cloned(),
        nodes_omitted: (omitted > 0).then_some(omitted),
        ..Incident::default()
    };
    let events = incident.events_of_cluster(events, &call.settings.probe_namespace);
    for node in &nodes {
        let name = node.name_any();
        let pods = pods.get(&name).map_or(Ok(&[][..]), |pods| pods.as_deref().map_err(|failure| &failure.why));
        incident.add_node(&name, node, parts.remove(&name).unwrap_or_default(), pods, &events);
    }
    incident.finish();
    if let Some(file) = html {
        let page = html::page(&incident);
        output_file::write(&file, force, FILE_OPTION, |file| file.write_all(page.as_bytes()))?;
        incident.html = Some(file);
    }
    Ok(incident)
}

/// Reads the nodes with their raw kernel logs (`logs` has the logs of an archive). If a policy rejects this, reads the
/// node without the raw log.
async fn read_nodes(
    call: &CallContext,
    connection: &Connection,
    nodes: &[Node],
    logs: &BTreeMap<String, RawRecords>,
    period: (Timestamp, Timestamp),
) -> BTreeMap<String, NodePart> {
    let daemon_sets = daemon_sets::list(connection, call.settings.node_time()).await;
    let summarise = |node: &Node, read: NodeReading| NodePart::of(node, read, logs, period);
    let read = async |call: &CallContext, nodes: Vec<Node>, raw_log: bool| {
        let command = ReadCommand { raw_log, ..ReadCommand::everything() };
        let daemon_sets = Some(&daemon_sets);
        let ask_nccl = &BTreeMap::new();
        let reads = ParallelReads { call, connection, tool: "incident", command: &command, daemon_sets, ask_nccl };
        reads.run(nodes, &summarise).await
    };
    let raw_log = call.settings.may_read_raw_log();
    let mut outcomes: BTreeMap<_, _> = read(call, nodes.to_vec(), raw_log).await.into_iter().collect();
    let is_refused = |node: &&Node| {
        let may_be = |outcome: &NodeOutcome<NodePart>| outcome.may_be_refused(|part| part.unread.is_some());
        nodes::why_no_probe(node).is_none() && outcomes.get(&node.name_any()).is_some_and(may_be)
    };
    let refused: Vec<Node> = nodes.iter().filter(is_refused).filter(|_| raw_log).cloned().collect();
    if !refused.is_empty() && call.settings.via != ProbeMethod::None {
        let call = CallContext { failure_backoff: Arc::default(), ..call.clone() };
        outcomes.extend(read(&call, refused, false).await);
    }
    let unread = |why| NodePart { unread: Some(why), ..NodePart::default() };
    let part = |outcome: NodeOutcome<NodePart>| match outcome {
        NodeOutcome::Read(part) => part,
        NodeOutcome::Unprobed(part, failure) => part.unread_for(failure),
        NodeOutcome::Failed(failure) => NodePart::default().unread_for(failure),
        NodeOutcome::Skipped(why) => unread(why),
        NodeOutcome::NotReached => unread("the time of the call ended before this node was read".to_owned()),
    };
    outcomes.into_iter().map(|(node, outcome)| (node, part(outcome))).collect()
}

impl NodePart {
    fn of(
        node: &Node,
        read: NodeReading,
        logs: &BTreeMap<String, RawRecords>,
        (from, to): (Timestamp, Timestamp),
    ) -> Self {
        let NodeReading { mut report, diagnosis, note, .. } = read;
        logs.get(&node.name_any()).iter().for_each(|records| records.add_to(&mut report));
        let is_unread = report.source == Source::Api;
        let timeline = match is_unread {
            true => NodeTimeline::default(),
            false => NodeTimeline::of_report(&node.name_any(), &report, from, to),
        };
        let (verdict, diagnosis) = (Some(diagnosis.verdict), Some(diagnosis.summary));
        let left_behind = note.left_behind.clone().or_else(|| note.process_left.clone());
        let unread = is_unread.then(|| note.why_unread());
        let gpus_of_pods = gpus_of_pods(&report);
        Self { timeline, verdict, diagnosis, unread, left_behind, gpus_of_pods }
    }

    fn unread_for(self, failure: Failure) -> Self {
        let Failure { what, why, next_step, left_behind, .. } = failure;
        Self { unread: Some(format!("{what}: {why}. {next_step}")), left_behind, ..self }
    }
}

fn gpus_of_pods(report: &Report) -> BTreeMap<String, Vec<u32>> {
    let gpus =
        Section::data_of(&report.sections.inventory).map(|inventory| inventory.gpus.as_slice()).unwrap_or_default();
    let mut of_pods: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for booked in Section::data_of(&report.sections.kubelet).into_iter().flat_map(|kubelet| &kubelet.allocations) {
        let is_its = |uuid: &String| booked.devices.contains(uuid);
        let indices = gpus.iter().filter(|gpu| gpu.uuid.as_ref().is_some_and(is_its)).map(|gpu| gpu.index);
        of_pods.entry(booked.holder()).or_default().extend(indices);
    }
    of_pods
}

impl Incident {
    /// Returns the events without the events of probe pods. Adds a gap for the time for which the cluster has no
    /// events.
    fn events_of_cluster(&mut self, events: Result<Vec<ObjectEvent>, Failure>, namespace: &str) -> Vec<ObjectEvent> {
        const OLDER: &str =
            "the API server has no older events of nodes and pods; by default, it keeps events for an hour";
        let (events, why) = match events {
            Ok(events) => (events, OLDER.to_owned()),
            Err(failure) => (Vec::new(), format!("the events of Kubernetes were not read: {}", failure.why)),
        };
        let begin = events.iter().filter_map(|event| event.event.last).min().unwrap_or(self.to);
        if begin > self.from {
            let (from, to) = (Some(self.from), Some(begin));
            self.gaps.push(Gap { node: None, kind: GapKind::EventsMissing, from, to, why });
        }
        let of_probes = format!("{namespace}/");
        events.into_iter().filter(|event| !event.object.starts_with(&of_probes)).collect()
    }

    fn add_node(
        &mut self,
        name: &str,
        node: &Node,
        part: NodePart,
        pods: Result<&[Pod], &String>,
        events: &[ObjectEvent],
    ) {
        let (from, to) = (Some(self.from), Some(self.to));
        let NodePart { timeline, verdict, diagnosis, unread, left_behind, gpus_of_pods } = part;
        let NodeTimeline { mut entries, gaps } = timeline;
        self.gaps.extend(gaps);
        self.gaps.extend(unread.map(|why| Gap::new(name, GapKind::NodeNotRead, from, to, why)));
        self.left_behind.extend(left_behind);
        if let Err(why) = pods {
            self.gaps.push(Gap::new(name, GapKind::PodsNotRead, from, to, why));
        }
        entries.extend(kubernetes::of_node(name, node));
        let (mut shown, mut others) = (BTreeSet::new(), BTreeSet::new());
        let mut lanes = vec![Lane { name: NODE_LANE.to_owned(), gpus: Vec::new(), runs: Vec::new() }];
        for pod in pods.unwrap_or_default() {
            if !kubernetes::is_shown(pod) {
                others.insert(kubernetes::full_name(pod));
                continue;
            }
            let (of_pod, mut lane) = kubernetes::of_pod(name, pod);
            lane.gpus = gpus_of_pods.get(&kubernetes::full_name(pod)).cloned().unwrap_or_default();
            entries.extend(of_pod);
            shown.insert(kubernetes::full_name(pod));
            lanes.push(lane);
        }
        entries.extend(kubernetes::of_events(name, events, &shown, &others));
        entries.retain(|entry| entry.at >= self.from);
        let mut names: Vec<&String> = entries.iter().map(|entry| &entry.lane).collect();
        names.sort();
        names.dedup();
        let new = names.into_iter().filter(|name| lanes.iter().all(|lane| lane.name != **name)).cloned();
        let new: Vec<_> = new.map(|name| Lane { name, gpus: Vec::new(), runs: Vec::new() }).collect();
        lanes.extend(new);
        let order = |lane: &Lane| (lane.name != NODE_LANE, lane.name.starts_with("pod "), natural(&lane.name));
        lanes.sort_by_cached_key(order);
        let is_used = |lane: &Lane| {
            let runs = lane.runs.iter().any(|run| run.to.is_none_or(|to| to >= self.from));
            lane.name == NODE_LANE
                || runs && !lane.gpus.is_empty()
                || entries.iter().any(|entry| entry.lane == lane.name)
        };
        lanes.retain(is_used);
        self.entries.append(&mut entries);
        self.nodes.push(NodeLanes { node: name.to_owned(), verdict, diagnosis, lanes });
    }

    /// Sorts the entries, finds the faults, and writes the summary.
    fn finish(&mut self) {
        self.entries.sort_by(|left, right| {
            (left.at, &left.node, &left.lane, left.kind).cmp(&(right.at, &right.node, &right.lane, right.kind))
        });
        self.gaps.sort_by(|left, right| (left.from, &left.node).cmp(&(right.from, &right.node)));
        for Entry { at, node, lane, what, .. } in
            self.entries.iter().filter(|entry| entry.severity >= Severity::Critical)
        {
            let is_near = |fault: &&mut Fault| at.duration_since(fault.at) <= SAME_FAULT;
            let is_known = |fault: &Fault| (&fault.node, &fault.lane, &fault.what) == (node, lane, what);
            if let Some(fault) = self.faults.last_mut().filter(is_near) {
                fault.also_on.extend(Some(node.clone()).filter(|node| *node != fault.node));
            } else if !self.faults.iter().any(is_known) {
                let (node, lane, what) = (node.clone(), lane.clone(), what.clone());
                self.faults.push(Fault { at: *at, node, lane, what, also_on: BTreeSet::new() });
            }
        }
        let count = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let (nodes, entries) = (self.nodes.len(), self.entries.len());
        let size = format!("{}, {}", count(nodes, "node", "nodes"), count(entries, "entry", "entries"));
        let size = format!("{} to {}: {size}", second(self.from), second(self.to));
        let describe = |Fault { at, node, lane, what, also_on }: &Fault| {
            let also = also_on.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let also = if also.is_empty() { also } else { format!(", within 2 minutes also on {also}") };
            format!("{} {node}, {lane}: {what}{also}", second(*at))
        };
        let widest = self.faults.iter().rev().max_by_key(|fault| fault.also_on.len());
        let fault = match (self.faults.first(), widest) {
            (None, _) => "no critical or fatal event".to_owned(),
            (Some(first), Some(widest)) if widest.also_on.len() > first.also_on.len() => {
                format!("first fault: {}; fault on the most nodes: {}", describe(first), describe(widest))
            }
            (Some(first), _) => format!("first fault: {}", describe(first)),
        };
        let unread = self.unread().count();
        let unread =
            if unread > 0 { format!(" {} could not be read.", count(unread, "node", "nodes")) } else { String::new() };
        self.summary = format!("{size}; {fault}.{unread}");
    }

    fn unread(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| gap.kind == GapKind::NodeNotRead)
    }

    pub(crate) fn json(&self) -> Value {
        untrusted_text::json_of(self)
    }

    /// The nodes with an entry of severity warning or higher.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = self.entries.iter().filter(|entry| entry.severity >= Severity::Warning);
        let nodes: BTreeSet<_> = entries.map(|entry| format!("node/{}", entry.node)).collect();
        nodes.into_iter().collect()
    }

    /// The severity of the worst entry. A timeline that lacks some of the nodes is incomplete.
    pub(crate) fn outcome(&self) -> Outcome {
        let worst = self.entries.iter().map(|entry| entry.severity).max().filter(|severity| *severity > Severity::Info);
        let outcome = worst.map_or(Outcome::NothingFound, Outcome::Found);
        if self.unread().next().is_none() { outcome } else { outcome.of_incomplete() }
    }

    pub(crate) fn page(&self) -> Page {
        let mut page = Page::from(format!("{}\n", self.summary));
        let mut rows = new_table(["time (UTC)", "severity", "node", "object", "what", "text"])
            .optional(&["severity"])
            .note("text");
        for Entry { at, node, lane, severity, what, text, count, count_is_lower_bound, .. } in &self.entries {
            let least = if *count_is_lower_bound { "≥ " } else { "" };
            let count = count.map(|count| format!(" ({least}{count} times)")).unwrap_or_default();
            let text = text.clone().unwrap_or_default();
            rows.add_row([second(*at), named(*severity), node.clone(), lane.clone(), format!("{what}{count}"), text]);
        }
        page.push_table(rows);
        let mut gaps = new_table(["not known from", "to", "node", "kind", "why"]).note("why");
        for Gap { node, kind, from, to, why } in &self.gaps {
            let time = |time: &Option<Timestamp>| cell(time.map(second));
            let kind = variant_name(*kind).replace('_', " ");
            gaps.add_row([time(from), time(to), cell(node.clone()), kind, why.clone()]);
        }
        page.push_table(gaps);
        page.push_omitted(self.nodes_omitted, "nodes beyond --limit");
        self.left_behind.iter().for_each(|left| page.push_str(&format!("LEFT BEHIND: {left}\n")));
        let file = self.html.as_ref().map(|file| format!("HTML page: {}\n", file.display()));
        let origin = self.archive.as_ref().map_or_else(|| format!("context: {}", self.context), ArchiveNote::line);
        page.push_str(&format!("\n{}{origin}\n", file.unwrap_or_default()));
        page
    }
}

/// Returns a key that sorts `GPU 2` before `GPU 10`.
fn natural(name: &str) -> (String, u32, String) {
    let (word, number) = name.rsplit_once(' ').unwrap_or((name, ""));
    (word.to_owned(), number.parse().unwrap_or(u32::MAX), number.to_owned())
}
