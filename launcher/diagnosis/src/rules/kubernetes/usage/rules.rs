//! The `rules!` table about requested, allocated, used and advertised GPUs: ids, titles, actions, without the checks.

use crate::rule::{NVML_DOC, PLUGIN_DOC, SHARING_DOC, TOOLKIT_DOC, rules};

/// NVIDIA's documentation of the restrictions of an unlicensed vGPU.
const VGPU_DOC: Option<&str> = Some("https://docs.nvidia.com/vgpu/latest/grid-licensing-user-guide/index.html");

rules! {
    UNALLOCATED_USE: "gpu-used-without-allocation" Warning Application TOOLKIT_DOC, "A pod uses a GPU that is not allocated to it",
        Watch "Remove the settings that make all GPUs of {node} visible to the pod (privileged, NVIDIA_VISIBLE_DEVICES \
            in its specification or image), and request GPUs. To prevent this, set \
            accept-nvidia-visible-devices-envvar-when-unprivileged to false in the container toolkit.",
        means "A process of a pod uses a GPU that the kubelet allocated to another pod, or to no pod. Kubernetes does \
            not count this use. The process uses memory and time of the GPU that the other pod should have.",
        reads "processes.processes, kubelet.allocations, kubernetes.gpu_pods", about Workload;
    WITHOUT_GPU: "pod-gpu-not-allocated" Warning Driver PLUGIN_DOC, "A running pod has no GPU, although it requests one",
        RestartPod "Delete the pod, so that the kubelet of {node} allocates devices to the new pod.",
        means "A container that requests GPUs is running, but the kubelet has allocated no device to it: it was \
            started while the device plugin was not registered, for example after a reboot. The container has no GPU.",
        reads "kubelet.allocations, kubelet.registered, kubernetes.gpu_pods", depth 3;
    STALE_ALLOCATIONS: "kubelet-allocations-not-released" Critical Driver PLUGIN_DOC, "The kubelet rejects pods although GPUs are free",
        UpdateSoftware "Restart the kubelet on {node} (systemctl restart kubelet): running pods continue. Then delete the \
            rejected pods.",
        means "The kubelet still has devices allocated to deleted or ended pods, and did not release them when it \
            admitted later pods. It rejects pods that the scheduler sends to the node for these devices.",
        reads "kubelet.allocations, kubernetes.gpu_pods, kubernetes.live_pod_uids", depth 3;
    MARKED_UNHEALTHY: "working-gpu-marked-unhealthy" Warning Driver PLUGIN_DOC, "The device plugin does not advertise a GPU that works",
        UpdateSoftware "Restart the pod of the NVIDIA device plugin on {node}: the plugin marks a GPU as unhealthy \
            after an Xid, and does not mark it as healthy again until it restarts.",
        means "Fewer GPUs are allocatable than the node has. The GPU that is not advertised responds, has no \
            uncorrected memory error, and no other finding requires an action.",
        reads "kubernetes.gpu_capacity, kubernetes.gpu_allocatable, kubelet.registered, telemetry, ecc, xid", about Unavailable, depth 3;
    TAINTED: "dra-device-tainted" Warning Driver PLUGIN_DOC, "A device in a ResourceSlice has a taint",
        Watch "Find who set the taint (the DRA driver taints a device after an Xid or another health event; administrators use a \
            DeviceTaintRule). Remove its cause; new pods get the device when the taint is gone. With the effect NoExecute, pods that use the \
            device are evicted.",
        means "A GPU or MIG device that a DRA driver publishes has a taint: new pods get it only if their claim tolerates the taint.",
        reads "kubernetes.dra_devices", about Unavailable;
    SHARED_MEMORY_FULL: "shared-gpu-memory-full" Warning Application SHARING_DOC, "The memory of a shared GPU is nearly used up",
        FixLimits "Limit the memory of each process on {gpu} of {node}, use fewer replicas, or use MIG or MPS with memory \
            limits: time-slicing does not divide the memory.",
        means "Several pods, or several processes of one pod, share a GPU, and together they use nearly all of its \
            memory. The next memory allocation of any of these pods or processes fails with an out-of-memory error.",
        reads "processes.processes, telemetry.memory, kubelet.allocations, host.daemons", about Workload;
    MATCHING_FAILED: "pods-do-not-match-node" Warning Driver PLUGIN_DOC, "No pod in the API matches the devices and processes of the node",
        Watch "Do not delete pods or stop processes on {node} because of this finding. Run the diagnosis again. If \
            the finding remains, compare /proc/PID/cgroup on {node} with the UIDs of the pods. If the state of the \
            kubelet is stale, restart the kubelet.",
        means "The kubelet has allocated no device to any running pod, and the API lists no pod for any process on \
            the GPUs. Both facts together show that the identities do not match, not that each pod has a fault.",
        reads "processes.processes, kubelet.allocations, kubernetes.gpu_pods, kubernetes.live_pod_uids", about Workload;
    MORE_THAN_EXIST: "more-gpus-requested-than-exist" Warning Driver PLUGIN_DOC, "The pods request more devices than \
        the node has",
        Watch "Find the pod that the scheduler did not place on {node} (nodeName in its specification), or the devices \
            that the node lost. The newest of these pods cannot have all devices that it requests.",
        means "The requests of the pods on the node add up to more devices than the node has. One of the pods has no device, or \
            shares the GPU of another pod.",
        reads "kubernetes.gpu_pods, kubernetes.gpu_capacity, kubelet.registered", about Workload;
    ALLOCATED_TWICE: "gpu-allocated-twice" Warning Driver PLUGIN_DOC, "Two pods have the same GPU, although it is not shared",
        UpdateSoftware "Delete one of the pods in the evidence, then restart the kubelet and the device plugin of {node}. Check that only \
            one device plugin runs there, and that the checkpoint of the kubelet was not copied or restored.",
        means "The kubelet has allocated the same GPU or MIG device to two pods. Time-slicing and MPS, which share GPUs, are \
            not used for this device. Both pods use its memory and time.",
        reads "kubelet.allocations, kubernetes.live_pod_uids", about Workload;
    STAYS_TERMINATING: "pod-stays-terminating" Warning Driver None, "A pod with GPUs still exists long after its deletion",
        Watch "Find out what keeps the pod in the evidence: a finalizer (kubectl get pod -o jsonpath='{.metadata.finalizers}'), a process that \
            waits in the kernel, or a volume that cannot be unmounted (log of the kubelet of {node}). Force the \
            deletion of the pod only when none of its processes is left.",
        means "The grace period of a deleted pod ended more than 30 minutes ago, and the pod still exists. The scheduler counts its GPUs as used, \
            so that other pods wait for them.",
        reads "kubernetes.gpu_pods, processes.processes", about Workload, depth 3;
    UNLICENSED: "vgpu-unlicensed" Critical Driver VGPU_DOC, "The vGPU has no license",
        UpdateSoftware "Check nvidia-gridd on {node} (systemctl status nvidia-gridd), its client token, and its \
            connection to the license server. Without a license, NVIDIA restricts the performance of the vGPU some minutes \
            after its start.",
        means "The GPU is a vGPU whose driver reports its license state, and no enabled feature is licensed. NVIDIA \
            restricts clocks and memory of an unlicensed vGPU after a grace period.",
        reads "inventory.virtualization_mode, inventory.vgpu_license, host.uptime_seconds";
    LICENSE_UNKNOWN: "vgpu-license-unknown" Info Driver NVML_DOC, "The license of a vGPU could not be read",
        Watch "Run nvidia-smi -q on {node}: the output shows the license status under vGPU Software Licensed Product.",
        means "The GPU is a vGPU, but its driver does not report whether it is licensed.",
        reads "inventory.virtualization_mode, inventory.vgpu_license";
}
