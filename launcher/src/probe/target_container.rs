//! `TargetContainer`: the running GPU container that a call is about, or next to which a container is added.

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use syringe_core::probe_command::ContainerId;

use kube_read::objects::gpu_resource_names::requests_gpus;
use kube_read::objects::name_validation::container_id_without_scheme;

/// Annotation of a static pod, which cannot have ephemeral containers.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A running container with GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetContainer {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// ID in the container runtime, if the ID has the usual form.
    pub id: Option<ContainerId>,
}

impl TargetContainer {
    /// Returns the first running container with a GPU; `None` if the pod is not running or is a static pod.
    pub fn first_with_gpu(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        let is_static = pod.annotations().contains_key(MIRROR);
        if is_static || status.phase.as_deref() != Some("Running") || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let statuses = status.container_statuses.as_deref().unwrap_or_default();
        let running = |container: &Container| {
            let status = statuses.iter().find(|status| status.name == container.name)?;
            status.state.as_ref()?.running.as_ref()?;
            let id = container_id_without_scheme(status.container_id.as_deref().unwrap_or_default());
            Some(Self {
                namespace: pod.namespace().unwrap_or_default(),
                pod: pod.name_any(),
                container: container.name.clone(),
                id: id.parse().ok(),
            })
        };
        spec.containers.iter().filter(|container| has_gpus(container)).find_map(running)
    }
}

fn has_gpus(container: &Container) -> bool {
    let claims = container.resources.as_ref().and_then(|resources| resources.claims.as_ref());
    requests_gpus(container) || claims.is_some_and(|claims| !claims.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use syringe_core::probe_command::{ProbeCommand, ReadCommand};
    use syringe_core::section_name::SectionName;

    use super::*;

    fn pod(change: impl FnOnce(&mut serde_json::Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "train-0", "namespace": "ml"},
            "spec": {"containers": [
                {"name": "proxy"},
                {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}},
            ]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
                 "containerID": format!("containerd://{}", "a1".repeat(32))},
            ]},
        });
        change(&mut pod);
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn the_container_with_the_gpu_is_found_and_named_to_the_probe() {
        let target = TargetContainer::first_with_gpu(&pod(|_| ())).expect("a container");
        assert_eq!((target.pod.as_str(), target.container.as_str()), ("train-0", "main"));
        let all = ProbeCommand::from(ReadCommand::everything()).with_container(target.id.clone());
        assert_eq!(all.to_args(), ["all".to_owned(), "--container".into(), "a1".repeat(32)]);
        let inventory = ProbeCommand::Read(SectionName::Inventory.into()).with_container(target.id);
        assert_eq!(inventory.to_args(), ["inventory"]);
        let other: ContainerId = "b2".repeat(32).parse().expect("an ID");
        assert_eq!(all.clone().with_container(Some(other)), all, "a container is already named");
    }

    #[test]
    fn pods_that_do_not_run_with_a_gpu_are_skipped() {
        let cases: [fn(&mut serde_json::Value); 4] = [
            |pod| pod["status"]["phase"] = "Pending".into(),
            |pod| pod["metadata"]["annotations"] = json!({MIRROR: "x"}),
            |pod| pod["spec"]["containers"][1]["resources"] = json!({}),
            |pod| pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}}),
        ];
        for change in cases {
            assert_eq!(TargetContainer::first_with_gpu(&pod(change)), None);
        }
    }
}
