//! `unavailable`: the containers whose image cannot be pulled. `back_off`: reports failed pulls in status and events.

use super::container_config::ContainerConfig;
use super::scheduled_pod::ScheduledPod;
use crate::cluster_state::ClusterState;
use crate::fixture::Timing;
use crate::pod_status;

/// Returns the containers whose image the node does not have and cannot pull.
pub(super) fn unavailable<'a>(
    state: &ClusterState,
    pod_ref: &ScheduledPod,
    configs: &'a [ContainerConfig],
) -> Vec<&'a ContainerConfig> {
    let Some(host) = state.host(&pod_ref.node) else { return Vec::new() };
    let missing = |config: &&ContainerConfig| {
        host.unpullable_images.contains(&config.image) || (config.never_pull && !host.images.contains(&config.image))
    };
    configs.iter().filter(missing).collect()
}

/// Reports failed pulls and the back-off, and then never returns: a real kubelet retries only after minutes.
pub(super) async fn back_off(state: &ClusterState, pod_ref: &ScheduledPod, configs: Vec<&ContainerConfig>) {
    Timing::pass(state.timing.container_start).await;
    for config in &configs {
        let image = &config.image;
        if config.never_pull {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            pod_ref.record_event(state, "Warning", "ErrImageNeverPull", message.clone());
            pod_ref.update(state, |pod| pod_status::waiting(pod, &config.name, "ErrImageNeverPull", Some(message)));
            continue;
        }
        let cause = format!(
            "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
        );
        let message = format!("rpc error: code = NotFound desc = {cause}");
        let failed = format!("Failed to pull image \"{image}\": {message}");
        pod_ref.record_event(state, "Normal", "Pulling", format!("Pulling image \"{image}\""));
        pod_ref.record_event(state, "Warning", "Failed", failed);
        pod_ref.record_event(state, "Warning", "Failed", "Error: ErrImagePull".to_owned());
        pod_ref.update(state, |pod| pod_status::waiting(pod, &config.name, "ErrImagePull", Some(message)));
    }
    Timing::pass(state.timing.pull_back_off).await;
    for config in configs.iter().filter(|config| !config.never_pull) {
        let image = &config.image;
        let back_off = format!("Back-off pulling image \"{image}\": ErrImagePull: {image}: not found");
        pod_ref.record_event(state, "Normal", "BackOff", back_off.clone());
        pod_ref.record_event(state, "Warning", "Failed", "Error: ImagePullBackOff".to_owned());
        pod_ref.update(state, |pod| pod_status::waiting(pod, &config.name, "ImagePullBackOff", Some(back_off)));
    }
    std::future::pending().await
}
