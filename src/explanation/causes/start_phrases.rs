//! What container runtimes, their NVIDIA hooks and the kubelet write when a container cannot be made, and what it means.
//!
//! Sources: the messages of containerd, runc, the NVIDIA Container Toolkit, the DRA manager and the kubelet, as public issue
//! reports quote them. The words are compared without regard to case; of several that fit the first counts, so the innermost
//! reason stands before the frame that repeats it.

use crate::diagnosis::ActionCode;
use crate::explanation::Cause;

/// One phrase.
pub(super) struct Phrase {
    /// All of these must be in the message, in lower case.
    pub(super) words: &'static [&'static str],
    /// Where the cause lies.
    pub(super) cause: Cause,
    /// What it means.
    pub(super) what: &'static str,
    /// What kind of action helps.
    pub(super) code: ActionCode,
    /// What to do; `{node}` is the node.
    pub(super) action: &'static str,
}

const fn node(words: &'static [&'static str], what: &'static str, action: &'static str) -> Phrase {
    Phrase { words, cause: Cause::Node, what, code: ActionCode::UpdateSoftware, action }
}

const fn program(words: &'static [&'static str], what: &'static str, action: &'static str) -> Phrase {
    Phrase { words, cause: Cause::Application, what, code: ActionCode::None, action }
}

/// Words of the toolkit's check of an image's requirements.
pub(super) const NEEDS_NEWER_CUDA: &str = "unsatisfied condition: cuda";

/// The table.
pub(super) const PHRASES: &[Phrase] = &[
    node(
        &[NEEDS_NEWER_CUDA],
        "its image needs a newer CUDA version than the driver of its node supports",
        "Use an image for the CUDA version of {node}'s driver, or update that driver.",
    ),
    node(
        &["unsatisfied condition"],
        "its image has a requirement that the GPU or driver of its node does not meet",
        "Compare NVIDIA_REQUIRE_* of the image with the driver and GPUs of {node}; use another image or node.",
    ),
    Phrase {
        words: &["driver/library version mismatch"],
        cause: Cause::Node,
        what: "driver library and kernel module of its node differ",
        code: ActionCode::DrainAndReboot,
        action: "Drain and reboot {node}: the driver was updated under the loaded one.",
    },
    node(
        &["driver not loaded"],
        "the nvidia driver of its node is not loaded",
        "Load the driver on {node} (with the GPU Operator: is its driver pod ready?).",
    ),
    node(
        &["libnvidia-ml.so", "cannot open shared object"],
        "the driver's libraries were not found on its node",
        "Install the driver on {node}, or tell the container toolkit where its root is.",
    ),
    node(
        &["unresolvable cdi devices"],
        "the runtime knows no CDI device of the name that the device plugin gave",
        "Make device plugin and CDI specification of {node} name devices alike (device-list strategy, device id strategy), \
         and generate the specification anew.",
    ),
    node(
        &["empty device edits"],
        "the CDI specification of its node is empty for this device",
        "Generate the CDI specification of {node} anew (nvidia-ctk cdi generate); restart what keeps a copy of it, such as \
         the DRA kubelet plugin.",
    ),
    node(
        &["ldcache error"],
        "NVIDIA's hook could not update the container's library cache",
        "Update the container toolkit of {node}, or use its CDI mode, which runs no ldconfig from the host.",
    ),
    node(
        &["failed to add device rules"],
        "NVIDIA's hook could not allow the container its devices",
        "Update the container toolkit of {node} to one that knows its cgroup version, or use its CDI mode.",
    ),
    node(
        &["no runtime for", "is configured"],
        "the container runtime of its node has no handler for the pod's RuntimeClass",
        "Let the container toolkit configure the runtime of {node} (is its pod ready? does it write the file that this \
         runtime reads?), then restart the runtime.",
    ),
    node(
        &["container.runtime.name must be set"],
        "the container runtime's configuration lacks the type of the pod's handler",
        "Give the nvidia handler in the containerd configuration of {node} its runtime_type, then restart containerd.",
    ),
    node(
        &["dra driver", "is not registered"],
        "the kubelet plugin of its DRA driver is not registered on its node",
        "See whether the driver's kubelet plugin runs on {node}.",
    ),
    Phrase {
        words: &["already allocated to different claim"],
        cause: Cause::Cluster,
        what: "another claim still holds a device of its claim",
        code: ActionCode::Watch,
        action: "Find the claim that holds the device, and delete it if its pod is gone.",
    },
    node(
        &["unknown device"],
        "the runtime was given a GPU that its node does not have now",
        "Compare the GPUs of {node} with what its device plugin offers, and restart the plugin.",
    ),
    program(&["oom-killed"], "its memory limit is too low to start it", "Raise the memory limit of the container."),
    program(&["executable file not found"], "its command is not in its image", "Correct the command, or the image."),
    program(
        &["exec:", "no such file or directory"],
        "its command is not in its image",
        "Correct the command, or the image.",
    ),
    program(
        &["exec:", "permission denied"],
        "its command may not be executed",
        "Make the file executable in the image.",
    ),
    program(
        &["exec format error"],
        "its image is for another processor architecture",
        "Use an image for the architecture of the node.",
    ),
    Phrase {
        words: &["no space left on device"],
        cause: Cause::Node,
        what: "a disk of its node is full",
        code: ActionCode::Watch,
        action: "Free disk space on {node}.",
    },
];

/// The first that fits.
pub(super) fn known(message: &str) -> Option<&'static Phrase> {
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
            assert!(found.what == phrase.what, "{:?} is hidden by {:?}", phrase.words, found.words);
        }
    }
}
