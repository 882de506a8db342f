//! The prober: a probe pod goes in, one JSON document comes out, the pod is taken out again.
//!
//! ```text
//!   Prober::probe ─▶ life (a tracked task of its own)      ways: pod, ephemeral, inject, logs
//!                       enter ─▶ read the document ─▶ leave, whatever happened
//!
//!   pod        own_pod, exec_retry (exec until the container runs), document
//!   ephemeral  a container in somebody's pod, exec_retry, document
//!   inject     own_pod of an image that is there, upload, exec_retry, document
//!   logs       own_pod that answers into its log
//! ```
//!
//! The life of a pod is a task that nobody can drop: a caller that is cancelled stops waiting, and the task goes on to the
//! pod's removal. [`Prober::settle`] waits for all of them, and the program does not end before.

mod beside;
mod document;
mod exec_retry;
mod exec;
mod forbidden;
mod container_state;
mod life;
mod own_pod;
mod owner;
mod pod;
mod policy;
mod sweep;
mod ways;
mod delete_pod;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use syringe_core::report::Report;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use beside::TargetContainer;
pub use owner::Owner;
pub(crate) use owner::state_directory;
pub(crate) use pod::random_suffix;
pub use pod::{CONTAINER, MANAGED_BY, ProbePod};
pub use sweep::Swept;
pub(crate) use ways::{none, printed};

use crate::audit::{ActionNote, Audit, Record};
use crate::error::Failure;
use crate::kubernetes::Connection;
use crate::settings::{Settings, ProbeMethod};

/// Longest that the end of the program waits for pods: one that is just being created, and its removal with all its tries.
/// The slack is for an ephemeral container, which is told to end in some more steps.
pub(crate) const SETTLE_TIME: Duration =
    own_pod::CREATE_TIME.saturating_add(delete_pod::REMOVAL_TIME).saturating_add(SLACK);
/// See [`SETTLE_TIME`].
const SLACK: Duration = Duration::from_secs(10);

/// How far a call has come, told to whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The pod is being created.
    Create,
    /// The pod exists; its container is awaited.
    Start,
    /// The probe runs.
    Read,
    /// The pod is being removed.
    Remove,
    /// Of several nodes that are read in one call, so many are done.
    Nodes {
        /// Read, or failed.
        done: u32,
        /// All that are to be read.
        total: u32,
    },
}

impl Phase {
    /// Phases of one node's call.
    const OF_ONE_NODE: u32 = 4;

    /// How far, from 1, and of how much.
    pub fn position(self) -> (u32, u32) {
        match self {
            Self::Create => (1, Self::OF_ONE_NODE),
            Self::Start => (2, Self::OF_ONE_NODE),
            Self::Read => (3, Self::OF_ONE_NODE),
            Self::Remove => (4, Self::OF_ONE_NODE),
            Self::Nodes { done, total } => (done, total),
        }
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            Self::Create => "creating the probe pod".into(),
            Self::Start => "waiting for the probe's container".into(),
            Self::Read => "reading the node".into(),
            Self::Remove => "removing the probe pod".into(),
            Self::Nodes { done, total } => format!("{done} of {total} nodes"),
        }
    }
}

/// Told of each phase. Must not block.
pub type OnPhase = Arc<dyn Fn(Phase) + Send + Sync>;

/// One probe to be made.
#[derive(Clone)]
pub struct ProbeRequest {
    /// Node to read.
    pub node: String,
    /// Words after `node-probe`.
    pub command: Vec<String>,
    /// Tool on whose behalf, for the pod's labels.
    pub tool: &'static str,
    /// The container that the question is about.
    pub target: Option<TargetContainer>,
    /// Time for everything, removal not included.
    pub deadline: Duration,
}

/// What a probe brought back.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The document.
    pub report: Report,
    /// The way by which it came.
    pub via: ProbeMethod,
    /// Name of the pod that was used.
    pub pod: String,
    /// Whether the pod is gone for certain.
    pub removed: bool,
    /// Why it is not, and what to do.
    pub left_behind: Option<String>,
    /// How long each phase took.
    pub timings: Timings,
    /// What a reader should know of the way the document came (a retry, a probe that did not end).
    pub note: Option<String>,
}

/// Duration of each phase.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Until the API server had the pod.
    pub create: Duration,
    /// From there until the probe ran.
    pub start: Duration,
    /// Until its document was complete.
    pub exec: Duration,
    /// Until the pod was gone.
    pub remove: Duration,
    /// All of it.
    pub total: Duration,
}

/// Makes probes and sees to it that each is taken out.
#[derive(Clone)]
pub struct Prober {
    settings: Arc<Settings>,
    owner: Arc<Owner>,
    ways: Arc<ways::ProberCache>,
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
            ways: Arc::default(),
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
        self.live(context::ProbeContext { cancel, ..context }).await
    }

    /// The life of a probe that reads, which the end of the program ends and nobody else does.
    fn reading(&self, connection: &Connection, request: ProbeRequest, on_phase: OnPhase, record: Record) -> context::ProbeContext {
        context::ProbeContext {
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
        self.live(context::ProbeContext { settings, stop: CancellationToken::new(), is_action: true, ..context }).await
    }

    async fn live(&self, context: context::ProbeContext) -> Result<ProbeResult, Failure> {
        let ways = self.ways.clone();
        let task = self.lives.spawn(ways::go(context, ways));
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
