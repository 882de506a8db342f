//! `--via auto`: the first method that works, from the one that needs the least trust.
//!
//! ```text
//!   the probe's image     named by a setting, or on the node by digest    pod, or logs where no exec passes
//!   node-probe uploaded   into an image that runs privileged there        inject
//!   no probe              what the API server knows, and why              none
//! ```
//!
//! The next method is tried only after a refusal that proves that nothing ran and that this method does not work here: see
//! [`after`]. A policy, a missing permission and a missing namespace end the search: another pod would only look for a gap.
//! What is busy, late, cancelled, or may have acted ends the call. Where the user names an image by digest, nothing else runs.
//! An ephemeral container is never added: it would stay in the spec of a pod of somebody else, who could enter it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until};

use super::create_forbidden::is_missing_permission;
use super::method_memory::{MethodMemory, Obstructed, Place, Reason};
use super::methods::inject::{Archives, Inject, privileged_images};
use super::methods::{logs, pod};
use super::probe_context::ProbeContext;
use super::runner::run;
use super::types::ProbeResult;
use super::{admission_policy, next_steps, present_image};
use crate::settings::{ProbeMethod, Settings};
use kube_read::Failure;
use kube_read::failure::RejectionReason;
use kube_read::reads::nodes;

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

/// What is remembered of a failure, and what may follow; `None`: the call fails. `for_all`: the pod was one that every node gets.
fn after(failure: &Failure, method: ProbeMethod, for_all: bool) -> Option<(Option<Obstructed>, Next)> {
    let refused = |is_of_cluster: bool| (is_of_cluster.then_some(Obstructed::Pods), Next::ApiOnly);
    Some(match failure.obstacle.as_ref()? {
        // No proof that the node does not hang.
        RejectionReason::ExecUnanswered | RejectionReason::NoMethod => return None,
        RejectionReason::Namespace => refused(true),
        RejectionReason::CreateForbidden => refused(is_missing_permission(&failure.why)),
        RejectionReason::Policy(who) if admission_policy::is_for_all_pods(who) => refused(true),
        // The policy may admit the image of the probe.
        RejectionReason::Policy(who) if admission_policy::is_ours(who) && method == ProbeMethod::Inject => {
            (Some(Obstructed::UploadPods), Next::ApiOnly)
        }
        // Another policy may be about an image or a node.
        RejectionReason::Policy(who) => refused(for_all && admission_policy::is_ours(who)),
        RejectionReason::Websockets => (Some(Obstructed::ExecOnNode), Next::Method),
        RejectionReason::ExecForbidden => (Some(Obstructed::Exec), Next::Method),
        RejectionReason::LogForbidden => (Some(Obstructed::Logs), Next::Method),
        RejectionReason::Image => (Some(Obstructed::Image), Next::Method),
        // What is missing here, and not on the node, is looked for again.
        RejectionReason::Upload => (failure.deleted.then_some(Obstructed::Upload), Next::Method),
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
    cluster: String,
    memory: &'a MethodMemory,
    archives: Arc<Archives>,
    passed: Vec<PassedOver>,
    /// Pods that were created and deleted.
    pods: u32,
    /// Whether a pod was asked for.
    has_run: bool,
    began: Instant,
}

/// Runs one probe by the first method that works.
pub(super) async fn run_auto(
    context: ProbeContext,
    memory: &MethodMemory,
    archives: Arc<Archives>,
) -> Result<ProbeResult, Failure> {
    let (cluster, began) = (context.cluster(), Instant::now());
    let mut search = Search { context, cluster, memory, archives, passed: Vec::new(), pods: 0, has_run: false, began };
    let found = search.run().await;
    search.finish(found).await
}

impl Search<'_> {
    fn place(&self) -> Place<'_> {
        Place { cluster: &self.cluster, node: &self.context.request.node }
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
        if self.is_refused() {
            return Ok(None);
        }
        if self.finds_image().await? {
            let exec = [Obstructed::Image, Obstructed::Exec, Obstructed::ExecOnNode];
            match self.try_method(ProbeMethod::Pod, &exec).await? {
                Tried::Found(result) => return Ok(Some(*result)),
                Tried::Ended => return Ok(None),
                Tried::Passed => {}
            }
            // The log replaces exec, and nothing else.
            if self.is_without_exec().is_some() {
                match self.try_method(ProbeMethod::Logs, &[Obstructed::Image, Obstructed::Logs]).await? {
                    Tried::Found(result) => return Ok(Some(*result)),
                    Tried::Ended => return Ok(None),
                    Tried::Passed => {}
                }
            }
        }
        self.upload().await
    }

    /// Whether it is known that every pod is refused.
    fn is_refused(&mut self) -> bool {
        let reason = self.known(Obstructed::Pods);
        let is_refused = reason.is_some();
        reason.into_iter().for_each(|reason| self.pass_over(ProbeMethod::Pod, reason));
        is_refused
    }

    fn is_without_exec(&self) -> Option<Reason> {
        self.known(Obstructed::Exec).or_else(|| self.known(Obstructed::ExecOnNode))
    }

    /// Whether there is an image of the probe to start.
    async fn finds_image(&mut self) -> Result<bool, Failure> {
        let image = self.context.settings.probe_image();
        if self.context.settings.names_image() {
            return Ok(true);
        }
        let node = self.within_call(nodes::read(&self.context.connection, &self.context.request.node)).await?;
        self.context.present_image = present_image::find(&node, &image);
        if self.context.present_image.is_none() {
            let why = format!("no --image is set, and the node does not report {image} with a digest among its images");
            let next_step =
                "Name an image of node-probe that the node can pull: --image REGISTRY/node-probe@sha256:DIGEST.";
            self.pass_over(ProbeMethod::Pod, Reason { why, next_step: next_step.to_owned() });
        }
        Ok(self.context.present_image.is_some())
    }

    /// Uploads node-probe into one image after the other.
    async fn upload(&mut self) -> Result<Option<ProbeResult>, Failure> {
        let method = ProbeMethod::Inject;
        let needs = [Obstructed::UploadPods, Obstructed::Upload];
        let reason = self.is_without_exec().or_else(|| needs.iter().find_map(|what| self.known(*what)));
        if let Some(reason) = reason.or_else(|| self.is_pinned()) {
            self.pass_over(method, reason);
            return Ok(None);
        }
        let found = match &self.context.settings.base_image {
            Some(image) => Ok(vec![image.clone()]),
            None => {
                let find = privileged_images::find(&self.context.connection, &self.context.request.node);
                self.within_call(find).await
            }
        };
        let images = match found {
            Ok(images) => images,
            Err(failure) if failure.obstacle == Some(RejectionReason::Upload) => {
                self.pass_over(method, reason_of(&failure, &self.context.connection.server));
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        self.context.add_upload_time();
        for image in images {
            self.context.base_image = Some(image);
            match self.try_method(method, &[]).await? {
                Tried::Found(result) => return Ok(Some(*result)),
                Tried::Ended => break,
                // Websockets are refused with the next image as well.
                Tried::Passed if self.is_without_exec().is_some() => break,
                Tried::Passed => {}
            }
        }
        Ok(None)
    }

    /// Why no shell is started although it could be: the user names what may run.
    fn is_pinned(&self) -> Option<Reason> {
        let Settings { base_image, .. } = &*self.context.settings;
        let is_pinned = self.context.settings.names_image() && self.context.settings.probe_image().contains('@');
        (is_pinned && base_image.is_none()).then(|| Reason {
            why: "the settings name the image by its digest, and nothing else may run".to_owned(),
            next_step: "Start gpu-syringe without the digest, or with --base-image or --via inject.".to_owned(),
        })
    }

    /// The result of a request, unless the call ends before.
    async fn within_call<T>(&self, request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let context = &self.context;
        tokio::select! {
            read = request => read,
            () = context.cancel.cancelled() => Err(context.stopped()),
            () = context.stop.cancelled() => Err(context.stopped()),
            () = sleep_until(context.end) => Err(context.out_of_time("the method was not chosen within the time of the call")),
        }
    }

    /// Tries one method, unless it is known not to work.
    async fn try_method(&mut self, method: ProbeMethod, needs: &[Obstructed]) -> Result<Tried, Failure> {
        if let Some(reason) = needs.iter().find_map(|what| self.known(*what)) {
            self.pass_over(method, reason);
            return Ok(Tried::Passed);
        }
        // Kept until a failure is remembered, for those who wait.
        let mut first = self.memory.wait_for_first(self.place()).await;
        if self.is_refused() {
            return Ok(Tried::Ended);
        }
        self.has_run = true;
        match self.run_method(method, &mut first).await {
            Ok(result) => {
                if method == ProbeMethod::Logs
                    && let Some(reason) = self.known(Obstructed::ExecOnNode)
                {
                    self.memory.remember(self.place(), Obstructed::Exec, reason, Instant::now());
                }
                self.memory.forget(self.place(), disproved_by(method));
                Ok(Tried::Found(Box::new(result)))
            }
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
                _ => run(context, Inject::new(self.archives.clone(), context.base_image.clone())).await,
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
        let for_all = method != ProbeMethod::Inject && self.context.settings.names_image();
        let Some((what, next)) = after(&failure, method, for_all) else { return Err(failure) };
        let reason = reason_of(&failure, &self.context.connection.server);
        // A pod for an action needs more permissions than one that reads.
        let is_remembered = !(self.context.is_for_actions() && next == Next::ApiOnly);
        if let Some(what) = what.filter(|_| is_remembered) {
            self.memory.remember(self.place(), what, reason.clone(), Instant::now());
        }
        // An action is not repeated in another pod, and no second pod is made while the first may exist.
        let context = &self.context;
        if context.is_action || failure.may_have_acted || failure.left_behind.is_some() || context.is_cancelled() {
            return Err(failure);
        }
        let may_follow = next == Next::Method && context.may_retry_with_another_pod();
        if may_follow && context.end.saturating_duration_since(Instant::now()) < MIN_TIME {
            // Another method might have read the node.
            return Err(failure);
        }
        self.pods += u32::from(failure.deleted);
        self.pass_over(method, reason);
        Ok(if may_follow { Tried::Passed } else { Tried::Ended })
    }

    /// The result, or the failure of a node that no method reads.
    async fn finish(self, found: Result<Option<ProbeResult>, Failure>) -> Result<ProbeResult, Failure> {
        let failure = match found {
            Ok(Some(mut result)) => {
                result.timings.total = self.began.elapsed();
                return Ok(result);
            }
            Ok(None) => self.no_method(),
            Err(failure) => failure,
        };
        let failed = Err(failure);
        if !self.has_run {
            // A call that created nothing has its line in the audit log as well.
            self.context.record.ended(&failed, self.began.elapsed()).await;
        }
        failed
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
                let mut next_step = steps.join(" Or: ");
                if !next_step.contains(next_steps::CHECK) {
                    next_step = format!("{next_step} {}", next_steps::CHECK);
                }
                Failure::new(what, lines.join("; "), next_step)
            }
        };
        failure.because_of(RejectionReason::NoMethod).deleted(self.pods > 0)
    }
}

/// How a method ended.
enum Tried {
    Found(Box<ProbeResult>),
    Passed,
    Ended,
}

/// What a success of this method proves to work.
fn disproved_by(method: ProbeMethod) -> &'static [Obstructed] {
    match method {
        ProbeMethod::Logs => &[Obstructed::Pods, Obstructed::Image, Obstructed::Logs],
        ProbeMethod::Inject => {
            &[Obstructed::Pods, Obstructed::UploadPods, Obstructed::Upload, Obstructed::Exec, Obstructed::ExecOnNode]
        }
        _ => &[Obstructed::Pods, Obstructed::Image, Obstructed::Exec, Obstructed::ExecOnNode],
    }
}
