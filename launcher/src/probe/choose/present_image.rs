//! `find`: finds the image of the probe among the images that a node reports.

use k8s_openapi::api::core::v1::Node;

use crate::probe::choose::image_reference::ImageReference;

/// The names of one image.
pub(crate) type Names<'a> = Vec<&'a str>;

/// Returns the images that a node reports: the 50 largest, with at most five names each.
pub(crate) fn reported(node: &Node) -> impl Iterator<Item = Names<'_>> {
    let images = node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
    images.iter().map(|image| image.names.iter().flatten().map(String::as_str).collect())
}

/// Returns the image of the probe on the node, by digest. The tag must be equal, because anyone who may create pods
/// can make the node pull another release. An image that has only a tag may be an import, and is not used unless the
/// user names it.
pub(crate) fn find(node: &Node, wanted: &str) -> Option<String> {
    let wanted = ImageReference::of(wanted)?;
    let found = |names: Names<'_>| {
        let images = names.into_iter().filter_map(ImageReference::of);
        let ours: Vec<_> = images.filter(|image| image.is_of(wanted.registry, wanted.path)).collect();
        ours.iter().find(|image| image.tag.is_some() && image.tag == wanted.tag)?;
        ours.iter().find_map(ImageReference::pinned)
    };
    reported(node).find_map(found)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeStatus};

    use super::find;

    #[test]
    fn the_image_is_found_by_its_tag_and_used_by_its_digest() {
        let digest = format!("ghcr.io/gpu-syringe/node-probe@sha256:{}", "a".repeat(64));
        let tag = "ghcr.io/gpu-syringe/node-probe:0.1.0";
        let found = |images: &[&[&str]]| {
            let image = |names: &&[&str]| ContainerImage {
                names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
                size_bytes: None,
            };
            let images = Some(images.iter().map(image).collect());
            find(&Node { status: Some(NodeStatus { images, ..NodeStatus::default() }), ..Node::default() }, tag)
        };
        assert_eq!(found(&[&["docker.io/library/debian:13"], &[&digest, tag]]), Some(digest.clone()));
        assert_eq!(found(&[&[tag]]), None, "a tag alone");
        // These are another release, another repository, another registry, and a digest without a known tag.
        let other = "ghcr.io/gpu-syringe/node-probe:0.0.9";
        for names in [&[digest.as_str(), other][..], &[digest.as_str()], &["evil.example/gpu-syringe/node-probe:0.1.0"]]
        {
            assert_eq!(found(&[names]), None, "{names:?}");
        }
        // The tag belongs to one image, and the digest belongs to another image.
        assert_eq!(found(&[&[&digest], &[tag]]), None);
        assert_eq!(found(&[]), None);
    }
}
