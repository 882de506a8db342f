//! What every tool that reads one node does: look at the node, probe it, conclude.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::diagnosis::{self, ClusterFacts, Diagnosis};
use syringe_core::report::{Problem, Report, Section, Source};
use syringe_core::text::clean;

use super::Call;
use crate::answer::ProbeNote;
use crate::cluster::{Connection, alone, node};
use crate::error::{Failure, Obstacle};
use crate::settings::Via;
use crate::syringe::{Beside, Order, Probed, none};

/// Time of a call that is kept for the removal of the pod.
pub(super) const KEPT_FOR_REMOVAL: Duration = Duration::from_secs(2);

/// Why a launcher that was told so puts no probe anywhere.
const NOT_WANTED: &str = "gpu-syringe was started with --via none";

/// A node that was read.
pub(crate) struct Read {
    pub(crate) report: Report,
    pub(crate) diagnosis: Diagnosis,
    pub(crate) note: ProbeNote,
}

/// A node that Kubernetes was asked about already.
pub(crate) struct KnownNode<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) kubernetes: &'a Node,
    /// UIDs of the pods that are on it, where they were asked for.
    pub(crate) live_pod_uids: Option<Vec<String>>,
    /// Time for the probe, the removal of its pod included.
    pub(crate) time: Duration,
}

/// What a probe is to read.
pub(crate) struct Ask {
    /// Words after `node-probe`.
    command: Vec<String>,
    /// The container that the question is about.
    beside: Option<Beside>,
}

impl From<Vec<String>> for Ask {
    fn from(command: Vec<String>) -> Self {
        Self { command, beside: None }
    }
}

impl Ask {
    /// Everything, with a look into one container.
    pub(super) fn everything_about(beside: Option<Beside>) -> Self {
        let command = vec!["all".to_owned()];
        Self { command: beside.as_ref().map_or(command.clone(), |beside| beside.looked_into(&command)), beside }
    }
}

/// Reads `node_name` with one probe that is asked for `ask`.
pub(super) async fn read(
    call: &Call,
    context: Option<&str>,
    node_name: &str,
    tool: &'static str,
    ask: impl Into<Ask>,
) -> Result<Read, Failure> {
    let what = format!("Looking at node {}", clean(node_name, 253));
    let connection = call.within(&what, call.contexts.connect(context)).await?;
    call.syringe.sweep_in_background(&connection);
    let kubernetes = call.within(&what, node::read(&connection, node_name)).await?;
    // What signing in and looking at the node took is gone from the call's time.
    let time = call.left();
    let known = KnownNode { connection: &connection, kubernetes: &kubernetes, live_pod_uids: None, time };
    let mut read = read_known(call, known, tool, ask).await?;
    if read.report.source == Source::Api {
        read.note.alone = Some(Box::new(alone::read(&connection, &kubernetes).await));
    }
    Ok(read)
}

/// The same for a node whose object is at hand. Where no probe may go everything is unknown; what else Kubernetes knows is
/// left to the caller.
pub(crate) async fn read_known(
    call: &Call,
    known: KnownNode<'_>,
    tool: &'static str,
    ask: impl Into<Ask>,
) -> Result<Read, Failure> {
    let KnownNode { connection, kubernetes, live_pod_uids, time } = known;
    if call.settings.via == Via::None {
        let next_step = "Start gpu-syringe with another --via to probe it.";
        return Ok(unprobed(connection, kubernetes, NOT_WANTED, next_step));
    }
    node::must_be_ready(kubernetes)?;
    let name = kubernetes.name_any();
    let Ask { command, beside } = ask.into();
    let deadline = time.saturating_sub(KEPT_FOR_REMOVAL);
    let order = Order { node: name.clone(), command, tool, beside, deadline };
    let probed = match probe(call, connection, order).await {
        Err(Failure { next_step, left_behind, obstacle: Some(Obstacle::Policy(who)), .. }) => {
            let mut read = unprobed(connection, kubernetes, &format!("{who} forbids it"), &next_step);
            (read.note.removed, read.note.left_behind) = (left_behind.is_none(), left_behind);
            return Ok(read);
        }
        probed => probed?,
    };
    let cluster = ClusterFacts { live_pod_uids, ..node::cluster_facts(kubernetes) };
    let note = ProbeNote::of_pod(&name, &connection.context, &probed);
    let diagnosis = diagnosis::diagnose(&probed.report, &cluster);
    Ok(Read { report: probed.report, diagnosis, note })
}

/// A node that no probe read: nothing of the hardware, and why.
fn unprobed(connection: &Connection, kubernetes: &Node, why: &str, next_step: &str) -> Read {
    let report = none::report(why, next_step);
    let diagnosis = diagnosis::diagnose(&report, &node::cluster_facts(kubernetes));
    let note = format!("no probe read this node: {}. {next_step}", why.trim_end_matches('.'));
    let note = ProbeNote::of_nothing(&kubernetes.name_any(), &connection.context, note);
    Read { report, diagnosis, note }
}

async fn probe(call: &Call, connection: &Connection, order: Order) -> Result<Probed, Failure> {
    let node = order.node.clone();
    let probed = call.syringe.probe(connection, order, call.on_phase.clone(), call.cancel.clone()).await?;
    if let Some(problem) = &probed.report.error {
        return Err(unusable(&node, problem).leaving(probed.left_behind));
    }
    Ok(probed)
}

/// The section of a report, or the failure that it could not be read at all; with what the probe left, if it did. Empty
/// where no probe ran: then the answer says so itself, and has what Kubernetes knows.
pub(super) fn section<T: Default>(note: &ProbeNote, name: &str, section: Option<Section<T>>) -> Result<T, Failure> {
    let ProbeNote { node, left_behind, .. } = note;
    data_of(node, name, section).map_err(|failure| failure.leaving(left_behind.clone()))
}

fn data_of<T: Default>(node: &str, name: &str, section: Option<Section<T>>) -> Result<T, Failure> {
    let missing = || Failure::new(format!("Reading {name} of node {node}"), "the probe did not report it", OLD_PROBE);
    let section = section.ok_or_else(missing)?;
    let problem = section.problems.into_iter().next();
    if problem.as_ref().is_some_and(|problem| problem.code == none::CODE) {
        return Ok(T::default());
    }
    section.data.ok_or_else(|| match problem {
        Some(problem) => unusable(node, &problem),
        None => missing(),
    })
}

const OLD_PROBE: &str = "The probe's image may be older than this launcher: name a newer one with --image.";

fn unusable(node: &str, problem: &Problem) -> Failure {
    let next = if problem.next_step.is_empty() { OLD_PROBE } else { &problem.next_step };
    Failure::new(format!("Reading {} of node {node}", problem.what), &problem.why, next)
}
