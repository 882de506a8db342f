"""Nodes whose GPUs are not used as they were given: requests, allocations of the kubelet, processes and capacity differ.

Each fault has a twin, as alike as possible, in which nothing is wrong.
"""

from datetime import timedelta

from expected import ALARMS, Variant, ago, h100, idle, l40s, variant
from generate import use
from node import MIB, stamp, uuid
from products import A10_VGPU

NODE = "gpu-l40s-9"


def gpu_pod(name, container="main", count=1, phase="Running", age=timedelta(days=10), node=NODE, **more):
    """A pod of the API; `count` GPUs are requested by its container, which has run since `age`."""
    asks = [{"name": container, "requests": {"nvidia.com/gpu": count}, "running_since": stamp(ago(seconds=age.total_seconds()))}]
    return {
        "namespace": "research", "name": name, "uid": uuid(node, "pod", name), "phase": phase,
        "created": stamp(ago(seconds=age.total_seconds() + 5)), "observed": stamp(ago(seconds=age.total_seconds() + 4)),
        "containers": asks if count else [],
    } | more


def cluster(*pods, capacity=4, allocatable=None, node=NODE, gone=(), **more):
    """What Kubernetes says; pods of `gone` do not exist."""
    return {
        "node": node, "gpu_capacity": capacity, "gpu_allocatable": capacity if allocatable is None else allocatable,
        "gpu_label_count": capacity,
        "live_pod_uids": [pod["uid"] for pod in pods if pod["phase"] == "Running" and pod["name"] not in gone],
        "gpu_pods": list(pods),
    } | more


def jobs(count=4):
    return [gpu_pod(f"job-{index}") for index in range(count)] + [
        gpu_pod("dcgm", count=0, is_node_software=True, extra_devices_reason=["its container main is privileged"]),
    ]


def notebook(node, gpu=3):
    """A notebook on a GPU, from a pod of its own."""
    process = node.node.process(77_120, "python3", "/usr/bin/python3 -m ipykernel", 902_000, [use(gpu, 4_812 * MIB)], "notebook")
    node.sections["processes"] = node.node.processes(node.running + [process])
    return node


STRANGER = gpu_pod("notebook", count=0, age=timedelta(hours=40), extra_devices_reason=["its container main is privileged"])


@variant(
    "A privileged pod that asked for no GPU works on the GPU of another pod.",
    "warning",
    {"id": "gpu-used-without-allocation", "evidence": [
        "the kubelet has allocated no GPU to pod research/notebook", "GPU 3, allocated to", "is privileged"]},
    must_not=["process-outside-kubernetes", "class:hardware"],
    cluster=cluster(*jobs(), STRANGER),
    health="healthy",
)
def stranger_on_a_gpu():
    return notebook(l40s()).report()


@variant(
    "The same pod with a share of that GPU: the device plugin gives it out in replicas.",
    "healthy",
    must_not=ALARMS + ["gpu-used-without-allocation"],
    cluster=cluster(*jobs(), STRANGER | {"containers": gpu_pod("notebook")["containers"]}),
)
def neighbour_on_a_shared_gpu():
    node = notebook(l40s())
    node.sections["kubelet"]["data"]["allocations"].append(node.node.allocation("notebook", "main", [3]) | {"replicas": 1})
    return node.report()


@variant(
    "The same pod, which another scheduler placed: its annotations name the GPU, and the kubelet knows nothing of it.",
    "healthy",
    must_not=ALARMS + ["gpu-used-without-allocation"],
    cluster=cluster(*jobs(), STRANGER | {"has_annotated_gpus": True}),
)
def gpu_from_another_scheduler():
    return notebook(l40s()).report()


@variant(
    "After a reboot the kubelet started a pod before the device plugin had registered: it runs without its GPU.",
    "warning",
    {"id": "pod-gpu-not-allocated", "evidence": ["research/job-3 container main requests 1 nvidia.com/gpu",
                                               "allocated no device", "after the boot of the node"]},
    must_not=["class:hardware", "gpu-used-without-allocation"],
    cluster=cluster(*jobs(3), gpu_pod("job-3", age=timedelta(seconds=7_140))),
    health="healthy",
)
def running_pod_without_gpu():
    node = l40s(uptime=7_200)
    held = [node.node.allocation(f"job-{index}", "main", [index]) for index in range(3)]
    node.sections["kubelet"] = node.node.kubelet(held)
    node.sections["processes"] = node.node.processes(node.running[:3])
    return node.report()


@variant(
    "The same pod started 30 seconds ago: the reports need not agree yet.",
    "healthy",
    must_not=ALARMS + ["pod-gpu-not-allocated"],
    cluster=cluster(*jobs(3), gpu_pod("job-3", age=timedelta(seconds=30))),
)
def young_pod_without_gpu():
    node = l40s(uptime=7_200)
    held = [node.node.allocation(f"job-{index}", "main", [index]) for index in range(3)]
    node.sections["kubelet"] = node.node.kubelet(held)
    node.sections["processes"] = node.node.processes(node.running[:3])
    return node.report()


@variant(
    "The same pod got its GPU by a claim that Kubernetes made for the extended resource.",
    "healthy",
    must_not=ALARMS + ["pod-gpu-not-allocated"],
    cluster=cluster(*jobs(3), gpu_pod("job-3", age=timedelta(seconds=7_140), has_claims=True)),
)
def extended_resource_by_claim():
    node = l40s(uptime=7_200)
    held = [node.node.allocation(f"job-{index}", "main", [index]) for index in range(3)]
    claim = node.node.allocation("job-3", "", [], "gpu.nvidia.com", ["gpu-3"]) | {"claim": "job-3-gpu"}
    node.sections["kubelet"] = node.node.kubelet(held + [claim])
    return node.report()


def refused(name, **age):
    said = "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1, Available: 0, " \
           "which is unexpected"
    return gpu_pod(name, phase="Failed", age=timedelta(**age), reason="UnexpectedAdmissionError", message=said, containers=[])


def allocated_to_deleted_pods():
    """Two of four GPUs are allocated to deleted pods."""
    node = l40s()
    node.sections["processes"] = node.node.processes(node.running[:2])
    return node.report()


@variant(
    "The kubelet has two GPUs allocated to deleted pods, and refuses every pod that is sent to the node.",
    "critical",
    {"id": "kubelet-allocations-not-released", "evidence": ["2 devices allocated to pods that do not exist", "Requested: 1, Available: 0"]},
    must_not=["allocation-stale", "class:hardware", "gpus-not-allocatable"],
    cluster=cluster(*jobs(2), refused("retry-0", hours=2), refused("retry-1", minutes=40)),
    health="healthy",
)
def kubelet_allocations_not_released():
    return allocated_to_deleted_pods()


@variant(
    "One refusal: the pods may have ended after it, and the kubelet frees their GPUs at the next admission.",
    "healthy",
    "allocation-stale",
    must_not=ALARMS + ["kubelet-allocations-not-released"],
    cluster=cluster(*jobs(2), refused("retry-0", hours=2)),
)
def allocations_of_ended_pods():
    return allocated_to_deleted_pods()


@variant(
    "Two refusals of a boot two days ago; the pods that hold the two GPUs have ended a moment ago.",
    "healthy",
    "allocation-stale",
    must_not=ALARMS + ["kubelet-allocations-not-released"],
    cluster=cluster(*jobs(2), refused("retry-0", hours=48), refused("retry-1", hours=47)),
)
def refusals_of_another_day():
    return allocated_to_deleted_pods()


def one_withheld(when):
    """GPU 2 had an Xid, works, and is not among the devices that the plugin offers."""
    node = h100(load=idle, work=False)
    node.xid(when, 2, "109, pid=38117, name=python3, Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x1c009")
    offered = [gpu["uuid"] for gpu in node.node.gpus if gpu["index"] != 2]
    node.sections["kubelet"] = node.node.kubelet([], [{"resource": "nvidia.com/gpu", "devices": offered}])
    return node.report()


def plugin_since(**age):
    return [{
        "namespace": "gpu-operator", "name": "nvidia-device-plugin-daemonset-x7k2p", "component": "device_plugin",
        "phase": "Running", "ready": True,
        "containers": [{"name": "nvidia-device-plugin", "ready": True,
                        "state": {"kind": "running", "since": stamp(ago(**age))}}],
    }]


@variant(
    "The device plugin has withheld a GPU since an Xid of three days ago, and the GPU works.",
    "warning",
    {"id": "working-gpu-marked-unhealthy", "gpu": 2, "evidence": [
        "capacity 4, allocatable 3", "Xid 109", "nvidia-device-plugin-daemonset-x7k2p"]},
    must_not=["gpus-not-allocatable", "class:hardware"],
    cluster=cluster(allocatable=3, node="gpu-h100-9", nvidia_pods=plugin_since(days=9)),
    health="healthy",
)
def plugin_withholds_a_working_gpu():
    return one_withheld(ago(days=3))


@variant(
    "The plugin was started again after that Xid: it withholds the GPU for another reason, which its log has.",
    "warning",
    "gpus-not-allocatable",
    must_not=["working-gpu-marked-unhealthy", "class:hardware"],
    cluster=cluster(allocatable=3, node="gpu-h100-9", nvidia_pods=plugin_since(hours=5)),
    health="healthy",
)
def restarted_plugin_withholds_a_gpu():
    return one_withheld(ago(days=3))


def two_services(second_mib):
    """Two services on GPU 0, which is given out in four replicas."""
    node = l40s(count=1, load=lambda index: idle(index) | {"used": (33_000 + second_mib + 523) / 46_068})
    processes = [
        node.node.process(41_210, "python3", "python3 -m vllm.entrypoints.api_server", 4_180, [use(0, 33_000 * MIB)], "chat"),
        node.node.process(41_377, "python3", "python3 serve.py", 88_000, [use(0, second_mib * MIB)], "embed"),
    ]
    node.sections["processes"] = node.node.processes(processes)
    held = [node.node.allocation(name, "main", [0]) | {"replicas": 1} for name in ("chat", "embed")]
    node.sections["kubelet"] = node.node.kubelet(held)
    return node.report()


SERVICES = cluster(gpu_pod("chat"), gpu_pod("embed"), gpu_pod("dcgm", count=0, is_node_software=True), capacity=1)


@variant(
    "Two services on one time-sliced GPU, whose memory is used up.",
    "warning",
    {"id": "shared-gpu-memory-full", "gpu": 0, "evidence": ["pod research/chat uses 32.2 GiB", "pod research/embed uses", "time-slicing"]},
    must_not=["class:hardware", "memory-unaccounted"],
    cluster=SERVICES,
    health="healthy",
)
def time_sliced_gpu_is_full():
    return two_services(11_900)


@variant(
    "The same services with room left.",
    "healthy",
    must_not=ALARMS + ["shared-gpu-memory-full"],
    cluster=SERVICES,
)
def time_sliced_gpu_with_room():
    return two_services(7_000)


def workers(started):
    """Five processes of one pod fill GPU 0; `started` are seconds after boot."""
    node = l40s(count=1, load=lambda index: idle(index) | {"used": (5 * 8_900 + 523) / 46_068})
    processes = [
        node.node.process(50_000 + place, "python3", "python3 serve.py", when, [use(0, 8_900 * MIB)], "job-0")
        for place, when in enumerate(started)
    ]
    node.sections["processes"] = node.node.processes(processes)
    return node.report()


@variant(
    "Five processes of one pod that were started over days fill its GPU: left behind, or many workers.",
    "healthy",
    {"id": "shared-gpu-memory-full", "gpu": 0, "severity": "info", "evidence": ["research/job-0 has 5 processes on it"]},
    must_not=ALARMS,
    cluster=cluster(*jobs(1), capacity=1),
)
def old_processes_of_one_pod():
    return workers([4_180, 90_100, 180_400, 260_000, 700_000])


@variant(
    "Five workers that were started together fill the GPU of their pod: that is their work.",
    "healthy",
    must_not=ALARMS + ["shared-gpu-memory-full"],
    cluster=cluster(*jobs(1), capacity=1),
)
def workers_of_one_server():
    return workers([4_180, 4_181, 4_183, 4_183, 4_190])


def vgpu(licensed, uptime=86_400):
    node = Variant("gpu-a10-9", A10_VGPU, 1, lambda _: {"gpu": 3, "memory": 1, "used": 0.1, "watts": 62, "degrees": 41, "mhz": 1695},
                   driver="550.144.06", cuda="12.4", cpus=("0-35",), virtual=True, uptime=uptime)
    entry = node.gpu("inventory", 0)
    entry["virtualization_mode"] = "vgpu"
    info = "Unlicensed (Unrestricted)" if not licensed else "Licensed"
    entry["vgpu_license"] = {"features": [{
        "name": "rtx", "product": "NVIDIA RTX Virtual Workstation", "enabled": True, "licensed": licensed, "info": info}]}
    return node.report()


@variant(
    "A vGPU that found no license: its performance is restricted some minutes after the start.",
    "critical",
    {"id": "vgpu-unlicensed", "gpu": 0, "evidence": ["NVIDIA RTX Virtual Workstation: not licensed"]},
    must_not=["class:hardware"],
)
def vgpu_unlicensed():
    return vgpu(licensed=False)


@variant("The same vGPU with a license.", "healthy", must_not=ALARMS + ["vgpu-unlicensed", "vgpu-license-unknown"])
def vgpu_licensed():
    return vgpu(licensed=True)


@variant("The same vGPU five minutes after the boot: the license may come.", "healthy", must_not=ALARMS + ["vgpu-unlicensed"])
def vgpu_just_booted():
    return vgpu(licensed=False, uptime=300)
