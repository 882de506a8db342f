//! `DaemonSet`, `on_node`: decide, as the DaemonSet controller does, whether a node should have a pod of a DaemonSet.
//!
//! The controller checks the name, the node selector, the required node affinity and the taints of a node, but no
//! resources. It adds tolerations for the taints of the node controller, so its pods also run on nodes that are not
//! Ready or cordoned.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1::{Node, PodSpec, Toleration};
use kube::ResourceExt;
use syringe_core::facts::kubernetes::daemon_set::{DaemonSetFacts, DaemonSetRole};
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};
use syringe_core::text::clean;

use crate::objects::gpu_resource_names::requests_gpus;
use crate::objects::nvidia_components::PodIdentity;
use crate::objects::nvidia_pod_facts;
use crate::objects::scheduler_filters;

/// Maximum length of a name, and of the text of an unmet requirement.
const MAX_NAME: usize = 253;
const MAX_MISMATCH: usize = 400;
/// Folder of the sockets of device plugins.
const PLUGIN_FOLDER: &str = "/kubelet/device-plugins";
/// Words in the name, images or command of a device plugin for NVIDIA GPUs, including GPU sharing software of other
/// vendors.
const OF_GPUS: [&str; 3] = ["nvidia", "gpu", "cuda"];
/// Words in the name, images or command of a device plugin for other devices.
const OF_OTHERS: [&str; 6] = ["amd", "rocm", "intel", "habana", "gaudi", "neuron"];
/// Words in the name or image of other software of the GPU stack.
const OF_STACK: [&str; 2] = ["nvidia", "dcgm"];
/// Taints that the DaemonSet controller lets its pods tolerate: key and effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// A taint that only pods on the host network tolerate.
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// A DaemonSet, with the parts that decide on which nodes it has pods.
#[derive(Clone, Debug)]
pub struct DaemonSet {
    namespace: String,
    name: String,
    role: DaemonSetRole,
    created: Option<Timestamp>,
    rolling_out: bool,
    /// Node name (if set), node selector, affinity, and tolerations, including those that the controller adds.
    placement: PodSpec,
}

impl DaemonSet {
    /// Returns the parts of a DaemonSet, or `None` if the DaemonSet is being deleted.
    pub fn from_object(object: apps::DaemonSet) -> Option<Self> {
        if object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let rolling_out = is_rolling_out(&object);
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let template = object.spec?.template;
        let labels = template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
        let spec = template.spec?;
        let role = role(&name, &labels, &spec);
        let host_network = spec.host_network.unwrap_or(false).then_some(NO_NETWORK);
        let added = TOLERATED.into_iter().chain(host_network).map(|(key, effect)| Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        });
        let placement = PodSpec {
            node_name: spec.node_name,
            node_selector: spec.node_selector,
            affinity: spec.affinity,
            tolerations: Some(spec.tolerations.unwrap_or_default().into_iter().chain(added).collect()),
            ..PodSpec::default()
        };
        Some(Self {
            namespace: clean(&namespace, MAX_NAME),
            name: clean(&name, MAX_NAME),
            role,
            created,
            rolling_out,
            placement,
        })
    }
}

/// Returns the facts about every DaemonSet, for a node. `pods`: the pods of DaemonSets on the node.
pub fn on_node(sets: &[DaemonSet], node: &Node, pods: &[NvidiaPod]) -> Vec<DaemonSetFacts> {
    let facts = |set: &DaemonSet| {
        let own = pods.iter().filter(|pod| pod.owner == set.name && pod.namespace == set.namespace);
        let pod = own.max_by_key(|pod| (pod.ready, !pod.deleting, pod.created));
        DaemonSetFacts {
            namespace: set.namespace.clone(),
            name: set.name.clone(),
            role: set.role,
            mismatch: scheduler_filters::first_mismatch(&set.placement, node).map(|text| clean(&text, MAX_MISMATCH)),
            created: set.created,
            rolling_out: set.rolling_out,
            pod: pod.cloned(),
            refusal: None,
        }
    };
    sets.iter().map(facts).collect()
}

/// Returns whether the controller has not yet processed the newest version of the DaemonSet, or is still replacing its
/// pods. With `OnDelete`, pods of an older version stay.
fn is_rolling_out(object: &apps::DaemonSet) -> bool {
    let Some(status) = &object.status else { return true };
    let unseen = status.observed_generation.zip(object.metadata.generation).is_some_and(|(seen, newest)| seen < newest);
    let strategy = object.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref());
    let replaces = strategy != Some("OnDelete")
        && status.updated_number_scheduled.is_some_and(|updated| updated < status.desired_number_scheduled);
    unseen || replaces
}

fn role(name: &str, labels: &std::collections::BTreeMap<String, String>, spec: &PodSpec) -> DaemonSetRole {
    let identity = PodIdentity::of_daemon_set(labels, spec);
    let names = spec.containers.iter().map(|container| container.name.as_str());
    let component = identity.is_nvidia_component().then(|| nvidia_pod_facts::component(names, &identity));
    match component {
        Some(Component::DevicePlugin | Component::DraDriver | Component::SandboxDevicePlugin) => {
            return DaemonSetRole::GpuPlugin;
        }
        Some(Component::Driver) => return DaemonSetRole::GpuDriver,
        Some(Component::Other) | None => {}
        Some(_) => return DaemonSetRole::GpuStack,
    }
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let images = containers().filter_map(|container| container.image.as_deref());
    let named: Vec<&str> = std::iter::once(name).chain(images).collect();
    let commands = containers().flat_map(|container| container.command.iter().chain(&container.args).flatten());
    let all: Vec<&str> = named.iter().copied().chain(commands.map(String::as_str)).collect();
    let says = |texts: &[&str], words: &[&str]| {
        texts.iter().any(|text| words.iter().any(|word| text.to_ascii_lowercase().contains(word)))
    };
    let paths = spec.volumes.iter().flatten().filter_map(|volume| volume.host_path.as_ref());
    let is_plugin = paths.into_iter().any(|path| path.path.contains(PLUGIN_FOLDER));
    match () {
        () if is_plugin && says(&all, &OF_GPUS) && (says(&all, &OF_STACK) || !says(&all, &OF_OTHERS)) => {
            DaemonSetRole::GpuPlugin
        }
        () if containers().any(requests_gpus) => DaemonSetRole::UsesGpus,
        () if component.is_some() || says(&named, &OF_STACK) => DaemonSetRole::GpuStack,
        () => DaemonSetRole::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(name: &str, template: Value) -> DaemonSet {
        let object = json!({"metadata": {"name": name, "namespace": "gpu"}, "spec": {"selector": {}, "template": template},
            "status": {"currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberMisscheduled": 0, "numberReady": 1}});
        DaemonSet::from_object(serde_json::from_value(object).expect("a DaemonSet")).expect("not deleted")
    }

    fn template(more: Value) -> Value {
        let mut spec = json!({"containers": [{"name": "main", "image": "registry/thing:1"}]});
        spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        json!({"metadata": {"labels": {}}, "spec": spec})
    }

    fn node(taints: Value, labels: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "gpu-1", "labels": labels}, "spec": {"taints": taints}}))
            .expect("a node")
    }

    fn mismatch(spec: Value, taints: Value) -> Option<String> {
        let labels = json!({"accelerator": "h100", "gen": "5"});
        on_node(&[set("x", template(spec))], &node(taints, labels), &[]).remove(0).mismatch
    }

    #[test]
    fn a_daemon_set_fits_as_its_controller_decides() {
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        assert_eq!(mismatch(json!({}), json!([])), None);
        // The controller adds tolerations for the taints that the node controller sets.
        for (key, effect) in TOLERATED {
            assert_eq!(mismatch(json!({}), taint(key, effect)), None, "{key}");
        }
        assert_eq!(mismatch(json!({}), taint("any", "PreferNoSchedule")), None);
        let network = taint(NO_NETWORK.0, NO_NETWORK.1);
        assert!(mismatch(json!({}), network.clone()).is_some());
        assert_eq!(mismatch(json!({"hostNetwork": true}), network), None);
        let gpu = taint("nvidia.com/gpu", "NoSchedule");
        assert!(mismatch(json!({}), gpu.clone()).is_some_and(|why| why.contains("nvidia.com/gpu")));
        let everything = json!({"tolerations": [{"operator": "Exists"}]});
        assert_eq!(mismatch(everything, gpu), None);
        assert_eq!(mismatch(json!({"nodeSelector": {"accelerator": "h100"}}), json!([])), None);
        assert!(mismatch(json!({"nodeName": "gpu-2"}), json!([])).is_some_and(|why| why.contains("gpu-2")));
    }

    #[test]
    fn the_first_term_that_does_not_match_is_named_with_the_value_of_the_node() {
        let why = mismatch(json!({"nodeSelector": {"accelerator": "a100"}}), json!([])).expect("a mismatch");
        assert!(why.contains("accelerator=a100") && why.contains("accelerator=h100"), "{why}");
        let affinity = |expressions: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}}})
        };
        let wants = json!([{"key": "gen", "operator": "Gt", "values": ["4"]},
            {"key": "nvidia.com/gpu.present", "operator": "In", "values": ["true"]}]);
        let why = mismatch(affinity(wants), json!([])).expect("a mismatch");
        assert!(why.contains("nvidia.com/gpu.present In true") && !why.contains("gen"), "{why}");
    }

    #[test]
    fn the_role_follows_from_image_name_mounts_and_requests() {
        let plugins = json!([{"name": "p", "hostPath": {"path": "/var/lib/kubelet/device-plugins"}}]);
        let role = |name: &str, image: &str, more: Value| {
            let mut spec = json!({"containers": [{"name": "c", "image": image}]});
            spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
            set(name, template(spec)).role
        };
        let mounted = json!({"volumes": plugins});
        let asks = json!({"containers": [{"name": "c", "image": "nvcr.io/nvidia/pytorch:25.01",
            "resources": {"limits": {"nvidia.com/gpu": "1"}}}]});
        let plugin = "nvcr.io/nvidia/k8s-device-plugin:v0.17.1";
        assert_eq!(role("x", plugin, json!({})), DaemonSetRole::GpuStack);
        assert_eq!(role("x", plugin, mounted.clone()), DaemonSetRole::GpuPlugin);
        assert_eq!(role("hami-gpu-plugin", "projecthami/hami:v2", mounted.clone()), DaemonSetRole::GpuPlugin);
        assert_eq!(role("amdgpu-device-plugin", "rocm/k8s-device-plugin", mounted.clone()), DaemonSetRole::Other);
        assert_eq!(
            role("rdma-shared-dp", "ghcr.io/mellanox/k8s-rdma-shared-dev-plugin", mounted),
            DaemonSetRole::Other
        );
        assert_eq!(role("trainer", "", asks), DaemonSetRole::UsesGpus);
        assert_eq!(role("dcgm-exporter", "x", json!({})), DaemonSetRole::GpuStack);
        assert_eq!(role("calico-node", "docker.io/calico/node", json!({})), DaemonSetRole::Other);
    }
}
