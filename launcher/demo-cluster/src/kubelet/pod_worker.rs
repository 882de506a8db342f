//! `start_pod`, `terminate_pod`, `kill_pod`, `start_ephemeral_containers`: start and end pods as a kubelet does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::container;
use super::container_config::ContainerConfig;
use super::image_pull;
use super::scheduled_pod::ScheduledPod;
use crate::cluster_state::ClusterState;
use crate::faults::StartInjection;
use crate::fixture::Timing;
use crate::node_object;
use crate::pod_status;

pub(crate) fn start_pod(state: &Arc<ClusterState>, pod: &Pod) {
    if let Some(pod_ref) = ScheduledPod::of(state, pod) {
        let task = Arc::clone(state);
        state.spawn(async move { run_pod(&task, pod_ref).await });
    }
}

/// Kills the containers of a removed pod.
pub(crate) fn kill_pod(state: &ClusterState, pod: &Pod) {
    if let Some(uid) = &pod.metadata.uid {
        state.runtime.kill(uid);
        state.runtime.remove(uid);
    }
}

/// Terminates a pod gracefully, and removes it afterwards. While its node is not ready, the pod stays.
pub(crate) fn terminate_pod(state: &Arc<ClusterState>, pod: &Pod) {
    let Some(pod_ref) = ScheduledPod::of(state, pod) else { return };
    let task = Arc::clone(state);
    state.spawn(async move {
        pod_ref.until_node_ready(&task).await;
        task.runtime.kill(&pod_ref.uid);
        Timing::pass(task.timing.termination).await;
        let removed = task.store(|store| {
            let same = |pod: &&Arc<Pod>| pod.metadata.uid.as_ref() == Some(&pod_ref.uid);
            store.pods.get(&pod_ref.key).filter(same)?;
            store.remove::<Pod>(&pod_ref.key)
        });
        if let Some(pod) = removed {
            kill_pod(&task, &pod);
        }
    });
}

/// Starts ephemeral containers that were added to a pod.
pub(crate) fn start_ephemeral_containers(state: &Arc<ClusterState>, pod: &Pod, added: Vec<String>) {
    let Some(pod_ref) = ScheduledPod::of(state, pod) else { return };
    state.runtime.add_running(&pod_ref.uid, pod_status::running_containers(pod));
    for name in added {
        let Some(config) = pod.spec.as_ref().and_then(|spec| ContainerConfig::ephemeral(spec, &name)) else { continue };
        let (task, pod_ref) = (Arc::clone(state), pod_ref.clone());
        state.spawn(async move {
            pod_ref.until_node_ready(&task).await;
            let killed = task.runtime.add(&pod_ref.uid, [config.name.clone()]);
            let running = async {
                let missing = image_pull::unavailable(&task, &pod_ref, std::slice::from_ref(&config));
                if !missing.is_empty() {
                    image_pull::back_off(&task, &pod_ref, missing).await;
                }
                Timing::pass(task.timing.container_start).await;
                container::run(&task, &pod_ref, &config).await;
            };
            tokio::select! {
                () = killed.cancelled() => {}
                () = running => {}
            }
        });
    }
}

/// Runs a pod until it terminates.
async fn run_pod(state: &ClusterState, pod_ref: ScheduledPod) {
    pod_ref.until_node_ready(state).await;
    Timing::pass(state.timing.kubelet_sees).await;
    let Some(pod) = pod_ref.pod(state) else { return };
    let Some(spec) = pod.spec.as_ref() else { return };
    let injection = state.injector.start(&pod_ref.node);
    let killed = state.runtime.add(&pod_ref.uid, spec.containers.iter().map(|container| container.name.clone()));
    // If the pod was deleted before it was added to the runtime, nothing else removes it from the runtime.
    if pod_ref.pod(state).is_none() {
        state.runtime.remove(&pod_ref.uid);
        return;
    }
    if let Some((reason, message)) = rejection(state, &pod_ref, spec, &injection) {
        pod_ref.record_event(state, "Warning", &reason, message.clone());
        pod_ref.update(state, |pod| pod_status::rejected(pod, &reason, &message));
        return;
    }
    let node = state.get::<Node>(&(String::new(), pod_ref.node.clone()));
    let host_ip = node.map(|node| node_object::internal_ip(&node)).unwrap_or_default();
    pod_ref.update(state, |pod| pod_status::creating(pod, &host_ip));
    let configs: Vec<_> = spec.containers.iter().map(ContainerConfig::of).collect();
    tokio::select! {
        biased;
        () = killed.cancelled() => {}
        () = deadline(spec.active_deadline_seconds) => {
            state.runtime.kill(&pod_ref.uid);
            Timing::pass(state.timing.status_lag).await;
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            pod_ref.record_event(state, "Normal", "DeadlineExceeded", message);
            pod_ref.update(state, pod_status::deadline_exceeded);
        }
        () = run_containers(state, &pod_ref, &configs, &injection) => {}
    }
}

/// Starts the containers and waits until they exit. Does not return if an image cannot be pulled.
async fn run_containers(
    state: &ClusterState,
    pod_ref: &ScheduledPod,
    configs: &[ContainerConfig],
    injection: &StartInjection,
) {
    if injection.is_image_pull_failing() {
        image_pull::back_off(state, pod_ref, configs.iter().collect()).await;
    }
    let is_stuck = injection.is_pull_hanging() || injection.is_runtime_hanging();
    if let (true, Some(config)) = (is_stuck, configs.first()) {
        let image = &config.image;
        if injection.is_runtime_hanging() {
            pod_ref.record_event(state, "Normal", "Pulled", format!("Successfully pulled image \"{image}\" in 312ms"));
        }
        // `Pulling` is recorded after `Pulled`, to test that the order of events within one second is not used.
        pod_ref.record_event(state, "Normal", "Pulling", format!("Pulling image \"{image}\""));
        return std::future::pending().await;
    }
    if let Some(reason) = injection.sandbox_error() {
        let message = format!("Failed to create pod sandbox: rpc error: code = Unknown desc = {reason}");
        pod_ref.record_event(state, "Warning", "FailedCreatePodSandBox", message);
        return std::future::pending().await;
    }
    let missing = image_pull::unavailable(state, pod_ref, configs);
    if !missing.is_empty() {
        image_pull::back_off(state, pod_ref, missing).await;
    }
    let Timing { container_start, kubelet_sees, .. } = state.timing;
    Timing::pass(container_start.saturating_sub(kubelet_sees) + injection.delay()).await;
    join_all(configs.iter().map(|config| container::run(state, pod_ref, config))).await;
}

async fn deadline(seconds: Option<i64>) {
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

/// Returns the reason and the message if the kubelet rejects the pod.
fn rejection(
    state: &ClusterState,
    pod_ref: &ScheduledPod,
    spec: &PodSpec,
    injection: &StartInjection,
) -> Option<(String, String)> {
    if let Some(rejection) = injection.rejection() {
        return Some(rejection);
    }
    let node = state.get::<Node>(&(String::new(), pod_ref.node.clone()))?;
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerated = |key: &str| {
        spec.tolerations.iter().flatten().any(|toleration| {
            toleration.key.as_deref().is_none_or(|own| own.is_empty() || own == key)
                && toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == "NoExecute")
        })
    };
    if taints.iter().any(|taint| taint.effect == "NoExecute" && !tolerated(&taint.key)) {
        return Some(("TaintToleration".to_owned(), "Predicate TaintToleration failed".to_owned()));
    }
    let allocatable = node.status.as_ref()?.allocatable.as_ref()?.get("pods")?.0.parse::<usize>().ok()?;
    let used = state.store(|store| store.pods.count_indexed(&pod_ref.node)).saturating_sub(1);
    let message =
        format!("Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {allocatable}");
    (used >= allocatable).then(|| ("OutOfpods".to_owned(), message))
}
