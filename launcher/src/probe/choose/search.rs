//! `run`: tries the probe methods one after the other until one of them reads the node.
//!
//! ```text
//!   auto, starting with the method that needs the least trust:
//!     pod       the image of the probe is set, is named by the policy, or is on the node by the digest of the release
//!     logs      the same image, if exec is unavailable
//!     inject    node-probe is uploaded into an image that runs privileged on the node
//!   pod         pod, then logs if websockets are rejected
//!   others      only that method
//! ```
//!
//! The next method is tried only if the failure proves that nothing ran and that this method does not work here: see
//! [`Search::after`]. A policy, a missing permission and a missing namespace end the search: another pod would be an
//! attempt to bypass them. The call fails if a server was busy, the time is over, the call was cancelled, or an action
//! may have been done. If the user names an image by digest, no other image is used. `auto` never adds an ephemeral
//! container, because that container would stay in the spec of a pod of another owner, who could enter the container.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until};

use crate::policy::admitted_image::AdmittedImages;
use crate::probe::choose::dispatch::ProberCache;
use crate::probe::choose::method_memory::{MethodMemory, Obstructed, Place, Reason};
use crate::probe::choose::present_image;
use crate::probe::methods::ephemeral::Ephemeral;
use crate::probe::methods::inject::{Archives, Inject, privileged_images};
use crate::probe::methods::logs::Logs;
use crate::probe::methods::pod::ExecPod;
use crate::probe::probe_context::ProbeContext;
use crate::probe::refusal::next_steps;
use crate::probe::result::ProbeResult;
use crate::probe::runner;
use crate::settings::{ProbeMethod, Settings};
use kube_read::Failure;
use kube_read::failure::{Cause, PolicyKind};
use kube_read::reads::nodes;

/// If less time than this is left, no other method is tried.
const MIN_TIME: Duration = Duration::from_secs(3);

/// Returns the methods to try, in this order.
fn methods(via: ProbeMethod) -> &'static [ProbeMethod] {
    match via {
        ProbeMethod::Auto => &[ProbeMethod::Pod, ProbeMethod::Logs, ProbeMethod::Inject],
        ProbeMethod::Pod => &[ProbeMethod::Pod, ProbeMethod::Logs],
        ProbeMethod::Logs => &[ProbeMethod::Logs],
        ProbeMethod::Inject => &[ProbeMethod::Inject],
        ProbeMethod::Ephemeral => &[ProbeMethod::Ephemeral],
        ProbeMethod::None => &[],
    }
}

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

/// The next step of the search after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Method,
    /// No other pod is created: only the API server is used.
    ApiOnly,
}

/// The outcome of a method.
enum Tried {
    Found(Box<ProbeResult>),
    Passed,
    Ended,
}

/// Returns the reason for passing over a method that failed.
fn reason_of(failure: &Failure, server: &str) -> Reason {
    let why = match &failure.cause {
        Cause::Policy(policy) if policy.kind != PolicyKind::Unknown => format!("{} forbids it", policy.name),
        Cause::WebsocketsRefused | Cause::ExecUnanswered => format!("websockets to {server} fail ({})", failure.why),
        _ => failure.why.clone(),
    };
    Reason { why, next_step: failure.next_step.clone() }
}

/// One search for a method.
struct Search<'a> {
    context: ProbeContext,
    is_auto: bool,
    cluster: String,
    memory: &'a MethodMemory,
    admitted: &'a AdmittedImages,
    /// Whether the image is the image in the policy.
    is_image_of_policy: bool,
    archives: Arc<Archives>,
    passed: Vec<PassedOver>,
    /// Number of pods that were created and deleted.
    pods: u32,
    /// Whether a pod was requested.
    has_run: bool,
    began: Instant,
}

/// Runs one probe with the first method that works.
pub(crate) async fn run(context: ProbeContext, cache: &ProberCache) -> Result<ProbeResult, Failure> {
    let mut search = Search {
        is_auto: context.settings.via == ProbeMethod::Auto,
        cluster: context.cluster(),
        context,
        memory: &cache.memory,
        admitted: &cache.admitted,
        is_image_of_policy: false,
        archives: cache.archives.clone(),
        passed: Vec::new(),
        pods: 0,
        has_run: false,
        began: Instant::now(),
    };
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

    fn remember(&self, what: Obstructed, reason: Reason) {
        self.memory.remember(self.place(), what, reason, Instant::now());
    }

    fn pass_over(&mut self, method: ProbeMethod, reason: Reason) {
        let passed = PassedOver { method, reason };
        tracing::info!(method = method.as_str(), why = %passed.reason.why, "passed over a probe method");
        if self.is_auto {
            self.context.passed_over.push(passed.line());
        }
        self.passed.push(passed);
    }

    /// Returns the result of the first method that works; `Ok(None)` if no method works.
    async fn run(&mut self) -> Result<Option<ProbeResult>, Failure> {
        if self.is_refused() {
            return Ok(None);
        }
        self.take_image_of_policy().await?;
        for &method in methods(self.context.settings.via) {
            for base_image in self.base_images(method).await? {
                self.context.base_image = base_image;
                match self.try_method(method).await? {
                    Tried::Found(result) => return Ok(Some(*result)),
                    Tried::Ended => return Ok(None),
                    // Websockets would also be rejected with the next image.
                    Tried::Passed if self.exec_obstacle().is_some() => break,
                    Tried::Passed => {}
                }
            }
        }
        Ok(None)
    }

    /// If no image is set, uses the image that the policy of the namespace admits, as if a person had set this image.
    async fn take_image_of_policy(&mut self) -> Result<(), Failure> {
        let (settings, connection) = (self.context.settings.clone(), self.context.connection.clone());
        // The method `inject` uses an image that is already on the node.
        if settings.via == ProbeMethod::Inject || settings.names_image() {
            return Ok(());
        }
        let (admitted, cluster) = (self.admitted, self.cluster.clone());
        let read = async { Ok(admitted.get(&cluster, &connection, &settings.probe_namespace).await) };
        if let Some(admitted) = self.within_call(read).await? {
            self.context.settings = Arc::new(settings.with_admitted(admitted.image, admitted.pull_secrets));
            self.is_image_of_policy = true;
        }
        Ok(())
    }

    /// Returns whether the cluster is known to reject every pod. A method that the user chose is tried in any case.
    fn is_refused(&mut self) -> bool {
        let reason = self.known(Obstructed::Pods).filter(|_| self.is_auto);
        let is_refused = reason.is_some();
        reason.into_iter().for_each(|reason| self.pass_over(ProbeMethod::Pod, reason));
        is_refused
    }

    fn exec_obstacle(&self) -> Option<Reason> {
        self.known(Obstructed::Exec).or_else(|| self.known(Obstructed::ExecOnNode))
    }

    /// Returns the base images to try one after the other. The entry `None` means that the search chooses no base
    /// image: the method needs none or chooses it itself. If the list is empty, the method is not tried.
    async fn base_images(&mut self, method: ProbeMethod) -> Result<Vec<Option<String>>, Failure> {
        let has_image = self.context.settings.names_image() || self.context.present_image.is_some();
        let is_tried = match method {
            ProbeMethod::Inject if self.is_auto => return self.privileged_images().await,
            ProbeMethod::Inject => {
                self.context.add_upload_time();
                true
            }
            ProbeMethod::Pod if self.is_auto => self.finds_image().await?,
            // The method `logs` is used only if exec is unavailable.
            ProbeMethod::Logs if self.is_auto => has_image && self.exec_obstacle().is_some(),
            _ => true,
        };
        Ok(if is_tried { vec![None] } else { Vec::new() })
    }

    /// Returns whether there is an image of the probe that can be started.
    async fn finds_image(&mut self) -> Result<bool, Failure> {
        if self.context.settings.names_image() {
            return Ok(true);
        }
        let digest = self.context.settings.released_digest.clone();
        if let Some(digest) = &digest {
            let node = self.within_call(nodes::read(&self.context.connection, &self.context.request.node)).await?;
            self.context.present_image = present_image::find(&node, digest);
        }
        if self.context.present_image.is_none() {
            let why = match digest {
                Some(digest) => {
                    format!("no --image is set, and the node does not list an image with the digest {digest}")
                }
                None => "no --image is set, and this build contains no digest of an image".to_owned(),
            };
            let next_step =
                "Specify an image of node-probe that the node can pull: --image REGISTRY/node-probe@sha256:DIGEST.";
            self.pass_over(ProbeMethod::Pod, Reason { why, next_step: next_step.to_owned() });
        }
        Ok(self.context.present_image.is_some())
    }

    /// Returns the images that run privileged on the node, for `auto`.
    async fn privileged_images(&mut self) -> Result<Vec<Option<String>>, Failure> {
        let method = ProbeMethod::Inject;
        let needs = [Obstructed::UploadPods, Obstructed::Upload];
        let reason = self.exec_obstacle().or_else(|| needs.iter().find_map(|what| self.known(*what)));
        if let Some(reason) = reason.or_else(|| self.pinned_image()) {
            self.pass_over(method, reason);
            return Ok(Vec::new());
        }
        let found = match &self.context.settings.base_image {
            Some(image) => Ok(vec![image.clone()]),
            None => {
                let find = privileged_images::find(&self.context.connection, &self.context.request.node);
                self.within_call(find).await
            }
        };
        match found {
            Ok(images) => {
                self.context.add_upload_time();
                Ok(images.into_iter().map(Some).collect())
            }
            Err(failure) if failure.cause == Cause::Upload => {
                self.pass_over(method, reason_of(&failure, &self.context.connection.server));
                Ok(Vec::new())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Returns the reason why inject is not allowed, if the user or the policy specified the only image that may run.
    fn pinned_image(&self) -> Option<Reason> {
        let Settings { base_image, .. } = &*self.context.settings;
        let is_pinned = self.context.settings.names_image() && self.context.settings.probe_image().contains('@');
        (is_pinned && base_image.is_none()).then(|| Reason {
            why: match self.is_image_of_policy {
                true => "the policy of the namespace specifies the image, and no other image may run".to_owned(),
                false => "the settings specify the image by its digest, and no other image may run".to_owned(),
            },
            next_step: "Start gpu-syringe without the digest, or with --base-image or --via inject.".to_owned(),
        })
    }

    /// Waits for a request. Fails if the call ends first.
    async fn within_call<T>(&self, request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let context = &self.context;
        tokio::select! {
            read = request => read,
            () = context.cancel.cancelled() => Err(context.stopped()),
            () = context.stop.cancelled() => Err(context.stopped()),
            () = sleep_until(context.end) => Err(context.out_of_time("the method was not chosen within the time of the call")),
        }
    }

    /// Returns the obstacles that rule out a method. The last method in the list is tried in any case.
    fn needs(&self, method: ProbeMethod) -> &'static [Obstructed] {
        match method {
            ProbeMethod::Pod if self.is_auto => &[Obstructed::Image, Obstructed::Exec, Obstructed::ExecOnNode],
            ProbeMethod::Pod => &[Obstructed::Exec, Obstructed::ExecOnNode],
            ProbeMethod::Logs if self.is_auto => &[Obstructed::Image, Obstructed::Logs],
            _ => &[],
        }
    }

    async fn try_method(&mut self, method: ProbeMethod) -> Result<Tried, Failure> {
        if let Some(reason) = self.needs(method).iter().find_map(|what| self.known(*what)) {
            self.pass_over(method, reason);
            return Ok(Tried::Passed);
        }
        // The lock is held until a failure is remembered, because other probes wait for this lock.
        let mut first = if self.is_auto { self.memory.wait_for_first(self.place()).await } else { None };
        if self.is_refused() {
            return Ok(Tried::Ended);
        }
        self.has_run = true;
        match self.run_method(method, &mut first).await {
            Ok(result) => {
                if method == ProbeMethod::Logs
                    && let Some(reason) = self.refused_websocket()
                {
                    self.remember(Obstructed::Exec, reason);
                }
                self.memory.forget(self.place(), disproved_by(method));
                Ok(Tried::Found(Box::new(result)))
            }
            Err(failure) => {
                if self.is_image_of_policy && matches!(failure.cause, Cause::Policy(_)) {
                    self.admitted.forget(&self.cluster, &self.context.settings.probe_namespace).await;
                }
                self.failed(method, failure)
            }
        }
    }

    /// Returns the reason why the report is read from the log and not by an exec, unless the reason is a missing
    /// permission.
    fn refused_websocket(&self) -> Option<Reason> {
        if self.is_auto {
            self.known(Obstructed::ExecOnNode)
        } else {
            self.passed.first().map(|passed| passed.reason.clone())
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
                ProbeMethod::Logs => runner::run(context, Logs::new(context)).await,
                ProbeMethod::Ephemeral => runner::run(context, Ok(Ephemeral::new())).await,
                ProbeMethod::Inject => {
                    let inject = Inject::new(self.archives.clone(), context.base_image.clone());
                    runner::run(context, Ok(inject)).await
                }
                ProbeMethod::Pod | ProbeMethod::Auto | ProbeMethod::None => {
                    runner::run(context, ExecPod::new(context)).await
                }
            }
        });
        tokio::select! {
            biased;
            result = &mut running => return result,
            () = context.admitted.notified() => {}
        }
        // The cluster has admitted the pod.
        self.memory.remember_admitted(self.place(), Instant::now());
        *first = None;
        running.await
    }

    /// Returns what to remember as not working, if anything, and what to try next; `None` if this failure ends the call.
    fn after(&self, failure: &Failure, method: ProbeMethod) -> Option<(Option<Obstructed>, Next)> {
        if !self.is_auto {
            let is_exec = matches!(failure.cause, Cause::WebsocketsRefused | Cause::ExecUnanswered);
            return (is_exec && method == ProbeMethod::Pod).then_some((None, Next::Method));
        }
        let of_cluster = (Some(Obstructed::Pods), Next::ApiOnly);
        let of_this_pod = (None, Next::ApiOnly);
        Some(match &failure.cause {
            Cause::Other
            | Cause::Usage
            | Cause::ActionSent
            | Cause::Refused
            | Cause::ImagePull
            | Cause::NoReport
            | Cause::NoMethod { .. } => return None,
            // The node may not be responding.
            Cause::ExecUnanswered => return None,
            Cause::NamespaceMissing | Cause::CreateForbidden => of_cluster,
            Cause::AdmissionDenied => of_this_pod,
            Cause::Policy(policy) => match policy.kind {
                PolicyKind::EveryPrivilegedPod => of_cluster,
                // The policy may admit the image of the probe.
                PolicyKind::Shipped if method == ProbeMethod::Inject => (Some(Obstructed::UploadPods), Next::ApiOnly),
                // The pods on all nodes have this image, so the policy rejects all of them.
                PolicyKind::Shipped if self.context.settings.names_image() => of_cluster,
                PolicyKind::Shipped | PolicyKind::Unknown => of_this_pod,
            },
            Cause::WebsocketsRefused => (Some(Obstructed::ExecOnNode), Next::Method),
            Cause::ExecForbidden => (Some(Obstructed::Exec), Next::Method),
            Cause::LogForbidden => (Some(Obstructed::Logs), Next::Method),
            Cause::ImageUnavailable | Cause::ImageNotOnNode => (Some(Obstructed::Image), Next::Method),
            // If no pod was created, this machine has no node-probe to upload. The next call tries the method again.
            Cause::Upload => (failure.deleted.then_some(Obstructed::Upload), Next::Method),
        })
    }

    fn failed(&mut self, method: ProbeMethod, failure: Failure) -> Result<Tried, Failure> {
        let Some((what, next)) = self.after(&failure, method) else { return Err(failure) };
        let reason = reason_of(&failure, &self.context.connection.server);
        // A pod for an action needs more permissions than a pod that reads.
        let is_remembered = !(self.context.is_for_actions() && next == Next::ApiOnly);
        if let Some(what) = what.filter(|_| is_remembered) {
            self.remember(what, reason.clone());
        }
        let context = &self.context;
        let may_follow = next == Next::Method && context.may_retry_with_another_pod();
        // There is too little time for a method that might read the node.
        let is_late = may_follow && context.end.saturating_duration_since(Instant::now()) < MIN_TIME;
        // An action is not repeated in another pod, and no second pod is created while the first pod may exist.
        let is_final = context.is_action || failure.left_behind.is_some() || context.is_cancelled();
        if is_final || is_late || !(may_follow || self.is_auto) {
            return Err(failure);
        }
        self.pods += u32::from(failure.deleted);
        self.pass_over(method, reason);
        Ok(if may_follow { Tried::Passed } else { Tried::Ended })
    }

    /// Returns the result, or a failure if no method could read the node.
    async fn finish(self, found: Result<Option<ProbeResult>, Failure>) -> Result<ProbeResult, Failure> {
        let failure = match found {
            Ok(Some(mut result)) => {
                result.timings.total = self.began.elapsed();
                if let Some(PassedOver { reason, .. }) = self.passed.first().filter(|_| !self.is_auto) {
                    let note = format!("{}; the report was read from the pod's log", reason.why);
                    result.note = Some(result.note.map_or(note.clone(), |more| format!("{note}; {more}")));
                }
                return Ok(result);
            }
            Ok(None) => self.no_method(),
            Err(failure) => failure,
        };
        let deleted = failure.deleted || self.pods > 0 && failure.left_behind.is_none();
        let failed = Err(failure.deleted(deleted));
        if !self.has_run {
            // A call that created nothing also gets a line in the audit log.
            self.context.record.ended(&failed, self.began.elapsed()).await;
        }
        failed
    }

    fn no_method(&self) -> Failure {
        let what = format!("Probing node {}", self.context.request.node);
        // A reason that applies to every pod comes first, before the reasons why methods were not used.
        let refused = self.known(Obstructed::Pods);
        let cause = Cause::NoMethod { cluster_wide: refused.is_some() };
        let failure = match refused {
            Some(Reason { why, next_step }) => Failure::new(what, why, next_step),
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
        failure.because_of(cause)
    }
}

/// Returns the obstacles that a success of this method disproves.
fn disproved_by(method: ProbeMethod) -> &'static [Obstructed] {
    match method {
        ProbeMethod::Logs => &[Obstructed::Pods, Obstructed::Image, Obstructed::Logs],
        ProbeMethod::Inject => {
            &[Obstructed::Pods, Obstructed::UploadPods, Obstructed::Upload, Obstructed::Exec, Obstructed::ExecOnNode]
        }
        _ => &[Obstructed::Pods, Obstructed::Image, Obstructed::Exec, Obstructed::ExecOnNode],
    }
}
