//! `from_pods`: creates the facts about the GPU pods of a node, for the rules about allocated and used GPUs.

use syringe_core::facts::kubernetes::gpu_pod::{GpuContainer, GpuPod};
use syringe_core::text::{clean, clean_keeping_end};

use crate::objects::api_objects::meta::Time;
use crate::objects::gpu_pod::{Container, Pod};
use crate::objects::gpu_requests;
use crate::objects::pod_owner::is_node_software;

/// Maximum length of a name and of a message.
const NAME_CAP: usize = 253;
const MESSAGE_CAP: usize = 300;
/// Maximum number of containers of one pod that are listed because they may have access to GPUs without a request.
const MOST_NAMED: usize = 2;

/// Returns the pods with allocated resources, and the pods that the kubelet rejected.
pub fn from_pods(pods: &[Pod]) -> Vec<GpuPod> {
    let refused = |pod: &Pod| pod.status.phase == "Failed" && pod.status.reason.contains("AdmissionError");
    pods.iter().filter(|pod| gpu_requests::holds_resources(&pod.status.phase) || refused(pod)).map(one).collect()
}

fn one(pod: &Pod) -> GpuPod {
    let (metadata, spec, status) = (&pod.metadata, &pod.spec, &pod.status);
    let cleaned = |text: &str, most| (!text.is_empty()).then(|| clean_keeping_end(text, most));
    let sidecars = spec.init_containers.iter().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let staying = || spec.containers.iter().chain(sidecars.clone());
    GpuPod {
        namespace: clean(&metadata.namespace, NAME_CAP),
        name: clean(&metadata.name, NAME_CAP),
        uid: metadata.annotations.static_uid.clone().unwrap_or_else(|| metadata.uid.clone()),
        phase: clean(&status.phase, 20),
        created: metadata.created,
        observed: status.start_time.and_then(Time::timestamp).or(metadata.created),
        reason: cleaned(&status.reason, NAME_CAP),
        message: cleaned(&status.message, MESSAGE_CAP),
        deleting: metadata.is_deleting,
        deletion_due: metadata.deletion_due,
        containers: staying().filter_map(|container| gpu_container(pod, container)).collect(),
        has_claims: !spec.resource_claims.is_empty() || !status.resource_claim_statuses.is_empty(),
        has_annotated_gpus: !metadata.annotations.uuids.is_empty(),
        extra_devices_reason: staying().filter_map(extra_devices_reason).take(MOST_NAMED).collect(),
        is_node_software: is_node_software(&metadata.owner_references),
    }
}

fn gpu_container(pod: &Pod, container: &Container) -> Option<GpuContainer> {
    let mut requests = container.resources.limits.0.clone();
    requests.extend(container.resources.requests.0.clone());
    requests.retain(|_, count| *count > 0);
    let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    let running =
        statuses.filter(|status| status.name == container.name).find_map(|status| status.state.running.as_ref());
    let running_since = running.and_then(|running| running.started_at?.timestamp());
    (!requests.is_empty()).then(|| GpuContainer { name: clean(&container.name, 63), requests, running_since })
}

/// Returns why a container may have access to GPUs that it did not request.
fn extra_devices_reason(container: &Container) -> Option<String> {
    let name = clean(&container.name, 63);
    if container.is_privileged {
        return Some(format!("its container {name} is privileged"));
    }
    let value = container.visible_devices.as_deref().filter(|value| !matches!(*value, "void" | "none"))?;
    Some(format!("its container {name} sets NVIDIA_VISIBLE_DEVICES={}", clean(value, 80)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Vec<GpuPod> {
        let mut pod = json!({
            "metadata": {"name": "train-0", "namespace": "ml", "uid": "u1", "creationTimestamp": "2026-11-21T02:00:00Z"},
            "spec": {"containers": [
                {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}},
                {"name": "proxy", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]},
            ]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "main", "state": {"running": {"startedAt": "2026-11-21T02:00:07Z"}}}]},
        });
        change(&mut pod);
        from_pods(&[serde_json::from_value(pod).expect("a pod")])
    }

    #[test]
    fn a_pod_has_the_requests_of_the_containers_that_stay() {
        let pods = pod(|_| ());
        let [only] = pods.as_slice() else { panic!("{pods:?}") };
        let [main] = only.containers.as_slice() else { panic!("{only:?}") };
        assert_eq!((main.name.as_str(), main.requests["nvidia.com/gpu"]), ("main", 2));
        assert_eq!(main.running_since, "2026-11-21T02:00:07Z".parse().ok());
        assert!(only.extra_devices_reason.is_empty() && !only.is_node_software && !only.has_claims);
    }

    #[test]
    fn what_shows_a_pod_all_gpus_is_named() {
        let privileged = pod(|pod| pod["spec"]["containers"][1]["securityContext"] = json!({"privileged": true}));
        assert_eq!(privileged[0].extra_devices_reason, ["its container proxy is privileged"]);
        let all = pod(|pod| pod["spec"]["containers"][1]["env"][0]["value"] = json!("all"));
        assert_eq!(all[0].extra_devices_reason, ["its container proxy sets NVIDIA_VISIBLE_DEVICES=all"]);
        let owned = |owner: Value| pod(|pod| pod["metadata"]["ownerReferences"] = json!([owner]))[0].is_node_software;
        assert!(owned(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "controller": true})));
        assert!(!owned(json!({"apiVersion": "attacker.example/v1", "kind": "DaemonSet", "controller": true})));
    }

    #[test]
    fn a_refused_pod_stays_and_one_that_failed_otherwise_does_not() {
        let ended = |reason: &str| {
            pod(|pod| pod["status"] = json!({"phase": "Failed", "reason": reason, "message": "m", "startTime": null}))
        };
        assert_eq!(ended("UnexpectedAdmissionError")[0].observed, "2026-11-21T02:00:00Z".parse().ok());
        assert!(ended("Evicted").is_empty());
    }
}
