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
