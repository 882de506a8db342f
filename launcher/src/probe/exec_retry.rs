//! Exec with retries until the container runs. Watches the pod for reasons to stop retrying.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::admission_policy;
use super::container_state::{self, is_missing_program};
use super::exec_websocket::{self, Command, ExecEnd, ExecError, ExecOutput};
use super::pod_spec::CONTAINER;
use super::probe_context::ProbeContext;
use super::types::{Phase, ProbeContainer, Timings};
use crate::error::{Failure, RejectionReason, kube_reason};
use crate::kubernetes::client::api_status::is_not_a_status;
use crate::kubernetes::client::retry::{is_busy, retry_after};
use crate::kubernetes::read::events;
use crate::settings::ProbeMethod;

/// Time for an exec request to be upgraded.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
/// First pause between two attempts. A container with a cached image runs after some 170 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(30);
/// Longest pause at first: most containers start within a second.
const YOUNG_PAUSE: Duration = Duration::from_millis(60);
/// Longest pause later.
const MAX_PAUSE: Duration = Duration::from_millis(400);
/// A pause is at most this fraction of the time waited so far.
const PART_OF_WAIT: u32 = 16;
/// How often the status of the pod is read.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time for one read of the pod or its events.
const LOOK_TIME: Duration = Duration::from_secs(3);
/// How long an exec may be refused after the container was seen running. Then something else refuses it.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// How often a websocket is refused before the method is given up: one refusal may be of a proxy that restarts.
const MAX_REFUSALS: u32 = 3;
/// Why a pod that was deleted by somebody else does not run the probe.
pub(super) const DELETED: &str = "the pod was deleted";
/// Pause after a refusal.
const REFUSAL_PAUSE: Duration = Duration::from_millis(200);

/// Runs one command, and retries until the container accepts it. Reads the status of the pod in between.
pub(super) async fn exec(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    argv: &[String],
    input: &[u8],
    timings: &mut Timings,
) -> Result<ExecOutput, Failure> {
    let waiting = Instant::now();
    let start_end = context.end.min(waiting + context.settings.start_time());
    let ProbeContainer { namespace, pod, container, .. } = probe_container;
    let command = Command { namespace, pod, container, argv, input };
    context.report(Phase::Start);
    let mut pause = FIRST_PAUSE;
    let mut looked = waiting;
    let mut seen_running: Option<Instant> = None;
    let mut last = String::from("no attempt was made");
    let mut refusals = 0;
    let mut busy = false;
    while Instant::now() < start_end {
        let attempt = Instant::now();
        let on_phase = context.on_phase.clone();
        let run =
            exec_websocket::run(&context.connection.client, &command, UPGRADE_TIME, move || on_phase(Phase::Read));
        let attempted = timeout(context.end.saturating_duration_since(attempt), run).await;
        busy = matches!(&attempted, Ok(Err(ExecError::Kube(error))) if is_busy(error));
        match attempted {
            Err(_) => return Err(context.out_of_time("the probe did not finish")),
            Ok(Ok(output)) => match output.ended {
                // Up to Kubernetes 1.35 a container that does not run yet is reported as a status on the stream.
                ExecEnd::Refused(ref why) if not_yet(why) => last = why.clone(),
                ExecEnd::Refused(ref why) => return Err(not_run(context, probe_container, why)),
                _ => {
                    context.accepted.store(true, Ordering::Relaxed);
                    timings.start += attempt - waiting;
                    timings.exec += attempt.elapsed();
                    return Ok(output);
                }
            },
            Ok(Err(error)) => {
                last = error.to_string();
                pause = pause.max(pause_after(context, probe_container, &error, &mut refusals)?);
            }
        }
        if looked.elapsed() >= LOOK_EVERY || pause >= LOOK_EVERY {
            looked = Instant::now();
            if check_pod(context, probe_container).await? {
                let since = *seen_running.get_or_insert(looked);
                if since.elapsed() >= REFUSED_FOR && !busy {
                    return Err(no_websocket(context, &last));
                }
            }
        }
        sleep(pause).await;
        let longest = (waiting.elapsed() / PART_OF_WAIT).clamp(YOUNG_PAUSE, MAX_PAUSE);
        pause = (pause * 3 / 2).min(longest);
    }
    Err(start_timed_out(context, probe_container, waiting.elapsed(), &last, busy).await)
}

/// The same as `retry_pause`, and counts refused websockets: only several of them are an error.
fn pause_after(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    error: &ExecError,
    refusals: &mut u32,
) -> Result<Duration, Failure> {
    retry_pause(context, probe_container, error).or_else(|failure| {
        *refusals += 1;
        let is_last = failure.obstacle != Some(RejectionReason::Websockets) || *refusals >= MAX_REFUSALS;
        if is_last { Err(failure) } else { Ok(REFUSAL_PAUSE) }
    })
}

/// The failure of a container that accepted no exec in time. `busy`: the API server limited the last request.
async fn start_timed_out(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    waited: Duration,
    last: &str,
    busy: bool,
) -> Failure {
    if busy {
        let next =
            "The API server limits the number of requests: try again later, or with fewer calls at the same time.";
        return Failure { next_step: next.to_owned(), ..context.out_of_time(last) };
    }
    match check_pod(context, probe_container).await {
        Ok(true) => no_websocket(context, last),
        Ok(false) => not_started_in_time(context, probe_container, waited, last).await,
        Err(failure) => failure,
    }
}

/// The failure of a container that did not start in time, with the newest warning of the pod, or else the `last` error.
pub(super) async fn not_started_in_time(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    waited: Duration,
    last: &str,
) -> Failure {
    let late = not_started_after(context, waited);
    // The status of the pod does not show a pull that takes long.
    let pull = async {
        let ProbeContainer { namespace, pod, .. } = probe_container;
        let looking = events::unfinished_pull(&context.connection, namespace, pod);
        if probe_container.container == CONTAINER { timeout(LOOK_TIME, looking).await.ok()?.ok()? } else { None }
    };
    match newest_warning(context, probe_container).await {
        Some(warning) => {
            let next = if warning.contains("no runtime for") {
                "The container runtime of the node does not have the handler of that RuntimeClass: use another --runtime-class."
            } else {
                "Fix on the node what the warning reports."
            };
            let why = format!("{late}; the pod's newest warning is {warning}");
            Failure { next_step: next.to_owned(), ..context.out_of_time(&why) }
        }
        None => match pull.await {
            Some(pull) => {
                let next = "The registry may be slow or not reachable from the node: check it, raise --start-timeout, or use --via \
                            inject, which needs no registry.";
                let why = format!("{late}; the node still pulls the image (event Pulling: {pull})");
                Failure { next_step: next.to_owned(), ..context.out_of_time(&why) }
            }
            None => context.out_of_time(&format!("{late} ({last})")),
        },
    }
}

/// The newest warning event: causes that the status does not show, such as a failed sandbox. Only for our own pods.
async fn newest_warning(context: &ProbeContext, probe_container: &ProbeContainer) -> Option<String> {
    if probe_container.container != CONTAINER {
        return None;
    }
    let looking = events::newest_warning(&context.connection, &probe_container.namespace, &probe_container.pod);
    let warning = timeout(LOOK_TIME, looking).await.ok()?.ok()??;
    Some(format!("{}: {}", warning.reason, warning.message))
}

/// States that the container did not start, the time waited, and the limit that applied.
fn not_started_after(context: &ProbeContext, waited: Duration) -> String {
    let limit = if waited >= context.settings.start_time() {
        format!("--start-timeout {}", context.settings.start_timeout)
    } else {
        "the time of this call or node".to_owned()
    };
    format!("the probe container did not start within {:.1} s, the limit of {limit}", waited.as_secs_f64())
}

/// The pause before the next attempt after a refused exec; an error if retrying is useless.
fn retry_pause(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    error: &ExecError,
) -> Result<Duration, Failure> {
    let ExecError::Kube(error) = error else { return Ok(FIRST_PAUSE) };
    let why = kube_reason(error);
    match error {
        kube::Error::Api(status) if matches!(status.code, 429 | 503) => Ok(retry_after(status)),
        kube::Error::Api(_) if not_yet(&why) => Ok(FIRST_PAUSE),
        // Not an answer of the API server: a proxy in front of it answers, or the kubelet.
        kube::Error::Api(status) if is_not_a_status(status) && is_final(status.code) => {
            Err(no_websocket(context, &why))
        }
        kube::Error::Api(status) => match status.code {
            403 if let Some((who, change)) = admission_policy::refused_by(&why, &probe_container.namespace) => {
                let what = format!("Running the probe in pod {}/{}", probe_container.namespace, probe_container.pod);
                Err(Failure::new(what, format!("denied by {who}: {why}"), change).because_of(RejectionReason::Policy(who)))
            }
            401 | 403 => Err(Failure::new(
                format!("Running the probe in pod {}/{}", probe_container.namespace, probe_container.pod),
                why,
                "Your user needs get and create on pods/exec in that namespace (deploy/rbac.yaml). Without them, use --via \
                 logs.",
            )
            .cluster_wide()),
            404 => Err(not_run(context, probe_container, &why)),
            400..500 => Err(no_websocket(context, &why)),
            _ => Ok(FIRST_PAUSE),
        },
        kube::Error::UpgradeConnection(_) => Err(no_websocket(context, &why)),
        _ => Ok(FIRST_PAUSE),
    }
}

fn no_websocket(context: &ProbeContext, why: &str) -> Failure {
    let what = format!("Opening a websocket to node {} through {}", context.request.node, context.connection.server);
    if why.contains("dial") {
        // The log is read through the kubelet as well: no other method helps.
        let next = "The API server cannot reach the kubelet of the node (port 10250): check the firewall between them, or \
             konnectivity.";
        return Failure::new(what, why, next);
    }
    let next = "A proxy or load balancer in front of the API server rejects websockets: allow them, connect to the API server \
             directly, or use --via logs.";
    Failure::new(what, why, next).because_of(RejectionReason::Websockets)
}

/// Reads the status of the pod. An error if waiting is useless; otherwise whether the container runs.
pub(super) async fn check_pod(context: &ProbeContext, probe_container: &ProbeContainer) -> Result<bool, Failure> {
    match timeout(LOOK_TIME, context.pods(&probe_container.namespace).get_opt(&probe_container.pod)).await {
        Ok(Ok(Some(pod))) => match container_state::fatal_reason(&pod, probe_container, &context.settings) {
            Some((why, next)) => Err(not_started(context, probe_container, &why, next)),
            None => Ok(container_state::state_of(&pod, &probe_container.container)
                .is_some_and(|state| state.running.is_some())),
        },
        Ok(Ok(None)) => Err(not_run(context, probe_container, DELETED)),
        // A failed read proves nothing; the next exec tells.
        Ok(Err(_)) | Err(_) => Ok(false),
    }
}

pub(super) fn not_started(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    why: &str,
    next: String,
) -> Failure {
    let what = format!("Starting the probe on node {} (image {})", context.request.node, probe_container.image);
    let failure = Failure::new(what, why, next);
    let no_image = context.settings.via != ProbeMethod::Inject && container_state::is_image_pull_failure(why);
    if no_image { failure.cluster_wide() } else { failure }
}

pub(super) fn not_run(context: &ProbeContext, probe_container: &ProbeContainer, why: &str) -> Failure {
    let next = if is_missing_program(why) {
        probe_container.if_missing
    } else if why == exec_websocket::OUTPUT_TOO_LARGE {
        "The image contains another program of that name: use the right image with --image."
    } else if why == DELETED || why.starts_with("pods \"") && why.contains("\" not found") {
        "Another user or a controller deleted the probe pod: the audit log of the API server names it. Then try again."
    } else {
        "Check the kubelet and the container runtime of the node, and try again."
    };
    Failure::new(format!("Running the probe on node {}", context.request.node), why, next)
}

/// Whether the status code of a proxy is permanent, as of one without websockets. A bad gateway may recover.
fn is_final(code: u16) -> bool {
    code < 500 || code == 501
}

/// Whether the message is one of API server, kubelet or runtime for a container that does not run yet.
pub(super) fn not_yet(why: &str) -> bool {
    // Not "unable to upgrade connection": it precedes temporary and permanent causes.
    const PHRASES: [&str; 6] = [
        "container not found",
        "pod does not exist",
        "does not have a host assigned",
        "CONTAINER_CREATED",
        "is not created or running",
        "dial tcp",
    ];
    PHRASES.iter().any(|phrase| why.contains(phrase))
}
