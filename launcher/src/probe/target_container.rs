//! A running container that has GPUs: the subject of a question about its pod, and the target of an ephemeral container.

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

use kube_read::objects::gpu_resource_names::requests_gpus;
use kube_read::objects::name_validation::container_id_without_scheme;

/// Annotation of a static pod, which cannot have ephemeral containers.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Commands of node-probe that read the host section, which includes one container.
const READ_HOST: [&str; 3] = ["all", "host", "read"];

/// Option of node-probe that names the container.
const OPTION: &str = "--container";

/// A running container with GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetContainer {
    /// Namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its name.
    pub container: String,
    /// Its container ID, without the name of the runtime.
    pub id: String,
}

impl TargetContainer {
    /// The first running container with a GPU; `None` if the pod does not run or is a static pod.
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
                id: id.to_owned(),
            })
        };
        spec.containers.iter().filter(|container| has_gpus(container)).find_map(running)
    }

    /// Adds the option that names this container, if the command reads the host section.
    pub fn add_container_option(&self, command: &[String]) -> Vec<String> {
        let mut command = command.to_vec();
        let reads_host = command.first().is_some_and(|word| READ_HOST.contains(&word.as_str()));
        // IDs of containerd, CRI-O and Docker have this form.
        let known = self.id.len() == 64 && self.id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if reads_host && known && !command.iter().any(|word| word == OPTION) {
            command.extend([OPTION.to_owned(), self.id.clone()]);
        }
        command
    }
}

fn has_gpus(container: &Container) -> bool {
    let claims = container.resources.as_ref().and_then(|resources| resources.claims.as_ref());
    requests_gpus(container) || claims.is_some_and(|claims| !claims.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let with_option = |command: &[&str]| {
            target.add_container_option(&command.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(with_option(&["all"]), ["all".to_owned(), OPTION.into(), "a1".repeat(32)]);
        assert_eq!(with_option(&["inventory"]), ["inventory"]);
        assert_eq!(with_option(&["all", OPTION, "x"]), ["all", OPTION, "x"]);
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
