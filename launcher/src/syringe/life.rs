//! The life of one probe pod, from its creation to its removal. Runs as a task of its own; nothing drops it half way.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::Api;
use kube::api::PostParams;
use syringe_core::report::Report;
use syringe_core::text::clean;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::exec::{self, Command, Ended, ExecError, Output};
use super::{CONTAINER, OnPhase, Order, Phase, ProbePod, Probed, Timings, withdraw};
use crate::audit::Record;
use crate::cluster::Connection;
use crate::cluster::patience::{may_pass, retry_after};
use crate::error::{Failure, kube_reason};
use crate::settings::Settings;

/// Time for the API server to take the pod: admission webhooks sit behind it.
const CREATE_TIME: Duration = Duration::from_secs(10);
/// Time for an exec request to be upgraded.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
/// First pause between two tries to exec; a container on a warm node runs after some 170 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(30);
/// Longest pause between two tries while a pod is young: most start within a second, and a try that comes late is time lost.
const YOUNG_PAUSE: Duration = Duration::from_millis(60);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// A pause may be this part of the wait so far, so that no try comes later than by a sixteenth.
const PART_OF_WAIT: u32 = 16;
/// How often the pod itself is looked at for reasons that end the wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long an exec may be refused once the container is seen to run: then it is not the container that refuses.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// kube's reason for an answer that is no `Status`.
const FOREIGN: &str = "Failed to parse error data";

/// Everything one pod's life needs.
pub(super) struct Life {
    pub(super) connection: Connection,
    pub(super) pod: ProbePod,
    pub(super) settings: Arc<Settings>,
    pub(super) order: Order,
    pub(super) on_phase: OnPhase,
    /// The caller no longer wants the answer.
    pub(super) cancel: CancellationToken,
    /// The program is ending.
    pub(super) stop: CancellationToken,
    /// What the audit log will say of it.
    pub(super) record: Arc<Record>,
}

/// A document and how it came.
struct Document {
    report: Report,
    note: Option<String>,
}

impl Life {
    /// Creates the pod, reads the document, removes the pod: the last whatever became of the others.
    pub(super) async fn run(self) -> Result<Probed, Failure> {
        let began = Instant::now();
        // Whoever gave up while the node was looked at, or a program that is ending, gets no pod at all: once the program
        // has seen that no life is left, none may begin.
        if self.is_given_up() {
            return Err(self.stopped());
        }
        let pods: Api<Pod> = Api::namespaced(self.connection.client.clone(), &self.pod.namespace);
        let mut timings = Timings::default();
        (self.on_phase)(Phase::Create);
        let uid = self.create(&pods).await;
        if let Ok(uid) = &uid {
            self.record.created(&self.pod.name, uid.as_deref());
        }
        timings.create = began.elapsed();
        let read = match &uid {
            Ok(_) => {
                let end = began + self.order.deadline;
                tokio::select! {
                    read = self.read(&pods, end, &mut timings) => read,
                    () = self.cancel.cancelled() => Err(self.stopped()),
                    () = self.stop.cancelled() => Err(self.stopped()),
                }
            }
            Err(failed) => Err(failed.failure.clone()),
        };
        let left_behind = self.remove(&pods, uid, &mut timings).await;
        timings.total = began.elapsed();
        match read {
            Ok(Document { report, note }) => {
                Ok(Probed { report, pod: self.pod.name, removed: left_behind.is_none(), left_behind, timings, note })
            }
            Err(failure) => Err(failure.leaving(left_behind)),
        }
    }

    /// `Some` says what is left on the cluster and what to do about it.
    async fn remove(
        &self,
        pods: &Api<Pod>,
        uid: Result<Option<String>, CreateFailed>,
        timings: &mut Timings,
    ) -> Option<String> {
        if uid.as_ref().is_err_and(|failed| !failed.may_exist) {
            return None;
        }
        let uid = uid.ok().flatten();
        let began = Instant::now();
        (self.on_phase)(Phase::Remove);
        let removed = withdraw::withdraw(pods, &self.pod.name, uid.as_deref()).await;
        timings.remove = began.elapsed();
        let reason = removed.err()?;
        let ProbePod { name, namespace, .. } = &self.pod;
        tracing::warn!(pod = %name, %reason, "the probe pod could not be removed");
        Some(format!(
            "pod {namespace}/{name} could not be removed ({reason}); it ends by itself within {} s, the next start sweeps \
             it, or: kubectl -n {namespace} delete pod {name}",
            self.settings.probe_lifetime().as_secs(),
        ))
    }

    async fn create(&self, pods: &Api<Pod>) -> Result<Option<String>, CreateFailed> {
        let params = PostParams::default();
        let end = Instant::now() + CREATE_TIME;
        loop {
            let error = match timeout(CREATE_TIME, pods.create(&params, &self.pod.object)).await {
                Ok(Ok(pod)) => return Ok(pod.metadata.uid),
                Ok(Err(error)) => error,
                Err(_) => {
                    let why = format!("{} did not answer within {CREATE_TIME:?}", self.connection.server);
                    return Err(CreateFailed { failure: self.not_created(why, None), may_exist: true });
                }
            };
            // Too many requests, or a server that is starting: nothing was created, so asking again is safe. The name is
            // ours alone: should a try have succeeded unseen, the next one is refused as existing.
            if let kube::Error::Api(status) = &error
                && may_pass(status)
                && Instant::now() < end
            {
                tokio::select! {
                    () = sleep(retry_after(status)) => {}
                    () = self.cancel.cancelled() => {}
                    () = self.stop.cancelled() => {}
                }
                if !self.is_given_up() {
                    continue;
                }
            }
            let code = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
            // A refusal created nothing; a connection that broke may have.
            let may_exist = code.is_none_or(|code| code >= 500 || code == 409);
            return Err(CreateFailed { failure: self.not_created(kube_reason(&error), code), may_exist });
        }
    }

    fn not_created(&self, why: String, code: Option<u16>) -> Failure {
        let namespace = &self.pod.namespace;
        let next = match code {
            Some(403) if why.contains("PodSecurity") || why.contains("violates") => format!(
                "The namespace must admit privileged pods: kubectl label namespace {namespace} \
                 pod-security.kubernetes.io/enforce=privileged (deploy/namespace.yaml has it)."
            ),
            Some(403) => format!(
                "Your user needs create, get and delete on pods and get and create on pods/exec in namespace {namespace}: \
                 see deploy/rbac.yaml."
            ),
            Some(404) => format!("Create the namespace: kubectl apply -f deploy/namespace.yaml ({namespace})."),
            _ => format!("Check that {} can be reached, and try again.", self.connection.server),
        };
        Failure::new(format!("Creating the probe pod for node {} in namespace {namespace}", self.order.node), why, next)
    }

    /// Runs the probe as soon as the container can take it, and reads its document. A document that does not parse to its
    /// end was cut: once more, then an error that says so.
    async fn read(&self, pods: &Api<Pod>, end: Instant, timings: &mut Timings) -> Result<Document, Failure> {
        let mut retried = None;
        loop {
            let output = self.exec(pods, end, timings).await?;
            match document(&output) {
                Ok(report) => {
                    let stuck = (output.ended == Ended::DocumentOnly).then(|| {
                        "the probe printed its document but did not end: a reader is stuck inside the driver".to_owned()
                    });
                    return Ok(Document { report, note: stuck.or(retried) });
                }
                Err(why) if retried.is_none() => {
                    tracing::info!(%why, "the probe's answer was incomplete, asking once more");
                    retried = Some(format!("the first answer was incomplete ({why}); this is the second"));
                }
                Err(why) => {
                    return Err(Failure::new(
                        format!("Reading the probe's answer from node {}", self.order.node),
                        format!("{why}, twice"),
                        "Something between here and the node cuts websocket streams (a proxy, a load balancer) or the node \
                         is in trouble: try again, or from closer to the cluster.",
                    ));
                }
            }
        }
    }

    /// One exec that ran. Tries until the container can take it; looks at the pod beside it.
    async fn exec(&self, pods: &Api<Pod>, end: Instant, timings: &mut Timings) -> Result<Output, Failure> {
        let waiting = Instant::now();
        let start_end = end.min(waiting + self.settings.start_time());
        let argv: Vec<_> = std::iter::once("node-probe".to_owned()).chain(self.order.command.iter().cloned()).collect();
        let command =
            Command { namespace: &self.pod.namespace, pod: &self.pod.name, container: CONTAINER, argv: &argv };
        (self.on_phase)(Phase::Start);
        let mut pause = FIRST_PAUSE;
        let mut looked = waiting;
        let mut seen_running: Option<Instant> = None;
        let mut last = String::from("no try was made");
        while Instant::now() < start_end {
            let attempt = Instant::now();
            let on_phase = self.on_phase.clone();
            let run = exec::run(&self.connection.client, &command, UPGRADE_TIME, move || on_phase(Phase::Read));
            match timeout(end.saturating_duration_since(attempt), run).await {
                Err(_) => return Err(self.out_of_time("the probe did not finish")),
                Ok(Ok(output)) => match output.ended {
                    // Up to Kubernetes 1.35 a container that is not there yet is a status on the stream.
                    Ended::Refused(ref why) if not_yet(why) => last = why.clone(),
                    Ended::Refused(ref why) => return Err(self.not_run(why)),
                    _ => {
                        timings.start = attempt - waiting;
                        timings.exec += attempt.elapsed();
                        return Ok(output);
                    }
                },
                Ok(Err(error)) => {
                    let wait = self.may_try_again(&error)?;
                    last = error.to_string();
                    pause = pause.max(wait);
                }
            }
            if looked.elapsed() >= LOOK_EVERY || pause >= LOOK_EVERY {
                looked = Instant::now();
                if self.look(pods).await? {
                    let since = *seen_running.get_or_insert(looked);
                    if since.elapsed() >= REFUSED_FOR {
                        return Err(self.upgrade_refused(&last));
                    }
                }
            }
            sleep(pause).await;
            let longest = (waiting.elapsed() / PART_OF_WAIT).clamp(YOUNG_PAUSE, LONGEST_PAUSE);
            pause = (pause * 3 / 2).min(longest);
        }
        if self.look(pods).await? {
            return Err(self.upgrade_refused(&last));
        }
        Err(self.out_of_time(&format!("its container did not start within {:?} ({last})", self.settings.start_time())))
    }

    /// Whether an exec that was refused may succeed later, and how long to wait before.
    fn may_try_again(&self, error: &ExecError) -> Result<Duration, Failure> {
        let ExecError::Kube(error) = error else { return Ok(FIRST_PAUSE) };
        let why = kube_reason(error);
        match error {
            // Not a word of the API server: somebody before it answers, or a kubelet behind it.
            kube::Error::Api(status) if status.reason == FOREIGN && is_final(status.code) && !not_yet(&why) => {
                Err(self.upgrade_refused(&why))
            }
            kube::Error::Api(status) => match status.code {
                401 | 403 => Err(Failure::new(
                    format!("Running the probe in pod {}/{}", self.pod.namespace, self.pod.name),
                    why,
                    "Your user needs get and create on pods/exec in that namespace: see deploy/rbac.yaml.",
                )),
                429 => Ok(retry_after(status)),
                404 if !not_yet(&why) => Err(self.not_run(&why)),
                400..500 if !not_yet(&why) => Err(self.upgrade_refused(&why)),
                _ => Ok(FIRST_PAUSE),
            },
            kube::Error::UpgradeConnection(_) => Err(self.upgrade_refused(&why)),
            _ => Ok(FIRST_PAUSE),
        }
    }

    fn upgrade_refused(&self, why: &str) -> Failure {
        let next = if why.contains("dial") {
            "The API server cannot reach the node's kubelet (port 10250): look at the firewall between them, or at \
             konnectivity."
        } else {
            "A proxy or load balancer before the API server refuses websockets: allow them, or connect to the API server \
             directly."
        };
        let what = format!("Opening a websocket to node {} through {}", self.order.node, self.connection.server);
        Failure::new(what, why, next)
    }

    /// Looks at the pod for what makes waiting useless. Says whether its container is seen to run.
    async fn look(&self, pods: &Api<Pod>) -> Result<bool, Failure> {
        match timeout(Duration::from_secs(3), pods.get_opt(&self.pod.name)).await {
            Ok(Ok(Some(pod))) => match hopeless(&pod) {
                Some((why, next)) => Err(Failure::new(
                    format!("Starting the probe on node {} (image {})", self.order.node, self.settings.image),
                    why,
                    next,
                )),
                None => Ok(is_running(&pod)),
            },
            Ok(Ok(None)) => Err(self.not_run("somebody deleted the probe pod")),
            // A look that fails proves nothing; the next exec will tell.
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    fn not_run(&self, why: &str) -> Failure {
        let next = if why.contains("executable file not found") || why.contains("no such file") {
            "The image holds no node-probe: name the right one with --image (deploy/Containerfile builds it)."
        } else {
            "Look at the node's kubelet and container runtime, and try again."
        };
        Failure::new(format!("Running the probe on node {}", self.order.node), why, next)
    }

    fn out_of_time(&self, why: &str) -> Failure {
        Failure::new(
            format!("Probing node {}", self.order.node),
            why,
            "Look at the node's kubelet and at the pod's events, or allow more time with --start-timeout and --call-timeout.",
        )
    }

    /// Whether the answer is no longer wanted.
    fn is_given_up(&self) -> bool {
        self.cancel.is_cancelled() || self.stop.is_cancelled()
    }

    fn stopped(&self) -> Failure {
        // At the command line the two are one: the end of the program.
        let why = if self.stop.is_cancelled() { "gpu-syringe is ending" } else { "cancelled by the caller" };
        Failure::new(format!("Probing node {}", self.order.node), why, "Call again when you want the answer.")
    }
}

/// A pod that was not created; or perhaps was, when the answer was lost.
struct CreateFailed {
    failure: Failure,
    may_exist: bool,
}

/// The report in what the probe printed.
fn document(output: &Output) -> Result<Report, String> {
    let Output { stdout, stderr, ended } = output;
    serde_json::from_slice(stdout).map_err(|error| {
        let ending = match ended {
            Ended::Cut => "the connection was cut".to_owned(),
            Ended::Exit(code) => format!("the probe ended with exit code {code}"),
            Ended::DocumentOnly | Ended::Refused(_) => "the probe did not end in order".to_owned(),
        };
        let said = if stderr.is_empty() { String::new() } else { format!("; it said: {}", clean(stderr, 200)) };
        format!("{ending} after {} bytes that are no whole document ({error}){said}", stdout.len())
    })
}

/// The words of API server, kubelet and runtime for a container that does not run yet.
fn not_yet(why: &str) -> bool {
    [
        "container not found",
        "pod does not exist",
        "does not have a host assigned",
        "CONTAINER_CREATED",
        "is not created or running",
        "unable to upgrade connection",
        "dial tcp",
    ]
    .iter()
    .any(|words| why.contains(words))
}

/// Whether a proxy that answers so will go on doing it: it does not know websockets. A bad gateway may mend.
fn is_final(code: u16) -> bool {
    code < 500 || code == 501
}

fn is_running(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    containers.iter().any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// Why the pod will never run, and what to do.
fn hopeless(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        let reason = status.reason.clone().unwrap_or_else(|| "the pod ended".into());
        let message = status.message.clone().unwrap_or_default();
        return Some((
            format!("{reason}: {message}"),
            match reason.as_str() {
                "OutOfpods" => "The node has as many pods as it may have: free one, or raise maxPods.".into(),
                reason if reason.starts_with("OutOf") => "The node's kubelet is out of that resource.".into(),
                "Evicted" => "The node evicts pods: look at its disk, memory and PID pressure conditions.".into(),
                _ => "Look at the node's kubelet log for the pod.".into(),
            },
        ));
    }
    let state = status.container_statuses.as_ref()?.first()?.state.as_ref()?;
    let ContainerState { waiting: Some(waiting), .. } = state else { return None };
    let reason = waiting.reason.as_deref()?;
    let next = match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError" => {
            "Name an image that the node can pull with --image, and its credentials with --image-pull-secret."
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            "The container runtime refuses the container: see the message, and the node's runtime log."
        }
        _ => return None,
    };
    Some((format!("{reason}: {}", waiting.message.as_deref().unwrap_or("no message")), next.into()))
}
