//! `exec`: repeats an exec until the container is running. `not_started_in_time`: the failure if it does not start in
//! time. `check_pod`: reads the status of the pod (`PodState`), and fails if the container can never start.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::probe::exec::container_state;
use crate::probe::exec::failure::{
    Refusal, exec_forbidden, is_final, no_exec, no_websocket, not_run, not_started, pod_deleted, slow_upload,
};
use crate::probe::exec::pull_progress;
use crate::probe::exec::websocket as exec_websocket;
use crate::probe::exec::websocket::{Command, ExecError, ExecOutput};
use crate::probe::lifecycle::pod_spec::CONTAINER;
use crate::probe::probe_context::ProbeContext;
use crate::probe::refusal::admission_policy;
use crate::probe::request::Phase;
use crate::probe::result::{ProbeContainer, Timings};
use kube_read::Failure;
use kube_read::client::api_status::is_not_a_status;
use kube_read::client::retry::{is_busy, is_not_sent, retry_after};
use kube_read::failure::{Cause, kube_reason};
use kube_read::reads::events;

/// Time limit of the upgrade of an exec request to a websocket.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
/// First pause between two attempts. A container whose image is on the node is running after about 170 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Maximum pause at the beginning: most containers start within a second.
const YOUNG_PAUSE: Duration = Duration::from_millis(30);
const MAX_PAUSE: Duration = Duration::from_millis(400);
/// Divisor for pauses. A pause is at most the time that was already waited, divided by this number.
const PART_OF_WAIT: u32 = 16;
/// First pause between two reads of the pod status. A pull may take minutes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Maximum pause between two reads of the pod status.
const MAX_LOOK_PAUSE: Duration = Duration::from_secs(2);
/// Time limit of one read of the pod or its events.
const LOOK_TIME: Duration = Duration::from_secs(3);
/// Maximum time in which an exec may be rejected after the container is running. After this time, the start is not the
/// cause.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Number of rejected websockets after which the method is given up. A single rejection may be from a proxy that is
/// restarting.
const MAX_REFUSALS: u32 = 3;
/// Pause after a rejected websocket.
const REFUSAL_PAUSE: Duration = Duration::from_millis(200);

/// Runs one command, with retries until the container accepts it. Reads the status of the pod between the attempts.
pub(crate) async fn exec(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    argv: &[String],
    input: &[u8],
    timings: &mut Timings,
) -> Result<ExecOutput, Failure> {
    let waiting = Instant::now();
    let start_end = context.end.min(waiting + context.settings.start_time());
    let ProbeContainer { namespace, pod, container, .. } = probe_container;
    let sent = AtomicUsize::new(0);
    let command = Command { namespace, pod, container, argv, input, sent: &sent };
    context.report(Phase::Start);
    let mut pause = FIRST_PAUSE;
    let mut looked = waiting;
    let mut first_running: Option<Instant> = None;
    let mut last: Option<ExecError> = None;
    let mut refusals = 0;
    let mut has_checked_pull = false;
    while Instant::now() < start_end {
        let attempt = Instant::now();
        sent.store(0, Ordering::Relaxed);
        match exec_once(context, &command).await {
            Err(_) if sent.load(Ordering::Relaxed) < input.len() => {
                return Err(slow_upload(context, sent.load(Ordering::Relaxed), input.len(), attempt.elapsed()));
            }
            Err(_) if !input.is_empty() => {
                return Err(context.out_of_time("the upload of node-probe did not end"));
            }
            Err(_) => {
                context.note_process_stays("had not exited when the time of the call was over");
                return Err(context.out_of_time("the probe did not finish"));
            }
            Ok(Ok(output)) => {
                context.accepted.store(true, Ordering::Relaxed);
                timings.start += attempt - waiting;
                timings.exec += attempt.elapsed();
                return Ok(output);
            }
            Ok(Err(error)) => {
                pause = pause.max(pause_after(context, probe_container, &error, &mut refusals)?);
                last = Some(error);
            }
        }
        let look_every = (waiting.elapsed() / PART_OF_WAIT).clamp(LOOK_EVERY, MAX_LOOK_PAUSE);
        if looked.elapsed() >= look_every || pause >= LOOK_EVERY {
            looked = Instant::now();
            pull_progress::report_pull(context, probe_container, waiting.elapsed(), &mut has_checked_pull).await;
            if check_pod(context, probe_container).await? == PodState::Running {
                let since = *first_running.get_or_insert(looked);
                if let Some(error) =
                    last.as_ref().filter(|error| since.elapsed() >= REFUSED_FOR && !is_throttled(error))
                {
                    return Err(no_exec(context, error));
                }
            }
        }
        sleep(pause).await;
        let longest = (waiting.elapsed() / PART_OF_WAIT).clamp(YOUNG_PAUSE, MAX_PAUSE);
        pause = (pause * 3 / 2).min(longest);
    }
    let Some(last) = last else {
        let failure = context.out_of_time("the call timed out before the probe ran");
        return Err(failure.with_next_step("Raise --call-timeout, or read fewer nodes in a call."));
    };
    if is_throttled(&last) {
        let next =
            "The API server limits the number of requests: try again later, or with fewer calls at the same time.";
        return Err(context.out_of_time(&last.to_string()).with_next_step(next));
    }
    Err(start_timed_out(context, probe_container, waiting.elapsed(), &last).await)
}

/// Returns whether the API server rejected the request because there are too many requests.
fn is_throttled(error: &ExecError) -> bool {
    matches!(error, ExecError::Kube(error) if is_busy(error))
}

/// The result of one exec; `Elapsed` if the time for reading is over.
type Attempt = Result<Result<ExecOutput, ExecError>, Elapsed>;

/// Runs the command once, and records whether an action may have been started.
async fn exec_once(context: &ProbeContext, command: &Command<'_>) -> Attempt {
    let on_phase = context.on_phase.clone();
    let run = exec_websocket::run(&context.connection.client, command, UPGRADE_TIME, move || on_phase(Phase::Read));
    let attempted = timeout_at(context.end, run).await;
    // A command with input is the upload, which starts no action.
    if context.is_action && command.input.is_empty() && may_have_started(&attempted) {
        context.action_sent.store(true, Ordering::Relaxed);
    }
    attempted
}

/// Returns whether the command may have been started: the API server, the kubelet and the runtime did not reject it.
fn may_have_started(attempted: &Attempt) -> bool {
    match attempted {
        Ok(Err(ExecError::Refused(_) | ExecError::Kube(kube::Error::Api(_)))) => false,
        Ok(Err(ExecError::Kube(error))) => !is_not_sent(error),
        Ok(Ok(_) | Err(ExecError::Timeout(_) | ExecError::TooLarge(_))) | Err(_) => true,
    }
}

/// Returns the pause before the next attempt. Rejected websockets are an error only after [`MAX_REFUSALS`] attempts.
fn pause_after(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    error: &ExecError,
    refusals: &mut u32,
) -> Result<Duration, Failure> {
    retry_pause(context, probe_container, error).or_else(|failure| {
        *refusals += 1;
        let is_last = failure.cause != Cause::WebsocketsRefused || *refusals >= MAX_REFUSALS;
        if is_last { Err(failure) } else { Ok(REFUSAL_PAUSE) }
    })
}

/// Returns the failure of a container that did not accept an exec in time.
async fn start_timed_out(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    waited: Duration,
    last: &ExecError,
) -> Failure {
    match check_pod(context, probe_container).await {
        Ok(PodState::Running) => no_exec(context, last),
        Ok(PodState::NotRunning) => not_started_in_time(context, probe_container, waited, &last.to_string()).await,
        Ok(PodState::Unread(why)) => context.lost_contact(&format!("{last}; reading the pod failed: {why}")),
        Err(failure) => failure,
    }
}

/// Returns the failure of a container that did not start in time, with the newest warning of the pod, or else the
/// `last` error.
pub(crate) async fn not_started_in_time(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    waited: Duration,
    last: &str,
) -> Failure {
    let late = not_started_after(context, waited);
    // The status of the pod does not show that a pull takes a long time.
    let pull = async {
        let ProbeContainer { namespace, pod, .. } = probe_container;
        let looking = events::unfinished_pull(&context.connection, namespace, pod);
        if probe_container.container == CONTAINER { timeout(LOOK_TIME, looking).await.ok()?.ok()? } else { None }
    };
    match newest_warning(context, probe_container).await {
        Some(warning) => {
            let next = if warning.contains("no runtime for") {
                "The container runtime of the node does not have the handler of the RuntimeClass: use another --runtime-class."
            } else {
                "On the node, fix the problem that the warning describes."
            };
            let why = format!("{late}; the pod's newest warning is {warning}");
            Failure { next_step: next.to_owned(), ..context.out_of_time(&why) }
        }
        None => match pull.await {
            Some(pull) => {
                let next = "The registry may be slow or not reachable from the node: check the registry, raise --start-timeout, or use --via \
                            inject, which needs no registry.";
                let why = format!("{late}; the node is still pulling the image (event Pulling: {pull})");
                Failure { next_step: next.to_owned(), ..context.out_of_time(&why) }
            }
            None => context.out_of_time(&format!("{late} ({last})")),
        },
    }
}

/// Returns the newest warning event of a pod that we created. A warning can show a cause that is not in the status, such
/// as a failed sandbox.
async fn newest_warning(context: &ProbeContext, probe_container: &ProbeContainer) -> Option<String> {
    if probe_container.container != CONTAINER {
        return None;
    }
    let looking = events::newest_warning(&context.connection, &probe_container.namespace, &probe_container.pod);
    let warning = timeout(LOOK_TIME, looking).await.ok()?.ok()??;
    Some(format!("{}: {}", warning.reason, warning.message))
}

/// Describes that the container did not start, the time that the launcher waited, and the limit that applied.
fn not_started_after(context: &ProbeContext, waited: Duration) -> String {
    let limit = if waited >= context.settings.start_time() {
        format!("--start-timeout {}", context.settings.start_timeout)
    } else {
        "the time limit of this call or node".to_owned()
    };
    format!("the probe container did not start within {:.1} s ({limit})", waited.as_secs_f64())
}

/// Returns the pause before the next attempt after a rejected exec, or an error if another attempt would fail, too.
fn retry_pause(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    error: &ExecError,
) -> Result<Duration, Failure> {
    let not_run = || Err(not_run(context, probe_container, error));
    let why = error.to_string();
    let error = match error {
        ExecError::Kube(error) => error,
        ExecError::Timeout(_) => return Ok(FIRST_PAUSE),
        ExecError::Refused(_) if Refusal::of(&why).is_temporary() => return Ok(FIRST_PAUSE),
        ExecError::Refused(_) | ExecError::TooLarge(_) => return not_run(),
    };
    match error {
        kube::Error::Api(status) if matches!(status.code, 429 | 503) => Ok(retry_after(status)),
        kube::Error::Api(_) if Refusal::of(&why).is_temporary() => Ok(FIRST_PAUSE),
        // The response is from a proxy in front of the API server, or from the kubelet.
        kube::Error::Api(status) if is_not_a_status(status) && is_final(status.code) => {
            Err(no_websocket(context, &why))
        }
        kube::Error::Api(status) => match status.code {
            403 if let Some(denial) = admission_policy::denial(&why, &probe_container.namespace) => {
                let what = format!("Running the probe in pod {}/{}", probe_container.namespace, probe_container.pod);
                Err(denial.failure(what, &why))
            }
            401 | 403 => Err(exec_forbidden(probe_container, &why)),
            404 => not_run(),
            400..500 => Err(no_websocket(context, &why)),
            _ => Ok(FIRST_PAUSE),
        },
        kube::Error::UpgradeConnection(_) => Err(no_websocket(context, &why)),
        _ => Ok(FIRST_PAUSE),
    }
}

/// The state of the container while an exec is retried.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PodState {
    Running,
    NotRunning,
    /// The pod could not be read, for this reason.
    Unread(String),
}

/// Reads the status of the pod. Fails if the container can never start.
pub(crate) async fn check_pod(context: &ProbeContext, probe_container: &ProbeContainer) -> Result<PodState, Failure> {
    match timeout(LOOK_TIME, context.pods(&probe_container.namespace).get_opt(&probe_container.pod)).await {
        Ok(Ok(Some(pod))) => match container_state::fatal_state(&pod, probe_container, &context.settings) {
            Some(state) => Err(not_started(context, probe_container, state)),
            None => Ok(match container_state::state_of(&pod, &probe_container.container) {
                Some(state) if state.running.is_some() => PodState::Running,
                _ => PodState::NotRunning,
            }),
        },
        Ok(Ok(None)) => Err(pod_deleted(context)),
        // A failed read shows nothing about the container. The next exec shows its state.
        Ok(Err(error)) => Ok(PodState::Unread(kube_reason(&error))),
        Err(_) => Ok(PodState::Unread(format!("no answer within {LOOK_TIME:?}"))),
    }
}
