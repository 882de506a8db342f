//! Looks for a pod whose creation was not answered, in the background, and deletes it when it comes to be.
//!
//! A proxy may hold a request, and the API server may finish one whose client has left. The failure of the call says that the
//! pod may still be created; the audit log says what became of it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::probe::lifecycle::delete_pod::delete_pod;
use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::probe_context::ProbeContext;
use crate::probe::result::CreateOutcome;

/// How long after its creation was given up a pod may still be created: an API server ends a request after 60 s.
pub(crate) const LATE_TIME: Duration = Duration::from_secs(70);
/// The same once the program is ending.
pub(crate) const LATE_TIME_AT_END: Duration = Duration::from_secs(20);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Time for one look.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// What the failure says about it.
pub(crate) fn left_behind(open: &OpenProbe) -> String {
    let OpenProbe { namespace, pod, lifetime_seconds, .. } = open;
    format!(
        "pod {namespace}/{pod} may still be created, since its creation was not answered: gpu-syringe looks for it for up to \
         {} s and deletes it; it exits on its own within {lifetime_seconds} s of its start. To make sure: {}",
        LATE_TIME.as_secs(),
        open.command()
    )
}

/// Starts the task that looks for the pod. The program waits for it before it ends.
pub(crate) fn look_in_background(context: &ProbeContext, open: OpenProbe) {
    let (pods, record) = (context.pods(&open.namespace), context.record.clone());
    let session = context.session.clone();
    context.leave_to_background(&open);
    context.session.tasks.spawn(async move {
        let mut end = Instant::now() + LATE_TIME;
        let mut is_ending = false;
        let found = loop {
            if let Ok(Ok(Some(pod))) = timeout(LOOK_TIME, pods.get_metadata_opt(&open.pod)).await {
                break Some(pod.metadata.uid);
            }
            if Instant::now() >= end {
                break None;
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = session.stop.cancelled(), if !is_ending => {
                    is_ending = true;
                    end = end.min(Instant::now() + LATE_TIME_AT_END);
                }
            }
        };
        match found {
            None if is_ending => {
                let outcome = "its creation was not answered, and it was not created before the program ended";
                record.late(&open, None, outcome, None).await;
            }
            None => record.late(&open, None, "its creation was not answered, and it was never created", None).await,
            Some(uid) => {
                let created = CreateOutcome::Created { uid: uid.clone() };
                let deletion = delete_pod(&pods, &open.pod, &created).await;
                let outcome = match &deletion {
                    Ok(_) => "created after its creation was given up; deleted".to_owned(),
                    Err(reason) => format!("created after its creation was given up; not deleted: {reason}"),
                };
                record.late(&open, uid, &outcome, Some(deletion.is_ok())).await;
            }
        }
        session.close(&open).await;
    });
}
