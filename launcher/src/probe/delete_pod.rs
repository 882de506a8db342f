//! Deletes a pod, and tells whether it is gone for certain.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::{Instant, sleep, timeout_at};

use super::types::CreateOutcome;
use crate::error::kube_reason;

/// Time for a removal with all its tries. A shutdown waits for it.
pub(super) const REMOVAL_TIME: Duration = Duration::from_secs(10);
/// Time for one request.
const REQUEST_TIME: Duration = Duration::from_secs(3);
/// For how long a pod whose creation was not answered may still come to be.
const UNSEEN_TIME: Duration = Duration::from_secs(2);
/// First pause between two tries; doubles up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Why a pod may still be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct DeleteError {
    reason: String,
    /// Whether the user may not delete it: then no later try of theirs will.
    pub(crate) is_forbidden: bool,
}

/// Deletes the pod `name`. With a UID a later pod of the same name is left alone; after an unknown outcome the pod is waited
/// for, since it may still come to exist.
pub(crate) async fn delete_pod(pods: &Api<Pod>, name: &str, outcome: &CreateOutcome) -> Result<(), DeleteError> {
    let uid = if let CreateOutcome::Created { uid } = outcome { uid.as_deref() } else { None };
    let params = DeleteParams {
        // The probe holds nothing that would need an orderly end: gone at once, without waiting for the kubelet.
        grace_period_seconds: Some(0),
        preconditions: uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    let began = Instant::now();
    let end = began + REMOVAL_TIME;
    let mut pause = FIRST_PAUSE;
    let mut reason = String::from("no try was made");
    while Instant::now() < end {
        match timeout_at(request_end(end), pods.delete(name, &params)).await {
            // Right: a Status, the object is gone. Left: the object, gone or ending.
            Ok(Ok(either::Either::Right(_))) => return Ok(()),
            Ok(Ok(either::Either::Left(_))) => {
                if is_gone(pods, name, uid, end).await {
                    return Ok(());
                }
                reason = "the API server accepted the removal, but the pod is still there".into();
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                if *outcome != CreateOutcome::Unknown || began.elapsed() >= UNSEEN_TIME {
                    return Ok(());
                }
            }
            // The name belongs to another pod by now: ours is gone.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 && uid.is_some() => return Ok(()),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                let reason = format!("{} (HTTP {})", status.message, status.code);
                return Err(DeleteError { reason, is_forbidden: status.code == 403 });
            }
            Ok(Err(error)) => reason = kube_reason(&error),
            Err(_) => reason = "no answer in time".into(),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Err(DeleteError { reason, is_forbidden: false })
}

/// When a request that begins now must have ended: no later than everything.
fn request_end(end: Instant) -> Instant {
    end.min(Instant::now() + REQUEST_TIME)
}

async fn is_gone(pods: &Api<Pod>, name: &str, uid: Option<&str>, end: Instant) -> bool {
    match timeout_at(request_end(end), pods.get_metadata_opt(name)).await {
        Ok(Ok(None)) => true,
        Ok(Ok(Some(pod))) => uid.is_some() && pod.metadata.uid.as_deref() != uid,
        Ok(Err(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::config::KubeConfigOptions;
    use kube::{Api, Client, Config};
    use syringe_core::scenarios;

    use super::*;
    use demo_cluster::{Cluster, Fixture, NodeFixture, workload_pod};

    #[tokio::test]
    async fn a_pod_that_comes_to_be_after_its_creation_was_given_up_is_removed_too() {
        let facts = scenarios::named("healthy-h100-8").expect("a scenario").report();
        let cluster = Cluster::start(Fixture::of([NodeFixture::from_facts("gpu-1", facts)])).await.expect("a port");
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(cluster.kubeconfig(), &options).await.expect("a context");
        let pods: Api<Pod> = Api::namespaced(Client::try_from(config).expect("a client"), "default");
        let late = async {
            sleep(Duration::from_millis(500)).await;
            cluster.add_pod(workload_pod("default", "late", "gpu-1", 0));
        };
        let (gone, ()) = tokio::join!(delete_pod(&pods, "late", &CreateOutcome::Unknown), late);
        assert_eq!((gone, cluster.pods("default").len()), (Ok(()), 0));
    }
}
