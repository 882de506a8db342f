//! Images that cannot be pulled: what the kubelet says about them, in status and events.

use super::container::Launch;
use super::{Placed, Shared, status};

/// The containers whose image the node cannot have.
pub(super) fn missing<'a>(shared: &Shared, placed: &Placed, launches: &'a [Launch]) -> Vec<&'a Launch> {
    let Some(host) = shared.host(&placed.node) else { return Vec::new() };
    let missing = |launch: &&Launch| {
        host.unpullable_images.contains(&launch.image) || (launch.never_pull && !host.images.contains(&launch.image))
    };
    launches.iter().filter(missing).collect()
}

/// Fails to pull, and backs off. Never comes back: a back-off of minutes outlives whoever waits here.
pub(super) async fn back_off(shared: &Shared, placed: &Placed, launches: Vec<&Launch>) {
    tokio::time::sleep(shared.timing.container_start).await;
    for launch in &launches {
        let image = &launch.image;
        if launch.never_pull {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            placed.event(shared, "Warning", "ErrImageNeverPull", message.clone());
            placed.publish(shared, |pod| status::waiting(pod, &launch.name, "ErrImageNeverPull", Some(message)));
            continue;
        }
        let cause = format!(
            "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
        );
        let message = format!("rpc error: code = NotFound desc = {cause}");
        let failed = format!("Failed to pull image \"{image}\": {message}");
        placed.event(shared, "Normal", "Pulling", format!("Pulling image \"{image}\""));
        placed.event(shared, "Warning", "Failed", failed);
        placed.event(shared, "Warning", "Failed", "Error: ErrImagePull".to_owned());
        placed.publish(shared, |pod| status::waiting(pod, &launch.name, "ErrImagePull", Some(message)));
    }
    tokio::time::sleep(shared.timing.pull_back_off).await;
    for launch in launches.iter().filter(|launch| !launch.never_pull) {
        let back_off = format!("Back-off pulling image \"{}\"", launch.image);
        placed.event(shared, "Normal", "BackOff", back_off.clone());
        placed.event(shared, "Warning", "Failed", "Error: ImagePullBackOff".to_owned());
        placed.publish(shared, |pod| status::waiting(pod, &launch.name, "ImagePullBackOff", Some(back_off)));
    }
    std::future::pending().await
}
