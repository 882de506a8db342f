"""Nodes that look alarming but have no fault: the rules must report nothing."""

import json
from datetime import timedelta

from expected import ALARMS, UNKNOWN, Variant, a100, ago, h100, idle, l40s, variant
from generate import training, without_nvml
from node import TAKEN_AT, Node, problem
from products import GB200, L40S


@variant(
    "Lifetime counters tell of errors years ago; none since the driver was loaded.",
    "healthy",
    {"id": "ecc-history", "gpu": 1, "evidence": ["uncorrected over the lifetime of the board: 3"]},
    "row-remap-done",
    must_not=ALARMS[1:] + ["severity:warning", "ecc-uncorrected"],
)
def ecc_lifetime_only():
    node = h100()
    gpu = node.gpu("ecc", 1)
    gpu["aggregate"] = {
        "corrected": 41_223,
        "uncorrected": 3,
        "locations": [{"location": "dram", "corrected": 41_223, "uncorrected": 3}],
    }
    gpu["remapped_rows"] |= {"uncorrectable": 2}
    return node.report()


@variant(
    "Some H100 firmware gives a T.Limit margin of 0 or less on a cool GPU.", "healthy", must_not=["class:thermal"]
)
def thermal_margin_negative():
    node = h100()
    for index, margin in enumerate([-3, 0, -1, -8]):
        node.gpu("telemetry", index)["temperature"] |= {"tlimit_margin_celsius": margin}
    return node.report()


@variant("The driver counts 18 NVLinks on an A100, which has 12.", "healthy", must_not=["nvlink-down"])
def a100_links_12_of_18():
    node = a100()
    for index in range(4):
        node.gpu("topology", index)["nvlinks"].append(
            {
                "links": [12, 13, 14, 15, 16, 17],
                "active": False,
                "version": None,
                "speed_megabytes_per_second": None,
                "remote_type": None,
                "remote_pci_address": None,
            }
        )
    return node.report()


@variant(
    "One program crashes again and again on all GPUs: 13, 31, 43, 45. The GPUs are fine.",
    "healthy",
    {"id": "application-fault", "gpu": 0},
    {"id": "application-fault", "gpu": 1},
    must_not=["class:hardware", "severity:warning", "severity:critical", "severity:fatal"],
)
def application_crash_storm():
    node = h100(count=2)
    for round in range(12):
        when = ago(minutes=3 * round + 2)
        for index in range(2):
            pid = 50_000 + 10 * round + index
            node.xid(
                when,
                index,
                f"13, pid={pid}, name=python3, Graphics SM Warp Exception on (GPC {round % 6}, TPC {round % 5}, SM 0): "
                "Illegal Instruction Parameter",
            )
            node.xid(
                when,
                index,
                f"31, pid={pid}, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 "
                f"faulted @ 0x7f{round:02x}_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
            )
            node.xid(when + timedelta(seconds=1), index, f"43, pid={pid}, name=python3, Ch 00000008")
            node.xid(when + timedelta(seconds=2), index, f"45, pid={pid}, name=python3, Ch 00000009")
    return node.report()


@variant(
    "One workload restarts on one GPU and faults each time: one witness, however many pids.",
    "healthy",
    ("application-fault", 1),
    must_not=["class:hardware", "application-faults-on-one-gpu"],
)
def application_crash_loop():
    node = h100(count=2)
    for round in range(6):
        node.xid(
            ago(minutes=10 * round + 4),
            1,
            f"31, pid={60_000 + round}, name=trtllm, Ch 00000008, intr 00000000. MMU Fault: ENGINE "
            f"GRAPHICS GPCCLIENT_T1_{round} faulted @ 0x7f29_5b8c{round}000. Fault is of type FAULT_PTE "
            f"ACCESS_TYPE_VIRT_WRITE",
        )
    return node.report()


@variant(
    "A lone video decoder exception and a lone 45.",
    "healthy",
    ("application-fault", 0),
    must_not=["class:hardware", "severity:warning"],
)
def application_lone_faults():
    node = l40s(count=2)
    node.xid(ago(hours=2), 0, "68, pid=41210, name=ffmpeg, NVDEC0 Exception: errorcode 0x1")
    node.xid(ago(hours=5), 0, "45, pid=33001, name=ffmpeg, Ch 00000010")
    return node.report()


def killed_for_memory(node, when):
    """The kernel kills a process, and the driver ends its channel."""
    node.node.at(
        when,
        "Out of memory: Killed process 51234 (python3) total-vm:912345678kB, anon-rss:501234567kB, file-rss:0kB, "
        "shmem-rss:0kB, UID:0 pgtables:1234kB oom_score_adj:979",
    )
    node.xid(when + timedelta(seconds=3), 0, "43, pid=51234, name=python3, Ch 00000008")


@variant(
    "The kernel killed a process for memory; its channels ended with it.",
    "healthy",
    {"id": "application-killed", "gpu": 0, "evidence": ["out-of-memory kill", "Xid 45"]},
    must_not=["application-fault", "class:hardware"],
)
def oom_kill():
    node = h100(count=2)
    when = ago(minutes=32)
    killed_for_memory(node, when)
    for channel in range(5):
        node.xid(when + timedelta(seconds=4), 0, f"45, pid=51234, name=python3, Ch {9 + channel:08x}")
    return node.report()


@variant(
    "A process was killed for memory, and another program faulted on the same GPU: two stories, both told.",
    "healthy",
    {"id": "application-killed", "gpu": 0, "evidence": ["out-of-memory kill"]},
    {"id": "application-fault", "gpu": 0, "evidence": ["Xid 31"]},
    must_not=["class:hardware"],
)
def oom_kill_and_fault():
    node = h100(count=2)
    node.xid(
        ago(hours=3),
        0,
        "31, pid=48812, name=python3, Ch 00000010, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC0 "
        "GPCCLIENT_T1_0 faulted @ 0x7f29_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
    )
    when = ago(minutes=32)
    killed_for_memory(node, when)
    return node.report()


@variant("All GPUs at their power limit and full load.", "healthy", must_not=["class:power", "clocks-low-under-load"])
def power_capped():
    node = h100(load=lambda index: training(index) | {"watts": 699, "mhz": 1215 + 15 * index})
    return node.report()


@variant(
    "The node was rebooted after Xids; the journal still has them. They are history.",
    "healthy",
    "xid-history",
    must_not=[
        "gpu-off-bus",
        "application-fault",
        "ecc-double-bit",
        "severity:warning",
        "severity:critical",
        "severity:fatal",
    ],
)
def rebooted_after_xids():
    node = h100(count=2, uptime=5_400)
    before = TAKEN_AT - timedelta(hours=9)
    stamp = int(before.timestamp() * 1_000_000)
    for place, text in enumerate(
        [
            "NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            "NVRM: Xid (PCI:0000:18:00): 45, pid=812, name=python3, Ch 00000008",
            "NVRM: Xid (PCI:0000:2a:00): 31, pid=911, name=python3, Ch 00000008, intr 00000000. MMU Fault: "
            "ENGINE GRAPHICS",
        ]
    ):
        node.earlier.append(
            json.dumps(
                {
                    "__REALTIME_TIMESTAMP": str(stamp + place * 1000),
                    "_BOOT_ID": "0e" * 16,
                    "_TRANSPORT": "kernel",
                    "SYSLOG_FACILITY": "0",
                    "PRIORITY": "3",
                    "SYSLOG_IDENTIFIER": "kernel",
                    "MESSAGE": text,
                }
            )
        )
    return node.report()


@variant(
    "The driver was reloaded after an uncontained error: that is over.",
    "healthy",
    "xid-history",
    must_not=["ecc-uncontained", "severity:critical", "severity:fatal"],
)
def driver_reloaded():
    node = h100(count=2)
    node.xid(ago(hours=30), 1, f"95, {UNKNOWN}, Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No")
    node.node.at(
        ago(hours=29),
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (builder@buildhost)",
    )
    return node.report()


@variant(
    "A GPU reset cured it: the driver took its wish back.",
    "healthy",
    "xid-history",
    must_not=["severity:critical", "severity:fatal"],
)
def gpu_was_reset():
    node = a100(count=2)
    node.xid(ago(hours=6), 0, f"94, {UNKNOWN}, Contained: SM (0x1). RST: No, D-RST: Yes")
    node.xid(ago(hours=6), 0, f"154, {UNKNOWN}, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)")
    node.xid(ago(hours=2), 0, f"154, {UNKNOWN}, GPU recovery action changed from 0x4 (Drain and Reset) to 0x0 (None)")
    return node.report()


@variant(
    "Harmless NVLink 5 events that the catalogue says to ignore.",
    "healthy",
    ("nvlink-event", 0),
    must_not=["nvlink-fault"],
)
def gb200_link_noise():
    node = Variant(
        "gb200-a07-t09",
        GB200,
        2,
        idle,
        driver="580.95.05",
        cuda="13.0",
        work=False,
        cpus=("0-71", "72-143"),
        architecture="aarch64",
        system="Ubuntu 24.04.3 LTS",
        kernel="6.8.0-1041-nvidia-64k",
    )
    for minute in (4, 44, 91):
        node.xid(
            ago(minutes=minute),
            0,
            f"145, {UNKNOWN}, RLW_RXPIPE Nonfatal XC0 i0 Link 03 (0x0409a0c2 0x00000008 0x00000000 0x00000000 "
            f"0x00000000 0x00000000)",
        )
    return node.report()


@variant(
    "A PCIe 5 card in a PCIe 4 slot works as well as the slot allows.",
    "healthy",
    ("pcie-slot-limits-gpu", 0),
    must_not=["pcie-generation-low", "severity:warning"],
)
def slot_below_gpu():
    node = h100(count=2)
    node.gpu("telemetry", 0)["pcie"] |= {"generation": 4, "max_generation": 4}
    path = node.gpu("topology", 0)["pcie_path"]
    path[0] |= {"generation": 4}
    path[1] |= {"generation": 4, "max_generation": 4}
    return node.report()


@variant(
    "A program wrote an Xid line to the log. It is counted, not believed.",
    "healthy",
    "kernel-log-untrusted-lines",
    must_not=ALARMS + ["gpu-off-bus"],
)
def forged_xid():
    node = h100(count=2)
    node.forged.append(
        "12,{seq},{usec},-;NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    )
    return node.report()


@variant(
    "GPUs given to virtual machines: not usable by containers, not broken.",
    "unknown",
    must_not=["driver-not-loaded", "severity:warning", "class:hardware"],
    health="unknown",
    more=True,
)
def passthrough():
    node = Node(
        "kubevirt-3", L40S, 4, "580.95.05", "13.0", 811_377, system="Ubuntu 24.04.3 LTS", cpus=("0-31", "32-63")
    )
    node.driver_loaded = False
    why = problem("NVML", "NVML: Driver Not Loaded", "driver_not_loaded", "Load the nvidia kernel module.")
    pci = [gpu | {"driver": "vfio-pci", "in_nvml": None} for gpu in node.host()["data"]["pci_gpus"]]
    return without_nvml(
        node,
        why,
        [],
        node.kubelet([], [{"resource": "nvidia.com/AD102GL_L40S", "devices": []}]),
        driver={"loaded": None, "flavor": None, "module_on_disk": None, "library": None, "library_path": None},
        modules=["vfio_pci"],
        pci_gpus=pci,
        device_nodes=[],
    )


@variant(
    "A process waits in the kernel for a moment: no fault by itself.",
    "healthy",
    "process-uninterruptible",
    must_not=["process-stuck"],
)
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


@variant(
    "An old warning without consequence is told, not raised.",
    "healthy",
    {"id": "xid-driver", "gpu": 0, "severity": "info"},
)
def stale_warning():
    node = l40s(count=2)
    node.xid(ago(days=6), 0, f"38, {UNKNOWN}, FECS watchdog timeout")
    return node.report()


@variant("Two boards of one batch have another VBIOS: no odd one out.", "healthy", must_not=["sibling-vbios-differs"])
def vbios_batches():
    node = l40s()
    for index in (2, 3):
        node.gpu("inventory", index)["vbios_version"] = "95.02.66.00.09"
    return node.report()


@variant("MIG mode takes the NVLinks of an A100 down.", "healthy", must_not=["nvlink-down"])
def mig_takes_links_down():
    node = a100(count=2)
    node.gpu("inventory", 1)["mig_mode"] = {"current": True, "pending": True}
    node.gpu("topology", 1)["nvlinks"] = [
        {
            "links": list(range(12)),
            "active": False,
            "version": None,
            "speed_megabytes_per_second": None,
            "remote_type": None,
            "remote_pci_address": None,
        }
    ]
    return node.report()
