//! `Logs`: the method `--via logs`, which runs the probe as the main process of a pod and reads the pod's log.
//!
//! This method needs `pods/log` in place of `pods/exec`, and no websocket. The method is up to a second slower, because it
//! waits until the kubelet reports the start. Log collectors of the cluster get a copy of the document.

use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use kube::api::LogParams;
use syringe_core::report::Report;
use tokio::time::{Instant, sleep, timeout};

use super::probe_steps::ProbeSteps;
use crate::probe::exec::container_state::FatalState;
use crate::probe::exec::read_report;
use crate::probe::exec::read_report::ReceivedReport;
use crate::probe::exec::{container_state, failure as exec_failure, retry as exec_retry};
use crate::probe::lifecycle::pod_lifecycle::PodLifecycle;
use crate::probe::probe_context::ProbeContext;
use crate::probe::refusal::create_forbidden::is_missing_permission;
use crate::probe::refusal::next_steps::NO_PROBE;
use crate::probe::request::Phase;
use crate::probe::result::{CleanUp, ProbeContainer, Timings};
use crate::settings::ProbeMethod;
use kube_read::Failure;
use kube_read::client::api_status::is_not_a_status;
use kube_read::client::retry::retry_pause;
use kube_read::failure::{Cause, kube_reason};

/// Time limit of one request.
const REQUEST_TIME: Duration = Duration::from_secs(8);
/// Pause between two reads of the pod.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for which the log may stay incomplete after the container exited, because the runtime is still writing the output.
const LOG_LAG: Duration = Duration::from_secs(2);
/// Maximum size of the log: ten times the largest report.
const MAX_LOG_BYTES: i64 = 4 << 20;
/// Lowest exit code that comes from a shell or a runtime, not from the probe.
const NOT_THE_PROBES: i32 = 125;

/// A pod that prints the document to its log.
pub(in crate::probe) struct Logs(PodLifecycle);

/// State of the container while the launcher waits for its document.
#[derive(Default)]
struct Progress {
    /// The time at which the launcher first found the container running or terminated.
    started: Option<Instant>,
    /// The time at which the launcher first found the container terminated, and its final state.
    ended: Option<(Instant, ContainerStateTerminated)>,
    /// The reason why the container will not print a document.
    fatal: Option<FatalState>,
    /// The reason why the last read of the pod failed, if it failed.
    look_failed: Option<String>,
    /// The reason why the last log had no document or could not be read.
    last: String,
    /// The reason why a log was incomplete or could not be read at first.
    was_incomplete: Option<String>,
}

impl Logs {
    pub(in crate::probe) fn new(context: &ProbeContext) -> Result<Self, Failure> {
        let argv = context.command().argv();
        context.pod().map(|pod| Self(PodLifecycle::new(pod.running(argv))))
    }

    async fn look(
        context: &ProbeContext,
        probe_container: &ProbeContainer,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let look = timeout(REQUEST_TIME, context.pods(&probe_container.namespace).get_opt(&probe_container.pod)).await;
        let failed = |why: String| Some(format!("reading pod {} failed: {why}", probe_container.pod));
        match look {
            Ok(Ok(None)) => {
                // The container may have run since the last read.
                context.action_sent.store(context.is_action, Ordering::Relaxed);
                return Err(exec_failure::pod_deleted(context));
            }
            Ok(Ok(Some(pod))) => {
                progress.look_failed = None;
                let state = container_state::state_of(&pod, &probe_container.container);
                if progress.started.is_none() && state.is_some_and(|state| state.waiting.is_none()) {
                    progress.started = Some(Instant::now());
                    context.action_sent.store(context.is_action, Ordering::Relaxed);
                    context.report(Phase::Read);
                }
                let end = state.and_then(|state| state.terminated.clone());
                progress.fatal = match &end {
                    Some(end) if end.exit_code < NOT_THE_PROBES => None,
                    _ => container_state::fatal_state(&pod, probe_container, &context.settings),
                };
                if progress.ended.is_none() {
                    progress.ended = end.map(|end| (Instant::now(), end));
                }
                // A container that never ran has no log.
                if let (Some(state), None) = (&progress.fatal, progress.started) {
                    return Err(exec_failure::not_started(context, probe_container, state.clone()));
                }
            }
            // A failed read shows nothing about the container.
            Ok(Err(error)) => progress.look_failed = failed(kube_reason(&error)),
            Err(_) => progress.look_failed = failed(format!("no answer within {REQUEST_TIME:?}")),
        }
        Ok(())
    }

    /// Returns the document in the current log; `Err` if no later log can contain it. Failed requests are repeated.
    async fn document(
        context: &ProbeContext,
        probe_container: &ProbeContainer,
        progress: &mut Progress,
    ) -> Result<Option<Report>, Failure> {
        let params = LogParams {
            container: Some(probe_container.container.clone()),
            limit_bytes: Some(MAX_LOG_BYTES),
            ..LogParams::default()
        };
        let reading = context.pods(&probe_container.namespace);
        let why = match timeout(REQUEST_TIME, reading.logs(&probe_container.pod, &params)).await {
            Ok(Ok(log)) => match parse(&log) {
                Ok(report) => return Ok(Some(report)),
                Err(why) => why,
            },
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) && !is_not_a_status(&status) => {
                let why = kube_reason(&kube::Error::Api(status));
                let next = "Your user needs get on pods/log in the namespace of the probe (gpu-syringe setup --apply --user NAME grants it).";
                let cause = if is_missing_permission(&why) { Cause::LogForbidden } else { Cause::Other };
                return Err(reading_failed(probe_container, &why, next).because_of(cause));
            }
            Ok(Err(error)) => {
                sleep(retry_pause(&error).unwrap_or(PAUSE)).await;
                progress.last = format!("the log could not be read: {}", kube_reason(&error));
                return Ok(None);
            }
            Err(_) => {
                progress.last = format!("the log could not be read: no answer within {REQUEST_TIME:?}");
                return Ok(None);
            }
        };
        progress.last.clone_from(&why);
        let Some((ended, end)) = progress.ended.as_ref() else { return Ok(None) };
        progress.was_incomplete.get_or_insert(why.clone());
        if ended.elapsed() < LOG_LAG {
            return Ok(None);
        }
        Err(match &progress.fatal {
            Some(state) => exec_failure::not_started(context, probe_container, state.clone()),
            None => read_report::incomplete(
                context,
                probe_container.method,
                &format!("{why}; {}", container_state::end_reason(end)),
            ),
        })
    }

    /// Returns the failure of a probe whose document did not arrive in time.
    async fn late(
        context: &ProbeContext,
        probe_container: &ProbeContainer,
        progress: &Progress,
        waited: Duration,
    ) -> Failure {
        let Progress { started, ended, look_failed, last, .. } = progress;
        if look_failed.is_some() {
            // The container may have started since the last read.
            context.action_sent.store(context.is_action, Ordering::Relaxed);
        }
        match (started, look_failed) {
            (None, Some(failed)) => context.lost_contact(failed),
            (None, None) => {
                let last = "its container is being created";
                exec_retry::not_started_in_time(context, probe_container, waited, last).await
            }
            (Some(_), _) if ended.is_some() => {
                let next = "Check the connection to the API server and the kubelet of the node, which serves the log, and try again.";
                reading_failed(probe_container, last, next)
            }
            (Some(_), Some(failed)) => context.lost_contact(failed),
            (Some(_), None) => {
                context.note_process_stays("had not exited when the time of the call was over");
                context.out_of_time(&format!("the probe did not finish within {:.1} s; {last}", waited.as_secs_f64()))
            }
        }
    }
}

fn reading_failed(probe_container: &ProbeContainer, why: &str, next: &str) -> Failure {
    Failure::new(format!("Reading the log of pod {}/{}", probe_container.namespace, probe_container.pod), why, next)
}

impl ProbeSteps for Logs {
    fn method(&self) -> ProbeMethod {
        ProbeMethod::Logs
    }

    async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        self.0.create(context).await
    }

    /// Reads the log until it contains the document. The container may keep running because of a thread that is stuck
    /// in the driver.
    async fn read(&self, context: &ProbeContext, timings: &mut Timings) -> Result<ReceivedReport, Failure> {
        let probe_container = self.0.probe_container(self.method(), NO_PROBE);
        let began = Instant::now();
        let start_end = context.end.min(began + context.settings.start_time());
        let mut progress = Progress::default();
        context.report(Phase::Start);
        loop {
            if progress.ended.is_none() {
                Self::look(context, &probe_container, &mut progress).await?;
            }
            if let Some(started) = progress.started
                && let Some(report) = Self::document(context, &probe_container, &mut progress).await?
            {
                (timings.start, timings.exec) = (started - began, started.elapsed());
                let incomplete = |why| format!("the log was incomplete at first ({why})");
                return Ok(ReceivedReport { report, note: progress.was_incomplete.map(incomplete) });
            }
            let now = Instant::now();
            if now >= context.end || (progress.started.is_none() && now >= start_end) {
                return Err(Self::late(context, &probe_container, &progress, began.elapsed()).await);
            }
            sleep(PAUSE).await;
        }
    }

    async fn clean_up(&mut self, context: &ProbeContext) -> CleanUp {
        self.0.clean_up(context).await
    }
}

/// Finds the report among the lines of a log.
fn parse(log: &str) -> Result<Report, String> {
    let mut why = format!("no document among the {} bytes of the log", log.len());
    for line in log.lines().rev().filter(|line| line.starts_with('{')) {
        match Report::from_node(line.as_bytes()) {
            Ok(report) => return Ok(report),
            Err(error) => why = format!("the document in the log is incomplete ({error})"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn texts_of_the_document_are_cleaned() {
        let line = "{\"probe_version\":\"9\",\"hostname\":\"a\u{202e}b\",\"sections\":{}}\n";
        assert_eq!(parse(line).expect("a report").hostname.as_deref(), Some("a b"));
    }

    #[test]
    fn the_document_is_found_among_other_lines_and_a_cut_one_is_not() {
        let report = parse("warning\n{\"probe_version\":\"9\",\"sections\":{}}\nmore\n").expect("a report");
        assert_eq!(report.probe_version, "9");
        assert!(parse("{\"probe_ver").expect_err("cut").contains("incomplete"));
        assert!(parse("").expect_err("empty").contains("0 bytes"));
    }
}
