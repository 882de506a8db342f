//! Reads the state of a container, and decides whether waiting for it is useless.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use syringe_core::text::clean;

use super::types::ProbeContainer;
use crate::settings::{ProbeMethod, Settings};

/// Why the container will not run, and the next step; `None` while it may still start.
pub(super) fn fatal_reason(
    pod: &Pod,
    probe_container: &ProbeContainer,
    settings: &Settings,
) -> Option<(String, String)> {
    if let Some(end) = state_of(pod, &probe_container.container).and_then(|state| state.terminated.as_ref()) {
        let reason = end_reason(end);
        let next = if is_missing_program(&reason) {
            probe_container.if_missing
        } else {
            "Check the kubelet log of the node for this pod."
        };
        return Some((reason, next.into()));
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
        "ErrImageNeverPull" if settings.via == ProbeMethod::Inject => {
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
    use super::is_missing_program;

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
