//! `from_pods`: selects the pods of a node whose containers failed or that the kubelet rejected, with their last message.

use jiff::Timestamp;
use syringe_core::facts::kubernetes::node::FailedPod;
use syringe_core::text::{clean, clean_lines_keeping_end};

use crate::objects::api_objects::meta::{Time, given};
use crate::objects::api_objects::pod_status::{ContainerStatus, Terminated};
use crate::objects::gpu_pod::Pod;
use crate::objects::gpu_requests::effective_requests;
use crate::objects::pod_owner::is_node_software;

/// Maximum length of a name and of a message.
const NAME_CAP: usize = 253;
const MESSAGE_CAP: usize = 600;
/// Maximum number of pods.
const MOST: usize = 16;

/// Returns the pods that request GPUs and failed, newest failure first. Pods of NVIDIA's software have separate facts.
pub fn from_pods(pods: &[Pod]) -> Vec<FailedPod> {
    let has_gpus = |pod: &Pod| !pod.spec.resource_claims.is_empty() || !effective_requests(pod).is_empty();
    let of_user = |pod: &&Pod| {
        let is_over = pod.metadata.is_deleting || pod.status.phase == "Succeeded";
        pod.nvidia.is_none() && !is_node_software(&pod.metadata.owner_references) && !is_over
    };
    let mut failed: Vec<FailedPod> = pods
        .iter()
        .filter(|pod| of_user(pod) && has_gpus(pod))
        .filter_map(|pod| ended(pod).or_else(|| rejected(pod)))
        .collect();
    failed.sort_by(|left, right| (right.at, &left.name).cmp(&(left.at, &right.name)));
    failed.truncate(MOST);
    failed
}

fn of_pod(pod: &Pod) -> FailedPod {
    FailedPod {
        namespace: clean(&pod.metadata.namespace, NAME_CAP),
        name: clean(&pod.metadata.name, NAME_CAP),
        uid: pod.metadata.uid.clone(),
        ..FailedPod::default()
    }
}

/// Returns the newest failed end of a container.
fn ended(pod: &Pod) -> Option<FailedPod> {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    let ends = statuses.filter_map(|status| Some((end_of(status)?, status)));
    let (end, status) = ends.max_by_key(|(end, _)| finished(end))?;
    Some(FailedPod {
        container: Some(clean(&status.name, 63)),
        reason: clean(&end.reason, 80),
        message: given(clean_lines_keeping_end(&end.message, MESSAGE_CAP)),
        at: finished(end),
        restarts: u32::try_from(status.restart_count).unwrap_or(0),
        backs_off: status.state.waiting.as_ref().is_some_and(|waiting| waiting.reason == "CrashLoopBackOff"),
        ..of_pod(pod)
    })
}

/// Returns the last end of a container, if the container failed.
fn end_of(status: &ContainerStatus) -> Option<&Terminated> {
    status.state.terminated.as_ref().or(status.last_state.terminated.as_ref()).filter(|end| end.exit_code != 0)
}

fn finished(end: &Terminated) -> Option<Timestamp> {
    end.finished_at.and_then(Time::timestamp)
}

/// Returns the rejection by the kubelet, which starts no container of the pod.
fn rejected(pod: &Pod) -> Option<FailedPod> {
    let status = &pod.status;
    let is_rejected = status.phase == "Failed" && status.container_statuses.is_empty() && !status.reason.is_empty();
    is_rejected.then(|| FailedPod {
        reason: clean(&status.reason, 80),
        message: given(clean_lines_keeping_end(&status.message, MESSAGE_CAP)),
        at: status.start_time.and_then(Time::timestamp).or(pod.metadata.created),
        ..of_pod(pod)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn failed(status: Value) -> Vec<FailedPod> {
        let pod = json!({
            "metadata": {"name": "train-0", "namespace": "ml", "uid": "u1", "creationTimestamp": "2026-11-21T02:00:00Z"},
            "spec": {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
            "status": status,
        });
        from_pods(&[serde_json::from_value(pod).expect("a pod")])
    }

    #[test]
    fn the_newest_end_of_a_container_is_kept_with_its_lines() {
        let end = json!({"terminated": {
            "exitCode": 1, "reason": "Error", "message": "Traceback:\nRuntimeError: x", "finishedAt": "2026-11-21T02:31:00Z"
        }});
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let status = json!([{"name": "main", "restartCount": 3, "state": waiting, "lastState": end}]);
        let all = failed(json!({"phase": "Running", "containerStatuses": status}));
        let [pod] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((pod.container.as_deref(), pod.restarts, pod.backs_off), (Some("main"), 3, true));
        assert_eq!(pod.message.as_deref(), Some("Traceback:\nRuntimeError: x"));
        assert_eq!(pod.at.map(|time| time.to_string()).as_deref(), Some("2026-11-21T02:31:00Z"));
    }

    #[test]
    fn a_success_is_no_failure_and_a_rejection_is_one() {
        let done = json!([{"name": "main", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]);
        assert_eq!(failed(json!({"phase": "Succeeded", "containerStatuses": done})), []);
        assert_eq!(failed(json!({"phase": "Pending"})), []);
        let rejected = failed(json!({"phase": "Failed", "reason": "TopologyAffinityError", "message": "m"}));
        assert_eq!((rejected[0].reason.as_str(), &rejected[0].container), ("TopologyAffinityError", &None));
    }
}
