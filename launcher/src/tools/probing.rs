//! What every tool that reads one node does: look at the node, probe it, conclude.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use syringe_core::diagnosis::{self, ClusterFacts, Diagnosis};
use syringe_core::report::{Problem, Report, Section};

use super::Call;
use crate::answer::ProbeNote;
use crate::cluster::{Connection, node};
use crate::error::Failure;
use crate::syringe::Order;

/// Time of a call that is kept for the removal of the pod.
const KEPT_FOR_REMOVAL: Duration = Duration::from_secs(2);

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

/// Reads `node_name` with one probe that runs `node-probe` with `command`.
pub(super) async fn read(
    call: &Call,
    context: Option<&str>,
    node_name: &str,
    tool: &'static str,
    command: Vec<String>,
) -> Result<Read, Failure> {
    let began = Instant::now();
    let connection = call.contexts.connect(context).await?;
    call.syringe.sweep_in_background(&connection);
    let kubernetes = node::read(&connection, node_name).await?;
    // What signing in and looking at the node took is gone from the call's time.
    let time = call.settings.call_time().saturating_sub(began.elapsed());
    let known = KnownNode { connection: &connection, kubernetes: &kubernetes, live_pod_uids: None, time };
    read_known(call, known, tool, command).await
}

/// The same for a node whose object is at hand.
pub(crate) async fn read_known(
    call: &Call,
    known: KnownNode<'_>,
    tool: &'static str,
    command: Vec<String>,
) -> Result<Read, Failure> {
    let KnownNode { connection, kubernetes, live_pod_uids, time } = known;
    node::must_be_ready(kubernetes)?;
    let name = kubernetes.name_any();
    let order = Order { node: name.clone(), command, tool, deadline: time.saturating_sub(KEPT_FOR_REMOVAL) };
    let probed = call.syringe.probe(connection, order, call.on_phase.clone(), call.cancel.clone()).await?;
    if let Some(problem) = &probed.report.error {
        return Err(unusable(&name, problem).leaving(probed.left_behind));
    }
    let cluster = ClusterFacts { live_pod_uids, ..node::cluster_facts(kubernetes) };
    let note = ProbeNote::of_pod(&name, &connection.context, &probed);
    let diagnosis = diagnosis::diagnose(&probed.report, &cluster);
    Ok(Read { report: probed.report, diagnosis, note })
}

/// The section of a report, or the failure that it could not be read at all; with what the probe left, if it did.
pub(super) fn section<T>(note: &ProbeNote, name: &str, section: Option<Section<T>>) -> Result<T, Failure> {
    let ProbeNote { node, left_behind, .. } = note;
    data_of(node, name, section).map_err(|failure| failure.leaving(left_behind.clone()))
}

fn data_of<T>(node: &str, name: &str, section: Option<Section<T>>) -> Result<T, Failure> {
    let missing = || Failure::new(format!("Reading {name} of node {node}"), "the probe did not report it", OLD_PROBE);
    let section = section.ok_or_else(missing)?;
    let problem = section.problems.into_iter().next();
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
