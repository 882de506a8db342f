"""Nodes with missing GPUs, or with faulty GPU memory."""

import json
from datetime import timedelta

import generate
from expected import ALARMS, UNKNOWN, a100, ago, h100, l40s, t4, variant
from node import MIB, failed, problem, uuid


@variant(
    "NVML lost GPU 2; the kernel log is silent.",
    "fatal",
    {"id": "gpu-lost", "gpu": 2, "severity": "fatal"},
    must_not=["gpu-missing-from-nvml"],
    cluster={"node": "gpu-h100-9", "gpu_capacity": 4},
)
def gpu_lost():
    node = h100()
    node.node.lost = {2}
    node.build()
    node.host()["pci_gpus"][2] |= {"answers": True}
    return node.report()


@variant(
    "The driver could not initialise GPU 1.",
    "fatal",
    {"id": "gpu-init-failed", "evidence": ["RmInitAdapter failed", "NVML lists 3 GPUs, PCI lists 4"]},
    must_not=["gpu-off-bus"],
)
def init_failed():
    node = l40s()
    node.node.at(
        ago(days=12) + timedelta(seconds=61), "NVRM: GPU 0000:38:00.0: RmInitAdapter failed! (0x62:0x40:2568)"
    )
    node.node.at(
        ago(days=12) + timedelta(seconds=61), "NVRM: GPU 0000:38:00.0: rm_init_adapter failed, device minor number 1"
    )
    drop(node, 1)
    return node.report()


def drop(node, index):
    """Removes the GPU from NVML but not from PCI."""
    for section in ("inventory", "telemetry", "topology", "ecc", "mig"):
        gpus = node.sections[section]["data"]["gpus"]
        gpus[:] = [gpu for gpu in gpus if gpu["index"] != index]
        if section != "mig":
            row = {"pci_address": node.node.gpus[index]["pci_address"], "code": "not_in_nvml"}
            node.sections[section]["data"]["lost"] = [row]
        for gpu in gpus:
            gpu["index"] -= gpu["index"] > index
    node.running = [process for process in node.running if process["uses"][0]["gpu"] != index]
    for process in node.running:
        process["uses"][0]["gpu"] -= process["uses"][0]["gpu"] > index
    node.sections["processes"] = node.node.processes(node.running)
    node.sections["kubelet"] = node.node.kubelet([])
    registered = node.sections["kubelet"]["data"]["registered"][0]["devices"]
    registered.remove(node.node.gpus[index]["uuid"])
    node.host()["pci_gpus"][index]["in_nvml"] = False


@variant(
    "GPU 1 was off the bus when the driver probed it: the driver says so before it says that it is loading.",
    "fatal",
    {"id": "gpu-off-bus", "evidence": ["fallen off the bus", "NVML lists 3 GPUs, PCI lists 4"]},
    must_not=["xid-history"],
)
def off_bus_at_probe():
    node = l40s()
    at = node.node.boot + timedelta(seconds=14.5)
    node.node.at(
        at,
        "NVRM: The NVIDIA GPU 0000:38:00.0\\x0aNVRM: (PCI ID: 10de:26b9) installed in this system has\\x0a"
        "NVRM: fallen off the bus and is not responding to commands.",
    )
    node.node.at(at, "NVRM: The NVIDIA probe routine failed for 1 device(s).")
    drop(node, 1)
    node.host()["pci_gpus"][1] |= {"driver": None}
    # NVML can miss only a GPU that is bound to the nvidia driver.
    for section in ("inventory", "telemetry", "topology", "ecc"):
        del node.sections[section]["data"]["lost"]
    return node.report()


@variant(
    "GPU 2 is on PCI, not in NVML, and nobody says why.",
    "fatal",
    "gpu-missing-from-nvml",
    must_not=["gpu-init-failed"],
)
def missing_from_nvml():
    node = l40s()
    drop(node, 2)
    return node.report()


@variant(
    "Neither PCI nor NVML shows a GPU, and Kubernetes knows of eight.",
    "fatal",
    {"id": "no-gpus-found", "evidence": ["capacity: 8"]},
    must_not=["not-a-gpu-node"],
    cluster={"node": "gpu-h100-4", "gpu_capacity": 8, "gpu_allocatable": 0, "gpu_label_count": 8},
    more=True,
    health="unknown",
)
def all_gpus_gone():
    return generate.SCENARIOS["no-gpu"]()


@variant(
    "Kubernetes counted four GPUs, PCI and NVML show three.",
    "critical",
    {"id": "gpu-count-low", "evidence": ["capacity: 4"]},
    cluster={"node": "gpu-l40s-9", "gpu_capacity": 4, "gpu_allocatable": 4},
    health="healthy",
)
def gpu_gone_from_pci():
    node = l40s(count=3)
    return node.report()


@variant(
    "Calls to GPU 1 do not return.",
    "critical",
    ("gpu-unresponsive", 1),
    must_not=["nvml-not-answering", "gpu-cannot-be-opened"],
)
def gpu_hangs():
    node = l40s(count=2)
    why = problem("GPU 1", "NVML: Timeout", "timeout", "Look at the kernel log.", 1)
    for section in ("telemetry", "ecc"):
        part = node.sections[section]
        part["data"]["gpus"] = [gpu for gpu in part["data"]["gpus"] if gpu["index"] != 1]
        part |= {"status": "partial", "problems": [why]}
    return node.report()


@variant(
    "NVML counts GPU 1 and cannot open it: its error has no name.",
    "critical",
    ("gpu-cannot-be-opened", 1),
    must_not=["class:hardware", "nvml-failed"],
)
def gpu_cannot_be_opened():
    node = l40s(count=2)
    why = problem("GPU 1", "NVML: Unknown Error", "unknown", "Look at the kernel log.", 1)
    for section in ("inventory", "telemetry", "topology", "ecc", "mig"):
        part = node.sections[section]
        part["data"]["gpus"] = [gpu for gpu in part["data"]["gpus"] if gpu["index"] != 1]
        part |= {"status": "partial", "problems": [why]}
    return node.report()


@variant("NVML blocks as a whole.", "critical", "nvml-not-answering", must_not=["class:hardware"], health="unhealthy")
def nvml_blocks():
    node = l40s(count=2)
    for section in ("inventory", "telemetry", "topology", "ecc", "mig"):
        node.sections[section] = failed(
            problem(section, "not read within 20 s: NVML does not answer", "timeout", "Look at the kernel log.")
        )
    for gpu in node.host()["pci_gpus"]:
        gpu["in_nvml"] = None
    return node.report()


@variant(
    "NVML is slow on a node whose GPUs nobody keeps awake: it may be the first initialization, no reason to reboot.",
    "warning",
    {"id": "nvml-not-answering", "severity": "warning", "evidence": ["first initialization"]},
    must_not=["class:hardware", "severity:critical"],
    health="degraded",
)
def nvml_wakes_up():
    node = l40s(count=2, work=False)
    for section in ("inventory", "telemetry", "topology", "ecc", "mig"):
        node.sections[section] = failed(
            problem(section, "NVML did not answer within 8.0 s; it is still inside nvmlInit_v2", "timeout", "Ask again.")
        )
    node.sections["processes"]["data"]["processes"] = []
    node.host()["daemons"] |= {"persistenced": False, "dcgm": False}
    for gpu in node.host()["pci_gpus"]:
        gpu["in_nvml"] = None
    return node.report()


@variant(
    "A remap failed: no spare row left.",
    "fatal",
    {"id": "row-remap-failed", "gpu": 0, "severity": "fatal"},
    ("row-remap-spares-used", 0),
    must_not=["row-remap-not-recorded"],
)
def remap_failed():
    node = a100(count=2)
    node.gpu("ecc", 0)["remapped_rows"] |= {
        "uncorrectable": 9,
        "failure_occurred": True,
        "histogram": {"max": 631, "high": 5, "partial": 2, "low": 1, "none": 1},
    }
    node.xid(ago(hours=3), 0, f"64, {UNKNOWN}, Row Remapper: Error: all reserved rows for bank 3 are remapped")
    return node.report()


@variant(
    "An uncontained error: no new work before a reset.",
    "fatal",
    {"id": "ecc-uncontained", "gpu": 1, "severity": "fatal", "evidence": ["Xid 95", "Xid 45 (2)"]},
    must_not=["application-fault", "ecc-double-bit"],
)
def ecc_uncontained():
    node = h100(count=2)
    when = ago(minutes=21)
    node.xid(when, 1, f"48, {UNKNOWN}, An uncorrectable double bit error (DBE) has been detected on GPU in the SRAM.")
    node.xid(when, 1, f"95, {UNKNOWN}, Uncontained: LTC TAG (0x2,0x0). physAddr: 0x3f80 RST: Yes, D-RST: No")
    node.xid(when, 1, f"154, {UNKNOWN}, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset)")
    for channel in range(2):
        node.xid(when + timedelta(seconds=1), 1, f"45, pid=41211, name=python3, Ch {8 + channel:08x}")
    node.gpu("ecc", 1)["volatile"] = {
        "corrected": 0,
        "uncorrected": 1,
        "locations": [{"location": "sram", "corrected": 0, "uncorrected": 1}],
    }
    node.gpu("ecc", 1)["recovery_action"] = "gpu_reset"
    return node.report()


@variant("Too many SRAM errors in the board's life.", "fatal", {"id": "sram-threshold-exceeded", "gpu": 1})
def sram_threshold():
    node = h100(count=2)
    node.gpu("ecc", 1)["sram"] |= {"threshold_exceeded": True, "aggregate_uncorrected_parity": 11, "bucket_sm": 11}
    return node.report()


@variant(
    "A T4 at NVIDIA's limit of retired pages, one of them waiting.",
    "fatal",
    ("retired-pages-limit", 0),
    ("retired-pages-pending", 0),
)
def retired_pages():
    node = t4()
    node.gpu("ecc", 0)["retired_pages"] = {"single_bit": 47, "double_bit": 14, "pending": True}
    return node.report()


@variant("ECC was switched off on data-centre GPUs.", "warning", "ecc-disabled", must_not=ALARMS[1:])
def ecc_off():
    node = a100(count=2)
    for section, field in (("inventory", "ecc_mode"), ("ecc", "mode")):
        node.gpu(section, 0)[field] = {"current": False, "pending": False}
    return node.report()


@variant("The InfoROM of GPU 0 is corrupted.", "critical", ("inforom-corrupted", 0))
def inforom_corrupted():
    node = l40s(count=2)
    node.gpu("ecc", 0)["inforom_valid"] = False
    return node.report()


@variant(
    "The driver asks for a reboot and logs nothing else.",
    "fatal",
    {"id": "recovery-node-reboot", "gpu": 1, "evidence": ["recovery action: node reboot"]},
)
def driver_wants_reboot():
    node = h100(count=2)
    node.gpu("ecc", 1)["recovery_action"] = "node_reboot"
    return node.report()


@variant(
    "The same Xid 79 in the boot before: resets do not cure this GPU.",
    "fatal",
    ("gpu-off-bus", 1),
    "xid-recurring",
    "xid-history",
)
def off_bus_again():
    node = h100(count=2)
    node.node.lost = {1}
    node.running.pop()
    node.build()
    node.xid(ago(minutes=40), 1, f"79, {UNKNOWN}, GPU has fallen off the bus.")
    stamp = int(ago(days=14).timestamp() * 1_000_000)
    node.earlier.append(
        json.dumps(
            {
                "__REALTIME_TIMESTAMP": str(stamp),
                "_BOOT_ID": "0e" * 16,
                "_TRANSPORT": "kernel",
                "SYSLOG_FACILITY": "0",
                "PRIORITY": "3",
                "SYSLOG_IDENTIFIER": "kernel",
                "MESSAGE": "NVRM: Xid (PCI:0000:2a:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off "
                "the bus.",
            }
        )
    )
    return node.report()


@variant(
    "Uncorrected errors were counted since driver load, and the log shows no Xid for them.",
    "warning",
    {"id": "ecc-uncorrected", "gpu": 1, "severity": "warning", "evidence": ["since driver load: 2 (2 sram)"]},
)
def ecc_counted_without_xid():
    node = h100(count=2)
    place = {"location": "sram", "corrected": 0, "uncorrected": 2}
    node.gpu("ecc", 1)["volatile"] = {"corrected": 0, "uncorrected": 2, "locations": [place]}
    node.gpu("ecc", 1)["aggregate"] = {"corrected": 0, "uncorrected": 2, "locations": [place]}
    return node.report()


@variant("NVML says that GPU 0 needs a reset.", "critical", ("gpu-reset-required", 0))
def reset_required():
    node = a100(count=2)
    part = node.sections["telemetry"]
    part["data"]["gpus"] = [gpu for gpu in part["data"]["gpus"] if gpu["index"] != 0]
    part |= {
        "status": "partial",
        "problems": [problem("GPU 0", "NVML: GPU requires reset", "reset_required", "Reset it.", 0)],
    }
    return node.report()


@variant("GPU 2 shows less memory than its siblings.", "warning", ("sibling-memory-differs", 2))
def memory_missing():
    node = a100()
    node.gpu("inventory", 2)["memory_total_bytes"] -= 8192 * MIB
    return node.report()


@variant("GPU 1 lacks its power cable.", "critical", ("gpu-power-missing", 1))
def power_cable_missing():
    node = l40s(count=2)
    part = node.sections["telemetry"]
    part["data"]["gpus"] = [gpu for gpu in part["data"]["gpus"] if gpu["index"] != 1]
    why = problem("GPU 1", "NVML: Insufficient External Power", "insufficient_power", "Check the power cables.", 1)
    part |= {"status": "partial", "problems": [why]}
    return node.report()
