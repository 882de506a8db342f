"""Nodes with faults around the GPUs: NVLink and NVSwitch, temperature, power, PCIe, other devices."""

from datetime import timedelta

from expected import UNKNOWN, Variant, ago, h100, idle, l40s, variant
from generate import training
from products import GB200


@variant(
    "Link 5 of GPU 2 is down on an NVSwitch board.",
    "critical",
    {"id": "nvlink-down", "gpu": 2, "evidence": ["17 of 18", "5"]},
)
def nvlink_down():
    node = h100()
    groups = node.gpu("topology", 2)["nvlinks"]
    for group in groups:
        group["links"] = [link for link in group["links"] if link != 5]
    groups.append(
        {
            "links": [5],
            "active": False,
            "version": 4,
            "speed_megabytes_per_second": None,
            "remote_type": None,
            "remote_pci_address": None,
        }
    )
    return node.report()


@variant(
    "Fabric Manager is down and the GPUs are not registered.",
    "critical",
    {"id": "fabric-manager-not-running", "evidence": ["4 GPUs not registered"]},
    must_not=["class:hardware", "fabric-not-registered"],
)
def fabric_manager_down():
    node = h100(load=idle, work=False)
    node.host()["daemons"]["fabric_manager"] = False
    for index in range(4):
        node.gpu("topology", index)["fabric"] = {"state": "in_progress", "status": None, "clique_id": None}
    return node.report()


@variant(
    "A fatal SXid and the Xid 74 of the GPU on that port: one fault, seen from both ends.",
    "fatal",
    {"id": "nvswitch-fault", "evidence": ["SXid 20034", "other end: GPU 1", "Xid 74"]},
    must_not=["nvlink-fault", "class:hardware"],
)
def sxid_and_xid74():
    node = h100(count=2)
    when = ago(minutes=55)
    node.node.at(when, "nvidia-nvswitch2: SXid (PCI:0000:09:00.0): 20034, Fatal, Link 33 LTSSM Fault Up (First)")
    node.node.at(
        when, "nvidia-nvswitch2: SXid (PCI:0000:09:00.0): 20034, Severity 1 Engine instance 33 Sub-engine instance 00"
    )
    node.node.at(when, "nvidia-nvswitch2: SXid (PCI:0000:09:00.0): 20034, Data {0x50610002, 0x10100030, 0x00000000}")
    node.xid(when, 1, f"74, {UNKNOWN}, NVLink: fatal error detected on link 6(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)")
    for channel in range(4):
        node.xid(when + timedelta(seconds=2), 1, f"45, pid=41211, name=python3, Ch {8 + channel:08x}")
    return node.report()


@variant(
    "A link of a GB200 went down; errors of the next 30 s follow from it.",
    "fatal",
    {"id": "nvlink-fault", "gpu": 1, "evidence": ["Xid 149", "link-down reason 33", "Xid 145 (2)"]},
    must_not=["application-fault"],
)
def gb200_link_down():
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
    when = ago(minutes=18)
    node.xid(
        when,
        1,
        f"149, {UNKNOWN}, NETIR_LINK_EVT Fatal XC0 i0 Link 11 (0x021425c6 0x00000000 0x00000000 0x00000000 "
        f"0x00000000 0x00000000)",
    )
    for second in (2, 9):
        node.xid(
            when + timedelta(seconds=second),
            1,
            f"145, {UNKNOWN}, RLW_REMAP Nonfatal XC0 i0 Link 11 (0x00000004 0x00000004 0x00000000 0x00000000 "
            f"0x00000000 0x00000000)",
        )
    node.xid(when + timedelta(seconds=10), 1, "45, pid=30119, name=python3, Ch 00000008")
    return node.report()


@variant(
    "The fabric says that GPU 0 has a bad route.",
    "critical",
    {"id": "fabric-unhealthy", "gpu": 0, "evidence": ["route_unhealthy"]},
)
def fabric_unhealthy():
    node = h100(count=2)
    node.gpu("topology", 0)["fabric"] |= {"health": "unhealthy", "health_issues": ["route_unhealthy"]}
    return node.report()


@variant(
    "GPU 1 slows down for heat.",
    "critical",
    {"id": "thermal-slowdown-hardware", "gpu": 1, "evidence": ["87 °C"]},
    ("memory-too-hot", 1),
    must_not=["class:hardware", "gpu-too-hot", "gpu-hotter-than-peers"],
)
def thermal_slowdown():
    def load(index):
        return training(index) | ({"degrees": 87, "reasons": 0x48, "mhz": 1005} if index == 1 else {})

    return h100(load=load).report()


@variant(
    "The power supply brakes all GPUs.",
    "critical",
    {"id": "power-brake", "evidence": ["GPUs 0-3"]},
    must_not=["class:thermal"],
)
def power_brake():
    return h100(load=lambda index: training(index) | {"reasons": 0x88, "mhz": 660, "watts": 301}).report()


@variant(
    "Somebody lowered the power limit of all GPUs to two thirds.",
    "warning",
    "power-limit-lowered",
    must_not=["class:hardware"],
)
def power_limit_lowered():
    node = h100()
    for index in range(4):
        node.gpu("telemetry", index)["power"] |= {"limit_milliwatts": 450_000, "enforced_limit_milliwatts": 450_000}
    return node.report()


@variant(
    "Clocks of GPU 2 are locked low under load.",
    "warning",
    ("clocks-low-under-load", 2),
    must_not=["gpu-clocks-below-peers"],
)
def clocks_locked():
    return h100(
        load=lambda index: training(index) | ({"mhz": 720, "reasons": 0, "watts": 310} if index == 2 else {})
    ).report()


@variant(
    "GPU 0 has eight of sixteen lanes.",
    "critical",
    {"id": "pcie-width-degraded", "gpu": 0, "evidence": ["x8 of x16"]},
)
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
        node.node.at(
            ago(minutes=71),
            f"pcieport {address}: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Data Link Layer, (Receiver ID)",
        )
    return node.report()


@variant("GPU 3 is far hotter than its siblings at the same power.", "warning", ("gpu-hotter-than-peers", 3))
def hot_sibling():
    return h100(load=lambda index: training(index) | ({"degrees": 79} if index == 3 else {})).report()


@variant(
    "One link had to recover; the others count what every link counts.",
    "warning",
    {"id": "nvlink-errors", "gpu": 1, "evidence": ["recovery: 3"]},
    ("nvlink-errors-counted", 0),
)
def nvlink_errors():
    node = h100(count=2)
    node.gpu("topology", 0)["nvlinks"][0]["errors"] = {"replay": 7}
    node.gpu("topology", 1)["nvlinks"][1]["errors"] = {"crc_flit": 41, "recovery": 3}
    return node.report()


@variant(
    "The machine around the GPUs is in trouble: machine checks, a network card without power.",
    "warning",
    "machine-check",
    "nic-power-missing",
    health="degraded",
)
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
