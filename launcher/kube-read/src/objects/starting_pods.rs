//! `from_pods`: selects the pods of a node in which no container has started, for the rule about such pods.

use syringe_core::facts::kubernetes::node::StartingPod;
use syringe_core::text::{clean, clean_keeping_end};

use crate::objects::api_objects::meta::{Time, given};
use crate::objects::gpu_pod::Pod;

/// Maximum length of a name and of a message.
const NAME_CAP: usize = 253;
const MESSAGE_CAP: usize = 400;
/// Maximum number of pods.
const MOST: usize = 16;

/// Returns the starting pods, sorted by waiting time (longest first). Pods of NVIDIA's software have separate facts.
pub fn from_pods(pods: &[Pod]) -> Vec<StartingPod> {
    let waits = |pod: &&Pod| {
        let status = &pod.status;
        let mut containers = status.container_statuses.iter().chain(&status.init_container_statuses);
        let started = containers.any(|one| one.state.running.is_some() || one.state.terminated.is_some());
        status.phase == "Pending" && !pod.metadata.is_deleting && pod.nvidia.is_none() && !started
    };
    let mut starting: Vec<StartingPod> = pods.iter().filter(waits).map(one).collect();
    starting.sort_by(|left, right| (left.since, &left.name).cmp(&(right.since, &right.name)));
    starting.truncate(MOST);
    starting
}

fn one(pod: &Pod) -> StartingPod {
    let status = &pod.status;
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses);
    let waiting = statuses.filter_map(|status| status.state.waiting.as_ref());
    // A container that waits for another container has no message.
    let waiting = waiting.max_by_key(|waiting| !waiting.message.is_empty());
    StartingPod {
        namespace: clean(&pod.metadata.namespace, NAME_CAP),
        name: clean(&pod.metadata.name, NAME_CAP),
        uid: pod.metadata.uid.clone(),
        since: status.start_time.and_then(Time::timestamp).or(pod.metadata.created),
        reason: waiting.and_then(|waiting| given(clean(&waiting.reason, 80))),
        message: waiting.and_then(|waiting| given(clean_keeping_end(&waiting.message, MESSAGE_CAP))),
        warning: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ml"}, "status": status})).expect("a pod")
    }

    #[test]
    fn a_pod_starts_until_its_first_container_runs() {
        let state = |state: Value| json!([{"name": "main", "state": state}]);
        let waiting = state(json!({"waiting": {"reason": "ContainerCreating"}}));
        let running = state(json!({"running": {"startedAt": "2026-11-21T02:00:00Z"}}));
        let pods = [
            pod(
                "young",
                json!({"phase": "Pending", "startTime": "2026-11-21T02:00:00Z", "containerStatuses": waiting}),
            ),
            pod("old", json!({"phase": "Pending", "startTime": "2026-11-20T02:00:00Z"})),
            pod("init-runs", json!({"phase": "Pending", "initContainerStatuses": running})),
            pod("runs", json!({"phase": "Running"})),
        ];
        let starting = from_pods(&pods);
        let names: Vec<_> = starting.iter().map(|pod| (pod.name.as_str(), pod.reason.as_deref())).collect();
        assert_eq!(names, [("old", None), ("young", Some("ContainerCreating"))]);
    }
}
