//! Reads the state of a container, and decides whether waiting for it is useless.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use syringe_core::text::clean;

use super::types::ProbeContainer;
use crate::settings::{ProbeMethod, Settings};
use kube_read::failure::RejectionReason;

/// Next step if the pod is not ours any more.
pub(super) const BY_OTHERS: &str =
    "Another user or a controller deleted the probe pod: the audit log of the API server names it. Then try again.";
/// Exit code after SIGTERM.
const TERMINATED: i32 = 143;

/// Why the container will not run, and the next step; `None` while it may still start.
pub(super) fn fatal_reason(
    pod: &Pod,
    probe_container: &ProbeContainer,
    settings: &Settings,
) -> Option<(String, String)> {
    if let Some(end) = state_of(pod, &probe_container.container).and_then(|state| state.terminated.as_ref()) {
        let words = end_reason(end);
        if pod.metadata.deletion_timestamp.is_some() {
            return Some((format!("the pod was deleted; {words}"), BY_OTHERS.into()));
        }
        let next = match end.exit_code {
            _ if is_missing_program(&words) => probe_container.if_missing,
            TERMINATED => {
                "The pod was deleted or evicted, or the node shuts down: see the events of the node. Then try again."
            }
            _ => "Check the kubelet log of the node for this pod.",
        };
        return Some((words, next.into()));
    }
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        let reason = status.reason.as_deref().unwrap_or("the pod ended");
        let message = clean(status.message.as_deref().unwrap_or_default(), 300);
        return Some((format!("{reason}: {message}"), after_rejection(reason, settings)));
    }
    let waiting = state_of(pod, &probe_container.container)?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = clean(waiting.message.as_deref().unwrap_or("no message"), 400);
    let next = match reason {
        "ErrImageNeverPull" if probe_container.method == ProbeMethod::Inject => {
            "The node no longer has that image: name another image of the node with --base-image."
        }
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError" => {
            "Use an image that the node can pull (--image, --image-pull-secret, --registry-mirror), or --via inject, which \
                 needs no registry."
        }
        "CreateContainerError" | "RunContainerError" if is_missing_program(&message) => probe_container.if_missing,
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            "The container runtime rejected the container: see the message and the runtime's log on the node."
        }
        _ => return None,
    };
    Some((format!("{reason}: {message}"), next.into()))
}

/// Whether the reason is a failed image pull, which every node would have.
pub(super) fn is_image_pull_failure(why: &str) -> bool {
    ["ErrImagePull:", "ImagePullBackOff:", "InvalidImageName:"].iter().any(|reason| why.starts_with(reason))
}

/// Why the method does not work on this node, if it is for the image. A registry that is busy or does not answer is no such
/// reason, and neither is a pull whose cause is not known.
pub(super) fn image_obstacle(why: &str, method: ProbeMethod) -> Option<RejectionReason> {
    /// Of registries, resolvers and runtimes, when the image is not there or not for this node.
    const FINAL: [&str; 9] = [
        "not found",
        "manifest unknown",
        "denied",
        "unauthorized",
        "authorization failed",
        "403 Forbidden",
        "no such host",
        "no match for platform",
        "InvalidImageName:",
    ];
    let is_final = is_image_pull_failure(why) && FINAL.iter().any(|phrase| why.contains(phrase));
    let is_absent = is_final || why.starts_with("ErrImageNeverPull:");
    match method {
        ProbeMethod::Inject => {
            // An image for another architecture, or one whose variables a hook of the runtime refuses.
            let cannot_start = ["CreateContainerError:", "RunContainerError:", "the container ended: StartError"];
            let is_unfit = cannot_start.iter().any(|reason| why.starts_with(reason)) || is_missing_program(why);
            (is_absent || is_unfit).then_some(RejectionReason::Upload)
        }
        _ => is_absent.then_some(RejectionReason::Image),
    }
}

/// Describes how a container ended.
pub(super) fn end_reason(end: &ContainerStateTerminated) -> String {
    let message = end.message.as_deref().map(|message| format!(", {}", clean(message, 400))).unwrap_or_default();
    format!(
        "the container ended: {} (exit code {}){message}",
        end.reason.as_deref().unwrap_or("no reason"),
        end.exit_code
    )
}

/// The state of a container, ephemeral ones included.
pub(super) fn state_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerState> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().chain(&status.ephemeral_container_statuses).flatten();
    let named = |one: &&ContainerStatus| one.name == container;
    all.find(named)?.state.as_ref()
}

fn after_rejection(reason: &str, settings: &Settings) -> String {
    match reason {
        "OutOfpods" if settings.no_ephemeral => {
            "The node has reached its maximum number of pods: delete a pod, or raise maxPods.".into()
        }
        "OutOfpods" => {
            "The node has reached its maximum number of pods: delete a pod, raise maxPods, or use --via ephemeral, which \
                 creates no pod."
                .into()
        }
        reason if reason.starts_with("OutOf") => {
            "The node has no more of that resource: free some (kubectl describe node), or use --via ephemeral, which \
                 creates no pod."
                .into()
        }
        "Evicted" => "The node evicts pods: check its conditions DiskPressure, MemoryPressure and PIDPressure.".into(),
        "TaintToleration" => "The probe pod does not tolerate a taint of the node: see --toleration.".into(),
        _ => "Check the kubelet log of the node for this pod.".into(),
    }
}

/// Whether the message of the runtime is about a program that the image does not contain.
pub(super) fn is_missing_program(why: &str) -> bool {
    // A hook of the runtime may also miss a file: the libraries of the driver.
    let program = why.contains("executable file") && why.contains("not found");
    program || why.contains("exec: \"") && why.contains("no such file or directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod whose container ended with this exit code.
    fn ended(code: i32, deleted: bool) -> (String, String) {
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "deletionTimestamp": deleted.then_some("2026-11-21T02:00:00Z")},
            "status": {"phase": "Failed", "containerStatuses": [{
                "name": "probe", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
                "state": {"terminated": {"exitCode": code, "reason": "Error"}}
            }]}
        }));
        let container = ProbeContainer {
            namespace: "n".into(),
            pod: "p".into(),
            container: "probe".into(),
            image: "i".into(),
            method: ProbeMethod::Pod,
            if_missing: "",
        };
        let settings = Settings::from_args([]).expect("settings");
        fatal_reason(&pod.expect("a pod"), &container, &settings).expect("a reason")
    }

    #[test]
    fn a_pod_that_was_deleted_is_no_fault_of_the_kubelet() {
        let (why, next) = ended(143, true);
        assert!(why.contains("the pod was deleted") && next.contains("Another user"), "{why} {next}");
        assert!(!next.contains("kubelet"), "{next}");
        let (why, next) = ended(143, false);
        assert!(why.contains("143") && next.contains("evicted") && !next.contains("kubelet"), "{why} {next}");
        assert!(ended(1, false).1.contains("kubelet"));
    }

    #[test]
    fn only_an_image_that_is_not_there_is_a_reason_for_another_method() {
        let of_pod = |why: &str| image_obstacle(why, ProbeMethod::Pod);
        for why in [
            "ErrImagePull: rpc error: code = NotFound desc = failed to resolve reference \"r/x:1\": r/x:1: not found",
            "ImagePullBackOff: Back-off pulling image \"r/x:1\": ErrImagePull: pull access denied",
            "ErrImagePull: dial tcp: lookup registry.example: no such host",
            "ErrImageNeverPull: Container image \"r/x:1\" is not present with pull policy of Never",
        ] {
            assert_eq!(of_pod(why), Some(RejectionReason::Image), "{why}");
        }
        for why in [
            "ErrImagePull: toomanyrequests: You have reached your pull rate limit",
            "ErrImagePull: unexpected status from HEAD request: 503 Service Unavailable",
            "ErrImagePull: dial tcp 10.0.0.1:443: i/o timeout",
            "ErrImagePull: write /var/lib/containerd/x: no space left on device",
            "ImagePullBackOff: Back-off pulling image \"r/x:1\"",
            "OutOfpods: no room",
            "the container ended: Error (exit code 1)",
        ] {
            assert_eq!(of_pod(why), None, "{why}");
        }
        let unfit = "RunContainerError: nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8";
        assert_eq!(image_obstacle(unfit, ProbeMethod::Inject), Some(RejectionReason::Upload));
        assert_eq!(of_pod(unfit), None);
    }

    #[test]
    fn a_missing_program_is_told_from_a_missing_driver() {
        for message in [
            "exec: \"node-probe\": executable file not found in $PATH",
            "exec: \"/usr/bin/node-probe\": stat /usr/bin/node-probe: no such file or directory",
            "crun: executable file `node-probe` not found in $PATH: No such file or directory",
        ] {
            assert!(is_missing_program(message), "{message}");
        }
        let hook = "error running prestart hook #0: exit status 1: nvidia-container-cli: initialization error: load library \
                    failed: libnvidia-ml.so.1: cannot open shared object file: no such file or directory";
        assert!(!is_missing_program(hook));
    }
}
