//! The `rules!` table about NVIDIA's stack: ids, severities, titles and actions, without the checks.

use crate::rule::{MIG_DOC, OPERATOR_DOC, PLUGIN_DOC, TOOLKIT_ISSUE, rules};

rules! {
    BROKEN_DRIVER: "stack-broken-at-driver" Critical Driver OPERATOR_DOC, "The driver pod does not start",
        UpdateSoftware "Read the log of the driver pod on {node}: no other component of NVIDIA's stack starts before the driver.",
        means "The driver pod of the GPU Operator does not become ready. The toolkit and the device plugin wait for the driver, so the \
            node advertises no GPU.",
        reads "kubernetes.nvidia_pods, host.stack_log, kubernetes.gpu_capacity", depth 2;
    BROKEN_TOOLKIT: "stack-broken-at-toolkit" Critical Driver OPERATOR_DOC, "The container toolkit's pod does not start",
        UpdateSoftware "Read the log of the container toolkit's pod on {node}: the device plugin waits for the toolkit.",
        means "The pod that configures the container runtime does not become ready. The device plugin waits for this pod.",
        reads "kubernetes.nvidia_pods, host.stack_log, kubernetes.gpu_capacity", depth 2;
    BROKEN_VALIDATOR: "stack-broken-at-validator" Critical Driver OPERATOR_DOC,
        "The GPU Operator's validation does not succeed",
        UpdateSoftware "Read the log of the validation on {node}: later components wait until the validation succeeds.",
        means "A validation container of the GPU Operator does not succeed. The components after it wait, although the \
            component that it checks may work.",
        reads "kubernetes.nvidia_pods, host.stack_log, kubernetes.gpu_capacity", depth 2;
    BROKEN_PLUGIN: "stack-broken-at-plugin" Critical Driver PLUGIN_DOC, "The device plugin does not advertise the GPUs",
        UpdateSoftware "Read the log of the device plugin's pod on {node}.",
        means "The device plugin or the kubelet plugin of the DRA driver fails, or runs without effect: the node has \
            working GPUs that no pod can get.",
        reads "kubernetes.nvidia_pods, host.stack_log, kubernetes.gpu_capacity, kubernetes.gpu_dra, inventory.gpus", depth 2;
    BROKEN_DRA: "stack-broken-at-dra-driver" Critical Driver PLUGIN_DOC, "The pod of the DRA driver does not work",
        UpdateSoftware "Read the log of the DRA driver's pod on {node}.",
        means "A container of NVIDIA's DRA driver fails. Its ResourceSlices remain, so pods with claims are still scheduled to the node, \
            but their claims (GPUs, compute domains) are not prepared there.",
        reads "kubernetes.nvidia_pods, host.stack_log, kubernetes.gpu_dra", depth 2;
    NO_MIG_DEVICES: "stack-without-mig-devices" Critical Driver MIG_DOC, "MIG is on, but no GPU has a MIG device to advertise",
        UpdateSoftware "Create the MIG devices of {node}: set the label nvidia.com/mig.config to a layout (MIG manager), or run \
            nvidia-smi mig -cgi, or disable MIG. The device plugin works, but has nothing to offer.",
        means "MIG is on for every GPU of the node, and no MIG device exists. The device plugin therefore advertises nothing.",
        reads "mig.mode, mig.devices, kubernetes.labels, kubernetes.gpu_capacity";
    NOT_DEPLOYED: "stack-not-deployed" Fatal Driver OPERATOR_DOC, "NVIDIA's stack is not deployed on the node",
        UpdateSoftware "Let node feature discovery label {node} again. Check that its worker is running there \
            (kubectl get pods -A --field-selector spec.nodeName={node}), and that the worker reports PCI devices by \
            vendor (sources.pci, deviceLabelFields). The GPU Operator deploys nothing without the label.",
        means "The node has NVIDIA GPUs and, unlike other nodes, no label of node feature discovery for them. The GPU \
            Operator deploys nothing there.",
        reads "host.pci_gpus, kubernetes.labels, kubernetes.pci_label_elsewhere, kubernetes.nvidia_pods";
    PLUGIN_UNFIT: "device-plugin-does-not-fit" Warning Driver PLUGIN_DOC, "No DaemonSet of a device plugin matches the node",
        UpdateSoftware "Give {node} what the DaemonSet of the device plugin requires (its label, or a toleration for its taint), or change nodeSelector, affinity or tolerations of the DaemonSet.",
        means "GPUs respond but are not advertised, and the DaemonSets of device plugins and DRA drivers do not select \
            the node: the evidence shows the first requirement that the node does not meet.",
        reads "kubernetes.daemon_sets, kubernetes.nvidia_pods, inventory.gpus", about Unavailable;
    TWO_PLUGINS: "two-device-plugins" Warning Driver PLUGIN_DOC, "Two device plugins serve the same GPUs",
        UpdateSoftware "Keep only one device plugin on {node}. The kubelet uses the plugin that registered last, but \
            both plugins allocate the same GPUs. Remove the DaemonSet from this node (its nodeSelector or affinity), \
            or turn the built-in plugin off.",
        means "Two device plugins register the same GPUs with the kubelet. The kubelet uses the plugin that \
            registered last. Two pods can get the same GPU, or pods fail to start.",
        reads "kubernetes.nvidia_pods, kubernetes.os_image, host.nvidia_stack";
    MIG_MANAGER_STUCK: "mig-manager-stuck" Critical Driver OPERATOR_DOC, "The MIG manager did not finish",
        UpdateSoftware "Drain the GPU pods from {node}, then delete the pod of the MIG manager there: it applies the layout LAYOUT again when it \
            starts. A label nvidia.com/mig.config that is set to its present value again changes nothing. If gpu.deploy labels stay paused, set \
            them to true.",
        means "A change of the MIG layout failed or does not finish. The MIG manager stopped the device plugin for the change, and \
            did not start it again.",
        reads "kubernetes.labels, kubernetes.nvidia_pods, host.stack_log";
    UPGRADE_STUCK: "driver-upgrade-stuck" Warning Driver OPERATOR_DOC, "An upgrade of the driver does not finish",
        UpdateSoftware "Stop the processes that use the GPUs of {node} (or let the operator do it: \
            driver.upgradePolicy.gpuPodDeletion and drain), then delete the driver pod there.",
        means "The operator has been upgrading the driver of the node for an hour or more without finishing, usually \
            because processes are still using the GPUs.",
        reads "kubernetes.labels, kubernetes.nvidia_pods, processes.processes, host.driver, host.stack_log";
    UPGRADE_WAITS: "driver-upgrade-waits" Info Driver OPERATOR_DOC, "The upgrade of the driver waits for jobs, as configured",
        None "No action: the operator upgrades the driver of {node} when the jobs there have ended \
            (driver.upgradePolicy.waitForCompletion). End the jobs earlier only if the upgrade is urgent.",
        means "The operator waits until the jobs on the node have ended before it upgrades the driver, as its configuration specifies. \
            Nothing is stuck.",
        reads "kubernetes.labels, kubernetes.nvidia_pods, processes.processes";
    DRA_UNREGISTERED: "dra-driver-not-registered" Warning Driver PLUGIN_DOC, "A DRA driver is running, but its socket \
        for the kubelet is missing",
        RestartPod "Delete the pod of the DRA driver in the evidence, so that it registers with the kubelet of {node} again: claims of its driver \
            cannot be prepared there.",
        means "The pod of NVIDIA's DRA driver is Ready. But the socket with which one of its drivers (gpu.nvidia.com, \
            compute-domain.nvidia.com) registers is not in the folder of the kubelet, although the sockets of other \
            drivers are there.",
        reads "kubernetes.nvidia_pods, host.nvidia_stack.registry_sockets";
    INOTIFY: "inotify-limit-reached" Critical Driver PLUGIN_DOC, "No inotify instance is left",
        UpdateSoftware "Raise the limit on {node}: sysctl -w fs.inotify.max_user_instances=8192 (and in \
            /etc/sysctl.d), then delete the device plugin's pod.",
        means "Processes of root use all inotify instances of the node. A device plugin that starts now fails with \
            \"too many open files\".",
        reads "host.nvidia_stack, kubernetes.gpu_capacity";
    RUNTIME_RESTARTED: "runtime-restarted" Warning Driver TOOLKIT_ISSUE,
        "The container toolkit restarts the container runtime repeatedly",
        UpdateSoftware "Find out why the toolkit's pod on {node} restarts: at each start, the pod writes the \
            runtime's configuration and restarts the runtime while other pods are running.",
        means "The container toolkit's pod restarts often, and restarts the container runtime at each start. Pods of \
            the node may hang or fail then.",
        reads "host.container_runtime, kubernetes.nvidia_pods";
}
