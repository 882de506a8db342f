//! `run`: runs one probe with one method: creates the objects, reads the report, and always cleans up.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use super::methods::probe_steps::ProbeSteps;
use super::probe_context::ProbeContext;
use crate::clock;
use crate::probe::exec::read_report::ReceivedReport;
use crate::probe::lifecycle::delete_pod::delete_pod;
use crate::probe::request::Phase;
use crate::probe::result::{CleanUp, CreateOutcome, ProbeResult, Timings};
use crate::settings::ProbeMethod;
use kube_read::Failure;

/// Creates the objects, reads the report and cleans up, even after a failure. Then writes a line in the audit log.
/// `steps` is an error if no method can run. In this case, the line is also written.
pub(super) async fn run(
    context: &ProbeContext,
    steps: Result<impl ProbeSteps, Failure>,
) -> Result<ProbeResult, Failure> {
    let began = Instant::now();
    let result = match steps {
        Ok(steps) => run_steps(context, steps, began).await,
        Err(failure) => Err(failure),
    };
    context.record.ended(&result, began.elapsed()).await;
    context.close().await;
    result
}

async fn run_steps(context: &ProbeContext, mut steps: impl ProbeSteps, began: Instant) -> Result<ProbeResult, Failure> {
    // No pod is created if the caller gave up in the meantime or the program is exiting: the program exits as soon as
    // no probe is left.
    if context.is_cancelled() {
        return Err(context.stopped());
    }
    let mut timings = Timings::default();
    context.report(Phase::Create);
    // After a panic, which is a defect, the pod must still be deleted and the audit line written.
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
    let read = read.and_then(|received| check_version(context, received));
    let cleaning = Instant::now();
    let via = steps.method();
    let clean_up = async {
        let mut cleaning = std::pin::pin!(AssertUnwindSafe(steps.clean_up(context)).catch_unwind());
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
    let CleanUp { pod, deleted, left_behind } = match clean_up.await {
        Ok(cleaned) => cleaned,
        Err(_) => clean_up_after_panic(context).await,
    };
    timings.remove = cleaning.elapsed();
    timings.total = began.elapsed();
    let process_left = context.process_left();
    match read {
        Ok(ReceivedReport { report, note }) => {
            let passed_over = context.passed_over.clone();
            Ok(ProbeResult { report, via, pod, deleted, left_behind, process_left, timings, note, passed_over })
        }
        Err(failure) => {
            // With --via logs, the action starts as soon as the pod starts.
            let acts_late = context.is_action && via == ProbeMethod::Logs && !is_created && !deleted;
            let may_have_acted = context.action_sent.load(Ordering::Relaxed) || acts_late;
            let failure = if may_have_acted { failure.of_sent_action() } else { failure };
            let via = Some(via.as_str());
            Err(Failure { process_left, via, ..failure.leaving(left_behind).deleted(is_created && deleted) })
        }
    }
}

/// Rejects a report with another schema version: fields with other names would be ignored without an error.
fn check_version(context: &ProbeContext, received: ReceivedReport) -> Result<ReceivedReport, Failure> {
    let Some(why) = received.report.other_version() else { return Ok(received) };
    let next = match context.settings.via {
        ProbeMethod::Inject => "Use the node-probe of this version of gpu-syringe (--probe-binary).",
        _ => "Use the image of this version of gpu-syringe (--image).",
    };
    Err(Failure::new(format!("Reading the report from node {}", context.request.node), why, next))
}

/// Deletes the pods that are left after a clean-up panicked. An ephemeral container is left to the next launcher, which
/// finds it in the file of this session.
async fn clean_up_after_panic(context: &ProbeContext) -> CleanUp {
    let mut left = Vec::new();
    let mut name = String::new();
    for open in context.begun() {
        tracing::error!(pod = %open.pod, "the clean-up panicked: this is a defect of gpu-syringe, please report it");
        let is_deleted = open.container.is_none()
            && delete_pod(&context.pods(&open.namespace), &open.pod, &CreateOutcome::Unknown).await.is_ok();
        if is_deleted {
            context.session.open.remove(&open);
        } else {
            context.leave_to_background(&open);
            left.push(open.description());
        }
        name = open.pod;
    }
    let left_behind = (!left.is_empty()).then(|| left.join("; "));
    CleanUp { pod: name, deleted: left_behind.is_none(), left_behind }
}

/// Returns the result of a probe whose pod is still being deleted.
fn being_deleted(context: &ProbeContext, received: &ReceivedReport, via: ProbeMethod, timings: Timings) -> ProbeResult {
    let begun: Vec<String> = context.begun().iter().map(|open| format!("{}/{}", open.namespace, open.pod)).collect();
    let left_behind = format!(
        "the probe pod of node {} ({}) is still being deleted in the background; gpu-syringe sweep deletes what is left",
        context.request.node,
        begun.join(", ")
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use demo_cluster::{Cluster, Denial, Fixture, NodeFixture};
    use syringe_core::probe_command::{ProbeCommand, ReadCommand};
    use syringe_core::scenarios;
    use syringe_core::section_name::SectionName;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::audit::AuditLog;
    use crate::probe::lifecycle::pod_lifecycle::PodLifecycle;
    use crate::probe::{ProbeRequest, Prober};
    use crate::settings::Settings;
    use kube_read::Contexts;

    /// A method whose clean-up panics.
    struct Defect(PodLifecycle);

    impl ProbeSteps for Defect {
        fn method(&self) -> ProbeMethod {
            ProbeMethod::Pod
        }

        async fn create(&mut self, context: &ProbeContext) -> Result<(), Failure> {
            self.0.create(context).await
        }

        async fn read(&self, context: &ProbeContext, _: &mut Timings) -> Result<ReceivedReport, Failure> {
            Err(context.out_of_time("a test"))
        }

        async fn clean_up(&mut self, _: &ProbeContext) -> CleanUp {
            panic!("a defect")
        }
    }

    #[tokio::test]
    async fn a_panic_in_the_clean_up_leaves_no_pod_or_names_it() {
        for may_delete in [true, false] {
            let facts = scenarios::named("healthy-h100-8").expect("a scenario").report();
            let fixture = Fixture::of([NodeFixture::from_facts("gpu-1", facts)]);
            let fixture = if may_delete { fixture } else { fixture.denying(Denial::of("delete", "pods")) };
            let cluster = Cluster::start(fixture).await.expect("a free port");
            let connection = Contexts::in_memory(cluster.kubeconfig(), None).connect(None).await.expect("a connection");
            let settings = Arc::new(Settings::from_args([]).expect("the defaults"));
            let folder = tempfile::tempdir().expect("a directory");
            let log = AuditLog::at(folder.path());
            let prober = Prober::new(settings, CancellationToken::new()).with_audit(log.clone());
            // A pod that is left on the cluster stays in the session file, so the test does not use the session
            // directory of the user.
            let prober = prober.with_session_in(folder.path().to_owned());
            let (node, deadline) = ("gpu-1".to_owned(), Duration::from_secs(20));
            let command = ProbeCommand::Read(SectionName::Xid.into());
            let upload_time = Duration::ZERO;
            let request = ProbeRequest { node, command, tool: "test", target: None, deadline, upload_time };
            let context = prober.test_context(&connection, request);
            let failure = run(&context, context.pod().map(|pod| Defect(PodLifecycle::new(pod))))
                .await
                .expect_err("the read fails");
            let (pods, lines) = (cluster.pods("gpu-syringe"), log.read(10).expect("the log"));
            assert_eq!((pods.is_empty(), failure.deleted), (may_delete, may_delete), "{failure}");
            assert_eq!((lines.len(), lines[0].deleted), (1, Some(may_delete)), "{lines:?}");
            let name = lines[0].pod.clone().expect("the pod");
            let named = failure.left_behind.is_some_and(|left| left.contains(&format!("delete pod {name}")));
            assert_eq!(named, !may_delete);
        }
    }
    /// The answers of NCCL take up to 12 s, and the time for the node begins before its pod starts.
    #[tokio::test]
    async fn nccl_is_asked_only_if_the_time_that_is_left_is_enough() {
        let cluster = Cluster::start(Fixture::of([])).await.expect("a free port");
        let connection = Contexts::in_memory(cluster.kubeconfig(), None).connect(None).await.expect("a connection");
        let settings = Arc::new(Settings::from_args([]).expect("the defaults"));
        let prober = Prober::new(settings, CancellationToken::new());
        for (seconds, is_asked) in [(15, true), (10, false)] {
            let nccl_ras = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc".parse().ok();
            let command: ProbeCommand = ReadCommand { nccl_ras, ..ReadCommand::everything() }.into();
            let (node, deadline, upload_time) = ("gpu-1".to_owned(), Duration::from_secs(seconds), Duration::ZERO);
            let request = ProbeRequest { node, command, tool: "test", target: None, deadline, upload_time };
            let args = prober.test_context(&connection, request).command().to_args();
            assert_eq!(args.contains(&"--nccl-ras".to_owned()), is_asked, "{args:?}");
        }
    }
}
