//! `find`: finds the base images for `--via auto`: images of privileged containers that are running on the node.
//!
//! The names in `node.status.images` prove nothing: a mirror of other registries, a registry to which tenants can push,
//! or an import may change what a name means on a node. An image that runs privileged on the node already has root there,
//! so starting it once more adds no privilege.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SELinuxOptions, SeccompProfile, SecurityContext};
use kube::Api;
use kube::api::ListParams;

use super::base_image;
use crate::probe::lifecycle::pod_spec::MANAGED_BY;
use crate::settings::image_reference::ImageReference;
use kube_read::Failure;
use kube_read::client::api_error::{request_failed, timed_out};
use kube_read::client::api_status::is_not_a_status;
use kube_read::client::connection::Connection;
use kube_read::client::retry;
use kube_read::failure::{Cause, kube_reason};

/// Maximum number of images that are tried, because some images have no shell.
const MAX_IMAGES: usize = 3;
/// Limit of the pod list: several times the maximum number of pods on a node.
const MAX_PODS: u32 = 500;
/// Namespaces of cluster software.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "gpu-operator", "nvidia-gpu-operator"];

/// Returns the images by digest, best first.
pub(in crate::probe) async fn find(connection: &Connection, node: &str) -> Result<Vec<String>, Failure> {
    let what = || format!("Looking for an image that runs privileged on node {node}");
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(MAX_PODS);
    let pods: Api<Pod> = Api::all(connection.client.clone());
    let listed = match retry::read(|| pods.list(&on_node)).await {
        Some(Ok(list)) => list.items,
        Some(Err(kube::Error::Api(status))) if status.code == 403 && !is_not_a_status(&status) => {
            let why = kube_reason(&kube::Error::Api(status));
            let next = "Your user needs list on pods in all namespaces (gpu-syringe setup --apply --user NAME grants it); otherwise, specify an image \
                with --base-image.";
            return Err(Failure::new(what(), why, next).because_of(Cause::Upload));
        }
        Some(Err(error)) => return Err(request_failed(connection, what(), &error)),
        None => return Err(timed_out(connection, what())),
    };
    let images = of_pods(&listed);
    if images.is_empty() {
        let why = "no privileged container is running on the node with an image that has a repository and a digest (an image that was imported without a \
                   registry has none), so no image on the node is known to be trusted";
        let next = "With --base-image, specify an image that is on the node, that you trust, and that has sh, sleep, \
            and head or tar.";
        return Err(Failure::new(what(), why, next).because_of(Cause::Upload));
    }
    Ok(images)
}

fn of_pods(pods: &[Pod]) -> Vec<String> {
    let mut images: Vec<(usize, bool, String)> =
        pods.iter().filter(|pod| is_on_the_host(pod)).flat_map(of_pod).collect();
    images.sort();
    images.dedup();
    images.into_iter().map(|(_, _, image)| image).take(MAX_IMAGES).collect()
}

/// Returns whether a privileged container of this pod can be root on the node. This is not possible if the pod runs in
/// a virtual machine or a sandbox of a RuntimeClass, in a user namespace, or under a profile of SELinux, AppArmor or
/// seccomp.
fn is_on_the_host(pod: &Pod) -> bool {
    let managed_by = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/managed-by"));
    pod.metadata.deletion_timestamp.is_none()
        && managed_by.is_none_or(|name| name != MANAGED_BY)
        && pod.spec.as_ref().is_some_and(|spec| {
            let context = spec.security_context.as_ref();
            spec.runtime_class_name.is_none()
                && spec.host_users != Some(false)
                && !context.is_some_and(|context| {
                    is_confined(
                        context.se_linux_options.as_ref(),
                        context.app_armor_profile.as_ref(),
                        context.seccomp_profile.as_ref(),
                    )
                })
        })
        && !pod.metadata.annotations.iter().flatten().any(|(name, value)| confines(name, value))
}

/// SELinux type of a privileged container if no type is set.
const UNCONFINED_TYPE: &str = "spc_t";
/// Type of a seccomp or AppArmor profile that is stored in a file on the node. Runtimes apply such a profile even to
/// privileged containers, unlike their default profile.
const LOCALHOST: &str = "Localhost";

/// Returns whether a profile applies to a privileged container.
fn is_confined(
    selinux: Option<&SELinuxOptions>,
    apparmor: Option<&AppArmorProfile>,
    seccomp: Option<&SeccompProfile>,
) -> bool {
    selinux.is_some_and(|options| options.type_.as_deref() != Some(UNCONFINED_TYPE))
        || apparmor.is_some_and(|profile| profile.type_ == LOCALHOST)
        || seccomp.is_some_and(|profile| profile.type_ == LOCALHOST)
}

/// Returns whether an annotation confines the containers of a pod: an AppArmor profile of the node, or any annotation
/// of CRI-O, such as the annotation for user namespaces.
fn confines(name: &str, value: &str) -> bool {
    name.starts_with("io.kubernetes.cri-o.")
        || name.starts_with("container.apparmor.security.beta.kubernetes.io/") && value.starts_with("localhost/")
}

/// Returns the images of the running privileged containers, with their rank.
fn of_pod(pod: &Pod) -> Vec<(usize, bool, String)> {
    let privileged = |container: &&Container| {
        container.security_context.as_ref().is_some_and(|context| {
            let SecurityContext { privileged, se_linux_options, app_armor_profile, seccomp_profile, .. } = context;
            *privileged == Some(true)
                && !is_confined(se_linux_options.as_ref(), app_armor_profile.as_ref(), seccomp_profile.as_ref())
        })
    };
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let running: Vec<_> =
        statuses.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some())).collect();
    let is_system = pod.metadata.namespace.as_deref().is_some_and(|namespace| SYSTEM_NAMESPACES.contains(&namespace));
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .filter(privileged)
        .filter_map(|container| running.iter().find(|status| status.name == container.name))
        .filter_map(|status| {
            let image = ImageReference::of(status.image_id.trim_start_matches("docker-pullable://"))?;
            Some((base_image::rank(&image), !is_system, image.pinned()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::of_pods;

    fn digest(repository: &str) -> String {
        format!("{repository}@sha256:{}", "a".repeat(64))
    }

    /// Returns a pod with one container of this image, changed by `edit`.
    fn pod(image: &str, edit: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "tools"},
            "spec": {"containers": [{"name": "main", "securityContext": {"privileged": true}}]},
            "status": {"containerStatuses": [{"name": "main", "image": "x", "imageID": image, "ready": true, "restartCount": 0,
                "state": {"running": {}}}]},
        });
        edit(&mut pod);
        pod
    }

    fn images(pods: Vec<Value>) -> Vec<String> {
        let pods: Vec<_> = pods.into_iter().map(|pod| serde_json::from_value(pod).expect("a pod")).collect();
        of_pods(&pods)
    }

    #[test]
    fn only_what_is_root_on_the_node_now_is_taken_and_by_its_digest() {
        let image = digest("registry.example/team/agent");
        let taken = |edit: fn(&mut Value)| images(vec![pod(&image, edit)]).len();
        assert_eq!(taken(|_| ()), 1);
        assert_eq!(taken(|pod| pod["spec"]["containers"][0]["securityContext"]["privileged"] = json!(false)), 0);
        assert_eq!(taken(|pod| pod["spec"]["containers"][0]["securityContext"] = Value::Null), 0);
        assert_eq!(taken(|pod| pod["spec"]["hostPID"] = json!(true)), 1);
        assert_eq!(taken(|pod| pod["spec"]["hostUsers"] = json!(false)), 0, "root of a user namespace");
        assert_eq!(taken(|pod| pod["spec"]["runtimeClassName"] = json!("kata")), 0, "root of a virtual machine");
        assert_eq!(taken(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")), 0);
        // The image of a confined container would run unconfined.
        let localhost = || json!({"type": "Localhost", "localhostProfile": "tenant"});
        for (field, value, expected) in [
            ("seLinuxOptions", json!({"type": "container_t"}), 0),
            ("seLinuxOptions", json!({"level": "s0:c1,c2"}), 0),
            ("seLinuxOptions", json!({"type": "spc_t"}), 1),
            ("appArmorProfile", localhost(), 0),
            ("appArmorProfile", json!({"type": "Unconfined"}), 1),
            ("seccompProfile", localhost(), 0),
            ("seccompProfile", json!({"type": "RuntimeDefault"}), 1),
        ] {
            let of_container = |pod: &mut Value| pod["spec"]["containers"][0]["securityContext"][field] = value.clone();
            assert_eq!(images(vec![pod(&image, of_container)]).len(), expected, "container: {field} {value}");
            let of_pod = |pod: &mut Value| pod["spec"]["securityContext"] = json!({field: value.clone()});
            assert_eq!(images(vec![pod(&image, of_pod)]).len(), expected, "pod: {field} {value}");
        }
        for (name, value, expected) in [
            ("io.kubernetes.cri-o.userns-mode", "auto", 0),
            ("container.apparmor.security.beta.kubernetes.io/main", "localhost/tenant", 0),
            ("container.apparmor.security.beta.kubernetes.io/main", "unconfined", 1),
            ("note", "x", 1),
        ] {
            let annotated = pod(&image, |pod| pod["metadata"]["annotations"] = json!({name: value}));
            assert_eq!(images(vec![annotated]).len(), expected, "{name}");
        }
        let ours = json!({"app.kubernetes.io/managed-by": "gpu-syringe"});
        assert_eq!(images(vec![pod(&image, |pod| pod["metadata"]["labels"] = ours)]).len(), 0);
        for state in [json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"terminated": {"exitCode": 1}})] {
            assert_eq!(
                images(vec![pod(&image, |pod| pod["status"]["containerStatuses"][0]["state"] = state)]).len(),
                0
            );
        }
        // The status belongs to another container, or the image has no repository digest.
        assert_eq!(taken(|pod| pod["status"]["containerStatuses"][0]["name"] = json!("sidecar")), 0);
        for id in ["docker.io/library/debian:13", "sha256:ab", "", &format!("sha256:{}", "a".repeat(64))] {
            assert_eq!(images(vec![pod(id, |_| ())]).len(), 0, "{id}");
        }
    }

    #[test]
    fn an_image_that_is_known_to_have_a_shell_comes_first_and_few_are_tried() {
        let of = |repository: &str| pod(&digest(repository), |_| ());
        let system = pod(&digest("registry.example/z"), |pod| pod["metadata"]["namespace"] = json!("kube-system"));
        let all = vec![of("registry.example/a"), of("registry.example/b"), system, of("nvcr.io/nvidia/driver")];
        let expected = ["nvcr.io/nvidia/driver", "registry.example/z", "registry.example/a"].map(digest);
        assert_eq!(images(all), expected);
        assert_eq!(images(vec![of("registry.example/a"), of("registry.example/a")]).len(), 1);
    }
}
