//! `fatal_state`: finds out from the status of a pod whether its container can no longer start, and why (`FatalState`).
//! `end_reason`: describes how a container exited. `state_of`: its state. `is_missing_program`: whether the image lacks
//! the program.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use syringe_core::text::clean;

use crate::probe::result::ProbeContainer;
use crate::settings::{ProbeMethod, Settings};
use kube_read::failure::Cause;

/// Next step if somebody other than this launcher deleted the pod.
pub(crate) const BY_OTHERS: &str =
    "Another user or a controller deleted the probe pod: see the audit log of the API server, then try again.";
/// Next step after an error of the container runtime.
const RUNTIME_LOG: &str =
    "The container runtime rejected the container: see the message and the runtime's log on the node.";
/// Exit code after SIGTERM.
const TERMINATED: i32 = 143;

/// A state in which a container will never run.
#[derive(Clone, Debug)]
pub(crate) struct FatalState {
    pub(crate) why: String,
    pub(crate) next_step: String,
    pub(crate) cause: Cause,
}

/// Returns the reason why the container will never run; `None` while it may still start.
pub(crate) fn fatal_state(pod: &Pod, probe_container: &ProbeContainer, settings: &Settings) -> Option<FatalState> {
    let ProbeContainer { container, method, if_missing, .. } = probe_container;
    let fatal = |why, next_step: &str, cause| Some(FatalState { why, next_step: next_step.to_owned(), cause });
    // Another base image may work: this image is for another architecture, or a hook of the runtime rejects it.
    let unfit = || if *method == ProbeMethod::Inject { Cause::Upload } else { Cause::Other };
    if let Some(end) = state_of(pod, container).and_then(|state| state.terminated.as_ref()) {
        let words = end_reason(end);
        if pod.metadata.deletion_timestamp.is_some() {
            return fatal(format!("the pod was deleted; {words}"), BY_OTHERS, Cause::Other);
        }
        let is_missing = is_missing_program(&words);
        let cause = if is_missing || end.reason.as_deref() == Some("StartError") { unfit() } else { Cause::Other };
        let next = match end.exit_code {
            _ if is_missing => if_missing,
            TERMINATED => {
                "The pod was deleted or evicted, or the node is shutting down: see the events of the node. Then try again."
            }
            _ => "Check the kubelet log of the node for this pod.",
        };
        return fatal(words, next, cause);
    }
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        let reason = status.reason.as_deref().unwrap_or("the pod ended");
        let message = clean(status.message.as_deref().unwrap_or_default(), 300);
        return fatal(format!("{reason}: {message}"), after_rejection(reason, settings), Cause::Other);
    }
    let waiting = state_of(pod, container)?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = clean(waiting.message.as_deref().unwrap_or("no message"), 400);
    let (next, cause) = match reason {
        "ErrImageNeverPull" if *method == ProbeMethod::Inject => {
            ("The node no longer has that image: specify another image of the node with --base-image.", Cause::Upload)
        }
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError" => (
            "Use an image that the node can pull (--image, --image-pull-secret, --registry-mirror), or --via inject, which \
                 needs no registry.",
            image_cause(reason, &message, *method),
        ),
        "CreateContainerError" | "RunContainerError" if is_missing_program(&message) => (*if_missing, unfit()),
        "CreateContainerError" | "RunContainerError" => (RUNTIME_LOG, unfit()),
        "CreateContainerConfigError" => (RUNTIME_LOG, Cause::Other),
        _ => return None,
    };
    fatal(format!("{reason}: {message}"), next, cause)
}

/// Returns why a container is waiting for its image, from the message of the registry, the resolver or the runtime.
fn image_cause(reason: &str, message: &str, method: ProbeMethod) -> Cause {
    /// Messages about an image that does not exist, may not be pulled, or is for another platform.
    const FINAL: [&str; 8] = [
        "not found",
        "manifest unknown",
        "denied",
        "unauthorized",
        "authorization failed",
        "403 Forbidden",
        "no such host",
        "no match for platform",
    ];
    let is_final = reason == "InvalidImageName" || FINAL.iter().any(|phrase| message.contains(phrase));
    match (reason, method) {
        ("ErrImageNeverPull", _) => Cause::ImageNotOnNode,
        ("ImageInspectError", _) => Cause::Other,
        (_, ProbeMethod::Inject) if is_final => Cause::Upload,
        (_, ProbeMethod::Inject) => Cause::Other,
        _ if is_final => Cause::ImageUnavailable,
        _ => Cause::ImagePull,
    }
}

/// Describes how a container exited.
pub(crate) fn end_reason(end: &ContainerStateTerminated) -> String {
    let message = end.message.as_deref().map(|message| format!(", {}", clean(message, 400))).unwrap_or_default();
    format!(
        "the container exited: {} (exit code {}){message}",
        end.reason.as_deref().unwrap_or("no reason"),
        end.exit_code
    )
}

/// Returns the state of a container or an ephemeral container.
pub(crate) fn state_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerState> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().chain(&status.ephemeral_container_statuses).flatten();
    let named = |one: &&ContainerStatus| one.name == container;
    all.find(named)?.state.as_ref()
}

fn after_rejection(reason: &str, settings: &Settings) -> &'static str {
    match reason {
        "OutOfpods" if settings.no_ephemeral => {
            "The node has reached its maximum number of pods: delete a pod, or raise maxPods."
        }
        "OutOfpods" => {
            "The node has reached its maximum number of pods: delete a pod, raise maxPods, or use --via ephemeral, which \
                 creates no pod."
        }
        reason if reason.starts_with("OutOf") => {
            "The node has no more of the requested resource: free some of this resource (kubectl describe node), or use --via ephemeral, which \
                 creates no pod."
        }
        "Evicted" => "The node evicts pods: check its conditions DiskPressure, MemoryPressure and PIDPressure.",
        "TaintToleration" => "The probe pod does not tolerate a taint of the node: see --toleration.",
        _ => "Check the kubelet log of the node for this pod.",
    }
}

/// Returns whether the runtime reports that the image does not contain the program.
pub(crate) fn is_missing_program(why: &str) -> bool {
    // The message must mention a program: a hook of the runtime may report other missing files, such as driver
    // libraries.
    let program = why.contains("executable file") && why.contains("not found");
    program || why.contains("exec: \"") && why.contains("no such file or directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the fatal state of a pod that `method` created and whose container is in this state.
    fn state(method: ProbeMethod, phase: &str, is_deleted: bool, state: serde_json::Value) -> Option<FatalState> {
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "deletionTimestamp": is_deleted.then_some("2026-11-21T02:00:00Z")},
            "status": {"phase": phase, "containerStatuses": [{
                "name": "probe", "ready": false, "restartCount": 0, "image": "i", "imageID": "", "state": state
            }]}
        }));
        let container = ProbeContainer {
            namespace: "n".into(),
            pod: "p".into(),
            container: "probe".into(),
            image: "i".into(),
            method,
            if_missing: "",
        };
        let settings = Settings::from_args([]).expect("settings");
        fatal_state(&pod.expect("a pod"), &container, &settings)
    }

    #[test]
    fn a_deleted_pod_is_not_a_fault_of_the_kubelet() {
        let ended = |code: i32, is_deleted| {
            let end = serde_json::json!({"terminated": {"exitCode": code, "reason": "Error"}});
            state(ProbeMethod::Pod, "Failed", is_deleted, end).expect("the container has ended")
        };
        let FatalState { why, next_step: next, .. } = ended(143, true);
        assert!(why.contains("the pod was deleted") && next.contains("Another user"), "{why} {next}");
        assert!(!next.contains("kubelet"), "{next}");
        let FatalState { why, next_step: next, cause } = ended(143, false);
        assert!(why.contains("143") && next.contains("evicted") && !next.contains("kubelet"), "{why} {next}");
        assert_eq!(cause, Cause::Other);
        assert!(ended(1, false).next_step.contains("kubelet"));
    }

    #[test]
    fn only_an_image_that_is_not_there_is_a_reason_for_another_method() {
        let cause = |method, reason: &str, message: &str| {
            let waiting = serde_json::json!({"waiting": {"reason": reason, "message": message}});
            state(method, "Pending", false, waiting).expect("the container cannot start").cause
        };
        for (reason, message) in [
            (
                "ErrImagePull",
                "rpc error: code = NotFound desc = failed to resolve reference \"r/x:1\": r/x:1: not found",
            ),
            ("ImagePullBackOff", "Back-off pulling image \"r/x:1\": ErrImagePull: pull access denied"),
            ("ErrImagePull", "dial tcp: lookup registry.example: no such host"),
            ("InvalidImageName", "couldn't parse image name \"X\""),
        ] {
            assert_eq!(cause(ProbeMethod::Pod, reason, message), Cause::ImageUnavailable, "{message}");
            assert_eq!(cause(ProbeMethod::Inject, reason, message), Cause::Upload, "{message}");
        }
        let absent = "Container image \"r/x:1\" is not present with pull policy of Never";
        assert_eq!(cause(ProbeMethod::Pod, "ErrImageNeverPull", absent), Cause::ImageNotOnNode);
        assert_eq!(cause(ProbeMethod::Inject, "ErrImageNeverPull", absent), Cause::Upload);
        for (reason, message) in [
            ("ErrImagePull", "toomanyrequests: You have reached your pull rate limit"),
            ("ErrImagePull", "unexpected status from HEAD request: 503 Service Unavailable"),
            ("ErrImagePull", "dial tcp 10.0.0.1:443: i/o timeout"),
            ("ErrImagePull", "write /var/lib/containerd/x: no space left on device"),
            ("ImagePullBackOff", "Back-off pulling image \"r/x:1\""),
        ] {
            assert_eq!(cause(ProbeMethod::Pod, reason, message), Cause::ImagePull, "{message}");
        }
        let unfit = "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8";
        assert_eq!(cause(ProbeMethod::Inject, "RunContainerError", unfit), Cause::Upload);
        assert_eq!(cause(ProbeMethod::Pod, "RunContainerError", unfit), Cause::Other);
    }

    #[test]
    fn a_missing_program_differs_from_a_missing_driver() {
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
