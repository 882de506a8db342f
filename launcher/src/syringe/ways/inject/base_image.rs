//! Which image of the node the probe is carried into.

use k8s_openapi::api::core::v1::Node;

use crate::error::Failure;
use crate::settings::Settings;

/// Parts of image names that are known to hold a shell, best first: with glibc, then those that need the host's loader.
const WITH_SHELL: [&str; 14] = [
    "nvidia/cuda",
    "/ubuntu",
    "/debian",
    "nvidia/dcgm-exporter",
    "nvidia/driver",
    "/pytorch",
    "/rockylinux",
    "/almalinux",
    "ubi9/ubi",
    "ubi8/ubi",
    "amazonlinux",
    "/busybox",
    "/alpine",
    "calico/node",
];

/// The image that the settings name, or the best that the node has.
pub(super) fn choose(settings: &Settings, node: &Node) -> Result<String, Failure> {
    if let Some(image) = &settings.base_image {
        return Ok(image.clone());
    }
    let images = node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
    let names: Vec<&str> = images.iter().flat_map(|image| image.names.iter().flatten()).map(String::as_str).collect();
    // A tag reads better than a digest where both are there.
    let known = |part: &str| {
        let holds = |name: &&&str| {
            let repository = format!("/{}", repository(name));
            if part.starts_with('/') { repository.ends_with(part) } else { repository.contains(part) }
        };
        names.iter().filter(holds).min_by_key(|name| name.contains('@')).copied()
    };
    WITH_SHELL.iter().find_map(|part| known(part)).map(str::to_owned).ok_or_else(|| {
        Failure::new(
            format!("Choosing a base image on node {}", node.metadata.name.as_deref().unwrap_or_default()),
            format!("none of the {} images that the node reports is known to have a shell", names.len()),
            "Name one that is on the node and has sh, sleep and head or tar with --base-image.",
        )
    })
}

/// An image's name without tag and digest.
fn repository(name: &str) -> &str {
    let untagged = name.split('@').next().unwrap_or_default();
    // A colon before the last slash is a registry's port.
    let name_at = untagged.rfind('/').map_or(0, |at| at + 1);
    untagged[name_at..].find(':').map_or(untagged, |at| &untagged[..name_at + at])
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeStatus};

    use super::choose;
    use crate::settings::Settings;

    fn chosen(names: &[&str]) -> Option<String> {
        let image = |name: &&str| ContainerImage { names: Some(vec![(*name).to_owned()]), size_bytes: None };
        let status = NodeStatus { images: Some(names.iter().map(image).collect()), ..NodeStatus::default() };
        let node = Node { status: Some(status), ..Node::default() };
        choose(&Settings::from_words([]).expect("settings"), &node).ok()
    }

    #[test]
    fn an_image_with_glibc_comes_first_and_an_unknown_one_never() {
        let all = ["registry.k8s.io/pause:3.10", "docker.io/library/busybox:1.37", "nvcr.io/nvidia/cuda:12.4.0-base"];
        assert_eq!(chosen(&all).as_deref(), Some("nvcr.io/nvidia/cuda:12.4.0-base"));
        assert_eq!(chosen(&all[..2]).as_deref(), Some("docker.io/library/busybox:1.37"));
        assert_eq!(chosen(&["ubuntu:24.04"]).as_deref(), Some("ubuntu:24.04"));
        assert_eq!(chosen(&["host:5000/team/debian@sha256:ab"]).as_deref(), Some("host:5000/team/debian@sha256:ab"));
        assert_eq!(chosen(&["registry.k8s.io/pause:3.10", "example/my-ubuntu-tools:1"]), None);
    }
}
