//! `checks`: creates the doctor checks of the GPU nodes, of the image of the probe, and of the upload of node-probe.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::check::Check;
use super::fix::Fixes;
use super::observe::{Observed, Seen};
use crate::settings::{DEFAULT_IMAGE, ProbeMethod, Settings};
use crate::setup::manifests::pinned_image;
use crate::terminal::table::counted;
use kube_read::objects::node_conditions::is_ready;

pub(super) fn checks(observed: &Observed, settings: &Settings, fixes: &Fixes<'_>) -> Vec<Check> {
    let needs_image = match settings.via {
        ProbeMethod::Pod | ProbeMethod::Logs | ProbeMethod::Ephemeral => true,
        ProbeMethod::Auto => settings.names_image() || observed.has_policy() || is_on_a_node(observed, settings),
        ProbeMethod::Inject | ProbeMethod::None => false,
    };
    let mut checks = vec![gpu_nodes(observed)];
    if needs_image {
        checks.push(image(observed, settings, fixes));
        checks.push(image_on_nodes(observed, settings));
    } else {
        let why = format!("--via {} needs no image of the probe, and none is set", settings.via.as_str());
        checks.extend(["image", "image-on-nodes"].map(|id| Check::skipped(id, &why)));
    }
    checks.push(inject(observed, settings, needs_image));
    checks
}

/// Checks whether node-probe can be uploaded. This needs a base image on the nodes, and a program for their architecture.
fn inject(observed: &Observed, settings: &Settings, has_image: bool) -> Check {
    let id = "inject";
    if !matches!(settings.via, ProbeMethod::Auto | ProbeMethod::Inject) {
        return Check::skipped(id, format!("--via {} uploads nothing", settings.via.as_str()));
    }
    if observed.has_policy() {
        return Check::skipped(id, "the policy admits no shell, as intended");
    }
    let mut images = std::collections::BTreeSet::new();
    for (node, image) in &observed.base_images {
        match image {
            Ok(image) => drop(images.insert(image)),
            Err(failure) if has_image => {
                let why = format!("an upload is not possible, and not needed with a probe image: {}", failure.why);
                return Check::skipped(id, why);
            }
            Err(failure) => {
                let evidence = format!("{}: {}", failure.what, failure.why);
                let command = format!("gpu-syringe --via inject --base-image IMAGE diagnose {node}");
                return Check::failure(id, evidence, Fixes::run(command, failure.next_step.clone()));
            }
        }
    }
    let images: Vec<_> = images.into_iter().collect();
    match images.first() {
        Some(first) => Check::ok(id, format!("node-probe can be uploaded to a container of {first}")),
        None => Check::skipped(id, "no GPU node could be read"),
    }
}

fn gpu_nodes(observed: &Observed) -> Check {
    let id = "gpu-nodes";
    match &observed.nodes {
        Seen::Found(nodes) if nodes.is_empty() => Check::warning(
            id,
            "no node advertises GPUs or has a GPU label",
            Fixes::run(
                "kubectl get nodes -L nvidia.com/gpu.present -o custom-columns=NODE:.metadata.name,GPUS:.status.capacity",
                "without the device plugin and the labels, specify the node in the command: gpu-syringe diagnose NODE",
            ),
        ),
        Seen::Found(nodes) => {
            let ready = nodes.iter().filter(|node| is_ready(node)).count();
            let evidence = format!("{}, {ready} Ready", counted(nodes.len(), "GPU node"));
            if ready > 0 {
                return Check::ok(id, evidence);
            }
            let note = "a probe needs a kubelet that works; gpu-syringe describe NODE shows the data from Kubernetes";
            Check::warning(id, evidence, Fixes::run("kubectl get nodes", note))
        }
        Seen::Absent | Seen::Forbidden => Check::skipped(id, "no permission to list nodes: see the permission checks"),
        Seen::Unknown(why) => Check::undecided(id, why),
    }
}

fn is_on_a_node(observed: &Observed, settings: &Settings) -> bool {
    let image = settings.probe_image();
    settings.released_digest.is_some() && observed.with_images.iter().any(|node| has_image(node, &image))
}

fn image(observed: &Observed, settings: &Settings, fixes: &Fixes<'_>) -> Check {
    let id = "image";
    if observed.is_image_of_policy {
        return Check::ok(id, format!("no image is set; the image of the policy is used: {}", settings.probe_image()));
    }
    let image = settings.probe_image();
    if !settings.names_image() && settings.via == ProbeMethod::Auto {
        let why = match &settings.released_digest {
            Some(_) => format!("no image is set; --via auto uses {image} on nodes that have this image"),
            None => "no image is set, and --via auto needs none".to_owned(),
        };
        return if observed.has_policy() {
            Check::skipped(id, why + ": see policy-values")
        } else {
            Check::ok(id, why)
        };
    }
    if pinned_image(settings).is_some() {
        return Check::ok(id, format!("{image}, pinned by digest"));
    }
    if observed.has_policy() {
        return Check::skipped(id, format!("{image} is not pinned by digest: see policy-values"));
    }
    if image.contains('@') {
        let why =
            format!("{image} has no registry, so the policy cannot name it: write it as REGISTRY/PATH@sha256:DIGEST");
        return Check::warning(id, why, fixes.harden());
    }
    let is_default = if image == DEFAULT_IMAGE { " (the default)" } else { "" };
    Check::warning(
        id,
        format!("{image}{is_default} is not pinned by digest: whoever may push the tag chooses what runs on the nodes"),
        fixes.harden(),
    )
}

fn image_on_nodes(observed: &Observed, settings: &Settings) -> Check {
    let id = "image-on-nodes";
    let nodes = &observed.with_images;
    if nodes.is_empty() {
        return Check::skipped(id, "no GPU node could be read");
    }
    let image = settings.probe_image();
    let having = nodes.iter().filter(|node| has_image(node, &image)).count();
    if having == nodes.len() {
        return Check::ok(id, format!("{having} of {having} GPU nodes that were read have the image"));
    }
    let without = nodes.iter().find(|node| !has_image(node, &image)).map(ResourceExt::name_any).unwrap_or_default();
    Check::warning(
        id,
        format!(
            "{having} of {} GPU nodes that were read report the image; {without} does not, so the first probe on this node pulls the image",
            nodes.len()
        ),
        Fixes::run(
            "gpu-syringe --via inject diagnose NODE",
            "this command needs no image of the probe. The node may still have the image, because a kubelet reports at most 50 images",
        ),
    )
}

/// Returns whether the kubelet reports the image by this name, or by its digest in its repository.
fn has_image(node: &Node, image: &str) -> bool {
    let by_digest = image.split_once('@').map(|(name, digest)| {
        let start = name.rfind('/').map_or(0, |slash| slash + 1);
        let end = name[start..].find(':').map_or(name.len(), |colon| start + colon);
        format!("{}@{digest}", &name[..end])
    });
    let images = node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
    let mut names = images.iter().flat_map(|image| image.names.iter().flatten());
    names.any(|name| name == image || Some(name) == by_digest.as_ref())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_is_known_by_its_name_or_digest() {
        let names = ["r.test:5000/a/b@sha256:1", "r.test:5000/a/b:2"];
        let node: Node = serde_json::from_value(json!({"status": {"images": [{"names": names}]}})).expect("a node");
        for (image, expected) in [
            ("r.test:5000/a/b:2", true),
            ("r.test:5000/a/b@sha256:1", true),
            ("r.test:5000/a/b:9@sha256:1", true),
            ("r.test:5000/a/b:9", false),
            ("r.test:5000/a/c@sha256:1", false),
            ("r.test:5000/a/b@sha256:2", false),
        ] {
            assert_eq!(has_image(&node, image), expected, "{image}");
        }
    }
}
