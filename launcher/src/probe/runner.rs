//! Runs one probe by one method: create, read, clean up, whatever fails.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use super::methods::probe_steps::ProbeSteps;
use super::probe_context::ProbeContext;
use super::read_report::ReceivedReport;
use super::types::{CleanUp, Phase, ProbeResult, Timings};
use crate::clock;
use crate::error::Failure;
use crate::settings::ProbeMethod;

/// Creates, reads and cleans up; cleans up even when creating or reading failed. Writes the audit log's line.
pub(super) async fn run(context: &ProbeContext, steps: impl ProbeSteps) -> Result<ProbeResult, Failure> {
    let began = Instant::now();
    let result = run_steps(context, steps, began).await;
    context.record.ended(&result, began.elapsed()).await;
    result
}

async fn run_steps(context: &ProbeContext, mut steps: impl ProbeSteps, began: Instant) -> Result<ProbeResult, Failure> {
    // No pod for a caller that gave up in the meantime, or when the program is ending: the program ends as soon as no
    // probe is left.
    if context.is_cancelled() {
        return Err(context.stopped());
    }
    let mut timings = Timings::default();
    context.report(Phase::Create);
    // A panic is a defect, and must leave neither a pod nor a missing line of the audit log.
    let created =
        AssertUnwindSafe(steps.create(context)).catch_unwind().await.unwrap_or_else(|_| Err(context.panicked()));
    timings.create = began.elapsed();
    let is_created = created.is_ok();
    let read = match created {
        Ok(()) => tokio::select! {
            read = AssertUnwindSafe(steps.read(context, &mut timings)).catch_unwind() => {
                read.unwrap_or_else(|_| Err(context.panicked()))
            }
            () = context.cancel.cancelled() => Err(context.stopped()),
            () = context.stop.cancelled() => Err(context.stopped()),
            slept = clock::suspended_beyond(context.end.saturating_duration_since(Instant::now())) => {
                Err(context.suspended(slept))
            }
        },
        Err(failure) => Err(failure),
    };
    let cleaning = Instant::now();
    let via = steps.method();
    let clean_up = async {
        let mut cleaning = std::pin::pin!(steps.clean_up(context));
        if let Ok(received) = &read {
            tokio::select! {
                done = &mut cleaning => return done,
                () = sleep_until(context.answer_by) => {
                    timings.total = began.elapsed();
                    context.answer_early(being_deleted(context, received, via, timings));
                }
            }
        }
        cleaning.await
    };
    let CleanUp { pod, deleted, left_behind } = clean_up.await;
    timings.remove = cleaning.elapsed();
    timings.total = began.elapsed();
    let process_left = context.process_left();
    match read {
        Ok(ReceivedReport { report, note }) => {
            let passed_over = context.passed_over.clone();
            Ok(ProbeResult { report, via, pod, deleted, left_behind, process_left, timings, note, passed_over })
        }
        Err(failure) => {
            // The pod of this method acts as soon as it starts.
            let acts_late = context.is_action && via == ProbeMethod::Logs && !is_created && !deleted;
            let may_have_acted = context.action_sent.load(Ordering::Relaxed) || acts_late;
            let failure = if may_have_acted { failure.of_sent_action() } else { failure };
            let via = Some(via.as_str());
            Err(Failure { process_left, via, ..failure.leaving(left_behind).deleted(is_created && deleted) })
        }
    }
}

/// The result of a probe whose pod is still being deleted.
fn being_deleted(context: &ProbeContext, received: &ReceivedReport, via: ProbeMethod, timings: Timings) -> ProbeResult {
    let left_behind = format!(
        "the probe pod of node {} is still being deleted, which continues; gpu-syringe sweep deletes what is left",
        context.request.node
    );
    ProbeResult {
        report: received.report.clone(),
        via,
        pod: String::new(),
        deleted: false,
        left_behind: Some(left_behind),
        process_left: context.process_left(),
        timings,
        note: received.note.clone(),
        passed_over: context.passed_over.clone(),
    }
}

/// Two remarks as one.
pub(super) fn join(one: Option<String>, other: Option<String>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    }
}
