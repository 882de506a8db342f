//! `slim`: removes secrets and unneeded fields from an object before it is saved in an archive.
//! The unneeded fields are most variables, commands, volumes and annotations.
//!
//! The code lists the fields that are kept. So a field that Kubernetes adds later, or that contains a secret, is
//! removed. Text from programs (below `status`, and in events) is kept, except for parts that look like a secret.

use k8s_openapi::api::core::v1 as api;
use serde_json::Value;
use syringe_core::text::{clean_keeping_lines, command};

use crate::objects::cordon;
use crate::objects::gpu_resource_names::requests_gpus;
use crate::objects::node_labels;
use crate::objects::nvidia_components::PodIdentity;
use crate::objects::platform_signals;

/// Fields of all objects.
const METADATA: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.generation",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.finalizers",
    "metadata.labels",
    "metadata.ownerReferences",
];

const NODE: &[&str] = &[
    "metadata.annotations",
    "metadata.managedFields",
    "spec.unschedulable",
    "spec.taints",
    "spec.providerID",
    "status.capacity",
    "status.allocatable",
    "status.conditions",
    "status.nodeInfo.architecture",
    "status.nodeInfo.containerRuntimeVersion",
    "status.nodeInfo.kernelVersion",
    "status.nodeInfo.kubeProxyVersion",
    "status.nodeInfo.kubeletVersion",
    "status.nodeInfo.operatingSystem",
    "status.nodeInfo.osImage",
    "status.nodeInfo.bootID",
    "status.nodeInfo.machineID",
    "status.nodeInfo.systemUUID",
];

/// Fields of a pod, which the template of a DaemonSet also has.
const POD: &[&str] = &[
    "metadata.annotations",
    "spec.activeDeadlineSeconds",
    "spec.affinity",
    "spec.hostNetwork",
    "spec.hostPID",
    "spec.hostUsers",
    "spec.nodeName",
    "spec.nodeSelector",
    "spec.overhead",
    "spec.preemptionPolicy",
    "spec.priority",
    "spec.priorityClassName",
    "spec.resourceClaims",
    "spec.resources",
    "spec.restartPolicy",
    "spec.runtimeClassName",
    "spec.schedulerName",
    "spec.schedulingGates",
    "spec.securityContext",
    "spec.tolerations",
    "spec.volumes.hostPath",
    "spec.volumes.name",
    "status.conditions",
    "status.containerStatuses",
    "status.ephemeralContainerStatuses",
    "status.initContainerStatuses",
    "status.message",
    "status.nominatedNodeName",
    "status.phase",
    "status.podIP",
    "status.qosClass",
    "status.reason",
    "status.resourceClaimStatuses",
    "status.startTime",
];

/// The lists of containers of a pod, and the fields of a container.
const CONTAINERS: [&str; 3] = ["spec.containers", "spec.initContainers", "spec.ephemeralContainers"];
const CONTAINER: [&str; 7] =
    ["name", "image", "resources", "restartPolicy", "securityContext", "env", "targetContainerName"];

const DAEMON_SET: &[&str] = &["spec.selector", "spec.updateStrategy", "spec.template.metadata.labels", "status"];

/// Fields of objects that provide machines, and of the Lease of a node.
const MACHINE: &[&str] = &["spec.providerID", "spec.holderIdentity", "spec.renewTime", "status"];

const EVENT: &[&str] = &[
    "action",
    "count",
    "eventTime",
    "firstTimestamp",
    "involvedObject",
    "lastTimestamp",
    "message",
    "reason",
    "reportingComponent",
    "reportingInstance",
    "series",
    "source",
    "type",
];

const CLAIM: &[&str] = &["spec.devices.requests", "status.allocation.devices.results", "status.reservedFor"];

const COMPUTE_DOMAIN: &[&str] =
    &["spec.numNodes", "status.status", "status.nodes.name", "status.nodes.status", "status.nodes.cliqueID"];

/// Fields of a ResourceSlice. The field `basic` exists in versions up to v1beta1.
const SLICE: &[&str] = &[
    "spec.driver",
    "spec.nodeName",
    "spec.pool",
    "spec.devices.attributes",
    "spec.devices.basic.attributes",
    "spec.devices.basic.capacity",
    "spec.devices.capacity",
    "spec.devices.name",
    "spec.devices.taints",
];

/// Status fields with image identifiers, in which an at sign is not a sign of a secret.
const IMAGES: [&str; 2] = ["image", "imageID"];

/// Reasons for which the message of a terminated container is from the container runtime, and not from a program in the
/// container.
const OF_RUNTIME: [&str; 3] = ["StartError", "ContainerCannotRun", "ContainerStatusUnknown"];

/// The variable that gives GPUs to a container.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";
/// Annotations with which a kubelet describes a static pod.
const STATIC_POD: &str = "kubernetes.io/config.";

/// Removes from an object all data that no answer needs. `kind` is the plural name of its kind, such as `nodes`.
pub fn slim(kind: &str, object: &mut Value) {
    match kind {
        "nodes" => {
            keep(object, "", &|path| METADATA.contains(&path) || NODE.contains(&path), &starts_any(&[METADATA, NODE]));
            let entries = object["metadata"]["managedFields"].as_array_mut().into_iter().flatten();
            entries.for_each(only_labels);
            only_uuids(object, is_of_node);
            let metadata = object["metadata"].as_object_mut();
            // Most nodes have no annotation that is kept.
            if let Some(metadata) =
                metadata.filter(|all| all.get("annotations").is_some_and(|one| one == &serde_json::json!({})))
            {
                metadata.remove("annotations");
            }
        }
        "pods" => {
            without_messages_of_programs(object);
            keep(object, "", &is_of_pod, &starts_pod);
            slim_pod(object);
        }
        "daemonsets" => {
            let inner = |path: &str| path.strip_prefix("spec.template.").map(str::to_owned);
            let is_kept = |path: &str| {
                METADATA.contains(&path)
                    || DAEMON_SET.contains(&path)
                    || inner(path)
                        .is_some_and(|path| path.starts_with("spec.") && is_of_pod(&path) || is_command(&path))
            };
            let is_start = |path: &str| {
                starts_any(&[METADATA, DAEMON_SET])(path)
                    || inner(path).is_some_and(|path| path == "spec" || path.starts_with("spec.") && starts_pod(&path))
            };
            keep(object, "", &is_kept, &is_start);
            slim_pod(&mut object["spec"]["template"]);
        }
        "leases" | "nodeclaims" | "machines" => keep_listed(object, MACHINE),
        "events" => keep_listed(object, EVENT),
        "resourceclaims" => keep_listed(object, CLAIM),
        "resourceslices" => keep_listed(object, SLICE),
        "computedomains" => keep_listed(object, COMPUTE_DOMAIN),
        _ => keep_listed(object, &[]),
    }
    for text in ["message", "status"] {
        object.get_mut(text).into_iter().for_each(without_secrets);
    }
}

fn keep_listed(object: &mut Value, fields: &[&str]) {
    let is_kept = |path: &str| METADATA.contains(&path) || fields.contains(&path);
    keep(object, "", &is_kept, &starts_any(&[METADATA, fields]));
}

/// Removes from every text the parts that look like a secret.
fn without_secrets(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean_keeping_lines(text),
        Value::Array(entries) => entries.iter_mut().for_each(without_secrets),
        Value::Object(fields) => {
            let texts = fields.iter_mut().filter(|(field, _)| !IMAGES.contains(&field.as_str()));
            texts.for_each(|(_, value)| without_secrets(value));
        }
        _ => {}
    }
}

/// Removes the termination messages of programs in a pod that does not use GPUs.
fn without_messages_of_programs(pod: &mut Value) {
    let is_needed = serde_json::from_value::<api::Pod>(pod.clone()).is_ok_and(|pod| {
        let spec = pod.spec.as_ref();
        let mut containers =
            spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        containers.any(requests_gpus)
            || spec.is_some_and(|spec| spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()))
            || PodIdentity::from(&pod).is_nvidia_component()
    });
    if is_needed {
        return;
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for status in pod["status"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for state in ["state", "lastState"] {
                let ended = status.get_mut(state).and_then(|state| state.get_mut("terminated"));
                if let Some(ended) = ended.and_then(Value::as_object_mut)
                    && !ended.get("reason").and_then(Value::as_str).is_some_and(|why| OF_RUNTIME.contains(&why))
                {
                    ended.remove("message");
                }
            }
        }
    }
}

fn is_of_pod(path: &str) -> bool {
    let of_container = |list: &&str| {
        path.strip_prefix(*list).and_then(|rest| rest.strip_prefix('.')).is_some_and(|field| CONTAINER.contains(&field))
    };
    METADATA.contains(&path) || POD.contains(&path) || CONTAINERS.iter().any(of_container)
}

fn starts_pod(path: &str) -> bool {
    starts_any(&[METADATA, POD, &CONTAINERS])(path) || CONTAINERS.contains(&path)
}

/// The command of a device plugin shows which devices it serves.
fn is_command(path: &str) -> bool {
    CONTAINERS.iter().any(|list| path == format!("{list}.command") || path == format!("{list}.args"))
}

/// Returns a function that checks whether a path is the beginning of one of these paths.
fn starts_any<'a>(lists: &'a [&'a [&'a str]]) -> impl Fn(&str) -> bool + 'a {
    move |path| {
        lists
            .iter()
            .flat_map(|list| list.iter())
            .any(|known| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }
}

/// Removes the fields for which `is_kept` is false. The entries of a list have the path of the list.
fn keep(value: &mut Value, path: &str, is_kept: &dyn Fn(&str) -> bool, is_start: &dyn Fn(&str) -> bool) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(|entry| keep(entry, path, is_kept, is_start)),
        Value::Object(fields) => fields.retain(|field, value| {
            let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            if is_kept(&path) {
                return true;
            }
            let leads = is_start(&path);
            if leads {
                keep(value, &path, is_kept, is_start);
            }
            leads
        }),
        _ => {}
    }
}

/// Keeps only the times at which labels were written.
fn only_labels(entry: &mut Value) {
    let labels = entry["fieldsV1"]["f:metadata"]["f:labels"].take();
    entry["fieldsV1"] = serde_json::json!({"f:metadata": {"f:labels": labels}});
}

/// Returns whether an answer about a node uses an annotation: a decision or state of a platform, or why the node is
/// cordoned.
fn is_of_node(name: &str, value: &str) -> bool {
    platform_signals::is_known_state(name)
        || cordon::is_mark(name)
        || cordon::is_note(name, value)
        || node_labels::reports_state(name, value)
}

/// Keeps the annotations that `is_used` selects. From other annotations, keeps only the UUIDs of GPUs.
fn only_uuids(object: &mut Value, is_used: fn(&str, &str) -> bool) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    annotations.retain(|key, value| {
        let text = value.as_str().unwrap_or_default();
        if is_used(key, text) {
            return true;
        }
        // A scheduler writes the GPUs of a pod or node into annotations. The rest of the annotation is not needed.
        let is_uuid = |word: &&str| word.starts_with("GPU-") || word.starts_with("MIG-");
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
        let uuids: Vec<_> = words.filter(is_uuid).collect();
        let is_kept = !uuids.is_empty() && !key.starts_with("kubectl.kubernetes.io/");
        *value = uuids.join(",").into();
        is_kept
    });
}

fn slim_pod(pod: &mut Value) {
    only_uuids(pod, |name, _| name.starts_with(STATIC_POD));
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(variables) = container.get_mut("env").and_then(Value::as_array_mut) {
                variables.retain(|variable| variable["name"] == VISIBLE_DEVICES);
            }
            for field in ["command", "args"] {
                if let Some(words) = container.get_mut(field).and_then(Value::as_array_mut) {
                    let short = command::shorten(words.iter().filter_map(Value::as_str));
                    *words = vec![short.into()];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slim_pod_has_no_secrets_and_what_answers_need() {
        let mut pod = json!({
            "metadata": {
                "name": "p", "labels": {"app": "x"}, "managedFields": [{}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "hunter2 GPU-1", "vendor/devices": "{\"GPU-abc-1\": hunter2}",
                    "team": "hunter2",
                },
            },
            "spec": {
                "nodeName": "n", "volumes": [{"name": "v", "secret": {"secretName": "hunter2"}}], "imagePullSecrets": ["hunter2"],
                "containers": [{"name": "c", "image": "i", "args": ["hunter2"], "env": [
                    {"name": "TOKEN", "value": "hunter2"}, {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
                ], "resources": {"limits": {"nvidia.com/gpu": "1"}}, "livenessProbe": {"exec": "hunter2"}}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "hostIP": "10.0.0.2", "containerStatuses": [{"name": "c", "restartCount": 1}]},
        });
        slim("pods", &mut pod);
        assert_eq!(
            pod,
            json!({
                "metadata": {"name": "p", "labels": {"app": "x"}, "annotations": {"vendor/devices": "GPU-abc-1"}},
                "spec": {
                    "nodeName": "n", "volumes": [{"name": "v"}],
                    "containers": [{"name": "c", "image": "i", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}],
                        "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
                },
                "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"name": "c", "restartCount": 1}]},
            })
        );
    }

    #[test]
    fn a_slim_daemon_set_keeps_the_placement_and_the_words_of_its_command() {
        let mut set = json!({"metadata": {"name": "d"}, "spec": {"template": {"metadata": {"labels": {"app": "d"}, "name": "x"},
            "spec": {"nodeSelector": {"a": "b"}, "hostNetwork": true, "serviceAccountName": "s",
                "containers": [{"name": "c", "image": "i", "args": ["gpu-plugin", "--token=hunter2"]}]}}}});
        slim("daemonsets", &mut set);
        let template = &set["spec"]["template"];
        assert_eq!(template["spec"]["nodeSelector"], json!({"a": "b"}));
        assert_eq!(template["metadata"], json!({"labels": {"app": "d"}}));
        let text = set.to_string();
        assert!(text.contains("gpu-plugin") && !text.contains("hunter2") && !text.contains("serviceAccount"), "{text}");
    }

    #[test]
    fn a_secret_in_a_text_or_in_an_opaque_field_is_removed() {
        let secret = "hf_a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5a1b2c3";
        let text = format!("started with --token {secret}\nand failed");
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": text}});
        let status = json!({"message": text, "conditions": [{"type": "Ready", "message": text}], "containerStatuses": [
            {"name": "c", "imageID": "docker-pullable://nvcr.io/x@sha256:1", "state": ended, "lastState": ended},
        ]});
        let gpu = json!([{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]);
        let opaque = json!([{"opaque": {"driver": "gpu.nvidia.com", "parameters": {"password": secret}}}]);
        let results = json!([{"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-0"}]);
        for (kind, mut object, kept) in [
            (
                "pods",
                json!({"spec": {"containers": [{"name": "c", "image": "i"}]}, "status": status}),
                "docker-pullable://nvcr.io/x@sha256:1",
            ),
            ("pods", json!({"spec": {"containers": gpu}, "status": status}), "and failed"),
            ("nodes", json!({"status": {"conditions": [{"message": text}]}}), "and failed"),
            ("daemonsets", json!({"status": {"conditions": [{"message": text}]}}), "and failed"),
            ("machines", json!({"status": {"failureMessage": text}}), "and failed"),
            (
                "events",
                json!({"message": text, "reason": "Failed", "note": secret, "related": {"name": secret}}),
                "and failed",
            ),
            (
                "resourceclaims",
                json!({"spec": {"devices": {"config": opaque}}, "status": {
                    "allocation": {"devices": {"results": results, "config": opaque}}, "reservedFor": [{"name": "pod-1"}],
                    "devices": [{"data": {"password": secret}}],
                }}),
                "gpu-0",
            ),
            (
                "resourceslices",
                json!({"spec": {"driver": "d", "devices": [{"name": "gpu-0", "unknown": secret}]}}),
                "gpu-0",
            ),
            (
                "computedomains",
                json!({"spec": {"numNodes": 2, "channel": {"resourceClaimTemplate": {"name": secret}}},
                    "status": {"status": "Ready", "nodes": [{"name": "gpu-0", "ipAddress": secret, "status": "Ready"}]}}),
                "gpu-0",
            ),
            ("unknown", json!({"metadata": {"name": "n"}, "spec": {"password": secret}}), "\"n\""),
        ] {
            slim(kind, &mut object);
            let left = object.to_string();
            assert!(!left.contains(secret) && left.contains(kept), "{kind}: {left}");
        }
    }

    #[test]
    fn the_last_message_of_a_program_stays_only_in_pods_of_gpus_and_that_of_the_runtime_in_all() {
        for (reason, resource, is_kept) in
            [("Error", "cpu", false), ("Error", "nvidia.com/gpu", true), ("StartError", "cpu", true)]
        {
            let ended = json!({"terminated": {"exitCode": 1, "reason": reason, "message": "cannot open it"}});
            let mut pod = json!({
                "metadata": {"name": "p"},
                "spec": {"containers": [{"name": "c", "resources": {"limits": {resource: "1"}}}]},
                "status": {"containerStatuses": [{"name": "c", "state": ended, "lastState": ended}]},
            });
            slim("pods", &mut pod);
            assert_eq!(
                pod.to_string().matches("cannot open it").count(),
                if is_kept { 2 } else { 0 },
                "{reason} {resource}"
            );
        }
    }
}
