//! `nvidia_pod`, `daemon_pod`, `any_pod`: create the facts about a pod. `runtime_classes`: the RuntimeClasses of pods.
//! `component`: the component of a pod of NVIDIA's software.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use syringe_core::facts::kubernetes::node::{
    Component, ContainerStateKind, NvidiaContainer, NvidiaContainerState, NvidiaPod, RuntimeClassUse,
};
use syringe_core::text::{clean, clean_keeping_end};
use syringe_core::tsv::{rows, word};

use crate::objects::api_objects::meta::{Time, given};
use crate::objects::api_objects::pod::{Container, Pod as ListedPod};
use crate::objects::api_objects::pod_status::{ContainerState, ContainerStatus};
use crate::objects::gpu_pod::Pod;
use crate::objects::gpu_requests;
use crate::objects::nvidia_components::PodIdentity;

/// Maximum length of a message. The reason is at its end.
const MAX_MESSAGE: usize = 1000;
/// Maximum length of a name or image.
const MAX_NAME: usize = 253;
/// Maximum number of containers of one pod.
const MAX_CONTAINERS: usize = 16;

/// Maximum number of RuntimeClasses of one node, and of listed pods for each RuntimeClass.
const MAX_CLASSES: usize = 16;
const MAX_PODS: usize = 4;

/// The columns: first, the kind of match (`container`, `label` or `image`). Second, the name of the container, the
/// value of the label (or its prefix), or a part of the image. Third, the component.
static COMPONENTS: LazyLock<Vec<(&str, &str, Component)>> = LazyLock::new(|| {
    let rows = rows(include_str!("data/components.tsv"));
    rows.filter_map(|row| Some((row[0], *row.get(1)?, word(row.get(2)?)?))).collect()
});

/// Returns the facts of a pod if it belongs to NVIDIA's software.
pub fn nvidia_pod(pod: &ListedPod) -> Option<NvidiaPod> {
    let identity = PodIdentity::from(pod);
    if !identity.is_nvidia_component() {
        return None;
    }
    let names = pod.spec.containers.iter().map(|container| container.name.as_str());
    Some(facts(pod, component(names, &identity)))
}

/// Returns the facts of a pod of a DaemonSet, regardless of its software.
pub fn daemon_pod(pod: &ListedPod) -> Option<NvidiaPod> {
    let is_daemon = pod.metadata.owner_references.iter().any(|owner| owner.kind == "DaemonSet");
    is_daemon.then(|| any_pod(pod))
}

/// Returns the facts of any pod.
pub fn any_pod(pod: &ListedPod) -> NvidiaPod {
    nvidia_pod(pod).unwrap_or_else(|| facts(pod, Component::Other))
}

fn facts(pod: &ListedPod, component: Component) -> NvidiaPod {
    let ListedPod { metadata, spec, status } = pod;
    let ready = status.conditions.iter().find(|condition| condition.name == "Ready");
    NvidiaPod {
        namespace: clean(&metadata.namespace, MAX_NAME),
        name: clean(&metadata.name, MAX_NAME),
        uid: clean(&metadata.uid, MAX_NAME),
        component,
        owner: metadata.owner_references.first().map(|owner| clean(&owner.name, MAX_NAME)).unwrap_or_default(),
        phase: clean(&status.phase, 20),
        reason: given(clean(&status.reason, 80)),
        message: given(clean_keeping_end(&status.message, MAX_MESSAGE)),
        created: metadata.creation_timestamp.and_then(Time::timestamp),
        deleting: metadata.deletion_timestamp.is_some(),
        deletion_due: metadata.deletion_timestamp.and_then(Time::timestamp),
        runtime_class: given(spec.runtime_class_name.clone()),
        ready: ready.is_some_and(|condition| condition.status == "True"),
        ready_since: ready.and_then(|condition| condition.last_transition_time?.timestamp()),
        containers: containers(pod),
        warning: None,
    }
}

/// Returns the RuntimeClasses of pods that have not terminated.
pub fn runtime_classes(pods: &[Pod]) -> Vec<RuntimeClassUse> {
    let mut classes: Vec<RuntimeClassUse> = Vec::new();
    for pod in pods.iter().filter(|pod| gpu_requests::holds_resources(&pod.status.phase)) {
        let Some(name) = pod.spec.runtime_class_name.as_deref() else { continue };
        let name = clean(name, MAX_NAME);
        let at = classes.iter().position(|class| class.name == name).unwrap_or_else(|| {
            classes.push(RuntimeClassUse { name, ..RuntimeClassUse::default() });
            classes.len() - 1
        });
        if let Some(class) = classes.get_mut(at).filter(|class| class.pods.len() < MAX_PODS) {
            let pod = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
            class.pods.push(clean(&pod, 2 * MAX_NAME));
        }
    }
    classes.truncate(MAX_CLASSES);
    classes
}

/// Returns the component of a pod of NVIDIA's software, according to its container names, its labels
/// or its images.
pub fn component<'a>(mut names: impl Iterator<Item = &'a str>, identity: &PodIdentity<'_>) -> Component {
    let known = |kind: &str, name: &str| {
        let mut rows = COMPONENTS.iter().filter(|row| row.0 == kind);
        rows.find(|row| name.starts_with(row.1)).map(|row| row.2)
    };
    let by_container = names.find_map(|name| known("container", name));
    let by_label = || identity.component_labels.iter().find_map(|value| known("label", value));
    let by_image = || {
        let rows = COMPONENTS.iter().filter(|row| row.0 == "image");
        rows.into_iter().find(|row| identity.images.iter().any(|image| image.contains(row.1))).map(|row| row.2)
    };
    by_container.or_else(by_label).or_else(by_image).unwrap_or_default()
}

fn containers(ListedPod { spec, status, .. }: &ListedPod) -> Vec<NvidiaContainer> {
    // A sidecar (`restartPolicy: Always`) runs as long as the main containers.
    let init = spec.init_containers.iter().map(|container| {
        let sidecar = container.restart_policy == "Always";
        one(container, !sidecar, &status.init_container_statuses)
    });
    let main = spec.containers.iter().map(|container| one(container, false, &status.container_statuses));
    init.chain(main).take(MAX_CONTAINERS).collect()
}

fn one(container: &Container, init: bool, statuses: &[ContainerStatus]) -> NvidiaContainer {
    let status = statuses.iter().find(|status| status.name == container.name);
    NvidiaContainer {
        name: clean(&container.name, MAX_NAME),
        init,
        image: clean(&container.image, MAX_NAME),
        runtime_settings: runtime_settings(container),
        ready: status.is_some_and(|status| status.ready),
        restarts: status.map_or(0, |status| u32::try_from(status.restart_count).unwrap_or(0)),
        state: status.and_then(|status| state(&status.state)).unwrap_or_default(),
        last: status.and_then(|status| state(&status.last_state)),
    }
}

/// Variables of the container toolkit about the runtime that it configures.
const RUNTIME_SETTINGS: [&str; 8] = [
    "RUNTIME",
    "RUNTIME_CONFIG",
    "RUNTIME_SOCKET",
    "CONTAINERD_CONFIG",
    "CONTAINERD_SOCKET",
    "CRIO_CONFIG",
    "CRIO_SOCKET",
    "DOCKER_SOCKET",
];

/// Returns the values of the variables about the runtime. These values are not secret.
fn runtime_settings(container: &Container) -> BTreeMap<String, String> {
    let wanted = container.env.iter().filter(|variable| RUNTIME_SETTINGS.contains(&variable.name.as_str()));
    let given = wanted.filter(|variable| !variable.value.is_empty());
    given.map(|variable| (variable.name.clone(), clean(&variable.value, 160))).collect()
}

fn state(ContainerState { waiting, running, terminated }: &ContainerState) -> Option<NvidiaContainerState> {
    let word = |text: &str| given(clean(text, 80));
    let message = |text: &str| given(clean_keeping_end(text, MAX_MESSAGE));
    if let Some(running) = running {
        let since = running.started_at.and_then(Time::timestamp);
        return Some(NvidiaContainerState {
            kind: ContainerStateKind::Running,
            since,
            ..NvidiaContainerState::default()
        });
    }
    if let Some(ended) = terminated {
        return Some(NvidiaContainerState {
            kind: ContainerStateKind::Terminated,
            reason: word(&ended.reason),
            message: message(&ended.message),
            exit_code: Some(ended.exit_code),
            since: ended.finished_at.and_then(Time::timestamp),
        });
    }
    let waiting = waiting.as_ref()?;
    let (reason, message) = (word(&waiting.reason), message(&waiting.message));
    Some(NvidiaContainerState { reason, message, ..NvidiaContainerState::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(labels: serde_json::Value, containers: &[(&str, &str)]) -> ListedPod {
        let containers: Vec<_> = containers.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ds", "uid": "u", "controller": true}]);
        let metadata = json!({"name": "p", "namespace": "n", "labels": labels, "ownerReferences": owner});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": containers}})).expect("a pod")
    }

    #[test]
    fn programs_that_share_an_image_are_told_apart() {
        let image = "nvcr.io/nvidia/k8s-device-plugin:v0.17.1";
        for (labels, container, component) in [
            (
                json!({"app.kubernetes.io/name": "nvidia-device-plugin"}),
                "nvidia-device-plugin-ctr",
                Component::DevicePlugin,
            ),
            (json!({"app.kubernetes.io/name": "nvidia-device-plugin"}), "mps-control-daemon-ctr", Component::Other),
            (json!({"app": "gpu-feature-discovery"}), "gpu-feature-discovery", Component::FeatureDiscovery),
            (json!({"k8s-app": "nvidia-gpu-device-plugin"}), "plugin", Component::DevicePlugin),
            (json!({"app.kubernetes.io/name": "nvidia-dra-driver-gpu"}), "gpus", Component::DraDriver),
        ] {
            let found = nvidia_pod(&pod(labels.clone(), &[(container, image)])).map(|pod| pod.component);
            assert_eq!(found, Some(component), "{labels} {container}");
        }
        assert_eq!(nvidia_pod(&pod(json!({"app": "trainer"}), &[("main", "nvcr.io/nvidia/pytorch:25.01")])), None);
    }

    #[test]
    fn only_the_settings_about_the_runtime_are_read() {
        let mut toolkit =
            pod(json!({"app": "nvidia-container-toolkit-daemonset"}), &[("nvidia-container-toolkit-ctr", "x")]);
        let variable = |name: &str, value: &str| crate::objects::api_objects::pod::Variable {
            name: name.into(),
            value: value.into(),
        };
        toolkit.spec.containers[0].env =
            vec![variable("TOKEN", "s3cret"), variable("RUNTIME", "containerd"), variable("CONTAINERD_SOCKET", "")];
        let read = nvidia_pod(&toolkit).expect("a pod of the stack");
        let settings: Vec<_> = read.containers[0].runtime_settings.iter().collect();
        assert_eq!(settings, [(&"RUNTIME".to_owned(), &"containerd".to_owned())]);
    }

    #[test]
    fn the_states_of_containers_are_kept_with_the_end_of_their_messages() {
        let mut failing = pod(json!({"app": "nvidia-device-plugin-daemonset"}), &[("nvidia-device-plugin", "x")]);
        let message = format!("{}no runtime for \"nvidia\" is configured", "frame: ".repeat(200));
        let status = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "nvidia-device-plugin", "image": "", "imageID": "", "ready": false, "restartCount": 7,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": message}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-11-21T02:00:00Z"}}}]});
        failing.status = serde_json::from_value(status).expect("a status");
        let read = nvidia_pod(&failing).expect("a pod of the stack");
        let container = &read.containers[0];
        assert!(!read.ready && container.restarts == 7);
        assert_eq!(container.last.as_ref().and_then(|last| last.exit_code), Some(1));
        assert!(container.state.message.as_deref().is_some_and(|text| text.ends_with("is configured")));
    }
}
