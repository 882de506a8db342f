//! `run_probe`: rejects an impossible call, waits for a slot, then runs a probe. `ProberCache`: the state that a
//! launcher keeps between calls.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::admitted_image::AdmittedImages;
use crate::probe::api_only;
use crate::probe::choose::method_memory::MethodMemory;
use crate::probe::choose::search;
use crate::probe::methods::inject::Archives;
use crate::probe::probe_context::{ProbeContext, cluster_of};
use crate::probe::probe_slots::ProbeSlots;
use crate::probe::result::ProbeResult;
use crate::settings::ProbeMethod;
use kube_read::Connection;
use kube_read::Failure;

/// State that a launcher keeps between calls.
#[derive(Debug, Default)]
pub(crate) struct ProberCache {
    /// The methods that do not work.
    pub(crate) memory: MethodMemory,
    /// The images that policies admit.
    pub(crate) admitted: AdmittedImages,
    /// Archives of node-probe for upload.
    pub(crate) archives: Arc<Archives>,
}

impl ProberCache {
    /// Removes from a result the lines about unused methods that an earlier answer already contained.
    pub(crate) fn with_new_lines(&self, connection: &Connection, mut result: ProbeResult) -> ProbeResult {
        let cluster = cluster_of(connection);
        result.passed_over.retain(|line| self.memory.is_new(&cluster, line));
        result
    }
}

/// Runs one probe with a method that the settings allow.
pub(crate) async fn run_probe(
    context: ProbeContext,
    cache: Arc<ProberCache>,
    slots: Arc<ProbeSlots>,
) -> Result<ProbeResult, Failure> {
    if context.settings.via == ProbeMethod::None {
        return refused(&context, api_only::refusal(&context.request.node)).await;
    }
    if let Err(refusal) = check_host_access(&context) {
        return refused(&context, refusal).await;
    }
    // The slot is held until the pod is deleted.
    let _slot = match slots.take(&context).await {
        Ok(slot) => slot,
        Err(failure) => return refused(&context, failure).await,
    };
    search::run(context, &cache).await
}

/// Rejects an action if the probe does not see the host, because process IDs inside a pod differ from those on the
/// host.
fn check_host_access(context: &ProbeContext) -> Result<(), Failure> {
    let is_in_container = context.settings.via == ProbeMethod::Ephemeral || context.settings.runtime_class.is_some();
    if !context.is_for_actions() || !is_in_container {
        return Ok(());
    }
    Err(Failure::new(
        format!("Running {} on node {}", context.request.tool, context.request.node),
        "the probe method of this launcher does not see the host's processes and devices; nothing was done",
        "Start gpu-syringe with --via pod, inject or logs, and without --runtime-class.",
    ))
}

/// Writes the audit line of a call that is rejected before anything is created.
async fn refused(context: &ProbeContext, refusal: Failure) -> Result<ProbeResult, Failure> {
    let result = Err(refusal);
    context.record.ended(&result, Duration::ZERO).await;
    result
}
