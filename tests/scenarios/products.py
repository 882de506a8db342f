"""The products of the generator: the values that do not depend on the node, as NVML reports them.

Device ids, limits and sizes are those of the real products. Other files invent serial numbers, UUIDs and addresses.
"""

MIB = 1 << 20

# Thresholds relative to the maximum operating temperature, as on boards since Ada.
TLIMIT = {"shutdown_celsius": -8, "slowdown_celsius": -2, "memory_max_celsius": 0, "gpu_max_celsius": 0}
TLIMIT_WITHOUT_MEMORY = TLIMIT | {"memory_max_celsius": None}


def links(switches, version, speed, spread):
    """Returns the NVLinks of a board: link N of every GPU connects to switch `spread[N]`."""
    return {"switches": switches, "version": version, "speed": speed, "spread": spread}


H100 = {
    "name": "NVIDIA H100 80GB HBM3", "brand": "NVIDIA", "architecture": "Hopper", "compute": "9.0",
    "part": "692-2G520-0200-000", "device": "2330", "subsystem": "16c110de", "vbios": "96.00.89.00.{:02X}",
    "inforom": {"image": "G520.0200.00.05", "oem": "2.1", "ecc": "7.16", "power": None},
    "memory_mib": 81559, "reserved_mib": 551, "bar1_mib": 131072, "cores": 16896, "pcie": 5, "mig_max": 7,
    "power": {"default": 700000, "min": 200000, "max": 700000}, "idle_watts": 72,
    "clocks": {"max": 1980, "memory": 2619, "video": 1545, "idle": 345, "idle_memory": 2619, "idle_video": 765},
    # Temperatures: T.Limit is 0 at gpu_max; slowdown is 2 and shutdown is 8 degrees above it.
    "limits": {"slowdown": 87, "shutdown": 93, "gpu_max": 85, "memory_max": 95}, "tlimit": TLIMIT, "hbm": True,
    "engines": {"jpeg": 0, "ofa": 0}, "banks": 2560, "sram": True, "fabric": True,
    # Four NVSwitches: 5, 4, 4 and 5 links.
    "nvlink": links(["00000000:07:00.0", "00000000:08:00.0", "00000000:09:00.0", "00000000:0a:00.0"], 4, 26562,
                    [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 3, 1, 2, 0, 3]),
    "addresses": ["18", "2a", "3a", "5d", "9a", "ab", "ba", "db"],
}

A100 = {
    "name": "NVIDIA A100-SXM4-80GB", "brand": "NVIDIA", "architecture": "Ampere", "compute": "8.0",
    "part": "692-2G506-0212-002", "device": "20b2", "subsystem": "146310de", "vbios": "92.00.A0.00.{:02X}",
    "inforom": {"image": "G506.0212.00.02", "oem": "2.0", "ecc": "6.16", "power": None},
    "memory_mib": 81920, "reserved_mib": 866, "bar1_mib": 131072, "cores": 6912, "pcie": 4, "mig_max": 7,
    "power": {"default": 400000, "min": 100000, "max": 400000}, "idle_watts": 61,
    "clocks": {"max": 1410, "memory": 1593, "video": 1290, "idle": 210, "idle_memory": 1593, "idle_video": 585},
    "limits": {"slowdown": 89, "shutdown": 92, "gpu_max": 85, "memory_max": 95}, "tlimit": None, "hbm": True,
    "engines": {"jpeg": 0, "ofa": 0}, "banks": 640, "sram": True, "fabric": False,
    # Six NVSwitches, two links each.
    "nvlink": links([f"00000000:{bus}:00.0" for bus in ("c3", "c4", "c5", "c6", "c7", "c8")], 3, 25781,
                    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
    "addresses": ["07", "0f", "47", "4e", "87", "90", "b7", "bd"],
}

GB200 = {
    "name": "NVIDIA GB200", "brand": "NVIDIA", "architecture": "Blackwell", "compute": "10.0",
    "part": "692-2G548-0001-000", "device": "2941", "subsystem": "204610de", "vbios": "97.00.B9.00.{:02X}",
    "inforom": {"image": "G548.0201.00.06", "oem": "2.1", "ecc": "7.16", "power": None},
    "memory_mib": 189471, "reserved_mib": 694, "bar1_mib": 262144, "cores": 18944, "pcie": 6, "mig_max": 7,
    "power": {"default": 1200000, "min": 200000, "max": 1200000}, "idle_watts": 168,
    "clocks": {"max": 2062, "memory": 3996, "video": 1965, "idle": 120, "idle_memory": 3996, "idle_video": 600},
    # For Blackwell this driver returns only T.Limit.
    "limits": {"slowdown": None, "shutdown": None, "gpu_max": None, "memory_max": None}, "tlimit": TLIMIT, "hbm": True,
    "tlimit_zero": 85, "engines": {"jpeg": 0, "ofa": 0}, "banks": 3072, "sram": True, "fabric": True,
    # The switches are in other trays of the rack and have no PCI address on this node.
    "nvlink": links([None], 5, 53125, [0] * 18),
    "domains": ["00000008:01:00.0", "00000009:01:00.0", "00000018:01:00.0", "00000019:01:00.0"],
}

L40S = {
    "name": "NVIDIA L40S", "brand": "NVIDIA", "architecture": "Ada", "compute": "8.9",
    "part": "900-2G133-0080-000", "device": "26b9", "subsystem": "185110de", "vbios": "95.02.66.00.{:02X}",
    "inforom": {"image": "G133.0242.00.03", "oem": "2.1", "ecc": "6.16", "power": None},
    "memory_mib": 46068, "reserved_mib": 590, "bar1_mib": 65536, "cores": 18176, "pcie": 4, "mig_max": None,
    "power": {"default": 350000, "min": 100000, "max": 350000}, "idle_watts": 33,
    "clocks": {"max": 2520, "memory": 9001, "video": 1965, "idle": 210, "idle_memory": 405, "idle_video": 1185},
    "limits": {"slowdown": 92, "shutdown": 98, "gpu_max": 90, "memory_max": None}, "tlimit": TLIMIT_WITHOUT_MEMORY, "hbm": False,
    "engines": {"jpeg": 0, "ofa": 0}, "banks": 192, "sram": True, "fabric": False, "nvlink": None,
    "addresses": ["16", "38", "ac", "d8"],
}

T4 = {
    "name": "Tesla T4", "brand": "Tesla", "architecture": "Turing", "compute": "7.5",
    "part": "900-2G183-0000-001", "device": "1eb8", "subsystem": "12a210de", "vbios": "90.04.96.00.{:02X}",
    "inforom": {"image": "G183.0200.00.02", "oem": "1.1", "ecc": "5.0", "power": None},
    "memory_mib": 15360, "reserved_mib": 455, "bar1_mib": 256, "cores": 2560, "pcie": 3, "mig_max": None,
    "power": {"default": 70000, "min": 60000, "max": 70000}, "idle_watts": 10,
    "clocks": {"max": 1590, "memory": 5001, "video": 1470, "idle": 300, "idle_memory": 405, "idle_video": 540},
    "limits": {"slowdown": 93, "shutdown": 96, "gpu_max": 85, "memory_max": None}, "tlimit": None, "hbm": False,
    "engines": {"jpeg": None, "ofa": None}, "banks": None, "sram": False, "fabric": False, "nvlink": None,
    "domains": ["00000000:00:1e.0"],
}

# A10 that a hypervisor passes to a guest as a vGPU.
A10_VGPU = T4 | {
    "name": "NVIDIA A10-24Q", "brand": "NVIDIA RTX Virtual Workstation", "architecture": "Ampere", "compute": "8.6",
    "part": "900-2G133-0020-000", "device": "2236", "subsystem": "148210de", "memory_mib": 24512, "reserved_mib": 0,
    "cores": 9216, "pcie": 4, "power": {"default": 150000, "min": 100000, "max": 150000},
    "clocks": {"max": 1695, "memory": 6251, "video": 1530, "idle": 210, "idle_memory": 405, "idle_video": 555},
    "engines": {"jpeg": 0, "ofa": 0}, "domains": ["00000002:00:00.0"],
}
