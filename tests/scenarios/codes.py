"""The meaning of single codes and driver messages: severity, ageing, and messages that were not understood."""

from datetime import timedelta

from expected import ALARMS, UNKNOWN, a100, ago, h100, l40s, variant
from gpus import drop

GSP = "Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76 (GSP_RM_CONTROL) (0x20801702 0x4)."


@variant(
    "An NVLink privilege error of an hour ago: NVIDIA says to ignore it.",
    "warning",
    ("nvlink-warning", 0),
    must_not=["nvlink-fault"],
)
def nvlink_privilege_error():
    node = h100(count=2)
    node.xid(ago(hours=1), 0, f"137, {UNKNOWN}, NVLink: privilege error")
    return node.report()


@variant(
    "GSP timed out six days ago; the GPU works, and the driver asks for nothing.",
    "healthy",
    {"id": "gsp-failed", "gpu": 0, "severity": "info", "evidence": ["NVML can read the GPU"]},
    must_not=["severity:warning", "severity:critical", "severity:fatal"],
)
def gsp_timeout_of_last_week():
    node = l40s(count=2)
    node.xid(ago(days=6), 0, f"119, pid=40981, name=python3, {GSP}")
    return node.report()


@variant(
    "A repair of the memory has waited for a reset for six days: a state does not fade.",
    "warning",
    ("xid-hardware", 0),
    must_not=["severity:critical", "severity:fatal"],
)
def repair_waits_for_a_reset():
    node = h100(count=2)
    node.xid(ago(days=6), 0, f"160, {UNKNOWN}, Channel repair recorded, reset to activate")
    return node.report()


@variant(
    "The end of peer-to-peer work (recovery action 3 to 0) is no reset: the error before it is of today.",
    "warning",
    {"id": "ecc-contained", "gpu": 0, "severity": "warning"},
    must_not=["xid-history"],
)
def peer_to_peer_was_drained():
    node = a100(count=2)
    node.xid(ago(hours=6), 0, f"94, {UNKNOWN}, Contained: SM (0x1). RST: No, D-RST: Yes")
    node.xid(ago(hours=6), 0, f"154, {UNKNOWN}, GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)")
    node.xid(ago(hours=2), 0, f"154, {UNKNOWN}, GPU recovery action changed from 0x3 (Drain P2P) to 0x0 (None)")
    return node.report()


@variant(
    "Forty jobs with one program fault on GPU 1; one fault on GPU 0 does not acquit it.",
    "warning",
    {"id": "application-faults-repeat-on-one-gpu", "gpu": 1, "evidence": ["40 processes named 'python3'"]},
    must_not=["application-faults-on-one-gpu"],
)
def forty_jobs_fault_on_one_gpu():
    node = h100(count=2)

    def fault(when, index, pid):
        node.xid(
            when,
            index,
            f"31, pid={pid}, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 "
            f"faulted @ 0x7f29_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
        )

    for job in range(40):
        fault(ago(hours=20) + timedelta(minutes=20 * job), 1, 60_000 + job)
    fault(ago(hours=3), 0, 70_000)
    return node.report()


@variant(
    "The firmware gave GPU 1 no memory region: a setting, no broken GPU.",
    "fatal",
    {"id": "gpu-memory-not-mapped", "evidence": ["BAR"]},
    must_not=["gpu-init-failed", "gpu-missing-from-nvml", "class:hardware"],
)
def bar_not_assigned():
    node = l40s()
    at = node.node.boot + timedelta(seconds=14.5)
    node.node.at(
        at,
        "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:\\x0aNVRM: BAR1 is 0M @ 0x0 "
        "(PCI:0000:38:00.0)",
    )
    node.node.at(at, "nvidia 0000:38:00.0: probe with driver nvidia failed with error -1")
    node.node.at(at, "NVRM: The NVIDIA probe routine failed for 1 device(s).")
    drop(node, 1)
    node.host()["pci_gpus"][1] |= {"driver": None}
    return node.report()


@variant(
    "The open kernel modules do not support the card in the second slot.",
    "fatal",
    {"id": "driver-wrong-kernel-module-type", "evidence": ["needs_proprietary_module"]},
    must_not=["gpu-init-failed", "gpu-not-bound", "class:hardware"],
)
def wrong_module_flavour():
    node = l40s()
    node.node.at(
        node.node.boot + timedelta(seconds=14.5),
        "NVRM: The NVIDIA GPU 0000:38:00.0 (PCI ID: 10de:1db6)\\x0aNVRM: installed in this system is not supported by "
        "open\\x0aNVRM: nvidia.ko because it does not include the required GPU\\x0aNVRM: System Processor (GSP).",
    )
    drop(node, 1)
    node.host()["pci_gpus"][1] |= {"driver": None}
    return node.report()


@variant(
    "Unified memory failed for good: no CUDA program can start.",
    "fatal",
    {"id": "uvm-fatal-error", "evidence": ["nvidia-uvm error"]},
    must_not=["class:hardware"],
)
def uvm_failed():
    node = l40s(count=2)
    node.node.at(
        ago(minutes=40),
        "NVRM: nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.",
    )
    return node.report()


@variant(
    "The kernel says things about NVIDIA that this version does not understand: they are shown, nothing is concluded.",
    "healthy",
    {"id": "kernel-log-lines-not-recognized", "evidence": ["2 of facts file", "a sentence that is new"]},
    must_not=ALARMS + ["severity:warning"],
)
def new_words_of_the_driver():
    node = l40s(count=2)
    node.node.at(ago(minutes=40), "NVRM: a sentence that is new")
    node.node.at(ago(minutes=20), "nvidia: a sentence of the module loader")
    return node.report()


@variant(
    "An Xid in a frame that this version cannot decode: no all-clear.",
    "unknown",
    "kernel-log-lines-not-recognized",
    must_not=ALARMS + ["severity:warning"],
)
def xid_in_a_new_frame():
    node = l40s(count=2)
    node.node.at(ago(minutes=40), "NVRM: Xid (GPU-b6c3b2be): 79, GPU has fallen off the bus.")
    return node.report()


@variant(
    "The kernel left lines out: the count of what was printed meanwhile is a lower bound.",
    "healthy",
    {"id": "application-fault", "gpu": 0, "evidence": ["(at least 1 time)"]},
    "kernel-log-suppressed-lines",
    must_not=ALARMS,
)
def lines_suppressed():
    node = l40s(count=2)
    node.xid(ago(minutes=40), 0, "43, pid=41210, name=python3, Ch 00000008")
    node.node.at(ago(minutes=40) + timedelta(seconds=5), "os_printf: 39 callbacks suppressed")
    return node.report()


@variant(
    "Trouble of the driver's start is over where the GPU works: lines about its BAR and its flavour are no findings.",
    "healthy",
    must_not=["gpu-memory-not-mapped", "driver-wrong-kernel-module-type", "uvm-fatal-error", "kernel-log-lines-not-recognized"],
)
def bar_assigned_later():
    node = l40s(count=2)
    at = node.node.boot + timedelta(seconds=14.5)
    node.node.at(at, "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:38:00.0)")
    node.node.at(at, "nvidia-uvm: Loaded the UVM driver, major device number 511.")
    return node.report()
