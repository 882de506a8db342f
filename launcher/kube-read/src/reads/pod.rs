//! `read`: reads one pod with its events, or the events of the controller that could not create this pod.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use syringe_core::facts::kubernetes::pod::PodFacts;

use crate::Failure;
use crate::client::api_error::{request_failed, timed_out};
use crate::client::connection::Connection;
use crate::client::retry;
use crate::objects::{name_validation, pod_facts};
use crate::reads::events;

/// A pod with its events.
pub struct ReadPod {
    /// The object; `None` if the pod does not exist because its controller could not create it.
    pub object: Option<Pod>,
    /// The facts for an explanation, including the events.
    pub facts: PodFacts,
    /// Why the events could not be read.
    pub no_events: Option<Failure>,
}

/// Reads the pod and its events.
pub async fn read(connection: &Connection, namespace: &str, name: &str) -> Result<ReadPod, Failure> {
    name_validation::check_namespace(namespace)?;
    name_validation::check_pod_name(name)?;
    let what = || format!("Reading pod {namespace}/{name}");
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let pod = retry::read(|| pods.get_opt(name))
        .await
        .ok_or_else(|| timed_out(connection, what()))?
        .map_err(|error| request_failed(connection, what(), &error))?;
    let Some(pod) = pod else {
        let refused = not_created(connection, namespace, name).await;
        let facts = refused.ok_or_else(|| {
            Failure::new(
                what(),
                format!("there is no such pod in context {}", connection.context),
                "Check the name and the namespace (on the command line: -n NAMESPACE). A pod that was deleted is gone from the API: its events and the node's kernel log \
                 (analyze_xid_errors) are what is left of it.",
            )
        })?;
        return Ok(ReadPod { object: None, facts, no_events: None });
    };
    let mut facts = pod_facts::from_pod(&pod);
    // Events are optional. A user who is not allowed to list them still gets an explanation.
    let no_events = match events::of_pod(connection, namespace, &pod.uid().unwrap_or_default()).await {
        Ok(events) => {
            facts.events = events;
            None
        }
        Err(failure) => Some(failure),
    };
    Ok(ReadPod { object: Some(pod), facts, no_events })
}

/// Finds a pod that its controller could not create because a quota or another admission plugin rejected it. `name` may
/// be the name in the event, a name that the controller would use, or the name of the controller.
async fn not_created(connection: &Connection, namespace: &str, name: &str) -> Option<PodFacts> {
    let refused = events::of_failed_creates(connection, namespace).await.ok()?;
    let names_the_pod = |refused: &&events::FailedCreate| refused.event.message.contains(&format!("\"{name}\""));
    // If the names of several controllers match, the longest one is used.
    let controls =
        |refused: &&events::FailedCreate| is_named_after(name, &refused.name) || is_named_after(&refused.name, name);
    let by_name = || refused.iter().filter(controls).max_by_key(|refused| refused.name.len());
    let newest = refused.iter().rev().find(names_the_pod).or_else(by_name)?;
    let own = refused.iter().filter(|other| other.controller == newest.controller);
    let events = own.map(|refused| refused.event.clone()).collect();
    Some(pod_facts::not_created(namespace, name, newest.controller.clone(), events))
}

/// Whether `controller` could create a pod or ReplicaSet with `name`: the controller's name, optionally with one suffix.
fn is_named_after(name: &str, controller: &str) -> bool {
    let Some(rest) = name.strip_prefix(controller).filter(|_| !controller.is_empty()) else { return false };
    rest.is_empty() || rest.strip_prefix('-').is_some_and(|suffix| !suffix.is_empty() && !suffix.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::is_named_after;

    #[test]
    fn a_pod_is_named_after_its_controller() {
        for name in ["train", "train-x7k2p", "train-0"] {
            assert!(is_named_after(name, "train"), "{name}");
        }
        for other in ["train-eval-x7k2p", "training", "trai", "", "train-"] {
            assert!(!is_named_after(other, "train"), "{other}");
        }
        assert!(!is_named_after("x", ""));
    }
}
