//! `ProbeContext`: the request, settings, connection, deadline and cancellation of one probe.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audit_record::AuditRecord;
use crate::probe::lifecycle::launcher_session::LauncherSession;
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::lifecycle::pod_spec::{self, ProbePod};
use crate::probe::request::{OnPhase, Phase, ProbeRequest};
use crate::probe::result::ProbeResult;
use crate::settings::Settings;
use kube_read::Connection;
use kube_read::Failure;
use syringe_core::probe_command::ProbeCommand;

/// Minimum time for a command that queries NCCL or starts CUDA.
const SLOW_TIME: Duration = Duration::from_secs(13);

/// The context of one probe. Nothing cancels the task of the probe, which ends when all objects that it created are deleted.
pub(super) struct ProbeContext {
    pub(super) connection: Connection,
    pub(super) settings: Arc<Settings>,
    pub(super) session: LauncherSession,
    pub(super) request: ProbeRequest,
    pub(super) on_phase: OnPhase,
    /// This token is cancelled when the caller cancels the call.
    pub(super) cancel: CancellationToken,
    /// This token is cancelled when the program is exiting.
    pub(super) stop: CancellationToken,
    /// The time at which reading must be complete.
    pub(super) end: Instant,
    /// Receives the result if the pod is not yet deleted at the time `answer_by`.
    pub(super) early: Mutex<Option<oneshot::Sender<ProbeResult>>>,
    /// The time at which the caller gets the result that was read, even if the pod is still being deleted.
    pub(super) answer_by: Instant,
    /// The record for the audit log.
    pub(super) record: Arc<AuditRecord>,
    /// Objects that this call created or tried to create, and that have no line in the audit log yet.
    pub(super) begun: Mutex<Vec<OpenProbe>>,
    /// Whether the call changes the node. An action is not repeated and not interrupted.
    pub(super) is_action: bool,
    /// Notified when the API server has admitted the pod.
    pub(super) admitted: Notify,
    /// Whether an exec was accepted: its program ran or may have run.
    pub(super) accepted: AtomicBool,
    /// Whether the action may have been started on the node.
    pub(super) action_sent: AtomicBool,
    /// The image of the probe that is already on the node, if no image is set.
    pub(super) present_image: Option<String>,
    /// The base image that --via auto chose.
    pub(super) base_image: Option<String>,
    /// Methods that were not used, with the reason, one line each.
    pub(super) passed_over: Vec<String>,
    /// The reason why the process of the probe may stay on the node after its pod is deleted.
    pub(super) process_stays: OnceLock<&'static str>,
}

/// Returns the context, API server and user of a connection.
pub(super) fn cluster_of(connection: &Connection) -> String {
    format!("{} {} {}", connection.context, connection.server, connection.user.as_deref().unwrap_or_default())
}

impl ProbeContext {
    /// Returns the pod for a method that creates a pod.
    pub(super) fn pod(&self) -> Result<ProbePod, Failure> {
        let ProbeRequest { node, tool, .. } = &self.request;
        let pod = ProbePod::new(&self.settings, &self.session.identity, node, tool)?
            .with_annotations(self.record.annotations());
        let pod = match &self.present_image {
            Some(image) => pod.with_present_image(image),
            None => pod,
        };
        Ok(if self.is_for_actions() { pod.running(pod_spec::hold(&self.settings, true)) } else { pod })
    }

    /// Returns the command for the time that is left. NCCL and the start of CUDA need up to 12 s, so they are left out if the
    /// report cannot wait for them.
    pub(super) fn command(&self) -> ProbeCommand {
        let left = self.end.saturating_duration_since(Instant::now());
        if left >= SLOW_TIME { self.request.command.clone() } else { self.request.command.clone().without_slow_parts() }
    }

    /// Returns whether the command needs operator mode, as actions and plans of actions do.
    pub(super) fn is_for_actions(&self) -> bool {
        self.request.command.is_for_actions()
    }

    /// Returns the entry for the open probes: a pod, or an ephemeral container in a pod.
    pub(super) fn open_probe(&self, namespace: &str, pod: &str, container: Option<&str>) -> OpenProbe {
        OpenProbe {
            server: self.connection.server.clone(),
            context: self.connection.context.clone(),
            node: self.request.node.clone(),
            tool: self.request.tool.to_owned(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.map(str::to_owned),
            lifetime_seconds: self.settings.probe_lifetime().as_secs(),
            is_action: self.is_action,
        }
    }

    /// Records a probe before the request that creates its pod or container.
    pub(super) async fn begin(&self, open: OpenProbe) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(open.clone());
        self.session.begin(open).await;
    }

    /// Leaves a probe to a background task, which writes the last audit line of the probe.
    pub(super) fn leave_to_background(&self, open: &OpenProbe) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| one != open);
    }

    /// Returns the objects that this call created or tried to create.
    pub(super) fn begun(&self) -> Vec<OpenProbe> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the entries of this call after their audit lines are written.
    pub(super) async fn close(&self) {
        let begun = std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner));
        for open in &begun {
            self.session.close(open).await;
        }
    }

    /// Records that the process of the probe had not exited when its pod was deleted.
    pub(super) fn note_process_stays(&self, why: &'static str) {
        let _ = self.process_stays.set(why);
    }

    /// Describes the process that may stay on the node, and how to find it.
    pub(super) fn process_left(&self) -> Option<String> {
        let (why, node) = (self.process_stays.get()?, &self.request.node);
        Some(format!(
            "node-probe on node {node} {why}. The kubelet kills it with its container, but a process that waits in the \
             driver stays until the driver responds or the node is rebooted. To look for the process, run on the node: \
             ps -eo pid,stat,etime,args | grep node-probe"
        ))
    }

    /// Gives the caller a result before the pod is deleted.
    pub(super) fn answer_early(&self, result: ProbeResult) {
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(early) = early {
            // If the caller gave up, there is no receiver.
            drop(early.send(result));
        }
    }

    /// Reports a phase to the caller. A panic of the callback must not leave a pod behind.
    pub(super) fn report(&self, phase: Phase) {
        let reported = catch_unwind(AssertUnwindSafe(|| (self.on_phase)(phase)));
        if reported.is_err() {
            tracing::error!(?phase, "the callback for a phase panicked");
        }
    }

    /// Returns the context, API server and user.
    pub(super) fn cluster(&self) -> String {
        cluster_of(&self.connection)
    }

    /// Extends the deadlines by the time for the upload of node-probe.
    pub(super) fn add_upload_time(&mut self) {
        self.end += self.request.upload_time;
        self.answer_by += self.request.upload_time;
    }

    /// Returns the API of the pods in a namespace.
    pub(super) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.connection.client.clone(), namespace)
    }

    /// Returns whether the call was cancelled or the program is exiting.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled() || self.stop.is_cancelled()
    }

    /// Returns whether the probe may run again in another pod: it only reads, and no exec was accepted.
    pub(super) fn may_retry_with_another_pod(&self) -> bool {
        !self.is_action && !self.accepted.load(Ordering::Relaxed)
    }

    /// Returns the failure of a probe that ran out of time.
    pub(super) fn out_of_time(&self, why: &str) -> Failure {
        Failure::new(
            format!("Probing node {}", self.request.node),
            why,
            "Check the kubelet of the node and the events of the pod, or raise --start-timeout and --call-timeout.",
        )
    }

    /// Returns the failure of a probe whose code panicked.
    pub(super) fn panicked(&self) -> Failure {
        let what = format!("Probing node {}", self.request.node);
        Failure::new(what, "gpu-syringe panicked", "This is a defect of gpu-syringe: please report it with the log.")
    }

    /// Returns the failure of a probe whose pod could not be read and that gave no response.
    pub(super) fn lost_contact(&self, why: &str) -> Failure {
        let server = &self.connection.server;
        Failure::new(
            format!("Probing node {} through {server}", self.request.node),
            format!("the connection failed, so it is unknown whether the probe ran: {why}"),
            format!("Check that {server} can be reached from this machine (VPN, proxy, firewall), and try again."),
        )
    }

    /// Returns the failure of a probe whose deadline passed while this computer was suspended.
    pub(super) fn suspended(&self, slept: Duration) -> Failure {
        let (outcome, next) = if self.is_action && self.accepted.load(Ordering::Relaxed) {
            ("; the action may have been done", "Check the node (diagnose_gpu_node) before the next step.")
        } else {
            ("", "Call again.")
        };
        Failure::new(
            format!("Probing node {}", self.request.node),
            format!(
                "the deadline of the call passed while this computer was suspended for {} s, or its clock was set{outcome}",
                slept.as_secs()
            ),
            next,
        )
    }

    pub(super) fn stopped(&self) -> Failure {
        // On the command line, both tokens are cancelled when the program exits.
        let why = if self.stop.is_cancelled() { "gpu-syringe was interrupted" } else { "cancelled by the caller" };
        Failure::new(format!("Probing node {}", self.request.node), why, "Call again to get the answer.")
    }
}
