//! `end_in_background`: starts a task that deletes a late probe pod or stops a late ephemeral container (`LateObject`).
//!
//! A pod is late if the request to create it was not answered. A container is late if it has not started or could not be
//! stopped. A proxy may hold a request, and the API server may complete a request whose client has disconnected. The failure
//! of the call names the object that may still appear, and the audit log records the outcome.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::{Instant, sleep, timeout};

use crate::probe::lifecycle::delete_pod::delete_pod;
use crate::probe::lifecycle::end_container::{AddedContainer, FinalState};
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::probe_context::ProbeContext;
use crate::probe::result::CreateOutcome;

/// Time in which an object may still be created after the client gave up. An API server ends a request after 60 s.
pub(crate) const LATE_TIME: Duration = Duration::from_secs(70);
/// Time for which a program that is exiting waits for the object.
pub(crate) const LATE_TIME_AT_END: Duration = Duration::from_secs(20);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Time limit of a search for a pod.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// An object that may still appear.
pub(crate) enum LateObject {
    Pod(Api<Pod>),
    Container(AddedContainer),
}

/// The outcome of one attempt to delete or stop the object.
struct Attempt {
    /// Text for the audit log.
    outcome: String,
    uid: Option<String>,
    deleted: Option<bool>,
    /// Whether a later attempt would have the same outcome.
    is_final: bool,
    /// Whether the container may still be running after the last attempt. In this case, the next launcher stops it.
    may_run: bool,
}

/// Starts the task that deletes or stops the object. The program waits for this task before it exits.
pub(crate) fn end_in_background(context: &ProbeContext, object: LateObject, open: OpenProbe) {
    let (session, record) = (context.session.clone(), context.record.clone());
    context.leave_to_background(&open);
    context.session.tasks.spawn(async move {
        let mut end = Instant::now() + LATE_TIME;
        let mut is_ending = false;
        let Attempt { outcome, uid, deleted, may_run, .. } = loop {
            let attempt = object.try_end(&open, is_ending).await;
            if attempt.is_final || Instant::now() >= end {
                break attempt;
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = session.stop.cancelled(), if !is_ending => {
                    is_ending = true;
                    end = end.min(Instant::now() + LATE_TIME_AT_END);
                }
            }
        };
        record.late(&open, uid, &outcome, deleted).await;
        if may_run {
            session.open.remove(&open);
        } else {
            session.close(&open).await;
        }
    });
}

impl LateObject {
    async fn try_end(&self, open: &OpenProbe, is_ending: bool) -> Attempt {
        match self {
            Self::Pod(pods) => end_pod(pods, &open.pod, is_ending).await,
            Self::Container(added) => end_container(added, open.lifetime_seconds).await,
        }
    }
}

async fn end_pod(pods: &Api<Pod>, name: &str, is_ending: bool) -> Attempt {
    let Ok(Ok(Some(pod))) = timeout(LOOK_TIME, pods.get_metadata_opt(name)).await else {
        let end = if is_ending { "the pod did not appear before the program exited" } else { "the pod never appeared" };
        let outcome = format!("the create request was not answered, and {end}");
        return Attempt { outcome, uid: None, deleted: None, is_final: false, may_run: false };
    };
    let uid = pod.metadata.uid;
    let deletion = delete_pod(pods, name, &CreateOutcome::Created { uid: uid.clone() }).await;
    let outcome = match &deletion {
        Ok(_) => "the pod was created after the launcher had given up; the pod is deleted".to_owned(),
        Err(reason) => format!("the pod was created after the launcher had given up; the pod is not deleted: {reason}"),
    };
    Attempt { outcome, uid, deleted: Some(deletion.is_ok()), is_final: true, may_run: false }
}

async fn end_container(added: &AddedContainer, lifetime_seconds: u64) -> Attempt {
    let state = added.end(false).await;
    let outcome = match state {
        FinalState::Ended => "the container started late and has exited".to_owned(),
        FinalState::Gone => "the pod of the container was deleted".to_owned(),
        FinalState::NotAdded => "the create request was not answered, and the container was not created".to_owned(),
        FinalState::Stuck | FinalState::Waits => {
            format!("the container has not started; if it starts, it exits on its own within {lifetime_seconds} s")
        }
        FinalState::Unknown => {
            format!("the container could not be stopped; it exits on its own within {lifetime_seconds} s of its start")
        }
    };
    Attempt {
        outcome,
        uid: added.uid.clone(),
        deleted: None,
        is_final: matches!(state, FinalState::Gone | FinalState::Ended),
        may_run: matches!(state, FinalState::Stuck | FinalState::Waits | FinalState::Unknown),
    }
}
