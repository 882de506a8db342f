"""Nodes with faults of driver, firmware, processes or configuration, and reports with too few facts."""

from datetime import timedelta

from expected import ALARMS, UNKNOWN, a100, ago, h100, idle, l40s, variant
from generate import use, without_nvml
from node import MIB, Node, failed, problem, uuid
from products import L40S


@variant(
    "GSP firmware of GPU 1 does not answer; a process hangs in the driver.",
    "fatal",
    ("gsp-failed", 1),
    "process-stuck",
    must_not=["gsp-failed-on-several", "class:hardware"],
)
def gsp_timeout():
    node = h100(count=2)
    for second in (0, 6, 12):
        node.xid(
            ago(minutes=8) + timedelta(seconds=second),
            1,
            "119, pid=41211, name=python3, Timeout after 6s of waiting for RPC response from GPU1 GSP! Expected "
            "function 76 (GSP_RM_CONTROL) (0x20801702 0x4).",
        )
    node.node.at(
        ago(minutes=7),
        "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:2a:00 (printing 1 of every 30).  The GPU "
        "likely needs to be reset.",
    )
    node.running[1]["state"] = "D"
    node.build()
    return node.report()


@variant(
    "GSP fails on all GPUs at once: driver, firmware or host.",
    "fatal",
    "gsp-failed-on-several",
    must_not=["class:hardware"],
)
def gsp_timeout_everywhere():
    node = h100(count=2)
    for index in range(2):
        node.xid(
            ago(minutes=8),
            index,
            f"119, pid={41210 + index}, name=python3, Timeout after 6s of waiting for RPC response from "
            f"GPU{index} GSP! "
            "Expected function 76 (GSP_RM_CONTROL) (0x20801702 0x4).",
        )
    return node.report()


@variant(
    "A driver before R565 never says that a GPU was reset: what works, and counts nothing since, has been.",
    "critical",
    {"id": "gsp-failed", "gpu": 0, "severity": "warning", "evidence": ["NVML can read the GPU"]},
    {"id": "ecc-uncontained", "gpu": 1, "severity": "info", "evidence": ["Xid 95", "NVML can read the GPU"]},
    {"id": "ecc-double-bit", "gpu": 2, "severity": "critical", "evidence": ["uncorrected since driver load: 1"]},
    must_not=["gsp-failed-on-several", "severity:fatal"],
)
def old_driver_recovered():
    node = h100(count=3, driver="550.163.01", cuda="12.4")
    node.xid(
        ago(hours=3),
        0,
        "119, pid=40981, name=python3, Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected "
        "function 76 (GSP_RM_CONTROL) (0x20801702 0x4).",
    )
    node.xid(ago(days=2), 1, f"95, {UNKNOWN}, Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No")
    node.xid(ago(hours=3), 2, f"48, {UNKNOWN}, An uncorrectable double bit error (DBE) has been detected on GPU.")
    node.gpu("ecc", 2)["volatile"]["uncorrected"] = 1
    node.gpu("ecc", 2)["aggregate"]["uncorrected"] = 1
    return node.report()


@variant(
    "Persistence mode is off on all four GPUs: one finding.",
    "warning",
    {"id": "persistence-off", "evidence": ["GPUs 0-3"]},
    must_not=["class:hardware"],
)
def persistence_off():
    node = l40s()
    for index in range(4):
        node.gpu("inventory", index)["persistence_mode"] = False
    node.host()["daemons"]["persistenced"] = False
    return node.report()


@variant(
    "Nouveau owns the GPUs.",
    "critical",
    "driver-nouveau",
    must_not=["class:hardware", "driver-not-loaded"],
    health="unhealthy",
)
def nouveau():
    node = Node(
        "gpu-l40s-8", L40S, 2, "580.95.05", "13.0", 9_412, system="Ubuntu 24.04.3 LTS", cpus=("0-31", "32-63")
    )
    node.driver_loaded = False
    why = problem("NVML", "NVML: Driver Not Loaded", "driver_not_loaded", "Load the nvidia kernel module.")
    pci = [gpu | {"driver": "nouveau", "in_nvml": None} for gpu in node.host()["data"]["pci_gpus"]]
    return without_nvml(
        node,
        why,
        [],
        node.kubelet([], []),
        modules=["nouveau"],
        pci_gpus=pci,
        device_nodes=[],
        driver={
            "loaded": None,
            "flavor": None,
            "module_on_disk": None,
            "library": node.driver,
            "library_path": node.library_path(),
        },
    )


@variant(
    "Another driver version waits on disk for the next load.",
    "healthy",
    "driver-update-pending",
    must_not=["driver-version-mismatch"],
)
def driver_update_pending():
    node = l40s(count=2)
    node.host()["driver"]["module_on_disk"] = "570.133.20"
    return node.report()


@variant(
    "A process that belongs to no pod holds GPU memory.",
    "warning",
    "process-outside-kubernetes",
    must_not=["class:hardware"],
    health="degraded",
)
def process_without_pod():
    node = l40s(count=2)
    stray = node.node.process(
        77_120,
        "jupyter-noteboo",
        "/usr/bin/jupyter-notebook",
        902_000,
        [use(1, 9_812 * MIB)],
        None,
        uid=1007,
        user="kim",
    )
    node.sections["processes"] = node.node.processes(node.running + [stray])
    return node.report()


@variant(
    "A pod is gone, its process is not; another one is a zombie; and memory is in use that nobody claims.",
    "warning",
    "process-of-deleted-pod",
    "process-zombie",
    ("memory-unaccounted", 1),
    health="degraded",
    cluster={
        "node": "gpu-l40s-9",
        "gpu_capacity": 2,
        "live_pod_uids": [uuid("gpu-l40s-9", "pod", "job-1"), uuid("gpu-l40s-9", "pod", "dcgm")],
    },
)
def leftovers():
    node = l40s(count=2)
    zombie = node.node.process(77_431, "python3", None, 900_100, [], "job-1", state="Z") | {
        "open_device_files": ["/dev/nvidia1"],
        "parent_pid": 77_400,
    }
    node.sections["processes"] = node.node.processes(node.running + [zombie])
    node.sections["processes"]["data"]["unaccounted_memory"] = [{"gpu": 1, "bytes": 21_474_836_480}]
    return node.report()


@variant(
    "MIG is on without instances on GPU 0; on GPU 1 the mode waits for a reset.",
    "warning",
    ("mig-without-instances", 0),
    ("mig-mode-pending", 1),
    must_not=["class:hardware"],
)
def mig_unfinished():
    node = a100(count=2, load=idle, work=False)
    for index, mode in ((0, {"current": True, "pending": True}), (1, {"current": False, "pending": True})):
        node.gpu("mig", index)["mode"] = mode
        node.gpu("inventory", index)["mig_mode"] = mode
    return node.report()


@variant(
    "A monitor set a node condition, and the device plugin holds one GPU back.",
    "warning",
    "kubernetes-gpu-condition",
    "gpus-not-allocatable",
    must_not=["class:hardware"],
    health="healthy",
    cluster={
        "node": "gpu-l40s-9",
        "gpu_capacity": 2,
        "gpu_allocatable": 1,
        "gpu_conditions": ["GpuMemWatch: GpuMemError, DCGM_FR_VOLATILE_DBE_DETECTED"],
    },
)
def kubernetes_condition():
    return l40s(count=2).report()


@variant(
    "A pod holds a GPU that nobody lists, and the device plugin still offers it.",
    "critical",
    "allocated-gpu-missing",
    "device-plugin-stale",
)
def allocated_gpu_missing():
    node = l40s(count=2)
    ghost = f"GPU-{uuid('gpu-l40s-9', 'ghost')}"
    kubelet = node.sections["kubelet"]["data"]
    kubelet["allocations"][1]["devices"] = [ghost]
    kubelet["registered"][0]["devices"].append(ghost)
    return node.report()


@variant(
    "Different programs fault on GPU 1 only, always at the same TPC: a suspicion, no verdict.",
    "warning",
    {"id": "application-faults-on-one-gpu", "gpu": 1, "severity": "warning", "evidence": ["GPC 3, TPC 2"]},
)
def suspicious_faults():
    node = h100(count=2)
    for place, name in enumerate(["python3", "trtllm", "namd3"]):
        node.xid(
            ago(hours=7 - 2 * place),
            1,
            f"13, pid={81_000 + place}, name={name}, Graphics SM Warp Exception on (GPC 3, TPC 2, SM 1): "
            f"Illegal Address",
        )
    return node.report()


@variant(
    "The kernel log covers only the last eleven minutes only: no all-clear.",
    "unknown",
    "kernel-log-short",
    must_not=ALARMS,
    health="unknown",
    summary=["covers only the last"],
)
def log_too_short():
    node = l40s(count=2)
    node.only_since = ago(minutes=11)
    return node.report()


@variant(
    "ECC could not be read: nothing bad was found, and that proves nothing.",
    "unknown",
    health="unknown",
    must_not=["severity:warning"],
)
def not_readable():
    node = l40s(count=2)
    node.sections["ecc"] = failed(
        problem("ecc", "NVML: Insufficient Permissions", "no_permission", "Run the probe privileged, as root.")
    )
    return node.report()


@variant(
    "A code that the catalogue does not know.",
    "warning",
    {"id": "xid-unknown", "gpu": 0, "severity": "warning"},
    must_not=["class:hardware"],
)
def xid_unknown_code():
    node = l40s(count=2)
    node.xid(ago(minutes=50), 0, f"233, {UNKNOWN}, Something new")
    return node.report()


@variant(
    "The power management unit halted: out of service until a reset.",
    "fatal",
    {"id": "xid-driver", "gpu": 1, "evidence": ["Xid 62"]},
    must_not=["class:hardware"],
)
def pmu_halt():
    node = l40s(count=2)
    node.xid(ago(minutes=50), 1, f"62, {UNKNOWN}, 209c(2c64) 00000000 00000000")
    return node.report()


@variant(
    "A lone context-switch timeout is no hardware verdict.",
    "warning",
    ("context-switch-timeout", 0),
    must_not=["class:hardware"],
)
def context_switch_timeout():
    node = l40s(count=2)
    node.xid(
        ago(minutes=50), 0, "109, pid=41210, name=python3, Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x1c004"
    )
    return node.report()


@variant(
    "Device files are missing on the host; NVML answers all the same.",
    "warning",
    {"id": "device-nodes-missing", "evidence": ["nvidia1"]},
    must_not=["class:hardware"],
    health="degraded",
)
def device_nodes_missing():
    node = l40s(count=2)
    node.host()["device_nodes_missing"] = ["nvidia1", "nvidia-uvm"]
    return node.report()


def beside(node, visible, devices):
    """The probe got the ID of a container: which devices the container can open."""
    node.host()["container"] = {
        "container_id": "c5e1" * 16,
        "pod_uid": uuid("pod", "beside"),
        "visible_devices": visible,
        "devices": [dict(name=name, access=access, **({"stale": True} if stale else {})) for name, access, stale in devices],
    }


@variant(
    "systemd reloaded and took a container's GPUs away: the GPUs, and everybody else's use of them, are fine.",
    "critical",
    {"id": "container-device-denied", "evidence": ["/dev/nvidia1, /dev/nvidiactl", "Unknown Error"]},
    must_not=["class:hardware", "container-device-stale"],
    health="healthy",
)
def container_denied():
    node = l40s(count=2)
    names = ["nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"]
    beside(node, "GPU-1", [(name, "denied", False) for name in names])
    return node.report()


@variant(
    "A container asked for GPUs and runs without NVIDIA's runtime.",
    "critical",
    {"id": "container-without-devices", "evidence": ["NVIDIA_VISIBLE_DEVICES=all"]},
    must_not=["class:hardware"],
    health="healthy",
)
def container_without_devices():
    node = l40s(count=2)
    beside(node, "all", [])
    return node.report()


@variant(
    "The driver was loaded anew below a container: nvidia-uvm has another number now.",
    "critical",
    {"id": "container-device-stale", "evidence": ["/dev/nvidia-uvm"]},
    must_not=["class:hardware", "container-device-denied"],
    health="healthy",
)
def container_stale():
    node = l40s(count=2)
    beside(node, "GPU-0", [("nvidia0", "allowed", False), ("nvidiactl", "allowed", False), ("nvidia-uvm", "denied", True)])
    return node.report()


@variant(
    "The probe looked into a container that has what it was given.",
    "healthy",
    must_not=ALARMS,
)
def container_fine():
    node = l40s(count=2)
    beside(node, "GPU-0", [(name, "allowed", False) for name in ("nvidia0", "nvidiactl", "nvidia-uvm")])
    return node.report()


@variant(
    "NVML stopped on the way: busy, or about to hang.",
    "warning",
    {"id": "nvml-not-answering", "severity": "warning", "evidence": ["ecc: not read within 20 s"]},
    must_not=["class:hardware"],
    health="degraded",
)
def nvml_stops():
    node = l40s(count=2)
    node.sections["ecc"] = failed(problem("ecc", "not read within 20 s", "timeout", "Ask again."))
    return node.report()
