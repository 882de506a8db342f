//! `find`: finds the image of the probe, by its digest, among the images that a node reports (`reported`).

use k8s_openapi::api::core::v1::Node;

use crate::settings::image_reference::ImageReference;

/// The names of one image.
pub(crate) type Names<'a> = Vec<&'a str>;

/// Returns the images that a node reports: the 50 largest, with at most five names each.
pub(crate) fn reported(node: &Node) -> impl Iterator<Item = Names<'_>> {
    let images = node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
    images.iter().map(|image| image.names.iter().flatten().map(String::as_str).collect())
}

/// Finds the image with this digest on the node, and returns its reference by digest. A name proves nothing: everybody
/// who may create pods can make the node pull an image of any name.
pub(crate) fn find(node: &Node, digest: &str) -> Option<String> {
    let mut names = reported(node).flatten().filter_map(ImageReference::of);
    names.find(|image| image.sha256() == Some(digest))?.pinned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeStatus};

    use super::find;

    #[test]
    fn the_image_is_found_by_its_digest_and_never_by_its_name() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let ours = format!("ghcr.io/gpu-syringe/node-probe@{digest}");
        let tag = "ghcr.io/gpu-syringe/node-probe:0.1.0";
        let found = |images: &[&[&str]]| {
            let image = |names: &&[&str]| ContainerImage {
                names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
                size_bytes: None,
            };
            let images = Some(images.iter().map(image).collect());
            find(&Node { status: Some(NodeStatus { images, ..NodeStatus::default() }), ..Node::default() }, &digest)
        };
        assert_eq!(found(&[&["docker.io/library/debian:13"], &[&ours, tag]]), Some(ours.clone()));
        let mirrored = format!("mirror.example/proxy/node-probe@{digest}");
        assert_eq!(found(&[&[&mirrored]]), Some(mirrored.clone()));
        // A tenant pulled another image with this name and tag.
        let theirs = format!("ghcr.io/gpu-syringe/node-probe@sha256:{}", "b".repeat(64));
        for names in [&[tag][..], &[&theirs, tag], &["ghcr.io/gpu-syringe/node-probe@sha256:a"]] {
            assert_eq!(found(&[names]), None, "{names:?}");
        }
        assert_eq!(found(&[]), None);
    }
}
