//! `PodIdentity`: recognizes the pods of NVIDIA's software (for example, device plugin, driver and DCGM), which need
//! the driver.
//!
//! These pods have labels of the GPU Operator, the Helm charts or the cloud providers' DaemonSets, or known images.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1 as api;
use kube::ResourceExt;
use syringe_core::tsv::list;

use crate::objects::api_objects::pod::Pod;
use crate::objects::pod_owner::is_node_software;

/// Labels with the name of a component.
const LABELS: [&str; 5] = ["app", "app.kubernetes.io/name", "app.kubernetes.io/component", "k8s-app", "name"];

/// Values of the labels in [`LABELS`], or prefixes of these values.
static COMPONENTS: LazyLock<Vec<&str>> = LazyLock::new(|| list(include_str!("data/component_labels.tsv")).collect());

/// Names of images: the last part of the repository, because registries are mirrored.
const IMAGES: [&str; 10] = [
    "gpu-operator-validator",
    "k8s-mig-manager",
    "gpu-feature-discovery",
    "dcgm-exporter",
    "k8s-dra-driver-gpu",
    "dra-driver-nvidia-gpu",
    "vgpu-device-manager",
    "kubevirt-gpu-device-plugin",
    "gdrdrv",
    "nvidia-fs",
];
/// Names of images that other vendors also use. For these names, the repository must also contain the name of NVIDIA.
const SHARED_IMAGES: [&str; 6] =
    ["driver", "k8s-device-plugin", "container-toolkit", "k8s-dra-driver", "k8s-driver-manager", "dcgm"];

/// Returns the repository of an image without its tag and digest.
fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let name = image.rfind('/').map_or(0, |at| at + 1);
    image[name..].find(':').map_or(image, |colon| &image[..name + colon])
}

/// Returns whether an image belongs to NVIDIA's software for nodes.
fn is_known_image(image: &str) -> bool {
    let repository = repository(image);
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let of_nvidia = repository.contains("nvidia") && SHARED_IMAGES.contains(&name);
    IMAGES.contains(&name) || of_nvidia || repository.contains("/dra-driver-nvidia/")
}

/// The data of a pod by which NVIDIA's software is recognized.
pub struct PodIdentity<'a> {
    /// Values of the labels that contain the name of a component.
    pub component_labels: Vec<&'a str>,
    pub images: Vec<&'a str>,
    /// Names of the controllers.
    owners: Vec<&'a str>,
    is_node_software: bool,
}

fn component_labels(labels: &BTreeMap<String, String>) -> Vec<&str> {
    LABELS.iter().filter_map(|label| labels.get(*label)).map(String::as_str).collect()
}

impl<'a> From<&'a Pod> for PodIdentity<'a> {
    fn from(Pod { metadata, spec, .. }: &'a Pod) -> Self {
        let containers = spec.containers.iter().chain(&spec.init_containers);
        Self {
            component_labels: component_labels(&metadata.labels),
            images: containers.map(|container| container.image.as_str()).collect(),
            owners: metadata.owner_references.iter().map(|owner| owner.name.as_str()).collect(),
            is_node_software: is_node_software(&metadata.owner_references),
        }
    }
}

impl<'a> From<&'a api::Pod> for PodIdentity<'a> {
    fn from(pod: &'a api::Pod) -> Self {
        let containers =
            pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        Self {
            component_labels: component_labels(pod.labels()),
            images: containers.filter_map(|container| container.image.as_deref()).collect(),
            owners: pod.owner_references().iter().map(|owner| owner.name.as_str()).collect(),
            is_node_software: is_node_software(pod.owner_references()),
        }
    }
}

impl<'a> PodIdentity<'a> {
    /// Returns the identity of the pods of a DaemonSet.
    pub fn of_daemon_set(labels: &'a BTreeMap<String, String>, spec: &'a api::PodSpec) -> Self {
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        Self {
            component_labels: component_labels(labels),
            images: containers.filter_map(|container| container.image.as_deref()).collect(),
            owners: Vec::new(),
            is_node_software: true,
        }
    }
}

impl PodIdentity<'_> {
    /// Returns whether the pod belongs to NVIDIA's software, by a label, an image or the name of its controller. This
    /// alone is not sufficient: the pod must also have a controller for node software.
    pub fn is_nvidia_component(&self) -> bool {
        let Self { component_labels, images, owners, is_node_software } = self;
        let names = || component_labels.iter().chain(owners);
        let by_name = names().any(|value| COMPONENTS.iter().any(|component| value.starts_with(component)));
        let by_image = images.iter().any(|image| is_known_image(image));
        *is_node_software && (by_name || by_image)
    }

    /// Returns whether the pod is NVIDIA's device plugin, according to its component label.
    pub fn is_device_plugin(&self) -> bool {
        let of_plugin = |label: &&str| {
            let named = ["nvidia-device-plugin", "nvidia-gpu-device-plugin"].iter().any(|name| label.starts_with(name));
            named && !label.starts_with("nvidia-device-plugin-mps")
        };
        self.is_nvidia_component() && self.component_labels.iter().any(of_plugin)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_software_is_known_by_label_or_image_and_its_controller() {
        let pod = |labels: serde_json::Value, image: &str, owner: &str| -> api::Pod {
            let (version, kind) = owner.split_once(' ').unwrap_or(("apps/v1", owner));
            let owner = json!([{"apiVersion": version, "kind": kind, "name": "x", "uid": "u", "controller": true}]);
            let metadata = json!({"name": "p", "labels": labels, "ownerReferences": owner});
            let spec = json!({"containers": [{"name": "c", "image": image}]});
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
        };
        let is_nvidia = |pod: api::Pod| PodIdentity::from(&pod).is_nvidia_component();
        let is_plugin = |pod: api::Pod| PodIdentity::from(&pod).is_device_plugin();
        let plugin = json!({"app": "nvidia-device-plugin-daemonset"});
        assert!(is_nvidia(pod(plugin.clone(), "x", "DaemonSet")));
        assert!(is_nvidia(pod(json!({}), "nvcr.io/nvidia/k8s-device-plugin:v0.17.1", "DaemonSet")));
        for mirrored in [
            "registry.example:5000/nvidia/k8s-dra-driver@sha256:a1",
            "dcgm-exporter:4.1",
            "mirror.example/nvidia/driver:570",
        ] {
            assert!(is_nvidia(pod(json!({}), mirrored, "DaemonSet")), "{mirrored}");
        }
        for other in ["registry.example/storage/driver:1", "rocm/k8s-device-plugin"] {
            assert!(!is_nvidia(pod(json!({}), other, "DaemonSet")), "{other}");
        }
        assert!(is_plugin(pod(plugin.clone(), "x", "DaemonSet")));
        let mps = json!({"app": "nvidia-device-plugin-mps-control-daemon"});
        assert!(!is_plugin(pod(mps, "x", "DaemonSet")));
        assert!(!is_plugin(pod(plugin.clone(), "x", "ReplicaSet")));
        assert!(!is_nvidia(pod(plugin.clone(), "x", "ReplicaSet")), "anybody may write a label");
        assert!(!is_nvidia(pod(plugin, "x", "attacker.example/v1 DaemonSet")), "anybody may write a kind");
        assert!(!is_nvidia(pod(json!({"app": "trainer"}), "nvcr.io/nvidia/pytorch:25.01-py3", "DaemonSet")));
    }
}
