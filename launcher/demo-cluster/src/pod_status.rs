//! Functions that write the status of a pod as a kubelet does: `creating`, `waiting`, `running`, `terminated` (with
//! `Termination`), `rejected`, `deadline_exceeded`. `is_pending`, `running_containers`: read the status.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::generated_metadata;

/// The termination of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Termination {
    pub(crate) exit_code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: Option<String>,
}

impl Termination {
    /// Returns the termination of a process with this exit code.
    pub(crate) fn exit(exit_code: i32) -> Self {
        Self { exit_code, reason: if exit_code == 0 { "Completed" } else { "Error" }, message: None }
    }
}

fn now() -> Time {
    Time(generated_metadata::now())
}

fn status(pod: &mut Pod) -> &mut PodStatus {
    pod.status.get_or_insert_with(PodStatus::default)
}

/// Returns the status of a container or an ephemeral container.
fn container_status<'a>(pod: &'a mut Pod, name: &str) -> &'a mut ContainerStatus {
    let spec = pod.spec.as_ref();
    let ephemeral =
        spec.and_then(|spec| spec.ephemeral_containers.as_ref()?.iter().find(|container| container.name == name));
    let own = spec.and_then(|spec| spec.containers.iter().find(|container| container.name == name));
    let image = ephemeral.map(|container| &container.image).or(own.map(|container| &container.image));
    let image = image.cloned().flatten().unwrap_or_default();
    let is_ephemeral = ephemeral.is_some();
    let status = status(pod);
    let statuses = if is_ephemeral {
        status.ephemeral_container_statuses.get_or_insert_default()
    } else {
        status.container_statuses.get_or_insert_default()
    };
    let at = statuses.iter().position(|entry| entry.name == name).unwrap_or_else(|| {
        statuses.push(ContainerStatus { name: name.to_owned(), image, ..ContainerStatus::default() });
        statuses.len() - 1
    });
    &mut statuses[at]
}

fn set_condition(pod: &mut Pod, kind: &str, holds: bool, reason: Option<&str>) {
    let conditions = status(pod).conditions.get_or_insert_default();
    let text = if holds { "True" } else { "False" };
    if conditions.iter().any(|one| one.type_ == kind && one.status == text && one.reason.as_deref() == reason) {
        return;
    }
    conditions.retain(|one| one.type_ != kind);
    conditions.push(PodCondition {
        type_: kind.to_owned(),
        status: text.to_owned(),
        reason: reason.map(str::to_owned),
        last_transition_time: Some(now()),
        ..PodCondition::default()
    });
}

/// Sets the status of a pod whose containers the kubelet is creating.
pub(crate) fn creating(pod: &mut Pod, host_ip: &str) {
    let names: Vec<_> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|one| one.name.clone()).collect();
    for name in names {
        waiting(pod, &name, "ContainerCreating", None);
    }
    set_condition(pod, "PodReadyToStartContainers", false, None);
    set_condition(pod, "Initialized", true, None);
    set_condition(pod, "Ready", false, Some("ContainersNotReady"));
    set_condition(pod, "ContainersReady", false, Some("ContainersNotReady"));
    set_condition(pod, "PodScheduled", true, None);
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let status = status(pod);
    status.start_time.get_or_insert_with(now);
    status.host_ip = Some(host_ip.to_owned());
    status.host_ips = Some(vec![HostIP { ip: host_ip.to_owned() }]);
    if host_network {
        status.pod_ip = Some(host_ip.to_owned());
        status.pod_ips = Some(vec![PodIP { ip: host_ip.to_owned() }]);
    }
}

/// Sets the status of a container that is waiting to start.
pub(crate) fn waiting(pod: &mut Pod, container: &str, reason: &str, message: Option<String>) {
    let entry = container_status(pod, container);
    (entry.ready, entry.started) = (false, Some(false));
    entry.state = Some(ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    });
}

/// Sets the status of a container that is running.
pub(crate) fn running(pod: &mut Pod, container: &str) {
    let entry = container_status(pod, container);
    (entry.ready, entry.started) = (true, Some(true));
    entry.container_id = Some(format!("containerd://{container}"));
    entry.image_id.clone_from(&entry.image);
    entry.state = Some(ContainerState {
        running: Some(ContainerStateRunning { started_at: Some(now()) }),
        ..ContainerState::default()
    });
    update_phase(pod);
}

/// Sets the status of a container that has terminated.
pub(crate) fn terminated(pod: &mut Pod, container: &str, end: &Termination) {
    let entry = container_status(pod, container);
    let running = entry.state.take().and_then(|state| state.running);
    (entry.ready, entry.started) = (false, Some(false));
    entry.state = Some(ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: end.exit_code,
            reason: Some(end.reason.to_owned()),
            message: end.message.clone(),
            started_at: Some(running.and_then(|running| running.started_at).unwrap_or_else(now)),
            finished_at: Some(now()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    });
    update_phase(pod);
}

/// Sets the phase and the conditions from the states of the containers that are not ephemeral.
fn update_phase(pod: &mut Pod) {
    let expected = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let states = status(pod).container_statuses.as_deref().unwrap_or_default();
    let ends: Vec<_> =
        states.iter().filter_map(|entry| entry.state.as_ref()?.terminated.as_ref()).map(|end| end.exit_code).collect();
    let any_runs = states.iter().any(|entry| entry.state.as_ref().is_some_and(|state| state.running.is_some()));
    let all_ready = states.len() == expected && states.iter().all(|entry| entry.ready);
    let all_ended = expected > 0 && ends.len() == expected;
    let phase = match (all_ended, ends.iter().all(|code| *code == 0)) {
        (true, true) => "Succeeded",
        (true, false) => "Failed",
        _ if any_runs || !ends.is_empty() => "Running",
        _ => "Pending",
    };
    let reason = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => (!all_ready).then_some("ContainersNotReady"),
    };
    status(pod).phase = Some(phase.to_owned());
    set_condition(pod, "PodReadyToStartContainers", !all_ended, None);
    set_condition(pod, "Ready", all_ready, reason);
    set_condition(pod, "ContainersReady", all_ready, reason);
}

/// Sets the status of a pod that the kubelet rejected.
pub(crate) fn rejected(pod: &mut Pod, reason: &str, message: &str) {
    let status = status(pod);
    status.phase = Some("Failed".to_owned());
    status.reason = Some(reason.to_owned());
    status.message = Some(format!("Pod was rejected: {message}"));
    status.start_time.get_or_insert_with(now);
}

/// Sets the status of a pod that ran longer than `activeDeadlineSeconds`, and whose containers were therefore killed.
pub(crate) fn deadline_exceeded(pod: &mut Pod) {
    let names: Vec<_> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|one| one.name.clone()).collect();
    for name in names {
        terminated(pod, &name, &Termination::exit(137));
    }
    let status = status(pod);
    status.phase = Some("Failed".to_owned());
    status.reason = Some("DeadlineExceeded".to_owned());
    status.message = Some("Pod was active on the node longer than the specified deadline".to_owned());
}

/// Returns whether the pod is Pending in the API.
pub(crate) fn is_pending(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending")
}

/// Returns the names of the containers that are running according to the API.
pub(crate) fn running_containers(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let statuses = status.container_statuses.iter().chain(&status.ephemeral_container_statuses).flatten();
    let runs = |entry: &&ContainerStatus| entry.state.as_ref().is_some_and(|state| state.running.is_some());
    statuses.filter(runs).map(|entry| entry.name.clone()).collect()
}
