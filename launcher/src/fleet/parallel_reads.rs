//! `ParallelReads`: reads many nodes, a limited number in parallel, with a deadline for each node and for the call.
//! `NodeOutcome`: the result for one node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use tokio::time::{Instant, timeout_at};

use crate::call::CallContext;
use crate::node_reading::read_node;
use crate::node_reading::read_node::{NodeReading, NodeToRead};
use crate::probe::Phase;
use crate::settings::ProbeMethod;
use kube_read::Connection;
use kube_read::Failure;
use kube_read::failure::Cause;
use kube_read::objects::daemon_sets::DaemonSet;
use kube_read::objects::node_conditions::is_ready;
use kube_read::reads::existing_pods::ExistingPods;
use syringe_core::probe_command::{PodUid, ReadCommand};

/// Additional time for a node if node-probe is uploaded to it: 4 MB at 130 kB/s.
const UPLOAD_TIME: Duration = Duration::from_secs(30);
/// Time of the call that is reserved for building the answer.
const RESERVED_FOR_ANSWER: Duration = Duration::from_secs(1);
/// If less time than this is left, no further pod is created, because it would be deleted before it could respond.
const MIN_TIME: Duration = Duration::from_secs(3);

/// The result for one node.
pub(crate) enum NodeOutcome<R> {
    /// The node was read.
    Read(R),
    /// Reading the node failed, but the Kubernetes API reports problems of the node.
    Unprobed(R, Failure),
    /// Reading the node failed.
    Failed(Failure),
    /// The node was skipped, for this reason.
    Skipped(String),
    /// The node was not tried within the time of the call.
    NotReached,
}

impl<R> NodeOutcome<R> {
    /// Returns whether the cause may be that the command or a field of the pod was rejected. `is_unread`: whether no
    /// probe ran.
    pub(crate) fn may_be_refused(&self, is_unread: impl Fn(&R) -> bool) -> bool {
        match self {
            Self::Read(read) => is_unread(read),
            Self::Unprobed(_, failure) | Self::Failed(failure) => {
                failure.cause.is_refusal() || matches!(failure.cause, Cause::Usage)
            }
            Self::Skipped(_) | Self::NotReached => false,
        }
    }

    /// Returns whether there is no report of the node, although a probe was tried. `is_unread`: whether no probe ran.
    pub(crate) fn is_without_report(&self, is_unread: impl Fn(&R) -> bool) -> bool {
        match self {
            Self::Read(read) => is_unread(read),
            Self::Unprobed(..) | Self::Failed(_) => true,
            Self::Skipped(_) | Self::NotReached => false,
        }
    }

    /// Returns whether the read failed for a reason that applies to every node.
    fn applies_to_cluster(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.cause.is_cluster_wide())
    }
}

/// The nodes of one call, and how to read them.
pub(crate) struct ParallelReads<'a> {
    pub(crate) call: &'a CallContext,
    pub(crate) connection: &'a Connection,
    pub(crate) tool: &'static str,
    pub(crate) command: &'a ReadCommand,
    /// The DaemonSets of the cluster. They are listed once for all nodes.
    pub(crate) daemon_sets: Option<&'a Result<Vec<DaemonSet>, Failure>>,
    /// The nodes on which the probe also queries NCCL in a pod.
    pub(crate) ask_nccl: &'a BTreeMap<String, PodUid>,
}

impl ParallelReads<'_> {
    /// Reads `nodes` in their order and passes each report to `summarise`, so that a thousand reports are never in
    /// memory at the same time.
    pub(crate) async fn run<R>(
        &self,
        nodes: Vec<Node>,
        summarise: impl Fn(&Node, NodeReading) -> R + Copy,
    ) -> Vec<(String, NodeOutcome<R>)> {
        let total = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let mut outcomes: Vec<(String, NodeOutcome<R>)> = Vec::new();
        let on_phase = &self.call.on_phase;
        // The phases of concurrent probes would be mixed. Instead, the caller gets the number of nodes that were read.
        let quiet = CallContext { on_phase: std::sync::Arc::new(|_| ()), ..self.call.clone() };
        let quiet = &quiet;
        let at_once = usize::from(self.call.settings.nodes_at_once());
        let every_node_fails = &AtomicBool::new(false);
        let mut visits = stream::iter(nodes)
            .map(|node| async move {
                if every_node_fails.load(Ordering::Relaxed) {
                    return (node.name_any(), NodeOutcome::NotReached);
                }
                let outcome = self.one(quiet, &node, summarise).await;
                (node.name_any(), outcome)
            })
            .buffer_unordered(at_once);
        while let Some(outcome) = visits.next().await {
            outcomes.push(outcome);
            let done = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
            on_phase(Phase::Nodes { done, total });
            // Stop early if every node fails, for example because of a missing permission or an image that cannot be pulled.
            if outcomes.len() == at_once.max(3) && outcomes.iter().all(|(_, outcome)| outcome.applies_to_cluster()) {
                every_node_fails.store(true, Ordering::Relaxed);
            }
        }
        outcomes
    }

    async fn one<R>(
        &self,
        quiet: &CallContext,
        node: &Node,
        summarise: impl Fn(&Node, NodeReading) -> R,
    ) -> NodeOutcome<R> {
        let settings = &self.call.settings;
        let end = self.call.end - RESERVED_FOR_ANSWER;
        let left = end.saturating_duration_since(Instant::now());
        if left < MIN_TIME || self.call.cancel.is_cancelled() {
            return NodeOutcome::NotReached;
        }
        if settings.via != ProbeMethod::None
            && let Err(refusal) = settings.check_node_allowed(node)
        {
            return NodeOutcome::Skipped(refusal.why);
        }
        let (failure_backoff, server, name) = (&self.call.failure_backoff, &self.connection.server, node.name_any());
        if let Some(reason) = failure_backoff.skip_reason(server, &name, Instant::now()) {
            return NodeOutcome::Skipped(reason);
        }
        let time = settings.node_time().min(left);
        let upload_time = UPLOAD_TIME.min(left - time);
        let connection = self.connection;
        // The pods are listed as in a call about one node. Without the pods, this call would have fewer findings.
        let probed = settings.via != ProbeMethod::None && is_ready(node) && self.command.is_of_everything();
        let existing_pods = match probed {
            true => Some(ExistingPods::on_node(connection, &name, time).await),
            false => None,
        };
        let daemon_sets = self.daemon_sets.filter(|_| probed);
        let known = NodeToRead { connection, kubernetes: node, existing_pods, daemon_sets, time, upload_time };
        let command = ReadCommand { nccl_ras: self.ask_nccl.get(&name).cloned(), ..self.command.clone() };
        let read = read_node::read_or_refused(quiet, known, self.tool, command);
        // The probe task continues until its pod is deleted, even if nobody waits for it.
        let read = match timeout_at(end, read).await {
            Ok(read) => read,
            Err(_) => Err(Failure::new(
                format!("Reading node {name}"),
                "the time of the call ended while the probe pod of the node was being deleted",
                "Read this node in a separate call.",
            )
            .leaving(Some(format!(
                "the probe pod of node {name} in namespace {} may still exist: its deletion was in progress when the time ended, \
                 and continues; the next call or gpu-syringe sweep deletes what is left",
                settings.probe_namespace
            )))),
        };
        if read.is_ok() {
            failure_backoff.record_result(server, &name, None);
        }
        let left = end.saturating_duration_since(Instant::now());
        let read = match self.command.is_of_everything() && left >= MIN_TIME {
            true => read_node::with_kubernetes(connection, node, self.daemon_sets, None, read, left).await,
            false => read.map(|read| (read, None)),
        };
        match read {
            Ok((read, None)) => NodeOutcome::Read(summarise(node, read)),
            Ok((read, Some(failure))) => NodeOutcome::Unprobed(summarise(node, read), failure),
            Err(failure) => {
                // A failure because no method is available does not count: it takes no time, and a method may be
                // available a moment later.
                let is_fault = !matches!(failure.cause, Cause::NoMethod { .. });
                if is_fault && !self.call.cancel.is_cancelled() && is_ready(node) {
                    failure_backoff.record_result(server, &name, Some(&failure.why));
                }
                NodeOutcome::Failed(failure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise, the processes of a job could hide their node, because their response to the NCCL query could end the
    /// probe.
    #[test]
    fn a_node_without_a_report_is_read_again_after_any_failure() {
        let failure = || Failure::new("Probing", "the container was ended (OOMKilled)", "");
        for (outcome, again) in [
            (NodeOutcome::Failed(failure()), true),
            (NodeOutcome::Unprobed(false, failure()), true),
            (NodeOutcome::Read(true), true),
            (NodeOutcome::Read(false), false),
            (NodeOutcome::Skipped(String::new()), false),
            (NodeOutcome::NotReached, false),
        ] {
            assert_eq!(outcome.is_without_report(|is_unread| *is_unread), again);
        }
    }
}
