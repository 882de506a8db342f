//! `sweep`, `sweep_ended_sessions`: delete the pods and stop the ephemeral containers left by killed launchers
//! (`SweepResult`).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use syringe_core::PROBE_NAME_PREFIX;
use syringe_core::text::clean;
use tokio::time::{sleep, timeout};

use crate::audit::{AuditEvent, AuditLine};
use crate::probe::lifecycle::delete_pod::{Deletion, delete_pod};
use crate::probe::lifecycle::end_container::{AddedContainer, FinalState};
use crate::probe::lifecycle::launcher_identity::LauncherIdentity;
use crate::probe::lifecycle::launcher_session::LauncherSession;
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::lifecycle::pod_spec::{MANAGED_BY, OWNER_LABEL, SESSION_LABEL, TOOL_LABEL};
use crate::probe::result::{CreateOutcome, ProbeContainer};
use crate::settings::{ProbeMethod, Settings};
use kube_read::Connection;
use kube_read::Failure;
use kube_read::failure::kube_reason;
use kube_read::objects::name_validation::is_subdomain;

/// Time limit of the pod list.
const LIST_TIME: Duration = Duration::from_secs(8);
/// Time limit of the pod list when the program is exiting.
const LIST_TIME_AT_END: Duration = Duration::from_secs(1);
/// Time between the deadline of a running pod and its deletion. The time is long because the pod may belong to a call of
/// another user.
const SLACK_SECONDS: i64 = 600;

/// The outcome of a clean-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepResult {
    /// Pods that were deleted.
    pub deleted: Vec<String>,
    /// Pods that may belong to calls in progress.
    pub kept: Vec<String>,
    /// Ephemeral containers that were stopped: `namespace/pod/container`.
    pub ended: Vec<String>,
    /// Pods that could not be deleted and containers that could not be stopped, with the reason.
    pub failed: Vec<(String, String)>,
}

/// Stops the probes that killed launchers left without an audit line, and writes these lines. The probes are found in
/// the session files, because an ephemeral container has no labels, and a pod may already be deleted or be in another
/// namespace.
pub(crate) async fn sweep_ended_sessions(
    connection: &Connection,
    settings: &Arc<Settings>,
    session: &LauncherSession,
    swept: &mut SweepResult,
) {
    let identity = session.identity.clone();
    let ended = tokio::task::spawn_blocking(move || identity.ended_sessions()).await.unwrap_or_default();
    for one in ended {
        let mut left = Vec::new();
        for open in &one.unaudited {
            // A probe on another cluster is stopped by the next call to that cluster.
            let is_here = open.server == connection.server && !session.stop.is_cancelled();
            if !(is_here && sweep_open(connection, settings, session, open, swept).await) {
                left.push(open.clone());
            }
        }
        let written = tokio::task::spawn_blocking(move || one.write(&left)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the file of an ended session could not be written");
        }
    }
}

/// Stops a probe of an ended session. Returns whether nothing of the probe is left and its audit line is written.
async fn sweep_open(
    connection: &Connection,
    settings: &Arc<Settings>,
    session: &LauncherSession,
    open: &OpenProbe,
    swept: &mut SweepResult,
) -> bool {
    let OpenProbe { namespace, pod, container, node, tool, .. } = open;
    let mut names = [Some(namespace), Some(pod), container.as_ref()].into_iter().flatten();
    let is_ours =
        container.as_ref().unwrap_or(pod).starts_with(PROBE_NAME_PREFIX) && names.all(|name| is_subdomain(name));
    if !is_ours || container.is_none() && swept.deleted.contains(pod) {
        return true;
    }
    let outcome = match container {
        Some(container) => sweep_container(connection, settings, open, container, swept).await,
        None => sweep_pod(connection, open, swept).await,
    };
    let Some(outcome) = outcome else { return false };
    let line = AuditLine {
        node: clean(node, 253),
        tool: clean(tool, 63),
        namespace: namespace.clone(),
        pod: Some(pod.clone()),
        deleted: container.is_none().then_some(true),
        container: container.clone(),
        ..swept_line(connection, outcome.to_owned())
    };
    session.audit.append_or_warn(line).await;
    true
}

/// Deletes a pod; `None` if it may still exist.
async fn sweep_pod(connection: &Connection, open: &OpenProbe, swept: &mut SweepResult) -> Option<&'static str> {
    let OpenProbe { namespace, pod, .. } = open;
    if swept.failed.iter().any(|(failed, _)| failed == pod) {
        return None;
    }
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    match delete_pod(&pods, pod, &CreateOutcome::Created { uid: None }).await {
        Ok(Deletion::Deleted) => {
            swept.deleted.push(pod.clone());
            Some("cleaned up: the launcher that created the pod has exited")
        }
        Ok(Deletion::NotFound) => {
            Some("cleaned up: the launcher that created the pod was killed; the pod no longer exists")
        }
        Err(reason) => {
            swept.failed.push((pod.clone(), reason.to_string()));
            None
        }
    }
}

/// Stops a container; `None` if it may still be running.
async fn sweep_container(
    connection: &Connection,
    settings: &Arc<Settings>,
    open: &OpenProbe,
    container: &str,
    swept: &mut SweepResult,
) -> Option<&'static str> {
    let OpenProbe { namespace, pod, lifetime_seconds, .. } = open;
    let probe_container = ProbeContainer {
        namespace: namespace.clone(),
        pod: pod.clone(),
        container: container.to_owned(),
        image: String::new(),
        method: ProbeMethod::Ephemeral,
        if_missing: "",
    };
    let (client, settings) = (connection.client.clone(), settings.clone());
    let name = format!("{namespace}/{pod}/{container}");
    match (AddedContainer { client, settings, probe_container, uid: None }).end(false).await {
        FinalState::Ended => {
            swept.ended.push(name);
            Some("cleaned up: the launcher that added the container was killed; the container has exited")
        }
        FinalState::Gone => Some("cleaned up: the launcher that added the container was killed; the pod was deleted"),
        FinalState::NotAdded => Some("cleaned up: the launcher was killed before the container was added"),
        FinalState::Stuck | FinalState::Waits => {
            swept.kept.push(name);
            None
        }
        FinalState::Unknown => {
            let why = format!("it could not be stopped; it exits on its own within {lifetime_seconds} s of its start");
            swept.failed.push((name, why));
            None
        }
    }
}

/// Cleans up one namespace. If the program is exiting, a slow list is not awaited.
pub(crate) async fn sweep(
    connection: &Connection,
    namespace: &str,
    session: &LauncherSession,
) -> Result<SweepResult, Failure> {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"));
    let what = || format!("Listing probe pods in namespace {namespace}");
    let next = "Check the connection, and that you may list pods in the namespace of the probes (gpu-syringe setup --apply --user NAME grants it).";
    // A cluster that does not respond must not delay the exit of the program.
    let listing = tokio::select! {
        listing = timeout(LIST_TIME, pods.list(&ours)) => listing,
        () = async { session.stop.cancelled().await; sleep(LIST_TIME_AT_END).await } => return Ok(SweepResult::default()),
    };
    let list = listing
        .map_err(|_| Failure::new(what(), format!("no answer from {} within {LIST_TIME:?}", connection.server), next))?
        .map_err(|error| Failure::new(what(), kube_reason(&error), next))?;
    let now = connection.clock.now();
    let mut swept = SweepResult::default();
    for pod in &list.items {
        let name = pod.name_any();
        let in_use = session.open.has_pod(&connection.server, namespace, &name);
        let Some(why) = reason_to_delete(pod, &session.identity, now).filter(|_| !in_use) else {
            swept.kept.push(name);
            continue;
        };
        let created = CreateOutcome::Created { uid: pod.metadata.uid.clone() };
        match delete_pod(&pods, &name, &created).await {
            // Another launcher or the call itself deleted the pod, and writes the audit line.
            Ok(Deletion::NotFound) => {}
            Ok(Deletion::Deleted) => {
                write_line(connection, session, pod, why).await;
                swept.deleted.push(name);
            }
            Err(reason) => swept.failed.push((name, reason.to_string())),
        }
    }
    Ok(swept)
}

/// Returns the reason why no call is waiting for this pod; `None` if a call may be waiting. `now` is the time of the API
/// server, like the creation time of the pod.
fn reason_to_delete(pod: &Pod, own: &LauncherIdentity, now: Option<Timestamp>) -> Option<&'static str> {
    let (made_by, session) = (label(pod, OWNER_LABEL), label(pod, SESSION_LABEL));
    if made_by == own.id && session == own.session {
        // The caller skips the pods of running calls.
        return Some("an earlier call of this launcher could not delete the pod");
    }
    if own.is_dead(made_by, session) {
        return Some("the launcher that created the pod has exited");
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let lifetime = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(0);
    let age = now?.as_second() - pod.creation_timestamp()?.0.as_second();
    if matches!(phase, "Succeeded" | "Failed") && age > lifetime {
        return Some("the pod has terminated, and its deadline has passed");
    }
    (age > lifetime + SLACK_SECONDS).then_some("the deadline of the pod passed long ago")
}

fn label<'a>(pod: &'a Pod, name: &str) -> &'a str {
    pod.labels().get(name).map(String::as_str).unwrap_or_default()
}

/// Writes the audit line of a pod that was cleaned up, because its launcher may have been killed before writing the line.
async fn write_line(connection: &Connection, session: &LauncherSession, pod: &Pod, why: &str) {
    let line = AuditLine {
        node: clean(pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default(), 253),
        tool: clean(label(pod, TOOL_LABEL), 63),
        namespace: pod.namespace().unwrap_or_default(),
        pod: Some(pod.name_any()),
        pod_uid: pod.metadata.uid.clone(),
        deleted: Some(true),
        ..swept_line(connection, format!("cleaned up: {why}"))
    };
    session.audit.append_or_warn(line).await;
}

fn swept_line(connection: &Connection, outcome: String) -> AuditLine {
    AuditLine {
        event: AuditEvent::Sweep,
        context: connection.context.clone(),
        server: connection.server.clone(),
        user: connection.user.clone(),
        outcome: Some(outcome),
        ..AuditLine::default()
    }
}
