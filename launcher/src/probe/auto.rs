//! `--via auto`: the first method that works, from the one that needs the least trust.
//!
//! ```text
//!   the probe's image     named by a setting, or on the node           pod, or logs where no exec passes
//!   node-probe uploaded   into a trusted image that the node has       inject
//!   no probe              what the API server knows, and why           none
//! ```
//!
//! The next method is tried only after a refusal that proves that nothing ran and that this method does not work here: see
//! [`after`]. A policy, a missing permission and a missing namespace end the search: another pod would only look for a gap.
//! What is busy, late, cancelled, or may have acted ends the call. An ephemeral container is never added: it would stay in
//! the spec of a pod of somebody else, who could enter it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::method_memory::{MethodMemory, Obstructed, Place, Reason};
use super::methods::inject::{Archives, BaseImages, Inject};
use super::methods::{logs, pod};
use super::present_image;
use super::probe_context::ProbeContext;
use super::runner::run;
use super::types::ProbeResult;
use crate::error::{Failure, RejectionReason};
use crate::kubernetes::read::nodes;
use crate::settings::ProbeMethod;

/// With less time left no other method is tried.
const MIN_TIME: Duration = Duration::from_secs(3);

/// A method that was not used.
struct PassedOver {
    method: ProbeMethod,
    reason: Reason,
}

impl PassedOver {
    fn line(&self) -> String {
        format!("{}: {}", self.method.as_str(), self.reason.why)
    }
}

/// What may follow a method that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next method.
    Method,
    /// No other pod: only the API server.
    ApiOnly,
}

/// What is remembered of a failure, and what may follow; `None`: the call fails.
fn after(obstacle: Option<&RejectionReason>, method: ProbeMethod) -> Option<(Obstructed, Next)> {
    Some(match obstacle? {
        // No proof that the node does not hang.
        RejectionReason::ExecUnanswered | RejectionReason::NoMethod => return None,
        // The policy may admit the image of the probe.
        RejectionReason::Policy(_) if method == ProbeMethod::Inject => (Obstructed::UploadPods, Next::ApiOnly),
        RejectionReason::Policy(_) | RejectionReason::Namespace | RejectionReason::CreateForbidden => {
            (Obstructed::Pods, Next::ApiOnly)
        }
        RejectionReason::Websockets | RejectionReason::ExecForbidden => (Obstructed::Exec, Next::Method),
        RejectionReason::LogForbidden => (Obstructed::Logs, Next::Method),
        RejectionReason::Image => (Obstructed::Image, Next::Method),
        RejectionReason::Upload => (Obstructed::Upload, Next::Method),
    })
}

/// Why a method was passed over.
fn reason_of(failure: &Failure, server: &str) -> Reason {
    let why = match &failure.obstacle {
        Some(RejectionReason::Policy(who)) => format!("{who} forbids it"),
        Some(RejectionReason::Websockets) => format!("websockets to {server} fail ({})", failure.why),
        _ => failure.why.clone(),
    };
    Reason { why, next_step: failure.next_step.clone() }
}

/// One search for a method.
struct Search<'a> {
    context: ProbeContext,
    memory: &'a MethodMemory,
    archives: Arc<Archives>,
    passed: Vec<PassedOver>,
    deleted: bool,
    /// Whether a pod was asked for.
    has_run: bool,
    /// Other probes of the cluster wait while this is held.
    first: Option<OwnedMutexGuard<()>>,
    began: Instant,
}

/// Runs one probe by the first method that works.
pub(super) async fn run_auto(
    context: ProbeContext,
    memory: &MethodMemory,
    archives: Arc<Archives>,
) -> Result<ProbeResult, Failure> {
    let server = context.connection.server.clone();
    let node = context.request.node.clone();
    let first = memory.wait_for_first(Place { server: &server, node: &node }).await;
    let began = Instant::now();
    let mut search =
        Search { context, memory, archives, passed: Vec::new(), deleted: false, has_run: false, first, began };
    let found = search.run().await;
    search.finish(found).await
}

impl Search<'_> {
    fn place(&self) -> Place<'_> {
        Place { server: &self.context.connection.server, node: &self.context.request.node }
    }

    fn known(&self, what: Obstructed) -> Option<Reason> {
        self.memory.reason(self.place(), what, Instant::now())
    }

    fn pass_over(&mut self, method: ProbeMethod, reason: Reason) {
        let passed = PassedOver { method, reason };
        self.context.passed_over.push(passed.line());
        self.passed.push(passed);
    }

    /// The result of the first method that works; `Ok(None)` if there is none.
    async fn run(&mut self) -> Result<Option<ProbeResult>, Failure> {
        if let Some(reason) = self.known(Obstructed::Pods) {
            self.pass_over(ProbeMethod::Pod, reason);
            return Ok(None);
        }
        if self.finds_image().await? {
            for method in [ProbeMethod::Pod, ProbeMethod::Logs] {
                match self.try_method(method, &[Obstructed::Image, obstruction_of(method)]).await? {
                    Tried::Found(result) => return Ok(Some(result)),
                    Tried::Passed => {}
                    Tried::Ended => return Ok(None),
                }
                // The log replaces exec, and nothing else.
                if self.known(Obstructed::Exec).is_none() {
                    break;
                }
            }
        }
        match self
            .try_method(ProbeMethod::Inject, &[Obstructed::Exec, Obstructed::UploadPods, Obstructed::Upload])
            .await?
        {
            Tried::Found(result) => Ok(Some(result)),
            Tried::Passed | Tried::Ended => Ok(None),
        }
    }

    /// Whether there is an image of the probe to start.
    async fn finds_image(&mut self) -> Result<bool, Failure> {
        let (context, image) = (&self.context, self.context.settings.probe_image());
        if context.settings.names_image() {
            let now = Instant::now();
            let uploads = self.known(Obstructed::UploadPods).is_none() && self.known(Obstructed::Exec).is_none();
            let reason = self.memory.reason_of_many_nodes(self.place(), now).filter(|_| uploads);
            if let Some(Reason { why, next_step }) = reason {
                let why = format!("other nodes could not pull {image}: {why}");
                self.pass_over(ProbeMethod::Pod, Reason { why, next_step });
                return Ok(false);
            }
            return Ok(true);
        }
        let node = nodes::read(&context.connection, &context.request.node).await?;
        self.context.present_image = present_image::find(&node, &image);
        if self.context.present_image.is_none() {
            let why = format!("no --image is set, and the node does not report {image} among its images");
            let next_step =
                "Name an image of node-probe that the node can pull: --image REGISTRY/node-probe@sha256:DIGEST.";
            self.pass_over(ProbeMethod::Pod, Reason { why, next_step: next_step.to_owned() });
        }
        Ok(self.context.present_image.is_some())
    }

    /// Tries one method, unless it is known not to work.
    async fn try_method(&mut self, method: ProbeMethod, needs: &[Obstructed]) -> Result<Tried, Failure> {
        if let Some(reason) = needs.iter().find_map(|what| self.known(*what)) {
            self.pass_over(method, reason);
            return Ok(Tried::Passed);
        }
        self.has_run = true;
        if method == ProbeMethod::Inject {
            self.context.add_upload_time();
        }
        // Kept until the failure is remembered, for those who wait.
        let mut first = self.first.take();
        match self.run_method(method, &mut first).await {
            Ok(result) => Ok(Tried::Found(result)),
            Err(failure) => self.failed(method, failure),
        }
    }

    async fn run_method(
        &self,
        method: ProbeMethod,
        first: &mut Option<OwnedMutexGuard<()>>,
    ) -> Result<ProbeResult, Failure> {
        let context = &self.context;
        let mut running = std::pin::pin!(async {
            match method {
                ProbeMethod::Pod => run(context, pod::ExecPod::new(context)).await,
                ProbeMethod::Logs => run(context, logs::Logs::new(context)).await,
                _ => run(context, Inject::new(self.archives.clone(), BaseImages::Pinned)).await,
            }
        });
        tokio::select! {
            biased;
            result = &mut running => return result,
            () = context.admitted.notified() => {}
        }
        // What refuses all pods does not refuse this one.
        self.memory.remember_admitted(self.place(), Instant::now());
        *first = None;
        running.await
    }

    fn failed(&mut self, method: ProbeMethod, failure: Failure) -> Result<Tried, Failure> {
        let Some((what, next)) = after(failure.obstacle.as_ref(), method) else { return Err(failure) };
        let reason = reason_of(&failure, &self.context.connection.server);
        self.memory.remember(self.place(), what, reason.clone(), Instant::now());
        // An action is not repeated in another pod, and no second pod is made while the first may exist.
        if self.context.is_action
            || failure.may_have_acted
            || failure.left_behind.is_some()
            || self.context.is_cancelled()
        {
            return Err(failure);
        }
        self.deleted |= failure.deleted;
        self.pass_over(method, reason);
        let is_late = self.context.end.saturating_duration_since(Instant::now()) < MIN_TIME;
        let may_follow = next == Next::Method && self.context.may_retry_with_another_pod() && !is_late;
        Ok(if may_follow { Tried::Passed } else { Tried::Ended })
    }

    /// The result, or the failure of a node that no method reads.
    async fn finish(self, found: Result<Option<ProbeResult>, Failure>) -> Result<ProbeResult, Failure> {
        if let Some(mut result) = found? {
            result.timings.total = self.began.elapsed();
            return Ok(result);
        }
        let refused = Err(self.no_method());
        if !self.has_run {
            // A call that created nothing has its line in the audit log as well.
            self.context.record.ended(&refused, self.began.elapsed()).await;
        }
        refused
    }

    fn no_method(&self) -> Failure {
        let what = format!("Probing node {}", self.context.request.node);
        // What refuses every pod is the reason, whatever else was passed over; it is the same for every node.
        let failure = match self.known(Obstructed::Pods) {
            Some(Reason { why, next_step }) => Failure::new(what, why, next_step).cluster_wide(),
            None => {
                let lines: Vec<_> = self.passed.iter().map(PassedOver::line).collect();
                let mut steps: Vec<&str> = self.passed.iter().map(|passed| passed.reason.next_step.as_str()).collect();
                steps.retain(|step| !step.is_empty());
                steps.dedup();
                Failure::new(what, lines.join("; "), steps.join(" Or: "))
            }
        };
        failure.because_of(RejectionReason::NoMethod).deleted(self.deleted)
    }
}

/// How a method ended.
enum Tried {
    Found(ProbeResult),
    Passed,
    Ended,
}

/// How a method gets its document.
fn obstruction_of(method: ProbeMethod) -> Obstructed {
    if method == ProbeMethod::Logs { Obstructed::Logs } else { Obstructed::Exec }
}
