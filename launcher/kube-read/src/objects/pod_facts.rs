//! `from_pod`: converts a pod to `PodFacts`, for an explanation. `not_created`, `without_pods`: facts of a job or pod
//! that has no pod object. `related_names`: names of related objects. `wants_gpus`: whether a pod requests GPUs or
//! claims.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{self as core, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use syringe_core::facts::kubernetes::pod::{
    ContainerFacts, ContainerSpec, ContainerState, PodEvent, PodFacts, Preemption,
};
use syringe_core::text::{clean, clean_keeping_end, clean_lines_keeping_end};

use crate::objects::gpu_resource_names::{is_gpu_resource, requests_gpus};
use crate::objects::nvidia_components::PodIdentity;
use crate::objects::pod_owner::static_uid;
use crate::objects::scheduler_filters;

/// The phase of a pod that its controller could not create. Kubernetes has no phase for this.
const NOT_CREATED: &str = "NotCreated";
/// Maximum length of a message. A longer message is cut in the middle, because runtimes write the reason at the end.
const MESSAGE_CAP: usize = 1000;
/// Maximum number of scheduling gates that are listed.
const MAX_GATES: usize = 8;
/// Label with the queue of Kueue that admits a pod or job.
const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// Maximum length of the name of a field or a gate.
const NAME_CAP: usize = 320;

/// Returns the facts of a pod object, without its events.
pub fn from_pod(pod: &Pod) -> PodFacts {
    let status = pod.status.clone().unwrap_or_default();
    let unhealthy_devices = unhealthy_devices(&status);
    let preemption = preemption(pod, status.nominated_node_name.as_deref());
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let waits =
        scheduled.filter(|condition| condition.status != "True").and_then(|condition| condition.message.clone());
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let why_not = ready.filter(|condition| condition.status != "True").map(|condition| {
        let parts = [&condition.reason, &condition.message].map(|text| text.as_deref().unwrap_or_default());
        clean_keeping_end(parts.join(": ").trim_matches([':', ' ']), MESSAGE_CAP)
    });
    let gates = pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    let containers = [status.init_container_statuses, status.container_statuses];
    let identity = PodIdentity::from(pod);
    PodFacts {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        // The UID of a static pod in the kubelet is not the UID of its mirror pod in the API.
        uid: static_uid(pod.annotations()).map(str::to_owned).or_else(|| pod.uid()).unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty()),
        node_ready: None,
        node_not_ready: None,
        node_pressure: Vec::new(),
        phase: clean(&status.phase.unwrap_or_default(), 20),
        reason: status.reason.map(|reason| clean(&reason, 80)),
        message: status.message.or(waits).map(|message| clean_keeping_end(&message, MESSAGE_CAP)),
        created: time(pod.metadata.creation_timestamp.as_ref()),
        scheduled: scheduled
            .filter(|condition| condition.status == "True")
            .and_then(|condition| time(condition.last_transition_time.as_ref()))
            .or(time(status.start_time.as_ref())),
        deleted: requested(pod),
        finalizers: pod.finalizers().iter().take(MAX_GATES).map(|name| clean(name, NAME_CAP)).collect(),
        grace_seconds: pod.metadata.deletion_grace_period_seconds,
        disruption: disruption(conditions),
        containers: containers.into_iter().flatten().flatten().map(|status| container(&status)).collect(),
        events: Vec::new(),
        related_warnings: Vec::new(),
        siblings_not_running: Vec::new(),
        linked_pods: Vec::new(),
        absent_provider: None,
        queue: pod.labels().get(QUEUE_LABEL).map(|name| clean(name, NAME_CAP)),
        log_lines: Vec::new(),
        other_logs: Vec::new(),
        ready: ready.map(|condition| condition.status == "True"),
        ready_since: time(ready.and_then(|condition| condition.last_transition_time.as_ref())),
        other_conditions: other_conditions(conditions),
        not_ready: why_not.filter(|why| !why.is_empty()),
        scheduling_gates: gates.map(|gate| clean(&gate.name, NAME_CAP)).take(MAX_GATES).collect(),
        wants_gpus: wants_gpus(pod),
        gpu_containers: gpu_containers(pod),
        is_gpu_stack: identity.is_nvidia_component(),
        is_device_plugin: identity.is_device_plugin(),
        gpus_requested: gpus_requested(pod),
        other_resources: other_resources(pod),
        host_devices: host_devices(pod),
        specs: specs(pod),
        host_users: pod.spec.as_ref().and_then(|spec| spec.host_users),
        runtime_class: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.runtime_class_name.as_ref())
            .map(|name| clean(name, NAME_CAP)),
        runtime_handler: None,
        preemption,
        capacity_shortage: None,
        gpu_holders: Vec::new(),
        bound_devices: Vec::new(),
        claim_holders: Vec::new(),
        half_requests: Vec::new(),
        pending_resource_claims: pending_resource_claims(pod),
        scheduler: scheduler(pod),
        unhealthy_devices,
        live_pod_uids: None,
        not_created_by: None,
    }
}

/// Returns the time at which the deletion of a pod was requested. The API contains only the end of the grace period.
fn requested(pod: &Pod) -> Option<Timestamp> {
    let ends = time(pod.metadata.deletion_timestamp.as_ref())?;
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
    ends.checked_sub(grace).ok()
}

/// Returns why Kubernetes ends the pod: `PreemptionByScheduler: …`, `DeletionByTaintManager: …`.
fn disruption(conditions: &[core::PodCondition]) -> Option<String> {
    let found = conditions.iter().find(|one| one.type_ == "DisruptionTarget" && one.status == "True")?;
    let why = [&found.reason, &found.message].map(|text| text.as_deref().unwrap_or_default());
    Some(clean_keeping_end(why.join(": ").trim_matches([':', ' ']), MESSAGE_CAP))
}

/// Maximum number of arguments, variables or mounts of one container.
const MAX_OF_SPEC: usize = 64;

/// Returns the conditions other than `Ready` that report a problem. The condition about disruption is not included,
/// because it is True when Kubernetes is about to end the pod, and separate events report this.
fn other_conditions(conditions: &[core::PodCondition]) -> Vec<String> {
    const KNOWN: [&str; 4] = ["Ready", "PodScheduled", "DisruptionTarget", "ContainersReady"];
    let not_true = conditions.iter().filter(|one| one.status != "True" && !KNOWN.contains(&one.type_.as_str()));
    // Conditions with these names are True only while a container of the pod is restarted or resized.
    let not_true =
        not_true.filter(|one| !one.type_.starts_with("PodResize") && !one.type_.starts_with("AllContainers"));
    let in_words = |one: &core::PodCondition| {
        let why = [&one.reason, &one.message].map(|text| text.as_deref().unwrap_or_default());
        let why = why.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
        clean_keeping_end(format!("{} is {}: {why}", one.type_, one.status).trim_end_matches([':', ' ']), MESSAGE_CAP)
    };
    not_true.map(in_words).take(MAX_GATES).collect()
}

/// Returns the names and UIDs that relate other objects to the pod: owners, and names of groups, claims and volumes.
pub fn related_names(pod: &Pod) -> Vec<String> {
    let meta = &pod.metadata;
    let owners = meta.owner_references.iter().flatten().flat_map(|owner| [owner.name.clone(), owner.uid.clone()]);
    let of_group = |name: &str| ["group", "workload", "job-name"].iter().any(|word| name.contains(word));
    let maps = meta.labels.iter().chain(&meta.annotations).flatten();
    // The value of a label such as `app` is shared by many objects.
    let named =
        maps.filter(|(key, value)| key.contains('/') && of_group(key) && !value.is_empty() && value.len() < 254);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims = volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()));
    let of_status = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    let devices = of_status.filter_map(|claim| claim.resource_claim_name.clone());
    let direct = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let devices = devices.chain(direct.filter_map(|claim| claim.resource_claim_name.clone()));
    owners.chain(named.map(|(_, value)| value.clone())).chain(claims).chain(devices).collect()
}

/// Returns the specifications of the containers, init containers first.
fn specs(pod: &Pod) -> Vec<ContainerSpec> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let user = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let of_pod = memory_limit(spec.resources.as_ref());
    let with_limit = |container: ContainerSpec| ContainerSpec {
        memory_limit: container.memory_limit.clone().or_else(|| of_pod.clone()),
        ..container
    };
    let containers = containers.map(|container| with_limit(container_spec(container, volumes, user)));
    containers.take(MAX_OF_SPEC).collect()
}

fn memory_limit(resources: Option<&core::ResourceRequirements>) -> Option<String> {
    Some(clean(&resources?.limits.as_ref()?.get("memory")?.0, 63))
}

fn container_spec(container: &core::Container, volumes: &[core::Volume], user: Option<i64>) -> ContainerSpec {
    let arguments = container.command.iter().chain(&container.args).flatten();
    let variables = container.env.iter().flatten();
    let variables = variables.filter_map(|variable| Some((variable.name.clone(), variable.value.clone()?)));
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        (clean(&mount.mount_path, NAME_CAP), volume.map_or_else(|| mount.name.clone(), volume_in_words))
    });
    let context = container.security_context.as_ref();
    let dropped = context.and_then(|context| context.capabilities.as_ref()?.drop.clone()).unwrap_or_default();
    let claims = container.resources.as_ref().and_then(|resources| resources.claims.as_ref());
    ContainerSpec {
        name: clean(&container.name, 63),
        image: clean(container.image.as_deref().unwrap_or_default(), NAME_CAP),
        arguments: arguments.take(MAX_OF_SPEC).cloned().collect(),
        environment: variables.take(MAX_OF_SPEC).collect(),
        mounts: mounts.take(MAX_OF_SPEC).collect(),
        privileged: context.and_then(|context| context.privileged).unwrap_or(false),
        read_only_root: context.and_then(|context| context.read_only_root_filesystem).unwrap_or(false),
        user: context.and_then(|context| context.run_as_user).or(user),
        dropped: dropped.iter().map(|name| clean(name, 63)).take(MAX_GATES).collect(),
        requests_gpus: requests_gpus(container) || claims.is_some_and(|claims| !claims.is_empty()),
        memory_limit: memory_limit(container.resources.as_ref()),
    }
}

/// Returns the kind and name of a volume: `hostPath /dev (volume dev)`.
fn volume_in_words(volume: &core::Volume) -> String {
    let source = if let Some(path) = &volume.host_path {
        format!("hostPath {}", path.path)
    } else if let Some(map) = &volume.config_map {
        format!("ConfigMap {}", map.name)
    } else if let Some(secret) = &volume.secret {
        format!("Secret {}", secret.secret_name.as_deref().unwrap_or_default())
    } else if let Some(claim) = &volume.persistent_volume_claim {
        format!("PersistentVolumeClaim {}", claim.claim_name)
    } else if volume.empty_dir.is_some() {
        "emptyDir".to_owned()
    } else {
        String::new()
    };
    clean(format!("{source} (volume {})", volume.name).trim(), NAME_CAP)
}

/// Returns the scheduler of the pod if it is not the default scheduler.
fn scheduler(pod: &Pod) -> Option<String> {
    let name = pod.spec.as_ref()?.scheduler_name.as_deref()?;
    (name != "default-scheduler").then(|| clean(name, NAME_CAP))
}

/// Returns the devices that the status of the containers reports as unhealthy.
fn unhealthy_devices(status: &core::PodStatus) -> Vec<String> {
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let resources = containers.flat_map(|container| container.allocated_resources_status.iter().flatten());
    let devices = resources.flat_map(|resource| resource.resources.iter().flatten());
    let unhealthy = devices.filter(|device| device.health.as_deref() == Some("Unhealthy"));
    unhealthy.map(|device| clean(&device.resource_id, NAME_CAP)).take(MAX_GATES).collect()
}

/// Returns the claims and claim templates of the pod that have no ResourceClaim yet.
fn pending_resource_claims(pod: &Pod) -> Vec<String> {
    let made = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    let made: Vec<&str> =
        made.filter(|made| made.resource_claim_name.is_some()).map(|made| made.name.as_str()).collect();
    let claims = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let names = claims.filter(|claim| !made.contains(&claim.name.as_str())).filter_map(|claim| {
        let of_template = claim.resource_claim_template_name.as_ref().map(|name| format!("claim of template {name}"));
        claim.resource_claim_name.as_ref().map(|name| format!("claim {name}")).or(of_template)
    });
    names.map(|name| clean(&name, NAME_CAP)).take(MAX_GATES).collect()
}

/// The phase of a job without pods.
const NO_PODS: &str = "NoPods";

/// Creates the facts of a job that has no pods, because it is suspended, or because it has ended and its pods were
/// deleted.
pub fn without_pods(namespace: &str, name: &str, controller: String, events: Vec<PodEvent>) -> PodFacts {
    PodFacts { phase: NO_PODS.to_owned(), ..not_created(namespace, name, controller, events) }
}

/// Creates the facts of a pod that `controller` could not create. Only its name and the events of the controller exist.
pub fn not_created(namespace: &str, name: &str, controller: String, events: Vec<PodEvent>) -> PodFacts {
    PodFacts {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        phase: NOT_CREATED.to_owned(),
        events,
        not_created_by: Some(controller),
        ..PodFacts::default()
    }
}

/// Returns the number of GPU resources that the scheduler reserves for the pod.
fn gpus_requested(pod: &Pod) -> u64 {
    let of_gpus = scheduler_filters::requested(pod).into_iter().filter(|(resource, _)| is_gpu_resource(resource));
    of_gpus.map(|(_, thousandths)| u64::try_from(thousandths / 1000).unwrap_or(0)).sum()
}

/// Returns the resources of device plugins that the pod requests, except NVIDIA's GPU resources. Unlike Kubernetes' own
/// resources, their names contain a domain.
fn other_resources(pod: &Pod) -> Vec<String> {
    let names = scheduler_filters::requested(pod).into_keys().map(|name| clean(&name, NAME_CAP));
    names.filter(|name| name.contains('/') && !is_gpu_resource(name)).take(MAX_GATES).collect()
}

/// Returns the device files of the host that the pod mounts. Shared memory, huge pages and the socket of the log are
/// not devices.
fn host_devices(pod: &Pod) -> Vec<String> {
    const NO_DEVICES: [&str; 4] = ["/dev/shm", "/dev/hugepages", "/dev/log", "/dev/termination-log"];
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let paths = volumes.filter_map(|volume| volume.host_path.as_ref()).map(|source| source.path.trim_end_matches('/'));
    let devices = paths.filter(|path| *path == "/dev" || path.starts_with("/dev/"));
    let devices = devices.filter(|path| !NO_DEVICES.iter().any(|other| path.starts_with(other)));
    devices.map(|path| clean(path, NAME_CAP)).take(MAX_GATES).collect()
}

fn preemption(pod: &Pod, nominated_node: Option<&str>) -> Preemption {
    let spec = pod.spec.as_ref();
    let name = |name: &str| clean(name, NAME_CAP);
    Preemption {
        priority: spec.and_then(|spec| spec.priority),
        class: spec.and_then(|spec| spec.priority_class_name.as_deref()).map(name),
        never: spec.and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never"),
        nominated_node: nominated_node.filter(|node| !node.is_empty()).map(name),
    }
}

fn container(status: &core::ContainerStatus) -> ContainerFacts {
    ContainerFacts {
        name: clean(&status.name, 63),
        state: status.state.as_ref().map(state).unwrap_or_default(),
        last: status.last_state.as_ref().map(state).filter(|state| *state != ContainerState::Unknown),
        restarts: u32::try_from(status.restart_count).unwrap_or(0),
    }
}

fn state(state: &core::ContainerState) -> ContainerState {
    let cleaned = |text: &Option<String>| clean_keeping_end(text.as_deref().unwrap_or_default(), MESSAGE_CAP);
    if let Some(ended) = &state.terminated {
        return ContainerState::Terminated {
            exit_code: ended.exit_code,
            reason: cleaned(&ended.reason),
            message: clean_lines_keeping_end(ended.message.as_deref().unwrap_or_default(), MESSAGE_CAP),
            started: time(ended.started_at.as_ref()),
            finished: time(ended.finished_at.as_ref()),
        };
    }
    if let Some(waiting) = &state.waiting {
        return ContainerState::Waiting { reason: cleaned(&waiting.reason), message: cleaned(&waiting.message) };
    }
    match &state.running {
        Some(running) => ContainerState::Running { since: time(running.started_at.as_ref()) },
        None => ContainerState::Unknown,
    }
}

pub fn wants_gpus(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.any(requests_gpus) || spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
}

/// Returns the containers that request GPUs from a device plugin and run as long as the pod. The kubelet must have
/// allocated devices to them. Devices of a claim for an extended resource are allocated to the claim.
fn gpu_containers(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let stays = |container: &&core::Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(stays);
    spec.containers.iter().chain(sidecars).filter(|one| requests_gpus(one)).map(|one| one.name.clone()).collect()
}

/// Converts a time. Returns `None` for 1970, which the API uses for a container that never started.
fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0).filter(|time| time.as_second() > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(pod: Value) -> PodFacts {
        from_pod(&serde_json::from_value(pod).expect("a pod"))
    }

    fn pod(change: impl FnOnce(&mut Value)) -> PodFacts {
        let mut pod = json!({
            "metadata": {"name": "train-0", "namespace": "ml", "uid": "u1"},
            "spec": {"containers": [
                {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}},
                {"name": "proxy", "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "0"}}},
            ]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut pod);
        facts(pod)
    }

    #[test]
    fn the_containers_that_ask_for_gpus_are_known() {
        let plain = pod(|_| ());
        assert_eq!((plain.gpu_containers.as_slice(), plain.ready), (["main".to_owned()].as_slice(), Some(true)));
        let inits = pod(|pod| {
            let limits = json!({"limits": {"nvidia.com/gpu": "1"}});
            pod["spec"]["initContainers"] = json!([
                {"name": "warm", "resources": limits}, {"name": "side", "restartPolicy": "Always", "resources": limits},
            ]);
        });
        assert_eq!(inits.gpu_containers, ["main", "side"], "an init container that exits is not listed");
        let other = pod(|pod| pod["spec"]["containers"][0]["resources"] = json!({"limits": {"amd.com/gpu": "1"}}));
        assert!(!other.wants_gpus && other.gpu_containers.is_empty());
    }

    #[test]
    fn devices_of_other_plugins_and_of_the_host_are_read() {
        let facts = pod(|pod| {
            pod["spec"]["containers"][1]["resources"]["limits"] =
                json!({"vpc.amazonaws.com/efa": "4", "memory": "1Gi"});
            let paths = ["/dev/infiniband/", "/dev/shm", "/var/log"];
            pod["spec"]["volumes"] =
                paths.iter().map(|path| json!({"name": "v", "hostPath": {"path": path}})).collect::<Vec<_>>().into();
        });
        assert_eq!(facts.other_resources, ["vpc.amazonaws.com/efa"]);
        assert_eq!(facts.host_devices, ["/dev/infiniband"]);
    }

    #[test]
    fn readiness_gates_and_static_pods_are_read() {
        let unready = pod(|pod| {
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "ContainersNotReady",
                "message": "containers with unready status: [main]"}]);
            pod["spec"]["schedulingGates"] = json!([{"name": "kueue.x-k8s.io/admission"}]);
            let hash = "5d1f".repeat(8);
            pod["metadata"]["annotations"] =
                json!({"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash});
        });
        assert_eq!(unready.ready, Some(false));
        assert_eq!(unready.not_ready.as_deref(), Some("ContainersNotReady: containers with unready status: [main]"));
        assert_eq!((unready.scheduling_gates[0].as_str(), unready.uid), ("kueue.x-k8s.io/admission", "5d1f".repeat(8)));
        assert_eq!(pod(|pod| pod["status"]["conditions"] = json!([])).ready, None);
    }

    #[test]
    fn a_start_that_never_was_has_no_time_and_its_message_keeps_its_end() {
        let message = format!("failed to create containerd task: {}: the reason", "frame: ".repeat(300));
        let facts = pod(|pod| {
            pod["status"]["containerStatuses"] = json!([{"name": "main", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": 128, "reason": "StartError", "message": message,
                "startedAt": "1970-01-01T00:00:00Z", "finishedAt": "2026-11-21T02:00:09Z"}}}]);
        });
        let end = facts.end().expect("an end");
        assert!(end.never_ran() && end.started.is_none() && end.finished.is_some(), "{end:?}");
        assert!(end.message.ends_with("the reason") && end.message.starts_with("failed to create"), "{}", end.message);
    }
}
