//! The rules of the NVIDIA stack in Kubernetes, and what decides whether they apply.

use super::super::node::Node;
use super::super::rules::{OPERATOR_DOC, PLUGIN_DOC, TOOLKIT_ISSUE, rules};

rules! {
    BROKEN_DRIVER: "stack-broken-at-driver" Critical Driver OPERATOR_DOC, "The driver pod does not start",
        UpdateSoftware "Read the log of the driver pod on {node}: nothing of NVIDIA's stack starts before it.";
    BROKEN_TOOLKIT: "stack-broken-at-toolkit" Critical Driver OPERATOR_DOC, "The container toolkit's pod does not start",
        UpdateSoftware "Read the log of the container toolkit's pod on {node}: the device plugin waits for it.";
    BROKEN_VALIDATOR: "stack-broken-at-validator" Critical Driver OPERATOR_DOC,
        "The GPU Operator's validation does not succeed",
        UpdateSoftware "Read the log of the validation on {node}: what comes after it waits for its success.";
    BROKEN_PLUGIN: "stack-broken-at-plugin" Critical Driver PLUGIN_DOC, "The device plugin does not offer the GPUs",
        UpdateSoftware "Read the log of the device plugin's pod on {node}.";
    NOT_DEPLOYED: "stack-not-deployed" Fatal Driver OPERATOR_DOC, "NVIDIA's stack is not deployed on the node",
        UpdateSoftware "Let node feature discovery label {node} again: is its worker running there (kubectl get pods -A \
            --field-selector spec.nodeName={node}), and does it report PCI devices by vendor (sources.pci, \
            deviceLabelFields)? The GPU Operator deploys nothing without the label.";
    TWO_PLUGINS: "two-device-plugins" Warning Driver PLUGIN_DOC, "Two device plugins serve the same GPUs",
        UpdateSoftware "Keep one device plugin on {node}: the kubelet uses the one that registered last, and both give out the \
            same GPUs. Remove the DaemonSet from this node (its nodeSelector or affinity), or turn the built-in one off.";
    MIG_WEDGED: "mig-manager-wedged" Critical Driver OPERATOR_DOC, "The MIG manager did not finish",
        UpdateSoftware "Drain the GPU pods from {node}, then let the MIG manager try again: kubectl label node {node} \
            nvidia.com/mig.config=LAYOUT --overwrite. If gpu.deploy labels stay paused, set them to true.";
    UPGRADE_STUCK: "driver-upgrade-stuck" Warning Driver OPERATOR_DOC, "An upgrade of the driver does not go on",
        UpdateSoftware "End what holds the GPUs of {node} (or let the operator do it: driver.upgradePolicy.gpuPodDeletion and \
            drain), then delete the driver pod there.";
    INOTIFY: "inotify-limit-reached" Critical Driver PLUGIN_DOC, "No inotify instance is left",
        UpdateSoftware "Raise the limit on {node}: sysctl -w fs.inotify.max_user_instances=8192 (and in /etc/sysctl.d), then \
            delete the device plugin's pod.";
    RUNTIME_RESTARTED: "runtime-restarted" Warning Driver TOOLKIT_ISSUE,
        "The container toolkit restarts the container runtime again and again",
        UpdateSoftware "Find out why the toolkit's pod on {node} restarts: each start of it writes the runtime's configuration \
            and restarts the runtime under the running pods.";
}

/// Findings of the driver family that say why there is no driver. The more specific ones take the place of the first two.
pub(super) const DRIVER_RULES: [&str; 13] = [
    "driver-not-loaded",
    "driver-not-found",
    "driver-version-mismatch",
    "nvml-library-missing",
    "nvml-access-blocked",
    "nvml-not-answering",
    "nvml-failed",
    "driver-nouveau",
    "driver-wrong-flavour",
    "driver-refused-by-secure-boot",
    "driver-refused-by-selinux",
    "driver-not-built-for-kernel",
    "gpu-init-failed",
];

/// Whether the finding says why containers get no GPU from the container runtime.
pub(super) fn is_runtime_rule(id: &str) -> bool {
    id != RUNTIME_RESTARTED.id && (id.starts_with("runtime-") || id.starts_with("cdi-"))
}

/// Whether every GPU is bound to vfio-pci: it belongs to virtual machines, and no driver of the host.
pub(super) fn is_passed_through(node: &Node<'_>) -> bool {
    node.host().is_some_and(|host| {
        !host.pci_gpus.is_empty() && host.pci_gpus.iter().all(|gpu| gpu.driver.as_deref() == Some("vfio-pci"))
    })
}

/// Whether pods can get GPUs of this node in any way.
pub(super) fn is_offered(node: &Node<'_>) -> bool {
    let cluster = node.cluster;
    let plain = cluster.gpu_capacity.is_some_and(|count| count > 0) && cluster.gpu_allocatable != Some(0);
    plain || cluster.other_gpu_resources || cluster.gpu_dra == Some(true)
}
