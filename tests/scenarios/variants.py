#!/usr/bin/env python3
"""Writes the scenarios that the rules are tested with, and what every scenario must come to (`NAME.expect.json`).

    python3 tests/scenarios/variants.py            writes every file
    python3 tests/scenarios/variants.py --check    fails when a file is not what this would write

A variant is a healthy node with something changed: what the change does to the diagnosis is what the expectation says.
Half of them are benign on purpose: they look alarming and are not.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

sys.dont_write_bytecode = True

import generate
from generate import serving, training, use, without_nvml
from node import MIB, TAKEN_AT, Node, failed, problem, uuid
from products import A100, GB200, H100, L40S, T4

VARIANTS = {}
EXPECTED = {}


def variant(about, verdict, *must, health=None, more=False, must_not=(), summary=(), cluster=None):
    """`must`: `id`, `(id, gpu)` or a whole entry."""
    entries = [{"id": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else
               {"id": entry[0], "gpu": entry[1]} for entry in must]
    usual = {"healthy": "healthy", "unknown": "unknown", "warning": "degraded"}.get(verdict, "unhealthy")
    expectation = {"about": about, "verdict": verdict, "must": entries, "must_not": list(must_not), "more": more,
                   "health": health or usual, "summary": list(summary), "cluster": cluster or {}}
    expectation = {key: value for key, value in expectation.items() if value or key in ("about", "verdict", "health")}

    def register(function):
        name = function if isinstance(function, str) else function.__name__.replace("_", "-")
        EXPECTED[name] = expectation
        if not isinstance(function, str):
            VARIANTS[name] = function
        return function
    return register


# ---- what the scenarios of generate.py must come to

HARDWARE = ["class:hardware", "severity:critical", "severity:fatal"]

variant("Eight GPUs at full load, memory 99 % full, power-capped: that is training, not trouble.", "healthy",
        must_not=HARDWARE + ["severity:warning"], summary=["8 of 8", "no Xid since"],
        cluster={"node": "gpu-h100-1", "gpu_capacity": 8, "gpu_allocatable": 8, "gpu_label_count": 8})("healthy-h100-8")
variant("One T4 in a virtual machine, with page retirement instead of row remapping.", "healthy",
        must_not=HARDWARE)("healthy-t4-1")
variant("MIG on: utilization and row remapping cannot be had, and that is no defect.", "healthy",
        must_not=HARDWARE + ["mig-without-instances", "memory-unaccounted"])("a100-mig-8")
variant("A tray of a rack: no NVSwitch and no Fabric Manager here, only a T.Limit margin.", "healthy",
        must_not=HARDWARE + ["fabric-manager-not-running"])("gb200-4")
variant("Idle GPUs lower their PCIe generation.", "healthy",
        must_not=HARDWARE + ["pcie-generation-low"])("l40s-4-idle")
variant("GPU 3 fell off the bus; nine Xid 45 follow from it, and a process hangs.", "fatal",
        {"id": "gpu-off-bus", "gpu": 3, "severity": "fatal",
         "evidence": ["Xid 79 (1 time)", "NVML lists 7 GPUs, PCI lists 8", "9 Xid 45"]}, "process-stuck",
        must_not=["application-fault", "allocated-gpu-missing", "pcie-errors-fatal", "gpu-lost"],
        summary=["GPU 3", "14 min ago", "7 of 8"], cluster={"node": "gpu-h100-2", "gpu_capacity": 8})("xid79-off-bus")
variant("A contained memory error; the row waits for a reset.", "critical",
        {"id": "row-remap-pending", "gpu": 5, "evidence": ["Xid 63"]},
        {"id": "ecc-contained", "gpu": 5, "evidence": ["Xid 94", "Xid 48", "3 Xid 45"]},
        must_not=["severity:fatal", "application-fault", "ecc-uncontained", "row-remap-failed"])("ecc-remap-pending")
variant("GPUs on PCI, no kernel module.", "fatal", "driver-not-loaded",
        must_not=["class:hardware", "gpu-missing-from-nvml"], health="unhealthy")("no-driver")
variant("The library was updated under the loaded module.", "fatal",
        {"id": "driver-version-mismatch", "evidence": ["570.124.06", "570.133.20"]},
        must_not=["class:hardware", "client-version-mismatch"])("driver-mismatch")
variant("A worker without GPUs: nothing wrong, and nothing to call healthy either.", "unknown", "not-a-gpu-node",
        must_not=HARDWARE + ["driver-not-loaded", "severity:warning"])("no-gpu")


# ---- nodes to vary

UNKNOWN = "pid='<unknown>', name=<unknown>"


def ago(**span):
    return TAKEN_AT - timedelta(**span)


class Variant:
    """A healthy node whose sections can be changed before it is written."""

    def __init__(self, name, product, count, load, driver="570.124.06", cuda="12.8", uptime=1_036_815, work=True, **more):
        self.node = node = Node(name, product, count, driver, cuda, uptime, **more)
        self.load, self.product, self.first = load, product, 41210
        self.running = [
            node.process(self.first + index, "python3", "python3 train.py", 4180,
                         [use(index, max(node.used_bytes(load, index) - 523 * MIB, MIB))], f"job-{index}")
            for index in range(count) if index not in node.lost and work]
        self.work = work
        # Journal lines of an earlier boot, lines that programs wrote, and the oldest record that is left.
        self.earlier, self.forged, self.only_since = [], [], None
        self.build()

    def build(self):
        node = self.node
        jobs = [node.allocation(f"job-{index}", "main", [index]) for index in range(node.count)] if self.work else []
        self.sections = {
            "inventory": node.inventory(), "telemetry": node.telemetry(self.load), "topology": node.topology(nics=False),
            "ecc": node.ecc(), "processes": node.processes(self.running), "mig": node.mig(), "kubelet": node.kubelet(jobs),
            "host": node.host(),
        }

    def gpu(self, section, index):
        return next(gpu for gpu in self.sections[section]["data"]["gpus"] if gpu["index"] == index)

    def host(self):
        return self.sections["host"]["data"]

    def xid(self, when, index, text):
        self.node.xid(when, index, text)

    def report(self):
        report = self.node.report(self.sections)
        records = report["kernel_log"]
        if self.only_since:
            oldest = (self.only_since - self.node.boot).total_seconds() * 1_000_000
            records = [record for record in records if int(record.split(",")[2]) >= oldest]
            last = int(report["kernel_log"][-1].split(",")[1])
            records.append(f"6,{last + 1},{int(oldest) + 1000},-;eth0: renamed from vethb01f4a2")
        number, micros = (int(field) for field in records[-1].split(",")[1:3])
        records = records + [line.format(seq=number + 1 + place, usec=micros + place) for place, line in enumerate(self.forged)]
        return report | {"kernel_log": self.earlier + records}


def h100(count=4, load=training, **more):
    return Variant("gpu-h100-9", H100, count, load, **more)


def a100(count=4, load=serving, **more):
    return Variant("gpu-a100-9", A100, count, load, **more)


def l40s(count=4, load=serving, **more):
    return Variant("gpu-l40s-9", L40S, count, lambda index: load(index) | {"mhz": 2490, "watts": 251 + index}, **more)


def t4(**more):
    return Variant("gpu-t4-9", T4, 1, lambda _: {"gpu": 43, "memory": 21, "used": 0.41, "watts": 52, "degrees": 61, "mhz": 1455},
                   driver="550.163.01", cuda="12.4", kernel="6.1.141-155.222.amzn2023.x86_64", cpus=("0-3",), virtual=True, **more)


def idle(index):
    return {"gpu": 0, "memory": 0, "used": 0.0001, "watts": 72 + index, "degrees": 31 + index}


# ---- benign: alarming, and nothing is broken


@variant("Lifetime counters tell of errors years ago; none since the driver was loaded.", "healthy",
         {"id": "ecc-history", "gpu": 1, "evidence": ["uncorrected in the board's life: 3"]}, "row-remap-done",
         must_not=HARDWARE[1:] + ["severity:warning", "ecc-uncorrected"])
def ecc_lifetime_only():
    node = h100()
    gpu = node.gpu("ecc", 1)
    gpu["aggregate"] = {"corrected": 41_223, "uncorrected": 3, "locations": [{"location": "dram", "corrected": 41_223, "uncorrected": 3}]}
    gpu["remapped_rows"] |= {"uncorrectable": 2}
    return node.report()


@variant("Some H100 firmware gives a T.Limit margin of 0 or less on a cool GPU.", "healthy", must_not=["class:thermal"])
def thermal_margin_negative():
    node = h100()
    for index, margin in enumerate([-3, 0, -1, -8]):
        node.gpu("telemetry", index)["temperature"] |= {"tlimit_margin_celsius": margin}
    return node.report()


@variant("The driver counts 18 NVLinks on an A100, which has 12.", "healthy", must_not=["nvlink-down"])
def a100_links_12_of_18():
    node = a100()
    for index in range(4):
        node.gpu("topology", index)["nvlinks"].append({"links": [12, 13, 14, 15, 16, 17], "active": False, "version": None,
                                                       "speed_megabytes_per_second": None, "remote_type": None, "remote_pci_address": None})
    return node.report()


@variant("One program crashes again and again on all GPUs: 13, 31, 43, 45. The GPUs are fine.", "healthy",
         {"id": "application-fault", "gpu": 0}, {"id": "application-fault", "gpu": 1},
         must_not=["class:hardware", "severity:warning", "severity:critical", "severity:fatal"])
def application_crash_storm():
    node = h100(count=2)
    for round in range(12):
        when = ago(minutes=3 * round + 2)
        for index in range(2):
            pid = 50_000 + 10 * round + index
            node.xid(when, index, f"13, pid={pid}, name=python3, Graphics SM Warp Exception on (GPC {round % 6}, TPC {round % 5}, SM 0): "
                                  "Illegal Instruction Parameter")
            node.xid(when, index, f"31, pid={pid}, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 "
                                  f"faulted @ 0x7f{round:02x}_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ")
            node.xid(when + timedelta(seconds=1), index, f"43, pid={pid}, name=python3, Ch 00000008")
            node.xid(when + timedelta(seconds=2), index, f"45, pid={pid}, name=python3, Ch 00000009")
    return node.report()


@variant("One workload restarts on one GPU and faults each time: one witness, however many pids.", "healthy",
         ("application-fault", 1), must_not=["class:hardware", "application-faults-on-one-gpu"])
def application_crash_loop():
    node = h100(count=2)
    for round in range(6):
        node.xid(ago(minutes=10 * round + 4), 1, f"31, pid={60_000 + round}, name=trtllm, Ch 00000008, intr 00000000. MMU Fault: ENGINE "
                 f"GRAPHICS GPCCLIENT_T1_{round} faulted @ 0x7f29_5b8c{round}000. Fault is of type FAULT_PTE ACCESS_TYPE_VIRT_WRITE")
    return node.report()


@variant("A lone video decoder exception and a lone 45.", "healthy", ("application-fault", 0), must_not=["class:hardware", "severity:warning"])
def application_lone_faults():
    node = l40s(count=2)
    node.xid(ago(hours=2), 0, "68, pid=41210, name=ffmpeg, NVDEC0 Exception: errorcode 0x1")
    node.xid(ago(hours=5), 0, "45, pid=33001, name=ffmpeg, Ch 00000010")
    return node.report()


@variant("The kernel killed a process for memory; its channels ended with it.", "healthy",
         {"id": "application-killed", "gpu": 0, "evidence": ["out-of-memory kill", "Xid 45"]},
         must_not=["application-fault", "class:hardware"])
def oom_kill():
    node = h100(count=2)
    when = ago(minutes=32)
    node.node.at(when, "Out of memory: Killed process 51234 (python3) total-vm:912345678kB, anon-rss:501234567kB, file-rss:0kB, "
                       "shmem-rss:0kB, UID:0 pgtables:1234kB oom_score_adj:979")
    node.xid(when + timedelta(seconds=3), 0, "43, pid=51234, name=python3, Ch 00000008")
    for channel in range(5):
        node.xid(when + timedelta(seconds=4), 0, f"45, pid=51234, name=python3, Ch {9 + channel:08x}")
    return node.report()


@variant("All GPUs at their power limit and full load.", "healthy", must_not=["class:power", "clocks-low-under-load"])
def power_capped():
    node = h100(load=lambda index: training(index) | {"watts": 699, "mhz": 1215 + 15 * index})
    return node.report()


@variant("The node was rebooted after Xids; the journal still has them. They are history.", "healthy", "xid-history",
         must_not=["gpu-off-bus", "application-fault", "ecc-double-bit", "severity:warning", "severity:critical", "severity:fatal"])
def rebooted_after_xids():
    node = h100(count=2, uptime=5_400)
    before = TAKEN_AT - timedelta(hours=9)
    stamp = int(before.timestamp() * 1_000_000)
    for place, text in enumerate([
        "NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:18:00): 45, pid=812, name=python3, Ch 00000008",
        "NVRM: Xid (PCI:0000:2a:00): 31, pid=911, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS",
    ]):
        node.earlier.append(json.dumps({"__REALTIME_TIMESTAMP": str(stamp + place * 1000), "_BOOT_ID": "0e" * 16, "_TRANSPORT": "kernel",
                                        "SYSLOG_FACILITY": "0", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": text}))
    return node.report()


@variant("The driver was reloaded after an uncontained error: that is over.", "healthy", "xid-history",
         must_not=["ecc-uncontained", "severity:critical", "severity:fatal"])
def driver_reloaded():
    node = h100(count=2)
    node.xid(ago(hours=30), 1, f"95, {UNKNOWN}, Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No")
    node.node.at(ago(hours=29), "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (builder@buildhost)")
    return node.report()


@variant("A GPU reset cured it: the driver took its wish back.", "healthy", "xid-history", must_not=["severity:critical", "severity:fatal"])
def gpu_was_reset():
    node = a100(count=2)
    node.xid(ago(hours=6), 0, f"94, {UNKNOWN}, Contained: SM (0x1). RST: No, D-RST: Yes")
    node.xid(ago(hours=6), 0, f"154, {UNKNOWN}, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)")
    node.xid(ago(hours=2), 0, f"154, {UNKNOWN}, GPU recovery action changed from 0x4 (Drain and Reset) to 0x0 (None)")
    return node.report()


@variant("Harmless NVLink 5 events that the catalogue says to ignore.", "healthy", ("nvlink-event", 0), must_not=["nvlink-fault"])
def gb200_link_noise():
    node = Variant("gb200-a07-t09", GB200, 2, idle, driver="580.95.05", cuda="13.0", work=False, cpus=("0-71", "72-143"),
                   architecture="aarch64", system="Ubuntu 24.04.3 LTS", kernel="6.8.0-1041-nvidia-64k")
    for minute in (4, 44, 91):
        node.xid(ago(minutes=minute), 0, f"145, {UNKNOWN}, RLW_RXPIPE Nonfatal XC0 i0 Link 03 (0x0409a0c2 0x00000008 0x00000000 0x00000000 0x00000000 0x00000000)")
    return node.report()


@variant("A PCIe 5 card in a PCIe 4 slot works as well as the slot allows.", "healthy", ("pcie-slot-below-gpu", 0),
         must_not=["pcie-generation-low", "severity:warning"])
def slot_below_gpu():
    node = h100(count=2)
    node.gpu("telemetry", 0)["pcie"] |= {"generation": 4, "max_generation": 4}
    path = node.gpu("topology", 0)["pcie_path"]
    path[0] |= {"generation": 4}
    path[1] |= {"generation": 4, "max_generation": 4}
    return node.report()


@variant("A program wrote an Xid line to the log. It is counted, not believed.", "healthy", "kernel-log-untrusted-lines",
         must_not=HARDWARE + ["gpu-off-bus"])
def forged_xid():
    node = h100(count=2)
    node.forged.append("12,{seq},{usec},-;NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
    return node.report()


@variant("GPUs given to virtual machines: not usable by containers, not broken.", "unknown",
         must_not=["driver-not-loaded", "severity:warning", "class:hardware"], health="unknown", more=True)
def passthrough():
    node = Node("kubevirt-3", L40S, 4, "580.95.05", "13.0", 811_377, system="Ubuntu 24.04.3 LTS", cpus=("0-31", "32-63"))
    node.driver_loaded = False
    why = problem("NVML", "NVML: Driver Not Loaded", "driver_not_loaded", "Load the nvidia kernel module.")
    pci = [gpu | {"driver": "vfio-pci", "in_nvml": None} for gpu in node.host()["data"]["pci_gpus"]]
    return without_nvml(node, why, [], node.kubelet([], [{"resource": "nvidia.com/AD102GL_L40S", "devices": []}]),
                        driver={"loaded": None, "flavor": None, "module_on_disk": None, "library": None, "library_path": None},
                        modules=["vfio_pci"], pci_gpus=pci, device_nodes=[])


@variant("A process waits in the kernel for a moment: no fault by itself.", "healthy", "process-uninterruptible", must_not=["process-stuck"])
def momentary_d_state():
    node = h100(count=2)
    node.running[1]["state"] = "D"
    node.build()
    return node.report()


@variant("Workstation cards leave the factory with ECC off.", "healthy", must_not=["ecc-disabled"])
def ecc_off_by_default():
    node = l40s(count=2)
    for index in range(2):
        node.gpu("inventory", index)["name"] = "NVIDIA RTX A6000"
        for section, field in (("inventory", "ecc_mode"), ("ecc", "mode")):
            node.gpu(section, index)[field] = {"current": False, "pending": False}
    return node.report()


# ---- GPUs that are not there


@variant("NVML lost GPU 2; the kernel log is silent.", "fatal", {"id": "gpu-lost", "gpu": 2, "severity": "fatal"},
         must_not=["gpu-missing-from-nvml"], cluster={"node": "gpu-h100-9", "gpu_capacity": 4})
def gpu_lost():
    node = h100()
    node.node.lost = {2}
    node.build()
    node.host()["pci_gpus"][2] |= {"answers": True}
    return node.report()


@variant("The driver could not initialise GPU 1.", "fatal",
         {"id": "gpu-init-failed", "evidence": ["RmInitAdapter failed", "NVML lists 3 GPUs, PCI lists 4"]}, must_not=["gpu-off-bus"])
def init_failed():
    node = l40s()
    node.node.at(ago(days=12) + timedelta(seconds=61), "NVRM: GPU 0000:38:00.0: RmInitAdapter failed! (0x62:0x40:2568)")
    node.node.at(ago(days=12) + timedelta(seconds=61), "NVRM: GPU 0000:38:00.0: rm_init_adapter failed, device minor number 1")
    drop(node, 1)
    return node.report()


def drop(node, index):
    """NVML does not list the GPU, PCI does."""
    for section in ("inventory", "telemetry", "topology", "ecc", "mig"):
        gpus = node.sections[section]["data"]["gpus"]
        gpus[:] = [gpu for gpu in gpus if gpu["index"] != index]
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


@variant("GPU 2 is on PCI, not in NVML, and nobody says why.", "fatal", "gpu-missing-from-nvml", must_not=["gpu-init-failed"])
def missing_from_nvml():
    node = l40s()
    drop(node, 2)
    return node.report()


@variant("Neither PCI nor NVML shows a GPU, and Kubernetes knows of eight.", "fatal",
         {"id": "no-gpus-found", "evidence": ["capacity: 8"]}, must_not=["not-a-gpu-node"],
         cluster={"node": "gpu-h100-4", "gpu_capacity": 8, "gpu_allocatable": 0, "gpu_label_count": 8}, more=True, health="unknown")
def all_gpus_gone():
    return generate.SCENARIOS["no-gpu"]()


@variant("Kubernetes counted four GPUs, PCI and NVML show three.", "critical", {"id": "gpu-count-low", "evidence": ["capacity: 4"]},
         cluster={"node": "gpu-l40s-9", "gpu_capacity": 4, "gpu_allocatable": 4}, health="healthy")
def gpu_gone_from_pci():
    node = l40s(count=3)
    return node.report()


@variant("Calls to GPU 1 do not return.", "critical", ("gpu-unresponsive", 1), must_not=["nvml-not-answering"])
def gpu_hangs():
    node = l40s(count=2)
    why = problem("GPU 1", "NVML: Timeout", "timeout", "Look at the kernel log.", 1)
    for section in ("telemetry", "ecc"):
        part = node.sections[section]
        part["data"]["gpus"] = [gpu for gpu in part["data"]["gpus"] if gpu["index"] != 1]
        part |= {"status": "partial", "problems": [why]}
    return node.report()


@variant("NVML blocks as a whole.", "critical", "nvml-not-answering", must_not=["class:hardware"], health="unhealthy")
def nvml_blocks():
    node = l40s(count=2)
    for section in ("inventory", "telemetry", "topology", "ecc", "mig"):
        node.sections[section] = failed(problem(section, "not read within 20 s: NVML does not answer", "timeout", "Look at the kernel log."))
    for gpu in node.host()["pci_gpus"]:
        gpu["in_nvml"] = None
    return node.report()


# ---- memory


@variant("A remap failed: no spare row left.", "fatal", {"id": "row-remap-failed", "gpu": 0, "severity": "fatal"}, ("row-remap-spares-used", 0),
         must_not=["row-remap-not-recorded"])
def remap_failed():
    node = a100(count=2)
    node.gpu("ecc", 0)["remapped_rows"] |= {"uncorrectable": 9, "failure_occurred": True,
                                            "histogram": {"max": 631, "high": 5, "partial": 2, "low": 1, "none": 1}}
    node.xid(ago(hours=3), 0, f"64, {UNKNOWN}, Row Remapper: Error: all reserved rows for bank 3 are remapped")
    return node.report()


@variant("An uncontained error: no new work before a reset.", "fatal",
         {"id": "ecc-uncontained", "gpu": 1, "severity": "fatal", "evidence": ["Xid 95", "2 Xid 45"]},
         must_not=["application-fault", "ecc-double-bit"])
def ecc_uncontained():
    node = h100(count=2)
    when = ago(minutes=21)
    node.xid(when, 1, f"48, {UNKNOWN}, An uncorrectable double bit error (DBE) has been detected on GPU in the SRAM.")
    node.xid(when, 1, f"95, {UNKNOWN}, Uncontained: LTC TAG (0x2,0x0). physAddr: 0x3f80 RST: Yes, D-RST: No")
    node.xid(when, 1, f"154, {UNKNOWN}, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset)")
    for channel in range(2):
        node.xid(when + timedelta(seconds=1), 1, f"45, pid=41211, name=python3, Ch {8 + channel:08x}")
    node.gpu("ecc", 1)["volatile"] = {"corrected": 0, "uncorrected": 1, "locations": [{"location": "sram", "corrected": 0, "uncorrected": 1}]}
    node.gpu("ecc", 1)["recovery_action"] = "gpu_reset"
    return node.report()


@variant("Too many SRAM errors in the board's life.", "fatal", {"id": "sram-threshold-exceeded", "gpu": 1})
def sram_threshold():
    node = h100(count=2)
    node.gpu("ecc", 1)["sram"] |= {"threshold_exceeded": True, "aggregate_uncorrected_parity": 11, "bucket_sm": 11}
    return node.report()


@variant("A T4 at NVIDIA's limit of retired pages, one of them waiting.", "fatal", ("retired-pages-limit", 0), ("retired-pages-pending", 0))
def retired_pages():
    node = t4()
    node.gpu("ecc", 0)["retired_pages"] = {"single_bit": 47, "double_bit": 14, "pending": True}
    return node.report()


@variant("ECC was switched off on data-centre GPUs.", "warning", "ecc-disabled", must_not=HARDWARE[1:])
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


@variant("The driver asks for a reboot and logs nothing else.", "fatal",
         {"id": "recovery-node-reboot", "gpu": 1, "evidence": ["recovery action node reboot"]})
def driver_wants_reboot():
    node = h100(count=2)
    node.gpu("ecc", 1)["recovery_action"] = "node_reboot"
    return node.report()


# ---- driver and firmware


@variant("GSP firmware of GPU 1 does not answer; a process hangs in the driver.", "fatal", ("gsp-failed", 1), "process-stuck",
         must_not=["gsp-failed-on-several", "class:hardware"])
def gsp_timeout():
    node = h100(count=2)
    for second in (0, 6, 12):
        node.xid(ago(minutes=8) + timedelta(seconds=second), 1,
                 "119, pid=41211, name=python3, Timeout after 6s of waiting for RPC response from GPU1 GSP! Expected function 76 (GSP_RM_CONTROL) (0x20801702 0x4).")
    node.node.at(ago(minutes=7), "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:2a:00 (printing 1 of every 30).  The GPU likely needs to be reset.")
    node.running[1]["state"] = "D"
    node.build()
    return node.report()


@variant("GSP fails on all GPUs at once: driver, firmware or host.", "fatal", "gsp-failed-on-several", must_not=["class:hardware"])
def gsp_timeout_everywhere():
    node = h100(count=2)
    for index in range(2):
        node.xid(ago(minutes=8), index, f"119, pid={41210 + index}, name=python3, Timeout after 6s of waiting for RPC response from GPU{index} GSP! "
                                        "Expected function 76 (GSP_RM_CONTROL) (0x20801702 0x4).")
    return node.report()


@variant("Persistence mode is off on all four GPUs: one finding.", "warning", {"id": "persistence-off", "evidence": ["GPUs 0-3"]},
         must_not=["class:hardware"])
def persistence_off():
    node = l40s()
    for index in range(4):
        node.gpu("inventory", index)["persistence_mode"] = False
    node.host()["daemons"]["persistenced"] = False
    return node.report()


@variant("Nouveau owns the GPUs.", "critical", "driver-nouveau", must_not=["class:hardware", "driver-not-loaded"], health="unhealthy")
def nouveau():
    node = Node("gpu-l40s-8", L40S, 2, "580.95.05", "13.0", 9_412, system="Ubuntu 24.04.3 LTS", cpus=("0-31", "32-63"))
    node.driver_loaded = False
    why = problem("NVML", "NVML: Driver Not Loaded", "driver_not_loaded", "Load the nvidia kernel module.")
    pci = [gpu | {"driver": "nouveau", "in_nvml": None} for gpu in node.host()["data"]["pci_gpus"]]
    return without_nvml(node, why, [], node.kubelet([], []), modules=["nouveau"], pci_gpus=pci, device_nodes=[],
                        driver={"loaded": None, "flavor": None, "module_on_disk": None, "library": node.driver,
                                "library_path": node.library_path()})


@variant("Another driver version waits on disk for the next load.", "healthy", "driver-update-pending", must_not=["driver-version-mismatch"])
def driver_update_pending():
    node = l40s(count=2)
    node.host()["driver"]["module_on_disk"] = "570.133.20"
    return node.report()


# ---- fabric


@variant("Link 5 of GPU 2 is down on an NVSwitch board.", "critical", {"id": "nvlink-down", "gpu": 2, "evidence": ["17 of 18", "5"]})
def nvlink_down():
    node = h100()
    groups = node.gpu("topology", 2)["nvlinks"]
    for group in groups:
        group["links"] = [link for link in group["links"] if link != 5]
    groups.append({"links": [5], "active": False, "version": 4, "speed_megabytes_per_second": None, "remote_type": None, "remote_pci_address": None})
    return node.report()


@variant("Fabric Manager is down and the GPUs are not registered.", "critical",
         {"id": "fabric-manager-not-running", "evidence": ["4 GPUs not registered"]}, must_not=["class:hardware", "fabric-not-registered"])
def fabric_manager_down():
    node = h100(load=idle, work=False)
    node.host()["daemons"]["fabric_manager"] = False
    for index in range(4):
        node.gpu("topology", index)["fabric"] = {"state": "in_progress", "status": None, "clique_id": None}
    return node.report()


@variant("A fatal SXid and the Xid 74 of the GPU on that port: one fault, seen from both ends.", "fatal",
         {"id": "nvswitch-fault", "evidence": ["SXid 20034", "the other end: GPU 1", "Xid 74"]}, must_not=["nvlink-fault", "class:hardware"])
def sxid_and_xid74():
    node = h100(count=2)
    when = ago(minutes=55)
    node.node.at(when, "nvidia-nvswitch2: SXid (PCI:0000:09:00.0): 20034, Fatal, Link 33 LTSSM Fault Up (First)")
    node.node.at(when, "nvidia-nvswitch2: SXid (PCI:0000:09:00.0): 20034, Severity 1 Engine instance 33 Sub-engine instance 00")
    node.node.at(when, "nvidia-nvswitch2: SXid (PCI:0000:09:00.0): 20034, Data {0x50610002, 0x10100030, 0x00000000}")
    node.xid(when, 1, f"74, {UNKNOWN}, NVLink: fatal error detected on link 6(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)")
    for channel in range(4):
        node.xid(when + timedelta(seconds=2), 1, f"45, pid=41211, name=python3, Ch {8 + channel:08x}")
    return node.report()


@variant("A link of a GB200 went down; errors of the next 30 s follow from it.", "fatal",
         {"id": "nvlink-fault", "gpu": 1, "evidence": ["Xid 149", "link-down reason 33", "2 Xid 145"]}, must_not=["application-fault"])
def gb200_link_down():
    node = Variant("gb200-a07-t09", GB200, 2, idle, driver="580.95.05", cuda="13.0", work=False, cpus=("0-71", "72-143"),
                   architecture="aarch64", system="Ubuntu 24.04.3 LTS", kernel="6.8.0-1041-nvidia-64k")
    when = ago(minutes=18)
    node.xid(when, 1, f"149, {UNKNOWN}, NETIR_LINK_EVT Fatal XC0 i0 Link 11 (0x021425c6 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000)")
    for second in (2, 9):
        node.xid(when + timedelta(seconds=second), 1,
                 f"145, {UNKNOWN}, RLW_REMAP Nonfatal XC0 i0 Link 11 (0x00000004 0x00000004 0x00000000 0x00000000 0x00000000 0x00000000)")
    node.xid(when + timedelta(seconds=10), 1, "45, pid=30119, name=python3, Ch 00000008")
    return node.report()


@variant("The fabric says that GPU 0 has a bad route.", "critical", {"id": "fabric-unhealthy", "gpu": 0, "evidence": ["route_unhealthy"]})
def fabric_unhealthy():
    node = h100(count=2)
    node.gpu("topology", 0)["fabric"] |= {"health": "unhealthy", "health_issues": ["route_unhealthy"]}
    return node.report()


# ---- heat, power, PCIe


@variant("GPU 1 slows down for heat.", "critical", {"id": "thermal-slowdown-hardware", "gpu": 1, "evidence": ["87 °C"]}, ("memory-too-hot", 1),
         must_not=["class:hardware", "gpu-too-hot", "sibling-hotter"])
def thermal_slowdown():
    def load(index):
        return training(index) | ({"degrees": 87, "reasons": 0x48, "mhz": 1005} if index == 1 else {})
    return h100(load=load).report()


@variant("The power supply brakes all GPUs.", "critical", {"id": "power-brake", "evidence": ["GPUs 0-3"]}, must_not=["class:thermal"])
def power_brake():
    return h100(load=lambda index: training(index) | {"reasons": 0x88, "mhz": 660, "watts": 301}).report()


@variant("Somebody lowered the power limit of all GPUs to two thirds.", "warning", "power-limit-lowered", must_not=["class:hardware"])
def power_limit_lowered():
    node = h100()
    for index in range(4):
        node.gpu("telemetry", index)["power"] |= {"limit_milliwatts": 450_000, "enforced_limit_milliwatts": 450_000}
    return node.report()


@variant("Clocks of GPU 2 are locked low under load.", "warning", ("clocks-low-under-load", 2), must_not=["sibling-clocks-lower"])
def clocks_locked():
    return h100(load=lambda index: training(index) | ({"mhz": 720, "reasons": 0, "watts": 310} if index == 2 else {})).report()


@variant("GPU 0 has eight of sixteen lanes.", "critical", {"id": "pcie-width-degraded", "gpu": 0, "evidence": ["x8 of x16"]})
def pcie_width():
    node = l40s(count=2)
    node.gpu("telemetry", 0)["pcie"]["width"] = 8
    node.gpu("topology", 0)["pcie_path"][0]["width"] = 8
    return node.report()


@variant("GPU 1 stays at generation 1 under load.", "warning", ("pcie-generation-low", 1))
def pcie_generation():
    node = l40s(count=2)
    node.gpu("telemetry", 1)["pcie"]["generation"] = 1
    return node.report()


@variant("Fatal PCIe errors on the port above GPU 1.", "critical", ("pcie-errors-fatal", 1))
def pcie_aer():
    node = h100(count=2)
    port = node.gpu("topology", 1)["pcie_path"][1]
    port["aer"] = {"correctable": 212, "fatal": 2}
    address = port["pci_address"][4:]
    for _ in range(2):
        node.node.at(ago(minutes=71), f"pcieport {address}: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Data Link Layer, (Receiver ID)")
    return node.report()


# ---- processes, MIG, Kubernetes, siblings, the log itself


@variant("A process that belongs to no pod holds GPU memory.", "warning", "process-outside-kubernetes", must_not=["class:hardware"],
         health="degraded")
def process_without_pod():
    node = l40s(count=2)
    stray = node.node.process(77_120, "jupyter-noteboo", "/usr/bin/jupyter-notebook", 902_000, [use(1, 9_812 * MIB)], None, uid=1007, user="kim")
    node.sections["processes"] = node.node.processes(node.running + [stray])
    return node.report()


@variant("A pod is gone, its process is not; another one is a zombie; and memory is in use that nobody claims.", "warning",
         "process-of-gone-pod", "process-zombie", ("memory-unaccounted", 1), health="degraded",
         cluster={"node": "gpu-l40s-9", "live_pod_uids": [uuid("gpu-l40s-9", "pod", "job-1"), uuid("gpu-l40s-9", "pod", "dcgm")]})
def leftovers():
    node = l40s(count=2)
    zombie = node.node.process(77_431, "python3", None, 900_100, [], "job-1", state="Z") | {"holds": ["/dev/nvidia1"], "parent_pid": 77_400}
    node.sections["processes"] = node.node.processes(node.running + [zombie])
    node.sections["processes"]["data"]["unaccounted_memory"] = [{"gpu": 1, "bytes": 21_474_836_480}]
    return node.report()


@variant("MIG is on without instances on GPU 0; on GPU 1 the mode waits for a reset.", "warning",
         ("mig-without-instances", 0), ("mig-mode-pending", 1), must_not=["class:hardware"])
def mig_unfinished():
    node = a100(count=2, load=idle, work=False)
    for index, mode in ((0, {"current": True, "pending": True}), (1, {"current": False, "pending": True})):
        node.gpu("mig", index)["mode"] = mode
        node.gpu("inventory", index)["mig_mode"] = mode
    return node.report()


@variant("A monitor set a node condition, and the device plugin holds one GPU back.", "warning",
         "kubernetes-gpu-condition", "gpus-not-allocatable", must_not=["class:hardware"], health="healthy",
         cluster={"node": "gpu-l40s-9", "gpu_capacity": 2, "gpu_allocatable": 1,
                  "gpu_conditions": ["GpuMemWatch: GpuMemError, DCGM_FR_VOLATILE_DBE_DETECTED"]})
def kubernetes_condition():
    return l40s(count=2).report()


@variant("A pod holds a GPU that nobody lists, and the device plugin still offers it.", "critical", "allocated-gpu-missing",
         "device-plugin-stale")
def allocated_gpu_missing():
    node = l40s(count=2)
    ghost = f"GPU-{uuid('gpu-l40s-9', 'ghost')}"
    kubelet = node.sections["kubelet"]["data"]
    kubelet["allocations"][1]["devices"] = [ghost]
    kubelet["registered"][0]["devices"].append(ghost)
    return node.report()


@variant("Different programs fault on GPU 1 only, always at the same TPC: a suspicion, no verdict.", "warning",
         {"id": "application-faults-on-one-gpu", "gpu": 1, "severity": "warning", "evidence": ["GPC 3, TPC 2"]})
def suspicious_faults():
    node = h100(count=2)
    for place, name in enumerate(["python3", "trtllm", "namd3"]):
        node.xid(ago(hours=7 - 2 * place), 1, f"13, pid={81_000 + place}, name={name}, Graphics SM Warp Exception on (GPC 3, TPC 2, SM 1): Illegal Address")
    return node.report()


@variant("GPU 3 is far hotter than its siblings at the same power.", "warning", ("sibling-hotter", 3))
def hot_sibling():
    return h100(load=lambda index: training(index) | ({"degrees": 79} if index == 3 else {})).report()


@variant("The kernel log reaches back eleven minutes only: no all-clear.", "unknown", "kernel-log-short", must_not=HARDWARE,
         health="unknown", summary=["reaches back"])
def log_too_short():
    node = l40s(count=2)
    node.only_since = ago(minutes=11)
    return node.report()


@variant("ECC and the kernel log could not be read: nothing bad was found, and that proves nothing.", "unknown", health="unknown",
         must_not=["severity:warning"])
def not_readable():
    node = l40s(count=2)
    node.sections["ecc"] = failed(problem("ecc", "not read within 20 s", "timeout", "Ask again."))
    return node.report()


@variant("The same Xid 79 in the boot before: resets do not cure this GPU.", "fatal", ("gpu-off-bus", 1), "xid-recurring", "xid-history")
def off_bus_again():
    node = h100(count=2)
    node.node.lost = {1}
    node.running.pop()
    node.build()
    node.xid(ago(minutes=40), 1, f"79, {UNKNOWN}, GPU has fallen off the bus.")
    stamp = int(ago(days=14).timestamp() * 1_000_000)
    node.earlier.append(json.dumps({"__REALTIME_TIMESTAMP": str(stamp), "_BOOT_ID": "0e" * 16, "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0",
                                    "PRIORITY": "3", "SYSLOG_IDENTIFIER": "kernel",
                                    "MESSAGE": "NVRM: Xid (PCI:0000:2a:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."}))
    return node.report()


@variant("Uncorrected errors were counted since driver load, and the log shows no Xid for them.", "warning",
         {"id": "ecc-uncorrected", "gpu": 1, "severity": "warning", "evidence": ["since driver load: 2 (2 sram)"]})
def ecc_counted_without_xid():
    node = h100(count=2)
    place = {"location": "sram", "corrected": 0, "uncorrected": 2}
    node.gpu("ecc", 1)["volatile"] = {"corrected": 0, "uncorrected": 2, "locations": [place]}
    node.gpu("ecc", 1)["aggregate"] = {"corrected": 0, "uncorrected": 2, "locations": [place]}
    return node.report()


@variant("A code that the catalogue does not know.", "warning", {"id": "xid-unknown", "gpu": 0, "severity": "warning"}, must_not=["class:hardware"])
def xid_unknown_code():
    node = l40s(count=2)
    node.xid(ago(minutes=50), 0, f"233, {UNKNOWN}, Something new")
    return node.report()


@variant("The power management unit halted: out of service until a reset.", "fatal", {"id": "xid-driver", "gpu": 1, "evidence": ["Xid 62"]},
         must_not=["class:hardware"])
def pmu_halt():
    node = l40s(count=2)
    node.xid(ago(minutes=50), 1, f"62, {UNKNOWN}, 209c(2c64) 00000000 00000000")
    return node.report()


@variant("A lone context-switch timeout is no hardware verdict.", "warning", ("context-switch-timeout", 0), must_not=["class:hardware"])
def context_switch_timeout():
    node = l40s(count=2)
    node.xid(ago(minutes=50), 0, "109, pid=41210, name=python3, Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x1c004")
    return node.report()


@variant("An old warning without consequence is told, not raised.", "healthy", {"id": "xid-driver", "gpu": 0, "severity": "info"})
def stale_warning():
    node = l40s(count=2)
    node.xid(ago(days=6), 0, f"38, {UNKNOWN}, FECS watchdog timeout")
    return node.report()


@variant("One link had to recover; the others count what every link counts.", "warning", {"id": "nvlink-errors", "gpu": 1, "evidence": ["recovery: 3"]},
         ("nvlink-errors-counted", 0))
def nvlink_errors():
    node = h100(count=2)
    node.gpu("topology", 0)["nvlinks"][0]["errors"] = {"replay": 7}
    node.gpu("topology", 1)["nvlinks"][1]["errors"] = {"crc_flit": 41, "recovery": 3}
    return node.report()


@variant("Device files are missing, so no container can use GPU 1.", "critical", {"id": "device-nodes-missing", "evidence": ["nvidia1"]},
         must_not=["class:hardware"], health="unhealthy")
def device_nodes_missing():
    node = l40s(count=2)
    node.host()["device_nodes_missing"] = ["nvidia1", "nvidia-uvm"]
    return node.report()


@variant("NVML says that GPU 0 needs a reset.", "critical", ("gpu-reset-required", 0))
def reset_required():
    node = a100(count=2)
    part = node.sections["telemetry"]
    part["data"]["gpus"] = [gpu for gpu in part["data"]["gpus"] if gpu["index"] != 0]
    part |= {"status": "partial", "problems": [problem("GPU 0", "NVML: GPU requires reset", "reset_required", "Reset it.", 0)]}
    return node.report()


@variant("GPU 2 shows less memory than its siblings.", "warning", ("sibling-memory-differs", 2))
def memory_missing():
    node = a100()
    node.gpu("inventory", 2)["memory_total_bytes"] -= 8192 * MIB
    return node.report()


@variant("The machine around the GPUs is in trouble: machine checks, a network card without power.", "warning",
         "machine-check", "nic-insufficient-power", health="degraded")
def machine_trouble():
    node = l40s(count=2)
    node.node.at(ago(hours=3), "mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 7: be00000000800400")
    node.node.at(ago(hours=2), "mlx5_core 0000:17:00.0: Detected insufficient power on the PCIe slot (27W).")
    return node.report()


@variant("Hundreds of replays a minute on the PCIe link of GPU 0.", "warning", {"id": "pcie-replays-high", "gpu": 0})
def pcie_replays():
    node = l40s(count=2, uptime=86_400)
    node.gpu("telemetry", 0)["pcie"]["replays"] = 912_331
    return node.report()


@variant("Two boards of one batch have another VBIOS: no odd one out.", "healthy", must_not=["sibling-vbios-differs"])
def vbios_batches():
    node = l40s()
    for index in (2, 3):
        node.gpu("inventory", index)["vbios_version"] = "95.02.66.00.09"
    return node.report()


# ---- writing


def main():
    folder, stale = Path(__file__).parent, []

    def write(path, text):
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)

    for name, build in VARIANTS.items():
        report = generate.without_empty(build())
        write(folder / f"{name}.json", json.dumps(report, ensure_ascii=False, separators=(",", ":")) + "\n")
    for name, expectation in EXPECTED.items():
        write(folder / f"{name}.expect.json", json.dumps(expectation, ensure_ascii=False, indent=1) + "\n")
    if stale:
        sys.exit(f"not what variants.py would write: {', '.join(stale)}")


if __name__ == "__main__":
    main()
