//! Takes a pod out again, and says for certain whether it is gone.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::{Instant, sleep, timeout};

use crate::error::kube_reason;

/// Time for a removal with all its tries. A shutdown waits this long at most.
const REMOVAL_TIME: Duration = Duration::from_secs(10);
/// Time for one request.
const REQUEST_TIME: Duration = Duration::from_secs(3);
/// First pause between two tries; doubles up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Deletes the pod `name`. With `uid`, only that very pod: one of the same name that came later is left alone.
///
/// `Err` says why it may still be there.
pub(crate) async fn withdraw(pods: &Api<Pod>, name: &str, uid: Option<&str>) -> Result<(), String> {
    let params = DeleteParams {
        // The probe holds nothing that would need an orderly end: gone at once, without waiting for the kubelet.
        grace_period_seconds: Some(0),
        preconditions: uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    let end = Instant::now() + REMOVAL_TIME;
    let mut pause = FIRST_PAUSE;
    let mut reason = String::from("no try was made");
    while Instant::now() < end {
        match timeout(REQUEST_TIME, pods.delete(name, &params)).await {
            // Right: a Status, the object is gone. Left: the object, gone or ending.
            Ok(Ok(either::Either::Right(_))) => return Ok(()),
            Ok(Ok(either::Either::Left(_))) => {
                if is_gone(pods, name, uid).await {
                    return Ok(());
                }
                reason = "the API server accepted the removal, but the pod is still there".into();
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
            // The name belongs to another pod by now: ours is gone.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 && uid.is_some() => return Ok(()),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                return Err(format!("{} (HTTP {})", status.message, status.code));
            }
            Ok(Err(error)) => reason = kube_reason(&error),
            Err(_) => reason = format!("no answer within {REQUEST_TIME:?}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Err(reason)
}

async fn is_gone(pods: &Api<Pod>, name: &str, uid: Option<&str>) -> bool {
    match timeout(REQUEST_TIME, pods.get_metadata_opt(name)).await {
        Ok(Ok(None)) => true,
        Ok(Ok(Some(pod))) => uid.is_some() && pod.metadata.uid.as_deref() != uid,
        Ok(Err(_)) | Err(_) => false,
    }
}
