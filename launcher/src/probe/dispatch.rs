//! Runs one probe by the method of the settings.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::api_only;
use super::auto;
use super::method_memory::{MethodMemory, Obstructed, Place, Reason};
use super::methods::{ephemeral, inject, logs, pod};
use super::pod_spec::OPERATOR;
use super::probe_context::{ProbeContext, cluster_of};
use super::probe_slots::ProbeSlots;
use super::runner::{join, run};
use super::types::ProbeResult;
use crate::settings::ProbeMethod;
use kube_read::Connection;
use kube_read::Failure;
use kube_read::failure::RejectionReason;

/// What a launcher keeps from call to call.
#[derive(Debug, Default)]
pub(super) struct ProberCache {
    /// Methods that do not work.
    memory: MethodMemory,
    /// Probe binaries that were packed for upload.
    archives: Arc<inject::Archives>,
}

impl ProberCache {
    /// The result without lines that an earlier answer has had.
    pub(super) fn with_new_lines(&self, connection: &Connection, mut result: ProbeResult) -> ProbeResult {
        let cluster = cluster_of(connection);
        result.passed_over.retain(|line| self.memory.is_new(&cluster, line));
        result
    }
}

/// Runs one probe by the method of the settings. Where the websocket of `pod` is refused, `logs` takes its place.
pub(super) async fn run_probe(
    mut context: ProbeContext,
    cache: Arc<ProberCache>,
    slots: Arc<ProbeSlots>,
) -> Result<ProbeResult, Failure> {
    if let Err(refusal) = check_host_access(&context) {
        return refused(&context, refusal).await;
    }
    // Held until the pod is deleted.
    let _slot = match slots.take(&context).await {
        Ok(slot) => slot,
        Err(failure) => return refused(&context, failure).await,
    };
    let archives = cache.archives.clone();
    match context.settings.via {
        ProbeMethod::Auto => auto::run_auto(context, &cache.memory, archives).await,
        ProbeMethod::Pod => run_pod_or_logs(&context, &cache.memory).await,
        ProbeMethod::Ephemeral => run(&context, ephemeral::Ephemeral::new()).await,
        ProbeMethod::Inject => {
            context.add_upload_time();
            run(&context, inject::Inject::new(archives, None)).await
        }
        ProbeMethod::Logs => run(&context, logs::Logs::new(&context)).await,
        ProbeMethod::None => refused(&context, api_only::refusal(&context.request.node)).await,
    }
}

/// Refuses an action where the probe does not see the host: inside a pod a process ID of the host names another process.
fn check_host_access(context: &ProbeContext) -> Result<(), Failure> {
    let acts = context.request.command.iter().any(|word| word == OPERATOR);
    let blind = context.settings.via == ProbeMethod::Ephemeral || context.settings.runtime_class.is_some();
    if !acts || !blind {
        return Ok(());
    }
    Err(Failure::new(
        format!("Running {} on node {}", context.request.tool, context.request.node),
        "the probe method of this launcher does not see the host's processes and devices; nothing was done",
        "Start gpu-syringe with --via pod, inject or logs, and without --runtime-class.",
    ))
}

async fn run_pod_or_logs(context: &ProbeContext, memory: &MethodMemory) -> Result<ProbeResult, Failure> {
    let server = &context.connection.server;
    let cluster = context.cluster();
    let place = Place { cluster: &cluster, node: &context.request.node };
    let refused = match memory.reason(place, Obstructed::Exec, Instant::now()) {
        Some(Reason { why, .. }) => Failure::new("Opening a websocket", why, ""),
        None => match run(context, pod::ExecPod::new(context)).await {
            Err(failure) if is_without_exec(&failure) && context.may_retry_with_another_pod() => failure,
            done => return done,
        },
    };
    tracing::info!(why = %refused.why, "websockets are refused: reading the pod's log instead");
    let (left_behind, deleted) = (refused.left_behind, refused.deleted);
    let result = run(context, logs::Logs::new(context)).await;
    match result {
        Ok(mut result) => {
            let reason = Reason { why: refused.why.clone(), next_step: String::new() };
            memory.remember(place, Obstructed::Exec, reason, Instant::now());
            let note = format!("websockets to {server} fail ({}); the report was read from the pod's log", refused.why);
            result.note = join(Some(note), result.note);
            result.left_behind = join(left_behind, result.left_behind);
            result.deleted &= result.left_behind.is_none();
            Ok(result)
        }
        Err(mut failure) => {
            failure.left_behind = join(left_behind, failure.left_behind);
            failure.deleted = (failure.deleted || deleted) && failure.left_behind.is_none();
            Err(failure)
        }
    }
}

fn is_without_exec(failure: &Failure) -> bool {
    matches!(failure.obstacle, Some(RejectionReason::Websockets | RejectionReason::ExecUnanswered))
}

/// A call that is refused before anything is created. The audit log gets its line all the same.
async fn refused(context: &ProbeContext, refusal: Failure) -> Result<ProbeResult, Failure> {
    let result = Err(refusal);
    context.record.ended(&result, Duration::ZERO).await;
    result
}
