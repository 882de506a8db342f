//! `--via logs`: the probe is the main process of the pod, and its document is read from the log of the pod.
//!
//! Needs `pods/log` in place of `pods/exec`, and no websocket. Up to a second slower, until the kubelet reports the end.
//! Log collectors of the cluster get a copy of the document.

use std::time::Duration;

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use kube::api::LogParams;
use syringe_core::report::Report;
use tokio::time::{Instant, sleep, timeout};

use super::command::{NO_PROBE, node_probe};
use super::probe_steps::ProbeSteps;
use crate::error::{Failure, kube_reason};
use crate::probe::pod_lifecycle::PodLifecycle;
use crate::probe::probe_context::ProbeContext;
use crate::probe::read_report::{self, ReceivedReport};
use crate::probe::types::{CleanUp, Phase, ProbeContainer, Timings};
use crate::probe::{container_state, exec_retry};
use crate::settings::ProbeMethod;

/// Time for one request.
const REQUEST_TIME: Duration = Duration::from_secs(8);
/// Pause between two reads of the pod.
const PAUSE: Duration = Duration::from_millis(100);
/// Limit on the log: ten times the largest report.
const MAX_LOG_BYTES: i64 = 4 << 20;
/// Exit codes from here on come from a shell or a runtime, not from the probe.
const NOT_THE_PROBES: i32 = 125;

/// A pod that prints the document to its log.
pub(in crate::probe) struct Logs(PodLifecycle);

impl Logs {
    pub(in crate::probe) fn new(context: &ProbeContext) -> Self {
        Self(PodLifecycle::new(context.pod().running(node_probe(&context.request.command))))
    }

    /// Waits until the probe has ended.
    async fn ended(
        &self,
        context: &ProbeContext,
        probe_container: &ProbeContainer,
        timings: &mut Timings,
    ) -> Result<ContainerStateTerminated, Failure> {
        let began = Instant::now();
        let start_end = context.end.min(began + context.settings.start_time());
        let mut running = None;
        let mut last = String::from("its container is being created");
        context.report(Phase::Start);
        loop {
            let look =
                timeout(REQUEST_TIME, context.pods(&probe_container.namespace).get_opt(&probe_container.pod)).await;
            match look {
                Ok(Ok(None)) => return Err(exec_retry::not_run(context, probe_container, exec_retry::DELETED)),
                Ok(Ok(Some(pod))) => {
                    "its container is being created".clone_into(&mut last);
                    let state = container_state::state_of(&pod, &probe_container.container);
                    let end = state.and_then(|state| state.terminated.clone());
                    if running.is_none() && state.is_some_and(|state| state.waiting.is_none()) {
                        running = Some(Instant::now());
                        context.report(Phase::Read);
                    }
                    if let Some(end) = end.filter(|end| end.exit_code < NOT_THE_PROBES) {
                        let started = running.unwrap_or(began);
                        (timings.start, timings.exec) = (started - began, started.elapsed());
                        return Ok(end);
                    }
                    if let Some((why, next)) = container_state::fatal_reason(&pod, probe_container, &context.settings) {
                        return Err(exec_retry::not_started(context, probe_container, &why, next));
                    }
                }
                // A failed read proves nothing; the next one tells.
                Ok(Err(error)) => last = format!("reading the pod failed: {}", kube_reason(&error)),
                Err(_) => last = format!("reading the pod failed: no answer within {REQUEST_TIME:?}"),
            }
            let now = Instant::now();
            if now >= context.end || (running.is_none() && now >= start_end) {
                let waited = began.elapsed();
                return Err(match running {
                    Some(_) => {
                        context.out_of_time(&format!("the probe did not finish within {:.1} s", waited.as_secs_f64()))
                    }
                    None => exec_retry::not_started_in_time(context, probe_container, waited, &last).await,
                });
            }
            sleep(PAUSE).await;
        }
    }

    async fn log(&self, context: &ProbeContext, probe_container: &ProbeContainer) -> Result<String, Failure> {
        let params = LogParams {
            container: Some(probe_container.container.clone()),
            limit_bytes: Some(MAX_LOG_BYTES),
            ..LogParams::default()
        };
        let failed = |why: String, next: &str| {
            Failure::new(
                format!("Reading the log of pod {}/{}", probe_container.namespace, probe_container.pod),
                why,
                next,
            )
        };
        match timeout(REQUEST_TIME, context.pods(&probe_container.namespace).logs(&probe_container.pod, &params)).await
        {
            Ok(Ok(log)) => Ok(log),
            Ok(Err(error)) => {
                let forbidden = matches!(&error, kube::Error::Api(status) if matches!(status.code, 401 | 403));
                let next = if forbidden {
                    "Your user needs get on pods/log in that namespace: see deploy/rbac.yaml."
                } else {
                    "Check the kubelet of the node, which serves the log, and try again."
                };
                Err(failed(kube_reason(&error), next))
            }
            Err(_) => Err(failed(format!("no answer within {REQUEST_TIME:?}"), "Try again.")),
        }
    }
}

impl ProbeSteps for Logs {
    fn method(&self) -> ProbeMethod {
        ProbeMethod::Logs
    }

    async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
        self.0.create(context).await
    }

    async fn read(&self, context: &ProbeContext, timings: &mut Timings) -> Result<ReceivedReport, Failure> {
        let probe_container = self.0.probe_container(NO_PROBE);
        let end = self.ended(context, &probe_container, timings).await?;
        let first = parse(&self.log(context, &probe_container).await?);
        let why = match first {
            Ok(report) => return Ok(ReceivedReport { report, note: None }),
            Err(why) => why,
        };
        // The runtime may still be writing what the process printed last.
        sleep(PAUSE).await;
        match parse(&self.log(context, &probe_container).await?) {
            Ok(report) => Ok(ReceivedReport {
                report,
                note: Some(format!("the log was incomplete at first ({why}); this is the second reading")),
            }),
            Err(why) => Err(read_report::incomplete(context, &format!("{why}; {}", container_state::end_reason(&end)))),
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
        match serde_json::from_str(line) {
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
    fn the_document_is_found_among_other_lines_and_a_cut_one_is_not() {
        let report = parse("warning\n{\"probe_version\":\"9\",\"sections\":{}}\nmore\n").expect("a report");
        assert_eq!(report.probe_version, "9");
        assert!(parse("{\"probe_ver").expect_err("cut").contains("incomplete"));
        assert!(parse("").expect_err("empty").contains("0 bytes"));
    }
}
