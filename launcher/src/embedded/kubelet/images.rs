//! Images that cannot be pulled: what the kubelet says about them, in status and events.

use super::container::Launch;
use super::{Placed, Shared, status};

/// The containers whose image the node cannot have.
pub(super) fn missing<'a>(shared: &Shared, placed: &Placed, launches: &'a [Launch]) -> Vec<&'a Launch> {
    let unpullable = shared.host(&placed.node).map_or(&[][..], |host| &host.unpullable_images);
    launches.iter().filter(|launch| unpullable.contains(&launch.image)).collect()
}

/// Fails to pull, and backs off. Never comes back: a back-off of minutes outlives whoever waits here.
pub(super) async fn back_off(shared: &Shared, placed: &Placed, launches: Vec<&Launch>) {
    tokio::time::sleep(shared.timing.container_start).await;
    for launch in &launches {
        let image = &launch.image;
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
    for launch in &launches {
        let back_off = format!("Back-off pulling image \"{}\"", launch.image);
        placed.event(shared, "Normal", "BackOff", back_off.clone());
        placed.event(shared, "Warning", "Failed", "Error: ImagePullBackOff".to_owned());
        placed.publish(shared, |pod| status::waiting(pod, &launch.name, "ImagePullBackOff", Some(back_off)));
    }
    std::future::pending().await
}
