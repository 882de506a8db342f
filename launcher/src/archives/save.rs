//! `SaveArgs`, `save`: the command `gpu-syringe save`, which writes reports of nodes and Kubernetes objects into an
//! archive. `Saved`: its answer.

use std::collections::BTreeSet;
use std::mem::take;
use std::path::PathBuf;
use std::time::Duration;

use archive::{Archive, ContainerLog, SavedNode};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube_read::objects::label_selector::LabelSelector;
use kube_read::objects::nvidia_components::PodIdentity;
use kube_read::objects::pod_facts;
use kube_read::reads::existing_pods::ExistingPods;
use kube_read::reads::{daemon_sets, pod_log, saved_objects};
use kube_read::{Connection, Failure};
use serde::Serialize;
use serde_json::{Value, json};
use syringe_core::probe_command::ReadCommand;
use syringe_core::report::{Section, Source};
use syringe_core::text::clean;
use tokio::time::Instant;

use crate::audit::{AuditEvent, AuditLine};
use crate::call::CallContext;
use crate::fleet::{SelectedNodes, select_nodes};
use crate::node_reading::read_node::{self, NodeToRead};
use crate::outcome::Outcome;
use crate::output_file;
use crate::probe::{MANAGED_BY, Phase};
use crate::terminal::page::Page;
use crate::tools::node_name;

/// Time for the lists of objects and for writing the file.
const TIME_FOR_OBJECTS: Duration = Duration::from_secs(120);

/// Kinds that a user may be unable to list with the permissions of `gpu-syringe setup`, or of an earlier version of it.
/// An archive without them is complete, because answers from the cluster lack them, too. Without a permission, the API
/// server refuses the list even if the cluster does not have the kind.
const OPTIONAL: [&str; 4] = ["leases", "nodeclaims", "machines", "computedomains"];

/// The option that names the file.
const FILE_OPTION: &str = "-f";

/// The start of the message about a node that was saved without its kernel log and the files of the driver.
const NO_RAW: &str = "the records of the kernel log and the files of the driver were not read: ";

#[derive(clap::Args, Debug)]
pub(crate) struct SaveArgs {
    /// Nodes to save, or `all`; by default all GPU nodes
    #[arg(value_name = "NODE", value_parser = node_name)]
    save_nodes: Vec<String>,
    /// Only nodes with these labels
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR", conflicts_with = "save_nodes")]
    save_selector: Option<LabelSelector>,
    /// File to write; by default gpu-syringe-CONTEXT-TIME.tar.gz in this folder
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Replace names, identifiers, network addresses and command lines by pseudonyms, and leave out the raw kernel log
    #[arg(long)]
    redact: bool,
}

/// The archive that was written.
#[derive(Debug, Serialize)]
pub(crate) struct Saved {
    file: PathBuf,
    bytes: u64,
    redacted: bool,
    /// The names of the nodes that were read.
    nodes: Vec<String>,
    /// What could not be read, with the reason.
    unread: Vec<String>,
    #[serde(skip)]
    is_complete: bool,
}

impl Saved {
    pub(crate) fn names(&self) -> Vec<String> {
        vec![self.file.display().to_string()]
    }

    pub(crate) fn page(&self) -> Page {
        let Self { file, bytes, redacted, nodes, unread, is_complete: _ } = self;
        let redacted = if *redacted { ", with pseudonyms" } else { "" };
        let mut text = format!("{}: {} nodes, {} KiB{redacted}\n", file.display(), nodes.len(), bytes.div_ceil(1024));
        unread.iter().for_each(|line| text.push_str(&format!("not read: {line}\n")));
        let first = nodes.first().map_or("NODE", String::as_str);
        text.push_str(&format!("To read it: gpu-syringe --from {} diagnose {first}\n", file.display()));
        Page::from(text)
    }

    /// An archive is incomplete if a requested part could not be read.
    pub(crate) fn outcome(&self) -> Outcome {
        if self.is_complete { Outcome::NothingFound } else { Outcome::Unknown }
    }
}

/// Saves the nodes that the arguments select.
pub(crate) async fn save(call: CallContext, args: SaveArgs) -> Result<Saved, Failure> {
    let SaveArgs { save_nodes: names, save_selector: selector, file, force, redact } = args;
    // The file is checked first, so that no node is probed if the archive cannot be written.
    file.as_deref().map_or(Ok(()), |file| output_file::check_free(file, force, FILE_OPTION))?;
    let call = CallContext { end: Instant::now() + TIME_FOR_OBJECTS, ..call };
    let connection = call.with_deadline("Saving nodes", call.contexts.connect(None)).await?;
    let taken_at = connection.now();
    let selecting = select_nodes(&call, &connection, "Saving nodes", &names, selector.as_deref());
    // `only` is the selection of nodes. The objects of all nodes are saved if it is absent.
    let SelectedNodes { nodes: found, only } = selecting.await?;
    let taken_at = connection.clock.now().unwrap_or(taken_at);
    let mut archive = Archive::default();
    archive.manifest.taken_at = taken_at;
    archive.manifest.context.clone_from(&connection.context);
    let version = call.with_deadline("Reading the version", async {
        let version = connection.client.apiserver_version().await;
        Ok(version.map(|info| info.git_version).unwrap_or_default())
    });
    archive.manifest.kubernetes_version = version.await?;
    let nodes_failed = read_nodes(&call, &connection, &found, &mut archive).await;
    let logs = read_objects(&call, &connection, only.as_ref(), &mut archive).await?;
    archive.logs = logs;
    let mut unread: Vec<_> = archive.manifest.unread.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
    let is_complete =
        nodes_failed.is_empty() && archive.manifest.unread.keys().all(|kind| OPTIONAL.contains(&kind.as_str()));
    let partly = archive.manifest.nodes.iter().filter(|entry| entry.folder.is_some());
    let partly = partly.filter_map(|entry| Some(format!("node {}: {}", entry.name, entry.unread.as_ref()?)));
    unread.splice(0..0, nodes_failed.into_iter().chain(partly));
    let names_read: Vec<_> = archive.nodes.keys().cloned().collect();
    if redact {
        archive::redact(&mut archive).map_err(|error| {
            Failure::new("Redacting the archive", error, "This is a defect of gpu-syringe: please report it.")
        })?;
    }
    let file = file.unwrap_or_else(|| {
        let context: String =
            connection.context.chars().filter(|letter| letter.is_ascii_alphanumeric()).take(40).collect();
        let context = if redact { "redacted".to_owned() } else { context };
        PathBuf::from(format!("gpu-syringe-{context}-{}.tar.gz", taken_at.strftime("%Y%m%dT%H%M%SZ")))
    });
    let bytes = output_file::write(&file, force, FILE_OPTION, |file| archive.write(std::io::BufWriter::new(file)))?;
    let line = AuditLine {
        event: AuditEvent::Saved,
        context: connection.context.clone(),
        server: connection.server.clone(),
        user: connection.user.clone(),
        tool: "save".to_owned(),
        arguments: json!({"file": file, "bytes": bytes, "redacted": redact, "nodes": names_read}),
        outcome: Some(format!("{} nodes in {}", names_read.len(), clean(&file.display().to_string(), 200))),
        ..AuditLine::default()
    };
    call.prober.audit().append_or_warn(line).await;
    let nodes = archive.nodes.into_keys().collect();
    Ok(Saved { file, bytes, redacted: redact, nodes, unread, is_complete })
}

/// Probes the nodes, and adds their reports. Returns what could not be read.
async fn read_nodes(call: &CallContext, connection: &Connection, found: &[Node], archive: &mut Archive) -> Vec<String> {
    let total = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let at_once = usize::from(call.settings.nodes_at_once());
    let quiet = CallContext { on_phase: std::sync::Arc::new(|_| ()), ..call.clone() };
    let daemon_sets = daemon_sets::list(connection, call.settings.node_time()).await;
    let (quiet, daemon_sets) = (&quiet, &daemon_sets);
    let mut reads = stream::iter(found)
        .map(|node| async move { (node.name_any(), read_one(quiet, connection, node, daemon_sets).await) })
        .buffered(at_once);
    let mut failed = Vec::new();
    let mut done = 0;
    while let Some((name, read)) = reads.next().await {
        match read {
            Ok((node, unread)) => archive.add_node(&name, node, unread),
            Err(why) => {
                failed.push(format!("node {name}: {why}"));
                archive.add_unread_node(&name, why);
            }
        }
        done += 1;
        (call.on_phase)(Phase::Nodes { done, total });
    }
    failed
}

/// Reads a node. The second value is the reason why the raw kernel log and the files were not read, or `None`.
async fn read_one(
    call: &CallContext,
    connection: &Connection,
    node: &Node,
    daemon_sets: &Result<Vec<kube_read::objects::daemon_sets::DaemonSet>, Failure>,
) -> Result<(SavedNode, Option<String>), String> {
    let may_read_raw = call.settings.may_read_raw_log();
    let why = match read_with(call, connection, node, daemon_sets, may_read_raw).await {
        Ok((read, complete)) => {
            let missing = match (may_read_raw, complete) {
                (false, _) => Some("--via logs"),
                (true, false) => Some("the report was too large or too late, or a GPU was being reset"),
                (true, true) => None,
            };
            return Ok((read, missing.map(|why| NO_RAW.to_owned() + why)));
        }
        Err(why) if !may_read_raw || !why.is_refusal => return Err(why.text),
        Err(why) => why.text,
    };
    // The admission policy of an older version rejects the command that reads the raw kernel log.
    match read_with(call, connection, node, daemon_sets, false).await {
        Ok((read, _)) => Ok((read, Some(NO_RAW.to_owned() + &clean(&why, 400)))),
        Err(why) => Err(why.text),
    }
}

/// The reason why a node was not read.
struct NotRead {
    text: String,
    /// Whether the cluster denied the probe.
    is_refusal: bool,
}

/// Reads a node. The second value is whether the raw kernel log and the files of the driver were read.
async fn read_with(
    call: &CallContext,
    connection: &Connection,
    node: &Node,
    daemon_sets: &Result<Vec<kube_read::objects::daemon_sets::DaemonSet>, Failure>,
    raw_log: bool,
) -> Result<(SavedNode, bool), NotRead> {
    let (name, time) = (node.name_any(), call.settings.node_time());
    let pods = ExistingPods::on_node(connection, &name, time).await;
    let known = NodeToRead { time, ..NodeToRead::new(call, connection, node, Some(pods), Some(daemon_sets)) };
    let call = CallContext { end: Instant::now() + time, ..call.clone() };
    let command = ReadCommand { raw_log, ..ReadCommand::everything() };
    let read = read_node::read_with_object(&call, known, "save", command).await;
    let mut report = read.map_err(|failure| NotRead {
        text: format!("{}: {}", failure.what, failure.why),
        is_refusal: failure.cause.is_refusal(),
    })?;
    if report.report.source == Source::Api {
        let text = report.note.why_unread();
        return Err(NotRead { text, is_refusal: true });
    }
    // The files of the driver exist only on a node with GPUs.
    let host = Section::data_of(&report.report.sections.host);
    let has_gpus = host.is_some_and(|host| !host.pci_gpus.is_empty());
    let (kernel_log, files) = (take(&mut report.report.kernel_log), take(&mut report.report.raw_files));
    let complete = !kernel_log.is_empty() && (!files.is_empty() || !has_gpus);
    let kernel_log = kernel_log.iter().flat_map(|line| [line.as_bytes(), b"\n"]).flatten().copied().collect();
    // A report has strings, numbers, lists and maps with string keys, so writing it to memory cannot fail.
    Ok((SavedNode { report: serde_json::to_vec(&report.report).unwrap_or_default(), kernel_log, files }, complete))
}

/// Adds the Kubernetes objects, and returns the logs of NVIDIA's containers that fail.
async fn read_objects(
    call: &CallContext,
    connection: &Connection,
    only: Option<&BTreeSet<String>>,
    archive: &mut Archive,
) -> Result<Vec<ContainerLog>, Failure> {
    let call = CallContext { end: Instant::now() + TIME_FOR_OBJECTS, ..call.clone() };
    let listing = async { Ok(saved_objects::read(connection, only).await) };
    let mut objects = call.with_deadline("Listing the objects of the cluster", listing).await?;
    let mut logs = Vec::new();
    if let Some(pods) = objects.lists.get_mut("pods") {
        pods.retain(|pod| pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] != MANAGED_BY);
        let failing: Vec<_> = pods.iter().filter_map(failing_component).collect();
        for (namespace, pod, container, previous) in failing {
            let Some(lines) = pod_log::tail(connection, &namespace, &pod, &container, previous).await else { continue };
            logs.push(ContainerLog { namespace, pod, container, text: lines.join("\n") + "\n" });
        }
    }
    for (kind, list) in objects.lists {
        archive.objects.insert(kind.to_owned(), serde_json::to_vec(&list).unwrap_or_default());
    }
    archive.manifest.unread =
        objects.unread.into_iter().map(|(kind, why)| (kind.to_owned(), clean(&why, 400))).collect();
    Ok(logs)
}

/// Returns namespace, pod and container of a failed container of NVIDIA's software, and whether the container was
/// restarted.
fn failing_component(pod: &Value) -> Option<(String, String, String, bool)> {
    let pod: Pod = serde_json::from_value(pod.clone()).ok()?;
    if !PodIdentity::from(&pod).is_nvidia_component() {
        return None;
    }
    let facts = pod_facts::from_pod(&pod);
    let end = facts.end().filter(|end| end.exit_code != 0 && !end.never_ran())?;
    Some((facts.namespace.clone(), facts.name.clone(), end.container.to_owned(), end.was_restarted))
}
