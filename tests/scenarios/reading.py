"""Values that the probe could not read, impossible values, and values that only threads show."""

from datetime import timedelta

from expected import ALARMS, ago, h100, variant
from node import problem


def waiting_thread(process, tid, name, waits_in, checked=143):
    """Adds a process with one thread in state D; the main thread sleeps."""
    process["threads"] = {
        "checked": checked,
        "not_checked": 0,
        "uninterruptible": 1,
        "examples": [{"tid": tid, "name": name, "waits_in": waits_in}],
    }


@variant(
    "A CUDA thread hangs in the driver while the first thread of its process sleeps.",
    "critical",
    {"id": "process-stuck", "gpu": 1, "evidence": ["pid 41211", "thread 41390 'cuda-EvtHandlr' in state D"]},
    must_not=["process-uninterruptible", "class:hardware"],
)
def stuck_worker_thread():
    node = h100(count=2)
    waiting_thread(node.running[1], 41390, "cuda-EvtHandlr", "os_acquire_rwlock_write")
    node.node.at(ago(minutes=9), "INFO: task cuda-EvtHandlr:41390 blocked for more than 120 seconds.")
    node.build()
    return node.report()


@variant(
    "GSP of GPU 1 does not answer; only a worker thread shows that its process hangs.",
    "fatal",
    {"id": "gsp-failed", "gpu": 1, "evidence": ["uninterruptible processes: pid 41211"]},
    {"id": "process-stuck", "gpu": 1, "evidence": ["thread 41390"]},
    must_not=["process-uninterruptible"],
)
def stuck_worker_thread_after_gsp_timeout():
    node = h100(count=2)
    waiting_thread(node.running[1], 41390, "python3", "rwsem_down_write_slowpath")
    for second in (0, 6):
        node.xid(
            ago(minutes=8) + timedelta(seconds=second),
            1,
            "119, pid=41211, name=python3, Timeout after 6s of waiting for RPC response from GPU1 GSP! Expected "
            "function 76 (GSP_RM_CONTROL) (0x20801702 0x4).",
        )
    node.build()
    return node.report()


@variant(
    "A process was killed: its first thread is a zombie, another one still hangs in the driver.",
    "critical",
    {"id": "process-stuck", "evidence": ["thread 41390"]},
    must_not=["process-zombie"],
)
def killed_with_a_stuck_thread():
    node = h100(count=2)
    node.running[1] |= {"state": "Z", "command": None, "parent_pid": 40990}
    waiting_thread(node.running[1], 41390, "cuda-EvtHandlr", "os_acquire_rwlock_write")
    node.node.at(ago(minutes=9), "INFO: task cuda-EvtHandlr:41390 blocked for more than 120 seconds.")
    node.build()
    return node.report()


@variant(
    "A data loader's thread waits for a disk: no fault by itself.",
    "healthy",
    "process-uninterruptible",
    must_not=["process-stuck", "severity:warning", *ALARMS],
)
def thread_waits_for_a_disk():
    node = h100(count=2)
    waiting_thread(node.running[1], 41402, "pt_data_worker", "folio_wait_bit_common")
    node.build()
    return node.report()


def refused(node, section, index, function, *fields):
    """An NVML function returns 999 (NVML_ERROR_UNKNOWN) for one GPU."""
    part = node.sections[section]
    part["data"]["unread"] = [{"gpus": [index], "fields": list(fields)}]
    what = f"{', '.join(fields)} ({function})"
    next_step = "Look at the kernel log (xid section) for what the driver says about this GPU."
    part |= {"status": "partial", "problems": [problem(what, "NVML: Unknown Error", "unknown", next_step, index)]}


@variant(
    "NVML refuses the error counters of GPU 1: nothing is known of its errors.",
    "unknown",
    must_not=["severity:warning", *ALARMS],
)
def counters_refused():
    node = h100(count=2)
    refused(node, "ecc", 1, "nvmlDeviceGetMemoryErrorCounter", "volatile.locations", "aggregate.locations")
    refused(node, "telemetry", 1, "nvmlDeviceGetViolationStatus", "throttling.violations")
    refused(node, "topology", 1, "nvmlDeviceGetNvLinkErrorCounter", "nvlinks.errors")
    return node.report()


@variant(
    "A driver that gives the limits of a Hopper in T.Limit alone.",
    "healthy",
    must_not=["severity:warning", *ALARMS],
)
def limits_in_tlimit_alone():
    node = h100(count=2)
    limits = [f"temperature.{limit}_celsius" for limit in ("slowdown", "shutdown", "gpu_max", "memory_max")]
    for index in range(2):
        now = node.gpu("telemetry", index)["temperature"]
        now |= dict.fromkeys((limit.split(".")[1] for limit in limits), None)
        now["margin_to_slowdown_celsius"] = now["tlimit_margin_celsius"] + 2
    data = node.sections["telemetry"]["data"]
    own = data.get("unsupported", [{"gpus": [0, 1], "fields": []}])
    data["unsupported"] = [entry | {"fields": [*entry["fields"], *limits]} for entry in own]
    return node.report()


DRIVER_HANGS = (
    "The driver hangs on this GPU, or is very slow. Check for Xid 79, Xid 119 and processes in state D. If it happens again, "
    "reboot the node."
)


def part_of(node, section):
    """The data of a section that could be read in part."""
    part = node.sections[section]
    part["status"] = "partial"
    part.setdefault("problems", [])
    return part["data"], part["problems"]


def hung(node, index, function, first, kept, identified=True):
    """A call on one GPU did not return while section `first` was read; its entry there has the values `kept`."""
    order = ["ecc", "telemetry", "inventory", "topology", "mig"]
    names = ("index", "uuid", "pci_address") if identified else ()
    for place, section in enumerate(order):
        if place < order.index(first):
            continue
        data, problems = part_of(node, section)
        keep = (*names, *(kept if section == first else ()))
        entry = {key: value for key, value in node.gpu(section, index).items() if key in keep}
        gpus = [gpu if gpu["index"] != index else entry for gpu in data["gpus"]]
        data["gpus"] = [gpu for gpu in gpus if gpu]
        if section != "mig":
            who = {"uuid": entry["uuid"], "pci_address": entry.get("pci_address")} if identified else {}
            data["lost"] = [{"index": index, **who, "code": "timeout"}]
        why = f"NVML did not return from {function} within 7.3 s"
        problems.append(problem(f"GPU {index}", why, "timeout", DRIVER_HANGS, index))


@variant(
    "A call on GPU 1 does not return while its error counters are read; a row remap of GPU 2 is pending.",
    "critical",
    {"id": "gpu-unresponsive", "gpu": 1, "evidence": ["nvmlDeviceGetSramEccErrorStatus"]},
    ("row-remap-pending", 2),
    more=True,
    must_not=["nvml-not-answering", "gpu-missing-from-nvml", "gpu-off-bus", "severity:fatal"],
    summary=["3 of 4"],
)
def gpu_hangs_in_one_call():
    node = h100(count=4)
    node.gpu("ecc", 2)["remapped_rows"] |= {"pending": True, "uncorrectable": 1}
    hung(node, 1, "nvmlDeviceGetSramEccErrorStatus", "ecc", ("mode", "volatile", "aggregate"))
    return node.report()


@variant(
    "NVML does not return the handle of GPU 1: neither its UUID nor its address is known from NVML.",
    "critical",
    {"id": "gpu-unresponsive", "gpu": 1, "evidence": ["nvmlDeviceGetHandleByIndex_v2"]},
    more=True,
    must_not=["nvml-not-answering", "gpu-missing-from-nvml", "class:hardware", "severity:fatal"],
    summary=["3 of 4"],
)
def gpu_hangs_when_it_is_opened():
    node = h100(count=4)
    hung(node, 1, "nvmlDeviceGetHandleByIndex_v2", "ecc", (), identified=False)
    return node.report()


@variant(
    "NVML answers slowly: the time was over before the connections of the last GPUs. That is no fault of a GPU.",
    "unknown",
    must_not=["gpu-unresponsive", "nvml-not-answering", "severity:warning", *ALARMS],
)
def nvml_slow():
    node = h100(count=4)
    data, problems = part_of(node, "topology")
    late = ["fabric", "nvlinks.remote_pci_address", "pcie_replays"]
    for index in (2, 3):
        gpu = node.gpu("topology", index)
        gpu |= {"fabric": None, "pcie_replays": None}
        gpu["nvlinks"] = [group | {"remote_pci_address": None} for group in gpu["nvlinks"]]
        what = f"{', '.join(late)} (nvmlDeviceGetNvLinkRemotePciInfo_v2, nvmlDeviceGetGpuFabricInfoV and 1 more)"
        why = "not read in time: NVML answers slowly"
        problems.append(problem(what, why, "not_reached", "Try again; NVML is slow or waits for another GPU.", index))
    data["unread"] = [{"gpus": [2, 3], "fields": late}]
    return node.report()
