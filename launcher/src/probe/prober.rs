//! `Prober`: starts each probe and action as a task that nothing cancels, cleans up after earlier launchers, and waits
//! for all tasks when the program exits.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::audit_record::{ActionDetails, AuditRecord};
use super::probe_context::ProbeContext;
use super::probe_slots::ProbeSlots;
use crate::audit::{AuditEvent, AuditLine, AuditLog};
use crate::probe::choose::dispatch::{ProberCache, run_probe};
use crate::probe::lifecycle::late::LATE_TIME_AT_END;
use crate::probe::lifecycle::launcher_identity::LauncherIdentity;
use crate::probe::lifecycle::launcher_session::LauncherSession;
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::lifecycle::sweep;
use crate::probe::lifecycle::sweep::SweepResult;
use crate::probe::lifecycle::{delete_pod, pod_lifecycle};
use crate::probe::request::{OnPhase, ProbeRequest};
use crate::probe::result::ProbeResult;
use crate::settings::Settings;
use kube_read::Connection;
use kube_read::Failure;

/// Maximum time that an exiting program waits for pods: the creation of a pod, the search for a pod whose creation was
/// not answered, and the deletion with all retries. The rest of the time is for an ephemeral container, which takes
/// more steps to stop.
pub(crate) const SETTLE_TIME: Duration = pod_lifecycle::CREATE_TIME
    .saturating_add(delete_pod::REMOVAL_TIME)
    .saturating_add(LATE_TIME_AT_END)
    .saturating_add(SLACK);
/// Maximum time for the deletion of a pod after the deadline of its probe. After this time, the caller gets the result
/// that was read.
const DELETION_TIME: Duration = Duration::from_millis(1500);
/// Additional time for an ephemeral container: see [`SETTLE_TIME`].
const SLACK: Duration = Duration::from_secs(10);

/// Creates probes, and makes sure that each probe is deleted.
#[derive(Clone)]
pub struct Prober {
    settings: Arc<Settings>,
    cache: Arc<ProberCache>,
    slots: Arc<ProbeSlots>,
    session: LauncherSession,
}

impl Prober {
    /// Returns a prober with these settings. `stop` cancels every probe that only reads, and the pods of these probes
    /// are deleted at once. An action continues.
    pub fn new(settings: Arc<Settings>, stop: CancellationToken) -> Self {
        Self {
            slots: Arc::new(ProbeSlots::new(settings.probes_in_flight())),
            cache: Arc::default(),
            session: LauncherSession {
                identity: Arc::new(LauncherIdentity::start_session()),
                open: Arc::default(),
                tasks: TaskTracker::new(),
                stop,
                audit: Arc::new(AuditLog::in_state_dir(&settings)),
            },
            settings,
        }
    }

    /// Deletes the file of this session. The process may exit before the last clone of the prober is dropped.
    pub fn end_session(&self) {
        self.session.identity.end();
    }

    /// Replaces the audit log.
    pub fn with_audit(self, audit: AuditLog) -> Self {
        let session = LauncherSession { audit: Arc::new(audit), ..self.session };
        Self { session, ..self }
    }

    /// Replaces the directory of the session file.
    #[cfg(test)]
    pub(super) fn with_session_in(self, directory: std::path::PathBuf) -> Self {
        let identity = Arc::new(LauncherIdentity::start_session_in(Some(directory), "test"));
        let session = LauncherSession { identity, ..self.session };
        Self { session, ..self }
    }

    pub fn audit(&self) -> &AuditLog {
        &self.session.audit
    }

    /// Reads a node.
    ///
    /// # Errors
    /// Fails if the probe fails or `cancel` is cancelled. The pod is deleted in every case.
    pub async fn probe(
        &self,
        connection: &Connection,
        request: ProbeRequest,
        on_phase: OnPhase,
        cancel: CancellationToken,
    ) -> Result<ProbeResult, Failure> {
        let record =
            AuditRecord::new(self.session.audit.clone(), connection, &self.settings.probe_namespace, &request, None);
        let context = self.reading_context(connection, request, on_phase, record);
        self.spawn(ProbeContext { cancel, ..context }).await
    }

    /// Returns the context of a probe that only reads. Only the exit of the program cancels the probe.
    fn reading_context(
        &self,
        connection: &Connection,
        request: ProbeRequest,
        on_phase: OnPhase,
        record: AuditRecord,
    ) -> ProbeContext {
        ProbeContext {
            connection: connection.clone(),
            settings: self.settings.clone(),
            session: self.session.clone(),
            end: Instant::now() + request.deadline,
            answer_by: Instant::now() + request.deadline + DELETION_TIME,
            early: Mutex::default(),
            request,
            on_phase,
            cancel: CancellationToken::new(),
            stop: self.session.stop.clone(),
            record: Arc::new(record),
            begun: Mutex::default(),
            is_action: false,
            admitted: Notify::new(),
            accepted: AtomicBool::new(false),
            action_sent: AtomicBool::new(false),
            present_image: None,
            base_image: None,
            passed_over: Vec::new(),
            process_stays: OnceLock::new(),
        }
    }

    /// Returns the context of a probe in a test.
    #[cfg(test)]
    pub(super) fn test_context(&self, connection: &Connection, request: ProbeRequest) -> ProbeContext {
        let record =
            AuditRecord::new(self.session.audit.clone(), connection, &self.settings.probe_namespace, &request, None);
        self.reading_context(connection, request, Arc::new(|_| ()), record)
    }

    /// Changes a node. Works like [`Self::probe`], but starts only after a line is in the audit log. An action
    /// continues if the caller gives up or the program exits, because an interrupted reset is worse than a late reset.
    pub(crate) async fn act(
        &self,
        connection: &Connection,
        request: ProbeRequest,
        on_phase: OnPhase,
        note: ActionDetails,
    ) -> Result<ProbeResult, Failure> {
        let settings = Arc::new(self.settings.with_call_time(request.deadline));
        let record =
            AuditRecord::new(self.session.audit.clone(), connection, &settings.probe_namespace, &request, Some(note));
        // The token is taken before `stop` is checked, so that a shutdown that begins later waits for this action.
        let _held = self.session.tasks.token();
        if self.session.stop.is_cancelled() {
            return Err(Failure::new("The action", "gpu-syringe is shutting down", "Restart gpu-syringe and retry."));
        }
        record.action_starts().await?;
        let context = self.reading_context(connection, request, on_phase, record);
        self.spawn(ProbeContext { settings, stop: CancellationToken::new(), is_action: true, ..context }).await
    }

    async fn spawn(&self, context: ProbeContext) -> Result<ProbeResult, Failure> {
        let cache = self.cache.clone();
        let (early, early_result) = oneshot::channel();
        let context = ProbeContext { early: Mutex::new(Some(early)), ..context };
        let connection = context.connection.clone();
        let mut task = self.session.tasks.spawn(run_probe(context, cache.clone(), self.slots.clone()));
        let ended = tokio::select! {
            ended = &mut task => ended,
            // The task continues until the pod is deleted.
            Ok(result) = early_result => return Ok(cache.with_new_lines(&connection, result)),
        };
        let ended = ended.map(|result| result.map(|result| cache.with_new_lines(&connection, result)));
        // A join error is a panic outside the steps of the probe. It becomes a failure of this call, not of the server.
        ended.unwrap_or_else(|panic| {
            Err(Failure::new("The call", panic, "This is a defect of gpu-syringe: please report it."))
        })
    }

    /// Cleans up after earlier launchers: deletes expired pods and pods of exited launchers in the namespace, and stops
    /// ephemeral containers.
    pub async fn sweep(&self, connection: &Connection) -> Result<SweepResult, Failure> {
        let of_pods = sweep::sweep(connection, &self.settings.probe_namespace, &self.session).await;
        // Ended sessions are cleaned up even if the user may not list the pods of the namespace.
        let mut swept = of_pods.as_ref().cloned().unwrap_or_default();
        sweep::sweep_ended_sessions(connection, &self.settings, &self.session, &mut swept).await;
        of_pods.map(|_| swept)
    }

    /// Cleans up in the background. The program waits for this task before it exits.
    pub fn sweep_in_background(&self, connection: &Connection) {
        let (prober, connection) = (self.clone(), connection.clone());
        self.session.tasks.spawn(async move {
            match prober.sweep(&connection).await {
                Ok(swept) if !swept.deleted.is_empty() => {
                    tracing::info!(pods = ?swept.deleted, "cleaned up probe pods that an earlier launcher left behind");
                }
                Ok(_) => {}
                Err(failure) => tracing::debug!(%failure, "sweep failed"),
            }
        });
    }

    /// Returns a description of each probe that may be on a cluster now, with the command that deletes or stops it.
    pub fn open_probes(&self) -> Vec<String> {
        self.session.open.descriptions()
    }

    /// Writes an audit line for each open probe, because the program exits before the calls of these probes end.
    pub fn audit_open_probes(&self) {
        for OpenProbe { server, context, node, tool, namespace, pod, container, is_action, .. } in
            self.session.open.all()
        {
            let line = AuditLine {
                event: if is_action { AuditEvent::ActionEnded } else { AuditEvent::Probe },
                outcome: Some("interrupted: the program exited before the pod was deleted".to_owned()),
                deleted: Some(false),
                pod: Some(pod),
                server,
                context,
                node,
                tool,
                namespace,
                container,
                ..AuditLine::default()
            };
            if let Err(error) = self.audit().write(&line) {
                self.audit().warn_unwritten(&error, &line);
            }
        }
    }

    /// Returns the nodes that a running action changes.
    pub(crate) fn nodes_of_actions(&self) -> BTreeSet<String> {
        self.session.open.nodes_of_actions()
    }

    /// Waits until every pod is deleted. Must be called after `stop` is cancelled.
    pub async fn settle(&self) {
        self.session.tasks.close();
        self.session.tasks.wait().await;
    }
}
