//! `read`, `read_or_retry`: run the probe and read its JSON document (`ReceivedReport`). `parse`: parses the output of
//! the probe. If the document is incomplete, a probe that reads is run again. For an action, only the outcome is
//! requested.

use std::time::Duration;

use syringe_core::document_size;
use syringe_core::report::Report;
use syringe_core::text::clean;
use tokio::time::{Instant, sleep};

use crate::probe::exec::retry as exec_retry;
use crate::probe::exec::websocket::{ExecEnd, ExecOutput, TooLarge};
use crate::probe::probe_context::ProbeContext;
use crate::probe::result::{ProbeContainer, Timings};
use crate::settings::ProbeMethod;
use kube_read::Failure;

/// Problem code of a probe that rejects an action because the action was already started.
const ALREADY_RUN: &str = "already_run";
/// Lowest exit code for a signal (128 plus the signal): a crash or an OOM kill, which may not happen again.
const SIGNALLED: i32 = 128;
/// Pause between two requests for the outcome of an action. A reset can take minutes.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// A report, and a note about how it was read.
pub(crate) struct ReceivedReport {
    pub(crate) report: Report,
    /// Note about how the report was read.
    pub(crate) note: Option<String>,
}

impl ReceivedReport {
    /// Adds a note.
    pub(crate) fn with_note(mut self, note: Option<String>) -> Self {
        self.note = match (self.note, note) {
            (Some(one), Some(other)) => Some(format!("{other}; {one}")),
            (one, other) => one.or(other),
        };
        self
    }
}

/// Runs the probe as soon as the container is running, and reads its document.
pub(crate) async fn read(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    argv: &[String],
    timings: &mut Timings,
) -> Result<ReceivedReport, Failure> {
    let output = exec_retry::exec(context, probe_container, argv, &[], timings).await?;
    read_or_retry(context, output, probe_container, argv, timings).await
}

/// Returns the report in `output`. If it is incomplete, runs the probe again and returns the second report.
pub(crate) async fn read_or_retry(
    context: &ProbeContext,
    output: ExecOutput,
    probe_container: &ProbeContainer,
    argv: &[String],
    timings: &mut Timings,
) -> Result<ReceivedReport, Failure> {
    let why = match parse(&output) {
        Ok(report) if context.is_action && is_under_way(&report) => "the first answer was lost".to_owned(),
        Ok(report) => return Ok(ReceivedReport { report, note: stuck(context, &output) }),
        Err(why) => why,
    };
    if context.is_action {
        return outcome(context, probe_container, argv, timings, &why).await;
    }
    if let Some(failure) = failed_at_once(context, probe_container.method, &output) {
        return Err(failure);
    }
    tracing::info!(%why, "the probe's answer was incomplete; running it again");
    let output = exec_retry::exec(context, probe_container, argv, &[], timings).await?;
    match parse(&output) {
        Ok(report) => {
            let retried = format!("the first answer was incomplete ({why}); this is the second answer");
            Ok(ReceivedReport { report, note: stuck(context, &output).or(Some(retried)) })
        }
        Err(why) => Err(incomplete(context, probe_container.method, &format!("{why}, twice"))),
    }
}

/// Returns the failure of a program that exited with an error and printed nothing. A second run would fail in the same
/// way.
fn failed_at_once(context: &ProbeContext, method: ProbeMethod, output: &ExecOutput) -> Option<Failure> {
    let ExecOutput { stdout, stderr, ended: ExecEnd::Exit(code @ 1..SIGNALLED), .. } = output else { return None };
    let error_output = if stderr.is_empty() { "none".to_owned() } else { clean(stderr, 300) };
    stdout.is_empty().then(|| {
        Failure::new(
            format!("Running the probe on node {}", context.request.node),
            format!("the probe exited with code {code} and printed no document; error output: {error_output}"),
            match method {
                ProbeMethod::Inject => {
                    "node-probe may not be compatible with the C library of the base image or the node: use another --base-image or \
                 --probe-binary."
                }
                _ => {
                    "The image may contain another program or version: use the image of this version of gpu-syringe (--image)."
                }
            },
        )
    })
}

/// Returns the outcome of an action whose response was lost. The pod is kept while the action may be running, because
/// its deletion would interrupt the action. A second run of the probe does not repeat the action: it reports the
/// outcome of the first run.
async fn outcome(
    context: &ProbeContext,
    probe_container: &ProbeContainer,
    argv: &[String],
    timings: &mut Timings,
    why: &str,
) -> Result<ReceivedReport, Failure> {
    loop {
        let last = match exec_retry::exec(context, probe_container, argv, &[], timings).await {
            Ok(output) => match parse(&output) {
                Ok(report) if !is_under_way(&report) => {
                    let note = format!("the first answer was lost ({why}); this is the answer to a second request");
                    return Ok(ReceivedReport { report, note: Some(note) });
                }
                Ok(_) => "the action was started and has not reported its outcome".to_owned(),
                Err(why) => why,
            },
            // If the pod is gone, nothing is running any more.
            Err(failure) => match exec_retry::check_pod(context, probe_container).await {
                Err(gone) => return Err(gone),
                Ok(_) => failure.why,
            },
        };
        if Instant::now() + ASK_EVERY >= context.end {
            return Err(outcome_unknown(context, &format!("{last}; at first {why}")));
        }
        sleep(ASK_EVERY).await;
    }
}

fn outcome_unknown(context: &ProbeContext, why: &str) -> Failure {
    Failure::new(
        format!("Running {} on node {}", context.request.tool, context.request.node),
        why,
        "The action may have been done: check the node (diagnose_gpu_node) before the next step.",
    )
}

/// Returns the failure of a probe whose document is incomplete.
pub(crate) fn incomplete(context: &ProbeContext, method: ProbeMethod, why: &str) -> Failure {
    Failure::new(
        format!("Reading the probe's answer from node {}", context.request.node),
        why,
        match method {
            ProbeMethod::Logs => {
                "Check the container runtime of the node and its disk, on which the log is stored, and try again."
            }
            _ => {
                "A proxy or load balancer may close websocket streams, or the node has a problem: try again, connect from a \
             place closer to the cluster, or use --via logs."
            }
        },
    )
}

/// Returns whether the probe reports only that the action was already started.
fn is_under_way(report: &Report) -> bool {
    report.error.as_ref().is_some_and(|problem| problem.code == ALREADY_RUN)
}

fn stuck(context: &ProbeContext, output: &ExecOutput) -> Option<String> {
    let stuck = output.ended == ExecEnd::DocumentOnly;
    stuck.then(|| {
        context.note_process_stays("did not exit after it had answered: one of its threads is stuck in the driver");
        "the probe printed its document but did not exit: one of its threads is stuck in the driver".to_owned()
    })
}

/// Parses the report in the output of the probe.
pub(crate) fn parse(output: &ExecOutput) -> Result<Report, String> {
    let ExecOutput { stdout, stderr, ended, .. } = output;
    // The kubelet truncates a log at this size.
    if stdout.len() >= document_size::MAX_BYTES {
        return Err(TooLarge::of(stdout).to_string());
    }
    Report::from_node(stdout).map_err(|error| {
        let ending = match ended {
            ExecEnd::Disconnected => "the connection was cut".to_owned(),
            ExecEnd::Exit(code) => format!("the probe exited with code {code}"),
            ExecEnd::DocumentOnly => "the probe did not exit normally".to_owned(),
        };
        let error_output =
            if stderr.is_empty() { String::new() } else { format!("; error output: {}", clean(stderr, 200)) };
        format!("{ending} after {} bytes that are not a complete document ({error}){error_output}", stdout.len())
    })
}
