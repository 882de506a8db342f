//! Reads one pod with its events.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use syringe_core::explanation::PodFacts;

use crate::error::Failure;
use crate::kubernetes::client::api_error::{request_failed, timed_out};
use crate::kubernetes::client::connection::Connection;
use crate::kubernetes::client::retry;
use crate::kubernetes::model::{names, pod_facts};
use crate::kubernetes::read::events;

/// Reads the pod and its events; the last has why these could not be read.
pub async fn read(
    connection: &Connection,
    namespace: &str,
    name: &str,
) -> Result<(Pod, PodFacts, Option<Failure>), Failure> {
    names::namespace(namespace)?;
    names::pod(name)?;
    let what = || format!("Reading pod {namespace}/{name}");
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let pod = retry::read(|| pods.get_opt(name))
        .await
        .ok_or_else(|| timed_out(connection, what()))?
        .map_err(|error| request_failed(connection, what(), &error))?
        .ok_or_else(|| {
            Failure::new(
                what(),
                format!("there is no such pod in context {}", connection.context),
                "Check name and namespace. A pod that was deleted is gone from the API: its events and the node's kernel log \
                 (analyze_xid_errors) are what is left of it.",
            )
        })?;
    let mut facts = pod_facts::of(&pod);
    // Events are a help, not a need: a user who may not list them still gets an explanation.
    let unread = match events::of_pod(connection, namespace, &pod.uid().unwrap_or_default()).await {
        Ok(events) => {
            facts.events = events;
            None
        }
        Err(failure) => Some(failure),
    };
    Ok((pod, facts, unread))
}
