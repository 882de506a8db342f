//! `delete_pod`: deletes a pod with retries, and checks that the pod is gone (`Deletion`, `DeleteError`).

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::{Instant, sleep, timeout_at};

use crate::probe::result::CreateOutcome;
use kube_read::client::api_status::{is_conflict, is_not_a_status, is_not_found};
use kube_read::client::retry::{is_retryable, retry_after};
use kube_read::failure::kube_reason;

/// Time limit of a deletion with all retries. A shutdown waits for the deletion.
pub(crate) const REMOVAL_TIME: Duration = Duration::from_secs(10);
/// Time limit of one request.
const REQUEST_TIME: Duration = Duration::from_secs(3);
/// Time that a pod may take to appear if the response to its creation was lost.
const UNSEEN_TIME: Duration = Duration::from_secs(2);
/// First pause between two attempts. The pause doubles up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The reason why a pod may still exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct DeleteError {
    reason: String,
    /// Whether the user lacks the permission to delete the pod. In this case, a retry is useless.
    pub(crate) is_forbidden: bool,
}

/// The outcome of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The pod object existed and is deleted.
    Deleted,
    /// The pod does not exist. If the outcome of its creation was unknown, the pod did not appear during the wait.
    NotFound,
}

/// Deletes the pod `name`. If the UID is known, a later pod with the same name is not deleted. If the outcome of the
/// creation is unknown, waits for the pod, because it may still appear.
pub(crate) async fn delete_pod(pods: &Api<Pod>, name: &str, outcome: &CreateOutcome) -> Result<Deletion, DeleteError> {
    let uid = if let CreateOutcome::Created { uid } = outcome { uid.as_deref() } else { None };
    let params = DeleteParams {
        // The pod is deleted at once, without waiting for the kubelet: the probe has nothing to shut down.
        grace_period_seconds: Some(0),
        preconditions: uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    let began = Instant::now();
    let end = began + REMOVAL_TIME;
    let mut pause = FIRST_PAUSE;
    let mut reason = String::from("no attempt was made");
    // Whether an attempt without a response may have deleted the pod.
    let mut may_be_deleted = false;
    while Instant::now() < end {
        let mut asked = Duration::ZERO;
        match timeout_at(request_end(end), pods.delete(name, &params)).await {
            // `Right` is a `Status`: the object is deleted. `Left` is the object, which is deleted or terminating.
            Ok(Ok(either::Either::Right(_))) => return Ok(Deletion::Deleted),
            Ok(Ok(either::Either::Left(_))) => {
                if is_gone(pods, name, uid, end).await {
                    return Ok(Deletion::Deleted);
                }
                reason = "the API server accepted the deletion, but the pod still exists".into();
            }
            Ok(Err(kube::Error::Api(status))) if is_not_found(&status) => {
                let is_certain = matches!(outcome, CreateOutcome::Created { .. });
                if is_certain || began.elapsed() >= UNSEEN_TIME {
                    let by_us = is_certain && may_be_deleted;
                    return Ok(if by_us { Deletion::Deleted } else { Deletion::NotFound });
                }
            }
            // Another pod has this name now, so our pod is deleted. Other conflicts prove nothing.
            Ok(Err(kube::Error::Api(status))) if is_conflict(&status) && is_gone(pods, name, uid, end).await => {
                return Ok(Deletion::Deleted);
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) && !is_not_a_status(&status) => {
                let reason = format!("{} (HTTP {})", status.message, status.code);
                return Err(DeleteError { reason, is_forbidden: status.code == 403 });
            }
            Ok(Err(error)) => {
                if let kube::Error::Api(status) = &error
                    && is_retryable(status)
                {
                    asked = retry_after(status);
                }
                may_be_deleted |= !matches!(&error, kube::Error::Api(status) if status.code < 500);
                reason = kube_reason(&error);
            }
            Err(_) => {
                may_be_deleted = true;
                reason = "the API server did not answer in time".into();
            }
        }
        sleep(pause.max(asked)).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Err(DeleteError { reason, is_forbidden: false })
}

/// Returns the deadline of a request that starts now.
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
        assert_eq!((gone, cluster.pods("default").len()), (Ok(Deletion::Deleted), 0));
    }
}
