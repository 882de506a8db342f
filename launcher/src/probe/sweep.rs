//! Deletes the probe pods that killed launchers left behind.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::delete_pod::delete_pod;
use super::launcher_identity::LauncherIdentity;
use super::pod_spec::{MANAGED_BY, OWNER_LABEL, SESSION_LABEL};
use super::types::CreateOutcome;
use crate::error::{Failure, kube_reason};
use crate::kubernetes::Connection;

/// Time for the list.
const LIST_TIME: Duration = Duration::from_secs(8);
/// The same once the program is ending.
const LIST_TIME_AT_END: Duration = Duration::from_secs(1);
/// How long after its deadline a running pod is deleted. Generous, since clocks differ, and the pod may belong to a call of
/// another user.
const CLOCK_SLACK_SECONDS: i64 = 600;

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepResult {
    /// Pods that were deleted.
    pub removed: Vec<String>,
    /// Pods that may belong to calls in progress.
    pub kept: Vec<String>,
    /// Pods that could not be deleted, with the reason.
    pub failed: Vec<(String, String)>,
}

/// Sweeps one namespace. After `stop` a slow list is not awaited.
pub(crate) async fn sweep(
    connection: &Connection,
    namespace: &str,
    owner: &LauncherIdentity,
    stop: &CancellationToken,
) -> Result<SweepResult, Failure> {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"));
    let what = || format!("Listing probe pods in namespace {namespace}");
    let next = "Check the connection, and that you may list pods in that namespace (deploy/rbac.yaml).";
    // A cluster that does not answer must not delay the end of the program.
    let listing = tokio::select! {
        listing = timeout(LIST_TIME, pods.list(&ours)) => listing,
        () = async { stop.cancelled().await; sleep(LIST_TIME_AT_END).await } => return Ok(SweepResult::default()),
    };
    let list = listing
        .map_err(|_| Failure::new(what(), format!("no answer from {} within {LIST_TIME:?}", connection.server), next))?
        .map_err(|error| Failure::new(what(), kube_reason(&error), next))?;
    let now = Timestamp::now();
    let mut swept = SweepResult::default();
    for pod in &list.items {
        let name = pod.name_any();
        if !is_expired(pod, owner, now) {
            swept.kept.push(name);
            continue;
        }
        let created = CreateOutcome::Created { uid: pod.metadata.uid.clone() };
        match delete_pod(&pods, &name, &created).await {
            Ok(()) => swept.removed.push(name),
            Err(reason) => swept.failed.push((name, reason.to_string())),
        }
    }
    Ok(swept)
}

/// Whether nobody waits for this pod: its launcher is dead, it has ended, or its deadline has long passed.
fn is_expired(pod: &Pod, owner: &LauncherIdentity, now: Timestamp) -> bool {
    let label = |name| pod.labels().get(name).map(String::as_str).unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let (made_by, session) = (label(OWNER_LABEL), label(SESSION_LABEL));
    let lifetime = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(0);
    let age = pod.creation_timestamp().map_or(0, |created| now.as_second() - created.0.as_second());
    let ended = matches!(phase, "Succeeded" | "Failed") && age > lifetime;
    owner.is_dead(made_by, session) || ended || age > lifetime + CLOCK_SLACK_SECONDS
}
