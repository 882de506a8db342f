//! The life of one probe, from going in to coming out. Runs as a task of its own; nothing drops it half way.
//!
//! What differs between the ways to a node is a [`ProbeSteps`]; what is the same for all of them is here and in its neighbours:
//! the exec_retry exec, the document, the timings, and that whatever went in is taken out, whatever became of the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::document::Document;
use super::pod::OPERATOR;
use super::{OnPhase, ProbeRequest, Owner, Phase, ProbePod, ProbeResult, Timings};
use crate::audit::Record;
use crate::error::Failure;
use crate::kubernetes::Connection;
use crate::settings::{Settings, ProbeMethod};

/// Everything one probe's life needs.
pub(super) struct ProbeContext {
    pub(super) connection: Connection,
    pub(super) settings: Arc<Settings>,
    pub(super) owner: Arc<Owner>,
    pub(super) request: ProbeRequest,
    pub(super) on_phase: OnPhase,
    /// The caller no longer wants the answer.
    pub(super) cancel: CancellationToken,
    /// The program is ending.
    pub(super) stop: CancellationToken,
    /// When reading must have ended.
    pub(super) end: Instant,
    /// What the audit log will say of it.
    pub(super) record: Arc<Record>,
    /// Whether the node is changed: what must not happen twice, nor be cut short.
    pub(super) is_action: bool,
    /// Whether an exec was taken: its program ran, or may have.
    pub(super) accepted: AtomicBool,
}

/// A way to a node: how a probe goes in, how its document comes back, how it is taken out.
pub(super) trait ProbeSteps: Send + Sync {
    /// Which way it is.
    fn method(&self) -> ProbeMethod;

    /// Puts on the cluster what the way needs. Awaited to its end, so that what was created is always known.
    fn create(&mut self, context: &ProbeContext) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Gets the document. Dropped half way when the caller no longer wants it.
    fn read(&self, context: &ProbeContext, timings: &mut Timings) -> impl Future<Output = Result<Document, Failure>> + Send;

    /// Takes out whatever `enter` put in, also when that failed. Nothing drops it.
    fn clean_up(&mut self, context: &ProbeContext) -> impl Future<Output = CleanUp> + Send;
}

/// What is left of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CleanUp {
    /// Name of the pod that was used.
    pub(super) pod: String,
    /// Whether every trace is gone for certain.
    pub(super) removed: bool,
    /// What is left, and what to do about it.
    pub(super) left_behind: Option<String>,
}

impl ProbeContext {
    /// Goes in, reads, comes out: the last whatever became of the others. The audit log gets its line.
    pub(super) async fn run(&self, way: impl ProbeSteps) -> Result<ProbeResult, Failure> {
        let began = Instant::now();
        let result = self.live(way, began).await;
        self.record.ended(&result, began.elapsed());
        result
    }

    async fn live(&self, mut way: impl ProbeSteps, began: Instant) -> Result<ProbeResult, Failure> {
        // Whoever gave up while the node was looked at, or a program that is ending, gets no pod at all: once the program
        // has seen that no life is left, none may begin.
        if self.is_given_up() {
            return Err(self.stopped());
        }
        let mut timings = Timings::default();
        (self.on_phase)(Phase::Create);
        let entered = way.create(self).await;
        timings.create = began.elapsed();
        let made = entered.is_ok();
        let read = match entered {
            Ok(()) => tokio::select! {
                read = way.read(self, &mut timings) => read,
                () = self.cancel.cancelled() => Err(self.stopped()),
                () = self.stop.cancelled() => Err(self.stopped()),
            },
            Err(failure) => Err(failure),
        };
        let leaving = Instant::now();
        let CleanUp { pod, removed, left_behind } = way.clean_up(self).await;
        timings.remove = leaving.elapsed();
        timings.total = began.elapsed();
        match read {
            Ok(Document { report, note }) => {
                Ok(ProbeResult { report, via: way.via(), pod, removed, left_behind, timings, note })
            }
            Err(failure) => Err(failure.leaving(left_behind).removed(made && removed)),
        }
    }

    /// A call that came to no pod. The audit log gets its line all the same.
    pub(super) fn refused(&self, refusal: Failure) -> Result<ProbeResult, Failure> {
        let result = Err(refusal);
        self.record.ended(&result, Duration::ZERO);
        result
    }

    /// The pod of a way that makes one.
    pub(super) fn pod(&self) -> ProbePod {
        let ProbeRequest { node, tool, .. } = &self.request;
        let pod = ProbePod::new(&self.settings, &self.owner, node, tool).annotated(self.record.annotations());
        if self.is_for_actions() { pod.for_actions() } else { pod }
    }

    /// Whether the command is one of operator mode, if only the plan of an action.
    pub(super) fn is_for_actions(&self) -> bool {
        self.request.command.first().is_some_and(|word| word == OPERATOR)
    }

    /// The pods of a namespace.
    pub(super) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.connection.client.clone(), namespace)
    }

    /// Whether the answer is no longer wanted.
    pub(super) fn is_given_up(&self) -> bool {
        self.cancel.is_cancelled() || self.stop.is_cancelled()
    }

    /// Whether the program may be run once more in another pod: it only reads, and no exec was ever taken.
    pub(super) fn may_retry_with_another_pod(&self) -> bool {
        !self.is_action && !self.accepted.load(Ordering::Relaxed)
    }

    /// Runs no longer than the whole call may; says what was not done in time.
    pub(super) fn out_of_time(&self, why: &str) -> Failure {
        Failure::new(
            format!("Probing node {}", self.request.node),
            why,
            "Look at the node's kubelet and at the pod's events, or allow more time with --start-timeout and --call-timeout.",
        )
    }

    fn stopped(&self) -> Failure {
        // At the command line the two are one: the end of the program.
        let why = if self.stop.is_cancelled() { "gpu-syringe is ending" } else { "cancelled by the caller" };
        Failure::new(format!("Probing node {}", self.request.node), why, "Call again when you want the answer.")
    }
}
