//! Messages of container runtimes, NVIDIA hooks, DRA drivers and the kubelet when a container cannot be created, and their
//! meaning.
//!
//! Sources: the messages of containerd, CRI-O, runc, the NVIDIA Container Toolkit, DRA drivers and the kubelet, as public issue
//! reports quote them (docs/reports.md links them). The comparison ignores case. If several phrases match, the first is used:
//! the innermost error comes before the errors that wrap it.

use crate::explanation::causes::start_phrase::{CLAIM_WITHOUT_CDI, Phrase, UNRESOLVED_CDI, cluster, node, program};
use crate::explanation::types::Cause;
use syringe_core::classification::ActionCode;

/// Message of the toolkit if an image requires a newer CUDA version.
pub(crate) const NEEDS_NEWER_CUDA: &str = "unsatisfied condition: cuda";

/// Findings that give the reason why the driver does not work.
const DRIVER: &[&str] = &["driver-", "nouveau", "nvml-"];
/// Findings about the container runtime.
const RUNTIME: &[&str] = &["runtime-handler-", "runtime-binary-", "runtime-config-", "runtime-restarted"];
/// Findings which mean that NVIDIA's hook cannot find a GPU.
const GONE: &[&str] = &[
    "gpu-off-bus",
    "gpu-lost",
    "gpu-missing-from-nvml",
    "gpu-init-failed",
    "gpu-unresponsive",
    "gpu-cannot-be-opened",
];
/// Findings that explain an NVML error: a lost GPU, or the driver.
const NVML: &[&str] =
    &["gpu-off-bus", "gpu-lost", "gpu-unresponsive", "gpu-cannot-be-opened", "gsp-", "driver-", "nvml-"];
/// Findings about CDI specifications.
const CDI: &[&str] = &["cdi-"];

/// Meaning of an error about a missing runtime handler.
const NO_HANDLER: &str = "the container runtime of its node has no handler {it}";
const ADD_HANDLER: &str = "Configure the handler in the container runtime of {node} (with the GPU Operator: is its container-toolkit \
     pod ready, and does it write the file that this runtime reads? else nvidia-ctk runtime configure), then restart the \
     runtime.";

const CDI_UNUSABLE: &str = "the runtime could not use the CDI specification of its node";
const GENERATE_CDI: &str = "Regenerate the CDI specification of {node} (nvidia-ctk cdi generate).";

/// The phrases and their meanings.
pub(crate) static PHRASES: &[Phrase] = &[
    // The toolkit's check of what the image requires.
    node(
        &[NEEDS_NEWER_CUDA],
        "its image needs a newer CUDA version than the driver of its node supports",
        "Use an image for the CUDA version of {node}'s driver, or update that driver.",
    ),
    node(
        &["unsatisfied condition"],
        "its image has a requirement that the GPU or driver of its node does not meet: {it}",
        "Compare NVIDIA_REQUIRE_* of the image with the driver and GPUs of {node}; use another image or node.",
    )
    .naming("unsatisfied condition:", &[';', '\n'], "see the message"),
// Errors of the driver that NVIDIA's hook reports.
    Phrase {
        words: &["driver/library version mismatch"],
        cause: Cause::Node,
        what: "the driver library and the kernel module of its node have different versions",
        names: None,
        code: ActionCode::DrainAndReboot,
        action: "Drain and reboot {node}: the driver was updated while the old module was loaded.",
        findings: DRIVER,
    },
    node(
        &["driver not loaded"],
        "the nvidia driver of its node is not loaded",
        "Load the driver on {node} (with the GPU Operator: is its driver pod ready?).",
    )
    .because_of(DRIVER),
    node(
        &["libnvidia-ml.so", "cannot open shared object"],
        "the driver's libraries were not found on its node",
        "Install the driver on {node}, or set the driver root in the configuration of the container toolkit.",
    )
    .because_of(DRIVER),
    Phrase {
        words: &["gpu is lost"],
        cause: Cause::Gpu,
        what: "a GPU of its node is lost",
        names: None,
        code: ActionCode::DrainAndReboot,
        action: "Drain and reboot {node}; see diagnose_gpu_node for the GPU.",
        findings: GONE,
    },
    node(
        &["nvidia-container-cli", "nvml error"],
        "the driver of its node did not respond to NVIDIA's hook",
        "Run diagnose_gpu_node for {node}: NVML returned an error to the hook.",
    )
    .because_of(NVML),
    node(
        &["driver rpc error"],
        "the driver of its node did not respond to NVIDIA's hook",
        "Run diagnose_gpu_node for {node}.",
    )
    .because_of(DRIVER),
    node(
        &["device error", "unknown device"],
        "the container runtime was asked for a GPU that its node does not have now: {it}",
        "Compare the GPUs of {node} with the devices of its device plugin, and restart the plugin.",
    )
    .naming("device error: ", &[' ', ','], "see the message")
    .because_of(&["gpu-off-bus", "gpu-lost", "gpu-missing-from-nvml", "device-plugin-stale"]),
    // Container device interface (CDI).
    Phrase {
        words: &[CLAIM_WITHOUT_CDI],
        cause: Cause::Node,
        what: "the CDI specification of its claim is not on its node: {it}",
        names: None,
        code: ActionCode::RestartPod,
        action: "Delete the pod, with its claim where the claim is not from a template: the DRA driver writes the specification \
                 of a claim once, and /var/run/cdi is empty after a reboot of {node}. Update the DRA driver.",
        findings: &[],
    }
    .naming("unresolvable cdi devices ", &[' ', ','], "see the message"),
    node(
        &[UNRESOLVED_CDI],
        "the container runtime found no CDI device of the requested name: {it}",
        "Make the device plugin and the CDI specification of {node} use the same device names (device-list strategy, device id strategy), \
         and regenerate the specification (nvidia-ctk cdi generate).",
    )
    .naming("unresolvable cdi devices ", &[' ', ','], "see the message")
    .because_of(CDI),
    node(
        &["empty device edits"],
        "the CDI specification of its node is empty for this device",
        "Regenerate the CDI specification of {node} (nvidia-ctk cdi generate); restart components that cache it, such as \
         the DRA kubelet plugin.",
    )
    .because_of(CDI),
    node(
        &["failed to stat cdi host device"],
        "the CDI specification of its node names a device file that does not exist: {it}",
        "Regenerate the CDI specification of {node} (nvidia-ctk cdi generate); load the kernel module of the device file.",
    )
    .naming("failed to stat cdi host device ", &[':', ' '], "see the message")
    .because_of(CDI),
    node(&["cdi device injection failed"], CDI_UNUSABLE, GENERATE_CDI).because_of(CDI),
    node(&["failed to inject cdi devices"], CDI_UNUSABLE, GENERATE_CDI).because_of(CDI),
    // NVIDIA's hook, in its legacy mode.
    node(
        &["ldcache error"],
        "NVIDIA's hook could not update the container's library cache",
        "Update the container toolkit of {node}, or use its CDI mode, which runs no ldconfig from the host.",
    ),
    node(
        &["failed to add device rules"],
        "NVIDIA's hook could not set the device rules of the container",
        "Update the container toolkit of {node} to a version that supports its cgroup version, or use its CDI mode.",
    ),
    node(
        &["cgroup subsystem devices not found"],
        "NVIDIA's hook does not support the cgroup version of its node",
        "Update the container toolkit of {node} to a version that supports its cgroup version, or use its CDI mode.",
    ),
    program(
        &["mount error", "file exists"],
        "its image contains driver files at paths where NVIDIA's hook mounts those of the node",
        "Remove the driver's libraries (libcuda, libnvidia-*) from the image: the node provides them.",
    ),
    node(
        &["nvidia-container-cli", "mount error"],
        "NVIDIA's hook could not mount the driver's files into the container",
        "Compare the driver files on {node} with the loaded driver, and reinstall missing files.",
    )
    .because_of(DRIVER),
    node(
        &["exec: \"nvidia-container", "executable file not found"],
        "a program of the NVIDIA Container Toolkit is not on its node: {it}",
        "Install the NVIDIA Container Toolkit on {node}, or correct the path in its container runtime's configuration.",
    )
    .naming("exec: \"", &['"'], "see the message")
    .because_of(RUNTIME),
    node(
        &["nvidia-container-runtime", "no such file or directory"],
        "a program of the NVIDIA Container Toolkit is not on its node",
        "Install the NVIDIA Container Toolkit on {node}, or correct the path in its container runtime's configuration.",
    )
    .because_of(RUNTIME),
    // The runtime and its handlers.
    node(&["no runtime for", "is configured"], NO_HANDLER, ADD_HANDLER)
        .naming("no runtime for \"", &['"'], "for its RuntimeClass")
        .because_of(RUNTIME),
    node(&["failed to find runtime handler"], NO_HANDLER, ADD_HANDLER)
        .naming("failed to find runtime handler ", &[' '], "for its RuntimeClass")
        .because_of(RUNTIME),
    node(&["runtimehandler \"", "not supported"], NO_HANDLER, ADD_HANDLER)
        .naming("runtimehandler \"", &['"'], "for its RuntimeClass")
        .because_of(RUNTIME),
    node(
        &["container.runtime.name must be set"],
        "the container runtime's configuration has no runtime_type for the pod's handler",
        "Set runtime_type (io.containerd.runc.v2) for the handler in the containerd configuration of {node}, then restart \
         containerd.",
    )
    .because_of(RUNTIME),
    cluster(
        &["runtimeclass", "not found"],
        "its RuntimeClass does not exist: {it}",
        "Create the RuntimeClass (the GPU Operator does), or correct runtimeClassName in the pod.",
    )
    .naming("runtimeclass.node.k8s.io \"", &['"'], "see the message"),
    // Dynamic resource allocation.
    node(
        &["dra driver", "is not registered"],
        "the DRA driver {it} has not registered with the kubelet of its node",
        "Check that the kubelet plugin of the DRA driver runs on {node} and is Ready: kubectl get pods -A -o wide \
         --field-selector spec.nodeName={node}.",
    )
    .naming("dra driver ", &[' '], "of its claim"),
    cluster(
        &["already allocated to different claim"],
        "a device of its claim is still allocated to another claim, {it}",
        "Find the claim with that UID (kubectl get resourceclaims -A -o yaml) and delete it if its pod is gone; if it \
         does not exist, restart the kubelet plugin of the DRA driver on {node}.",
    )
    .naming("already allocated to different claim ", &[' ', ',', ':'], "see the message"),
    cluster(
        &["not allowed to use resource"],
        "its resource claim is reserved for other pods",
        "Check in the claim's status for which pods it is reserved. Delete the pod, so that it is reserved again.",
    ),
    node(
        &["computedomain", "not ready"],
        "its ComputeDomain is not ready: the IMEX daemons of its nodes have not connected",
        "Check the ComputeDomain's status and the pods of its DaemonSet; the pod on {node} must be Ready.",
    ),
    node(
        &["nodeprepareresources", "deadline exceeded"],
        "the DRA driver did not prepare the devices of its claim in time",
        "Read the log of the DRA driver's kubelet plugin on {node}.",
    ),
// Errors that do not depend on GPUs.
    node(
        &["error gathering device information"],
        "a device file that was allocated to it is not on its node: {it}",
        "Load the kernel modules of the driver on {node} (nvidia-modprobe -u -c 0), and restart the device plugin.",
    )
    .naming("adding custom device \"", &['"'], "see the message")
    .because_of(&["device-node", "driver-"]),
    program(&["oom-killed"], "its memory limit is too low to start it", "Raise the memory limit of the container."),
    program(&["executable file not found"], "its command is not in its image", "Correct the command, or the image."),
    program(
        &["exec:", "no such file or directory"],
        "its command is not in its image",
        "Correct the command, or the image.",
    ),
    program(
        &["exec:", "permission denied"],
        "its command is not executable",
        "Make the file executable in the image.",
    ),
    program(
        &["exec format error"],
        "its image is for another processor architecture",
        "Use an image for the architecture of the node.",
    ),
    node(&["no space left on device"], "a disk of its node is full", "Free disk space on {node}."),
    node(
        &["failed to setup network for sandbox"],
        "the network plugin of its node could not set up its network",
        "Check the network plugin's pods on {node}. This is not a GPU problem.",
    ),
    node(
        &["failed to reserve sandbox name"],
        "an earlier attempt to create its sandbox has not finished in the container runtime",
        "Check the container runtime of {node}: disk, load and log.",
    ),
    cluster(
        &["multi-attach error"],
        "its volume is attached to another node",
        "Delete the pod that uses the volume there, or detach the volume (kubectl get volumeattachments).",
    ),
    program(
        &["mountvolume.setup failed", "not found"],
        "one of its volumes refers to an object that does not exist",
        "Create the object that the message names (Secret, ConfigMap, PersistentVolumeClaim), or correct the pod.",
    ),
];

/// The first phrase that matches.
pub(crate) fn known(message: &str) -> Option<&'static Phrase> {
    let message = message.to_ascii_lowercase();
    PHRASES.iter().find(|phrase| phrase.words.iter().all(|word| message.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::{PHRASES, known};

    #[test]
    fn every_phrase_is_in_lower_case_and_matches_itself() {
        for phrase in PHRASES {
            assert!(phrase.words.iter().all(|word| *word == word.to_ascii_lowercase()), "{:?}", phrase.words);
            let found = known(&phrase.words.join(" … ").to_uppercase()).expect("itself");
            assert!(std::ptr::eq(found, phrase), "{:?} is hidden by {:?}", phrase.words, found.words);
            assert_eq!(phrase.what.contains("{it}"), phrase.names.is_some(), "{}", phrase.what);
            let names = phrase.names.iter().map(|names| names.after);
            assert!(names.into_iter().all(|after| after == after.to_ascii_lowercase()), "{}", phrase.what);
        }
    }

    #[test]
    fn the_meaning_contains_the_name_from_the_message() {
        for (message, named) in [
            ("failed to get sandbox runtime: no runtime for \"nvidia-cdi\" is configured", "no handler nvidia-cdi"),
            ("failed to find runtime handler nvidia from runtime list map[crun:0x1 runc:0x2]", "no handler nvidia"),
            ("RuntimeHandler \"nvidia\" not supported", "no handler nvidia"),
            (
                "failed to inject CDI devices: unresolvable CDI devices management.nvidia.com/gpu=GPU-e78e68c0: unknown",
                "of the requested name: management.nvidia.com/gpu=GPU-e78e68c0",
            ),
            (
                "CDI device injection failed: unresolvable CDI devices k8s.gpu.nvidia.com/claim=0b7a-gpu-0",
                "not on its node: k8s.gpu.nvidia.com/claim=0b7a-gpu-0",
            ),
            (
                "prepare dynamic resources: DRA driver gpu.nvidia.com is not registered",
                "DRA driver gpu.nvidia.com has not",
            ),
            (
                "requested device channel-0 is already allocated to different claim 4914da61-1a20-42b3-bf26-981025df4289",
                "another claim, 4914da61-1a20-42b3-bf26-981025df4289",
            ),
            ("unsatisfied condition: brand=tesla", "does not meet: brand=tesla"),
            ("nvidia-container-cli: device error: GPU-5f1c: unknown device: unknown", "have now: GPU-5f1c"),
        ] {
            let meaning = known(message).map(|phrase| phrase.meaning(message)).unwrap_or_default();
            assert!(meaning.contains(named), "{message}: {meaning}");
        }
        let without = known("no runtime for it is configured").map(|phrase| phrase.meaning("no runtime"));
        assert_eq!(without.as_deref(), Some("the container runtime of its node has no handler for its RuntimeClass"));
    }
}
