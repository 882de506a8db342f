//! Chooses the base image among the images of the node.

use k8s_openapi::api::core::v1::Node;

use crate::error::Failure;
use crate::settings::Settings;

/// Repositories whose images have a shell, best first: with glibc, then those that need the loader of the host. Registry and
/// path must be equal: anybody who can push elsewhere could otherwise run a shell of their own in a privileged pod.
const WITH_SHELL: [(&str, &[&str]); 12] = [
    ("nvcr.io", &["nvidia/cuda", "nvidia/k8s/dcgm-exporter", "nvidia/driver", "nvidia/pytorch"]),
    ("docker.io", &["nvidia/cuda", "library/ubuntu", "library/debian"]),
    ("public.ecr.aws", &["docker/library/ubuntu", "docker/library/debian", "amazonlinux/amazonlinux"]),
    ("docker.io", &["pytorch/pytorch", "library/rockylinux", "library/almalinux", "library/amazonlinux"]),
    ("registry.access.redhat.com", &["ubi9/ubi", "ubi8/ubi"]),
    ("registry.redhat.io", &["ubi9/ubi", "ubi8/ubi"]),
    ("mcr.microsoft.com", &["cbl-mariner/base/core", "azurelinux/base/core"]),
    ("docker.io", &["library/busybox", "library/alpine"]),
    ("public.ecr.aws", &["docker/library/busybox", "docker/library/alpine"]),
    ("docker.io", &["calico/node"]),
    ("quay.io", &["calico/node"]),
    ("registry.k8s.io", &["e2e-test-images/busybox"]),
];

/// The image that the settings name, or the best that the node has.
pub(super) fn choose(settings: &Settings, node: &Node) -> Result<String, Failure> {
    if let Some(image) = &settings.base_image {
        return Ok(image.clone());
    }
    let images = node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
    let names: Vec<&str> = images.iter().flat_map(|image| image.names.iter().flatten()).map(String::as_str).collect();
    let known = |registry: &str, path: &str| {
        let of = |name: &&&str| Repository::of(name) == Some(Repository { registry, path });
        // A tag is more readable than a digest.
        names.iter().filter(of).min_by_key(|name| name.contains('@')).copied()
    };
    let mut best = WITH_SHELL.iter().flat_map(|(registry, paths)| paths.iter().map(move |path| (registry, path)));
    best.find_map(|(registry, path)| known(registry, path)).map(str::to_owned).ok_or_else(|| {
        Failure::new(
            format!("Choosing a base image on node {}", node.metadata.name.as_deref().unwrap_or_default()),
            format!(
                "none of the {} images that the node reports is from a trusted repository",
                names.len()
            ),
            "Name an image with --base-image that you trust, that is on the node, and that has sh, sleep, and head or tar.",
        )
    })
}

/// Registry and path of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repository<'a> {
    registry: &'a str,
    path: &'a str,
}

impl<'a> Repository<'a> {
    /// Of a full reference, as kubelets report them: `registry/path[:tag][@digest]`. `None` for one without a registry, which
    /// each runtime completes as it likes, and for what is no reference.
    fn of(name: &'a str) -> Option<Self> {
        let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
        let (registry, rest) = name.split_once('/')?;
        // A colon after the registry is a tag's.
        let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
        let of = |text: &str, more: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
        };
        let is_host = registry.contains(['.', ':']) && of(registry, ".-:");
        let is_whole =
            of(path, "._-/") && tag.is_none_or(|tag| of(tag, "._-")) && digest.is_none_or(|hash| of(hash, ":+._-"));
        (is_host && is_whole).then_some(Self { registry, path })
    }
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
