//! Starts probes as tasks that nothing cancels, and waits for them at the end of the program.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::audit_record::{ActionNote, Record};
use super::context::ProbeContext;
use super::owner::Owner;
use super::runner::{ProberCache, run_probe};
use super::sweep::{self, Swept};
use super::types::{OnPhase, ProbeRequest, ProbeResult};
use super::{delete_pod, pod_lifecycle};
use crate::audit::Audit;
use crate::error::Failure;
use crate::kubernetes::Connection;
use crate::settings::Settings;

/// Longest that the end of the program waits for pods: one that is just being created, and its removal with all its tries.
/// The slack is for an ephemeral container, which is told to end in some more steps.
pub(crate) const SETTLE_TIME: Duration =
    pod_lifecycle::CREATE_TIME.saturating_add(delete_pod::REMOVAL_TIME).saturating_add(SLACK);
/// See [`SETTLE_TIME`].
const SLACK: Duration = Duration::from_secs(10);

/// Makes probes and sees to it that each is taken out.
#[derive(Clone)]
pub struct Prober {
    settings: Arc<Settings>,
    owner: Arc<Owner>,
    cache: Arc<ProberCache>,
    lives: TaskTracker,
    stop: CancellationToken,
    audit: Arc<Audit>,
}

impl Prober {
    /// A prober that works by `settings`. `stop` ends every reading early: its pod is removed at once. An action goes on.
    pub fn new(settings: Arc<Settings>, stop: CancellationToken) -> Self {
        Self {
            settings,
            owner: Arc::new(Owner::claim()),
            cache: Arc::default(),
            lives: TaskTracker::new(),
            stop,
            audit: Arc::new(Audit::usual()),
        }
    }

    /// The same with another audit log.
    pub fn with_audit(self, audit: Audit) -> Self {
        Self { audit: Arc::new(audit), ..self }
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Reads a node. When `cancel` fires the answer is a failure, and the pod is removed all the same.
    pub async fn probe(
        &self,
        connection: &Connection,
        request: ProbeRequest,
        on_phase: OnPhase,
        cancel: CancellationToken,
    ) -> Result<ProbeResult, Failure> {
        let record = Record::new(self.audit.clone(), connection, &self.settings.namespace, &request, None);
        let context = self.reading(connection, request, on_phase, record);
        self.live(ProbeContext { cancel, ..context }).await
    }

    /// The life of a probe that reads, which the end of the program ends and nobody else does.
    fn reading(
        &self,
        connection: &Connection,
        request: ProbeRequest,
        on_phase: OnPhase,
        record: Record,
    ) -> ProbeContext {
        ProbeContext {
            connection: connection.clone(),
            settings: self.settings.clone(),
            owner: self.owner.clone(),
            end: Instant::now() + request.deadline,
            request,
            on_phase,
            cancel: CancellationToken::new(),
            stop: self.stop.clone(),
            record: Arc::new(record),
            is_action: false,
            accepted: AtomicBool::new(false),
        }
    }

    /// Changes a node: as [`Self::probe`], but not before the audit log has its line, and neither a caller that gives up
    /// nor the end of the program cuts it short: half a reset is worse than a late one.
    pub(crate) async fn act(
        &self,
        connection: &Connection,
        request: ProbeRequest,
        on_phase: OnPhase,
        note: ActionNote,
    ) -> Result<ProbeResult, Failure> {
        let settings = Arc::new(self.settings.lasting(request.deadline));
        let record = Record::new(self.audit.clone(), connection, &settings.namespace, &request, Some(note));
        // Held from before the question: a program that ends after it waits for this action, one that ends before is seen.
        let _held = self.lives.token();
        if self.stop.is_cancelled() {
            return Err(Failure::new("The action", "gpu-syringe is ending", "Start it again and ask anew."));
        }
        record.action_starts()?;
        let context = self.reading(connection, request, on_phase, record);
        self.live(ProbeContext { settings, stop: CancellationToken::new(), is_action: true, ..context }).await
    }

    async fn live(&self, context: ProbeContext) -> Result<ProbeResult, Failure> {
        let cache = self.cache.clone();
        let task = self.lives.spawn(run_probe(context, cache));
        // The join error of a task is a panic: it must not take the server down, nor be mistaken for an answer.
        task.await.unwrap_or_else(|panic| {
            Err(Failure::new("The call", panic, "This is a defect of gpu-syringe: please report it."))
        })
    }

    /// Removes what earlier launchers left in the namespace: pods of ours whose process is dead, and pods past their time.
    pub async fn sweep(&self, connection: &Connection) -> Result<Swept, Failure> {
        sweep::sweep(connection, &self.settings.namespace, &self.owner, &self.stop).await
    }

    /// The same in the background: nobody waits for it, but the program does not end in its middle.
    pub fn sweep_in_background(&self, connection: &Connection) {
        let (prober, connection) = (self.clone(), connection.clone());
        self.lives.spawn(async move {
            match prober.sweep(&connection).await {
                Ok(swept) if !swept.removed.is_empty() => {
                    tracing::info!(pods = ?swept.removed, "swept probe pods that an earlier launcher left");
                }
                Ok(_) => {}
                Err(failure) => tracing::debug!(%failure, "sweep failed"),
            }
        });
    }

    /// Waits until every pod is taken out. Call after `stop`.
    pub async fn settle(&self) {
        self.lives.close();
        self.lives.wait().await;
    }
}
