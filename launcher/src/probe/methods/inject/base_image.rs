//! `choose`: chooses the base image for --via inject among the images of the node. `rank`: the position of an image in
//! the list of trusted images.

use k8s_openapi::api::core::v1::Node;

use crate::probe::choose::present_image;
use crate::settings::Settings;
use crate::settings::image_reference::ImageReference;
use kube_read::Failure;
use kube_read::failure::Cause;

/// Repositories whose images have a shell, best first: images with glibc, then images that need the loader of the host.
/// The registry and path of an image must match exactly: otherwise a user who can push to another repository could run a
/// shell in a privileged pod.
const WITH_SHELL: [(&str, &[&str]); 13] = [
    ("nvcr.io", &["nvidia/cuda", "nvidia/driver", "nvidia/pytorch"]),
    ("docker.io", &["nvidia/cuda", "library/ubuntu", "library/debian"]),
    ("public.ecr.aws", &["docker/library/ubuntu", "docker/library/debian", "amazonlinux/amazonlinux"]),
    ("docker.io", &["pytorch/pytorch", "library/rockylinux", "library/almalinux", "library/amazonlinux"]),
    ("registry.access.redhat.com", &["ubi9/ubi", "ubi8/ubi"]),
    ("registry.redhat.io", &["ubi9/ubi", "ubi8/ubi"]),
    ("mcr.microsoft.com", &["cbl-mariner/base/core", "azurelinux/base/core"]),
    // Some tags of this image have no shell.
    ("nvcr.io", &["nvidia/k8s/dcgm-exporter"]),
    ("docker.io", &["library/busybox", "library/alpine"]),
    ("public.ecr.aws", &["docker/library/busybox", "docker/library/alpine"]),
    ("docker.io", &["calico/node"]),
    ("quay.io", &["calico/node"]),
    ("registry.k8s.io", &["e2e-test-images/busybox"]),
];

/// Returns the position of an image in the list of trusted repositories; `usize::MAX` for an image of any other
/// repository.
pub(super) fn rank(image: &ImageReference<'_>) -> usize {
    repositories().position(|(registry, path)| image.is_of(registry, path)).unwrap_or(usize::MAX)
}

fn repositories() -> impl Iterator<Item = (&'static str, &'static str)> {
    WITH_SHELL.iter().flat_map(|(registry, paths)| paths.iter().map(move |path| (*registry, *path)))
}

/// Returns the image in the settings, or the best image that the node reports. Called only for --via inject. A name
/// does not prove what an image contains, and a user who requests this method accepts that risk.
pub(super) fn choose(settings: &Settings, node: &Node) -> Result<String, Failure> {
    if let Some(image) = &settings.base_image {
        return Ok(image.clone());
    }
    let reported: Vec<&str> = present_image::reported(node).flatten().collect();
    let known = |registry: &str, path: &str| {
        let of = |name: &&&str| ImageReference::of(name).is_some_and(|image| image.is_of(registry, path));
        // A tag is more readable than a digest.
        reported.iter().filter(of).min_by_key(|name| name.contains('@')).map(|name| (*name).to_owned())
    };
    repositories().find_map(|(registry, path)| known(registry, path)).ok_or_else(|| {
        let what = format!("Choosing a base image on node {}", node.metadata.name.as_deref().unwrap_or_default());
        let why = format!("none of the {} images that the node reports is from a trusted repository", reported.len());
        let next = "With --base-image, specify an image that is on the node, that you trust, and that has sh, sleep, \
            and head or tar.";
        Failure::new(what, why, next).because_of(Cause::Upload)
    })
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
        choose(&Settings::from_args([]).expect("settings"), &node).ok()
    }

    #[test]
    fn an_image_with_glibc_comes_first_and_an_unknown_one_never() {
        let all = ["registry.k8s.io/pause:3.10", "docker.io/library/busybox:1.37", "nvcr.io/nvidia/cuda:12.4.0-base"];
        assert_eq!(chosen(&all).as_deref(), Some("nvcr.io/nvidia/cuda:12.4.0-base"));
        assert_eq!(chosen(&all[..2]).as_deref(), Some("docker.io/library/busybox:1.37"));
        let digest = "docker.io/library/debian@sha256:ab";
        assert_eq!(chosen(&[digest]).as_deref(), Some(digest));
        assert_eq!(chosen(&[digest, "docker.io/library/debian:13"]).as_deref(), Some("docker.io/library/debian:13"));
    }

    #[test]
    fn an_image_that_only_looks_like_a_known_one_is_never_taken() {
        for name in [
            "evil.example/nvidia/cuda:1",
            "evil.example/docker.io/library/debian:12",
            "docker.io.evil.example/library/debian:12",
            "docker.io:5000/library/debian:12",
            "docker.io/evil/debian:12",
            "docker.io/library/debian-tools:12",
            "docker.io/library/debian/x:12",
            "docker.io/x/../library/debian:12",
            "nvcr.io/nvidia/cuda-evil:1",
            "nvcr.io/evil/nvidia/cuda:1",
            "registry.example/team/ubuntu:24.04",
            "host:5000/team/debian@sha256:ab",
            "ubuntu:24.04",
            "library/debian:12",
            "localhost/library/debian:12",
            "docker.io/library/debian:12 x",
            "docker.io/library/debian:",
            "@docker.io/library/debian",
            "",
        ] {
            assert_eq!(chosen(&[name]), None, "{name}");
        }
    }
}
