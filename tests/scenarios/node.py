"""Builds the sections of the report of a node from a product and its load.

Every value varies a little from GPU to GPU by a fixed rule. Therefore a test detects two GPUs that are mixed up, and every run
writes the same files.
"""

import hashlib
from datetime import datetime, timedelta, timezone

from kernel_log import KernelLog
from products import MIB

TAKEN_AT = datetime(2026, 11, 21, 2, 45, 10, tzinfo=timezone.utc)

# Clock event reasons as the probe names them; those that indicate a fault come first.
REASONS = [
    (0x40, "HW thermal slowdown"), (0x80, "HW power brake slowdown"), (0x8, "HW slowdown"),
    (0x20, "SW thermal slowdown"), (0x4, "SW power cap"), (0x10, "sync boost"), (0x2, "application clocks setting"),
    (0x100, "display clock setting"), (0x1, "idle"),
]
FAULT_LIKE = 0x8 | 0x20 | 0x40 | 0x80

# Computed values, or values from sysfs: a null in them does not depend on NVML.
NOT_NVML = {"temperature.margin_to_slowdown_celsius", "power.margin_to_limit_milliwatts", "numa_node"}

# The probe lists unsupported fields in the order in which it reads them: these come first.
ASKED_FIRST = [
    "temperature.memory_celsius", "power.instant_milliwatts", "temperature.tlimit_thresholds",
    "temperature.tlimit_thresholds.memory_max_celsius", "sram", "remapped_rows", "retired_pages", "recovery_action",
    "channel_repair_pending", "tpc_repair_pending", "nvlinks", "fabric",
]

LOST_NEXT_STEP = \
    "Drain the node and power-cycle it; a GPU reset cannot bring it back. If it happens again, return the GPU."


def digest(*words):
    return hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()


def uuid(*words):
    text = digest("uuid", *words)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"


def stamp(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def ok(data, duration_ms, problems=()):
    section = {"status": "partial" if problems else "ok", "duration_ms": duration_ms, "data": data}
    return section | ({"problems": list(problems)} if problems else {})


def failed(problem):
    return {"status": "error", "duration_ms": 1, "problems": [problem]}


def problem(what, why, code, next_step="", gpu=None):
    entry = {"what": what, "why": why}
    if next_step:
        entry["next_step"] = next_step
    if gpu is not None:
        entry["gpu"] = gpu
    return entry | {"code": code}


def unsupported(gpus, absent=()):
    """Returns the `unsupported` list of a section: the fields that are null, empty or omitted, and the GPUs."""
    def nulls(value, path):
        if isinstance(value, dict):
            for key, below in value.items():
                yield from nulls(below, f"{path}.{key}" if path else key)
        elif (value is None or path == "nvlinks" and not value) and path not in NOT_NVML:
            yield path

    def order(field):
        return ASKED_FIRST.index(field) if field in ASKED_FIRST else len(ASKED_FIRST)

    by_fields = {}
    for gpu in gpus:
        fields = [*nulls(gpu, ""), *(name for name in absent if name not in gpu)]
        if fields:
            by_fields.setdefault(tuple(sorted(fields, key=order)), []).append(gpu["index"])
    return [{"gpus": indices, "fields": list(fields)} for fields, indices in by_fields.items()]


def section_of(gpus, absent=(), **rest):
    lacking = unsupported(gpus, absent)
    return {"gpus": gpus} | rest | ({"unsupported": lacking} if lacking else {})


class Node:
    """A node. Its name is the seed of every invented identity."""

    def __init__(self, name, product, count, driver, cuda, uptime, system="Ubuntu 22.04.5 LTS",
                 kernel="5.15.0-131-generic", cpus=("0-55,112-167", "56-111,168-223"), architecture="x86_64",
                 virtual=False):
        self.name, self.product, self.count, self.driver, self.cuda = name, product, count, driver, cuda
        self.uptime, self.system, self.kernel, self.cpus = uptime, system, kernel, cpus
        self.architecture, self.virtual = architecture, virtual
        self.boot = TAKEN_AT - timedelta(seconds=uptime)
        addresses = product.get("domains") or [f"00000000:{bus}:00.0" for bus in product["addresses"]]
        self.gpus = [
            {"index": index, "uuid": f"GPU-{uuid(name, index)}", "pci_address": addresses[index]}
            for index in range(count)
        ]
        self.lost = set()
        # Lost GPUs whose serial number the driver wrote to the kernel log.
        self.serial_logged = set()
        # MIG devices by GPU index; MIG is disabled on a GPU without a key.
        self.mig_devices = {}
        self.driver_loaded = True
        self.log = KernelLog(self)

    # ---- identities

    def is_open(self):
        """Whether the node uses the open kernel module, which is optional on Turing."""
        return self.product["architecture"] != "Turing"

    def release(self):
        return int(self.driver.split(".")[0])

    def numa(self, index):
        return index * len(self.cpus) // self.count

    def serial(self, index):
        board = index // 2 if self.product["name"] == "NVIDIA GB200" else index
        return "16" + str(int(digest("serial", self.name, board)[:12], 16))[-11:].rjust(11, "7")

    def alive(self):
        return [gpu for gpu in self.gpus if gpu["index"] not in self.lost]

    def sysfs(self, index):
        return self.gpus[index]["pci_address"][4:]

    # ---- sections

    def sections(self, load, processes, allocations, registered=None, **other):
        """Returns every section; `other` replaces some of them."""
        return {
            "inventory": self.inventory(), "telemetry": self.telemetry(load), "topology": self.topology(),
            "ecc": self.ecc(), "processes": self.processes(processes), "mig": self.mig(),
            "kubelet": self.kubelet(allocations, registered), "host": self.host(),
        } | other

    def inventory(self):
        product = self.product
        gpus = []
        for gpu in self.alive():
            index = gpu["index"]
            bus = int(gpu["pci_address"][9:11], 16)
            entry = gpu | {
                "name": product["name"], "brand": product["brand"], "architecture": product["architecture"],
                "compute_capability": product["compute"], "serial": self.serial(index),
                "board_part_number": product["part"], "board_id": f"{bus << 8:#x}",
                "minor_number": index, "module_id": None if self.virtual else index + 1,
                "pci_device_id": product["device"] + "10de", "pci_subsystem_id": product["subsystem"],
                "vbios_version": product["vbios"].format(1 + index // 6), "inforom": product["inforom"],
                "gsp_firmware_version": self.driver, "gsp_enabled": True, "persistence_mode": True,
                "compute_mode": "default", "virtualization_mode": "passthrough" if self.virtual else "none",
                "display_active": False, "mig_mode": self.mig_mode(index), "ecc_mode": mode(True),
                "memory_total_bytes": product["memory_mib"] * MIB,
                "memory_reserved_bytes": product["reserved_mib"] * MIB,
                "bar1_total_bytes": product["bar1_mib"] * MIB, "pcie_max_generation": product["pcie"],
                "pcie_max_width": 16, "cores": product["cores"],
            }
            if product["name"] == "NVIDIA GB200":
                entry["platform"] = {"chassis_serial": "1823725190437", "slot": 14, "tray": 6, "host_id": 1,
                                     "module_id": index + 1}
            gpus.append(entry)
        versions = {"driver_version": self.driver, "nvml_version": f"{self.cuda.split('.')[0]}.{self.driver}",
                    "cuda_version": self.cuda, "nvml_library": self.library_path()}
        return ok(versions | section_of(gpus, ["platform"], **self.lost_gpus()), 21, self.lost_problems())

    def mig_mode(self, index):
        return mode(index in self.mig_devices) if self.product["mig_max"] else None

    def library_path(self):
        folder = "aarch64-linux-gnu" if self.architecture == "aarch64" else "x86_64-linux-gnu"
        return f"/usr/lib/{folder}/libnvidia-ml.so.{self.driver}"

    def lost_gpus(self):
        """Returns what PCI, the files of the driver in /proc and the kernel log contain about lost GPUs."""
        rows = [
            {"index": index, "pci_address": self.gpus[index]["pci_address"], "uuid": self.gpus[index]["uuid"]}
            | ({"serial": self.serial(index)} if index in self.serial_logged else {}) | {"code": "gpu_lost"}
            for index in sorted(self.lost)
        ]
        return {"lost": rows} if rows else {}

    def lost_problems(self):
        """A lost GPU has no handle, therefore it has no entry in the GPU list of a section."""
        return [problem(f"GPU {index}", "NVML: GPU is lost", "gpu_lost", LOST_NEXT_STEP, index)
                for index in sorted(self.lost)]

    def telemetry(self, load):
        """`load(index)` gives `gpu`, `memory` (percent busy), `used` (share of the frame buffer) and `watts`."""
        product, clocks, limits = self.product, self.product["clocks"], self.product["limits"]
        gpus = []
        for gpu in self.alive():
            index = gpu["index"]
            now = load(index)
            busy = now["gpu"] > 0
            degrees = now["degrees"]
            milliwatts = now["watts"] * 1000 + 137 * index + 41
            graphics = now.get("mhz", clocks["max"]) - 15 * (index % 3) if busy else clocks["idle"]
            memory_mhz = clocks["memory" if busy else "idle_memory"]
            used = self.used_bytes(load, index)
            # Field 186 came after Turing.
            instant = None if product["architecture"] == "Turing" else milliwatts + 1250 - 310 * index
            mask = now.get("reasons", 0x4 if now["watts"] * 1000 > 0.97 * product["power"]["default"] else 0)
            mask = mask if busy else 0x1
            zero = limits["gpu_max"] if limits["gpu_max"] else product.get("tlimit_zero")
            margin = zero - degrees if product["tlimit"] else None
            # If there is no value in degrees, the slowdown threshold in T.Limit gives the margin.
            beyond = margin - product["tlimit"]["slowdown_celsius"] if product["tlimit"] else None
            violations = [{"policy": "power", "duration_ms": now["capped_ms"]}] if now.get("capped_ms") else []
            generation = product["pcie"] if busy or product["hbm"] else 1

            def share(percent):
                """Returns None on a GPU with MIG enabled: the value is not measured there."""
                return None if index in self.mig_devices else percent

            gpus.append(gpu | {
                "performance_state": 0 if busy or product["hbm"] else 8,
                "temperature": {
                    "gpu_celsius": degrees, "memory_celsius": degrees + 9 + index % 3 if product["hbm"] else None,
                    "slowdown_celsius": limits["slowdown"], "shutdown_celsius": limits["shutdown"],
                    "gpu_max_celsius": limits["gpu_max"], "memory_max_celsius": limits["memory_max"],
                    "tlimit_margin_celsius": margin,
                    "tlimit_thresholds": product["tlimit"],
                    "margin_to_slowdown_celsius": limits["slowdown"] - degrees if limits["slowdown"] else beyond,
                },
                "fan_percent": None,
                "power": {
                    "draw_milliwatts": milliwatts,
                    "instant_milliwatts": instant,
                    "limit_milliwatts": product["power"]["default"],
                    "enforced_limit_milliwatts": product["power"]["default"],
                    "default_limit_milliwatts": product["power"]["default"],
                    "min_limit_milliwatts": product["power"]["min"], "max_limit_milliwatts": product["power"]["max"],
                    "energy_millijoules": (self.uptime - 95) * now["watts"] * 1000 * 7 // 9 + 1009 * index,
                    "margin_to_limit_milliwatts": product["power"]["default"] - milliwatts,
                },
                "clocks": {
                    "graphics_mhz": graphics, "sm_mhz": graphics, "memory_mhz": memory_mhz,
                    "video_mhz": clocks["video"] if busy else clocks["idle_video"],
                    "max_graphics_mhz": clocks["max"], "max_sm_mhz": clocks["max"],
                    "max_memory_mhz": clocks["memory"], "max_video_mhz": clocks["video"],
                    "application_graphics_mhz": clocks["max"], "application_memory_mhz": clocks["memory"],
                },
                "utilization": {
                    "gpu_percent": share(now["gpu"]), "memory_percent": share(now["memory"]),
                    "encoder_percent": share(0), "decoder_percent": share(now.get("decoder", 0)),
                    "jpeg_percent": share(product["engines"]["jpeg"]), "ofa_percent": share(product["engines"]["ofa"]),
                },
                "memory": {
                    "total_bytes": product["memory_mib"] * MIB, "reserved_bytes": product["reserved_mib"] * MIB,
                    "used_bytes": used,
                    "free_bytes": (product["memory_mib"] - product["reserved_mib"]) * MIB - used,
                    "bar1_total_bytes": product["bar1_mib"] * MIB,
                    "bar1_used_bytes": (4 + index % 2 if busy else 1) * MIB,
                },
                "pcie": {"generation": generation, "width": 16, "max_generation": product["pcie"], "max_width": 16,
                         "replays": now.get("replays", 0), "replay_rollovers": 0},
                "throttling": {
                    "active": bool(mask & FAULT_LIKE),
                    "reasons": [words for bit, words in REASONS if mask & bit],
                    "reasons_mask": mask,
                } | ({"violations": violations} if violations else {}),
            })
        return ok(section_of(gpus, **self.lost_gpus()), 34, self.lost_problems())

    def used_bytes(self, load, index):
        if index in self.mig_devices:
            return sum(device["memory_used_bytes"] for device in self.mig_devices[index])
        free_and_used = (self.product["memory_mib"] - self.product["reserved_mib"]) * MIB
        return int(free_and_used * load(index)["used"]) // MIB * MIB

    def path(self, index):
        """Returns the PCIe path of a GPU: behind a PCIe switch on HGX boards, on a root port otherwise."""
        generation = self.product["pcie"]
        gpu = self.gpus[index]["pci_address"]
        domain, bus = gpu[:8], int(gpu[9:11], 16)

        def hop(address, kind, now=generation, most=generation):
            return {"pci_address": address, "kind": kind, "generation": now, "width": 16, "max_generation": most,
                    "max_width": 16}

        if self.virtual:
            return [hop(gpu, "gpu")]
        if "domains" in self.product:
            return [hop(gpu, "gpu"), hop(f"{domain}:00:00.0", "root_port")]
        if self.product["hbm"]:
            return [hop(gpu, "gpu"), hop(f"{domain}:{bus - 2:02x}:00.0", "switch_downstream"),
                    hop(f"{domain}:{bus - 3:02x}:00.0", "switch_upstream"),
                    hop(f"{domain}:{bus - 4:02x}:01.0", "root_port")]
        return [hop(gpu, "gpu"), hop(f"{domain}:{bus - 1:02x}:02.0", "root_port")]

    def nvlinks(self):
        nvlink = self.product["nvlink"]
        if not nvlink:
            return []
        return [
            {"links": [link for link, to in enumerate(nvlink["spread"]) if to == number], "active": True,
             "version": nvlink["version"], "speed_megabytes_per_second": nvlink["speed"], "remote_type": "switch",
             "remote_pci_address": address}
            for number, address in enumerate(nvlink["switches"])
        ]

    def topology(self, nics=True):
        alive, nvlink = self.alive(), self.product["nvlink"]
        gpus = []
        for gpu in alive:
            index = gpu["index"]
            entry = gpu | {"numa_node": self.numa(index), "cpu_affinity": self.cpus[self.numa(index)],
                           "nvlinks": self.nvlinks(), "pcie_path": self.path(index), "pcie_replays": 0}
            if self.product["fabric"]:
                entry["fabric"] = {"state": "completed", "status": "success", "clique_id": 0}
                if "domains" in self.product:
                    entry["fabric"] |= {"clique_id": 32766, "cluster_uuid": uuid("rack", "a07")}
                if self.release() >= 570:
                    entry["fabric"]["health"] = "healthy"
            gpus.append(entry)

        def cell(row, column):
            if row is column:
                return "X"
            if nvlink:
                return f"NV{len(nvlink['spread'])}"
            return "NODE" if self.numa(row["index"]) == self.numa(column["index"]) else "SYS"

        rest = {"matrix": [[cell(row, column) for column in alive] for row in alive]}
        # MIG disables peer-to-peer; atomics need NVLink.
        pairs = [[one["index"], other["index"]] for place, one in enumerate(alive) for other in alive[place + 1:]]
        capabilities = ["read", "write", "atomics"]
        def lacks(capability, pair):
            return any(index in self.mig_devices for index in pair) or capability == "atomics" and not nvlink

        lacking = [{"capability": capability, "status": "not_supported",
                    "pairs": [pair for pair in pairs if lacks(capability, pair)]} for capability in capabilities]
        rest["p2p_lacking"] = [lack for lack in lacking if lack["pairs"]]
        rest["p2p_all_ok"] = [lack["capability"] for lack in lacking if pairs and not lack["pairs"]]
        if nics and nvlink:
            rest["nics"] = [self.nic(gpu) for gpu in self.gpus]
        rest |= self.lost_gpus()
        rest["nvswitches"] = [address for address in (nvlink or {"switches": []})["switches"] if address]
        return ok(section_of(gpus, ["fabric"], **rest), 27, self.lost_problems())

    def nic(self, gpu):
        index = gpu["index"]
        domain, bus = gpu["pci_address"][:8], int(gpu["pci_address"][9:11], 16)
        on_switch = "domains" not in self.product
        address = f"{domain}:{bus - 1:02x}:00.0" if on_switch else f"{int(domain, 16) - 8:08x}:03:00.0"
        port = {"device": f"mlx5_{index}", "port": 1, "pci_address": address, "numa_node": self.numa(index),
                "link_layer": "InfiniBand", "state": "ACTIVE",
                "rate_gigabits_per_second": 200.0 if self.product["pcie"] == 4 else 400.0}
        if on_switch and index not in self.lost:
            return port | {"near": [{"gpu": index, "via": "PIX"}]}
        # If no NIC is on the same switch, all NICs of the NUMA node are equally near.
        beside = [other["index"] for other in self.alive() if self.numa(other["index"]) == self.numa(index)]
        return port | {"near": [{"gpu": other, "via": "NODE"} for other in beside]}

    def ecc(self):
        gpus = []
        for gpu in self.alive():
            entry = gpu | {
                "mode": mode(True), "volatile": {"corrected": 0, "uncorrected": 0},
                "aggregate": {"corrected": 0, "uncorrected": 0},
                "recovery_action": "none" if self.release() >= 570 else None, "inforom_valid": True,
            }
            if self.product["sram"]:
                entry["sram"] = {"threshold_exceeded": False} | dict.fromkeys([
                    "volatile_corrected", "volatile_uncorrected_parity", "volatile_uncorrected_secded",
                    "aggregate_corrected", "aggregate_uncorrected_parity", "aggregate_uncorrected_secded",
                    "bucket_l2", "bucket_sm", "bucket_pcie", "bucket_microcontroller", "bucket_other"], 0)
            if gpu["index"] in self.mig_devices:
                pass  # The driver returns no row remapping while instances exist.
            elif self.product["banks"]:
                entry["remapped_rows"] = {
                    "correctable": 0, "uncorrectable": 0, "pending": False, "failure_occurred": False,
                    "histogram": {"max": self.product["banks"], "high": 0, "partial": 0, "low": 0, "none": 0}}
            else:
                entry["retired_pages"] = {"single_bit": 0, "double_bit": 0, "pending": False}
            if self.product["architecture"] == "Blackwell" and self.release() >= 580:
                entry |= {"channel_repair_pending": False, "tpc_repair_pending": False}
            gpus.append(entry)
        # One aggregate corrected error is harmless. It is there so that not all counters are zero.
        if len(gpus) > 2:
            gpus[2]["aggregate"] = {"corrected": 1, "uncorrected": 0,
                                    "locations": [{"location": "dram", "corrected": 1, "uncorrected": 0}]}
        absent = ["sram", "remapped_rows", "retired_pages", "channel_repair_pending", "tpc_repair_pending"]
        return ok(section_of(gpus, absent, **self.lost_gpus()), 18, self.lost_problems())

    def mig(self):
        gpus = [{"index": gpu["index"], "uuid": gpu["uuid"], "mode": self.mig_mode(gpu["index"]),
                 "max_devices": self.product["mig_max"], "devices": self.mig_devices.get(gpu["index"], [])}
                for gpu in self.alive()]
        return ok(section_of(gpus), 4, self.lost_problems())

    def process(self, pid, name, command, started, uses, pod, uid=0, state="S", user="root", qos="guaranteed"):
        """Adds a process; `started` is in seconds after boot."""
        entry = {"pid": pid, "name": name, "command": command, "uid": uid} | ({"user": user} if user else {})
        entry |= {"started_at": stamp(self.boot + timedelta(seconds=started)), "start_ticks": started * 100,
                  "state": state, "uses": uses}
        if pod:
            entry |= {"pod_uid": uuid(self.name, "pod", pod), "container_id": digest(self.name, "container", pod),
                      "qos": qos}
        return entry

    def monitors(self):
        """Adds daemons that have the device files of the GPUs open and that NVML does not list."""
        holds = {"open_device_files": [f"/dev/nvidia{gpu['index']}" for gpu in self.gpus]}
        return [
            self.process(2204, "nvidia-persiste", "/usr/bin/nvidia-persistenced --user nvidia-persistenced", 16, [],
                         None, uid=127, user="nvidia-persistenced") | holds,
            self.process(3121, "nv-hostengine", "/usr/bin/nv-hostengine -n --service-account nvidia-dcgm", 74, [],
                         "dcgm", qos="besteffort") | holds,
        ]

    def processes(self, processes):
        return ok({"host_pid_namespace": True, "processes": self.monitors() + processes}, 12, self.lost_problems())

    def pci_topology(self, why):
        """Returns the topology in sysfs, for a node without NVML."""
        gpus = [gpu | {"uuid": None, "numa_node": self.numa(gpu["index"]),
                       "cpu_affinity": self.cpus[self.numa(gpu["index"])], "nvlinks": [],
                       "pcie_path": self.path(gpu["index"]), "pcie_replays": None} for gpu in self.gpus]
        if not gpus:
            return failed(why)
        return ok({"gpus": gpus, "matrix": [], "p2p_all_ok": [], "nvswitches": []}, 3, [why])

    def allocation(self, pod, container, indices, resource="nvidia.com/gpu", devices=None):
        return {"pod_uid": uuid(self.name, "pod", pod), "container": container, "resource": resource,
                "devices": devices or [self.gpus[index]["uuid"] for index in indices]}

    def kubelet(self, allocations, registered=None):
        devices = registered or [{"resource": "nvidia.com/gpu", "devices": [gpu["uuid"] for gpu in self.gpus]}]
        return ok({"source": "checkpoint", "allocations": allocations, "registered": devices}, 2)

    def host(self, **changes):
        arm, switches = self.architecture == "aarch64", self.product["nvlink"] and not self.virtual
        nodes = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"]
        nodes += [f"nvidia{index}" for index in range(self.count)]
        nodes += ["nvidia-caps/nvidia-cap1", "nvidia-caps/nvidia-cap2"]
        if switches and not arm:
            nodes.append("nvidia-nvswitchctl")
            nodes += [f"nvidia-nvswitch{number}" for number in range(len(self.product["nvlink"]["switches"]))]
        memory_gib = 15 if self.virtual else 956 if arm else 2015 if switches else 503
        data = {
            "operating_system": self.system, "uptime_seconds": self.uptime,
            "driver": {"loaded": self.driver, "flavor": "open" if self.is_open() else "proprietary",
                       "module_on_disk": self.driver, "library": self.driver, "library_path": self.library_path()},
            "modules": ["nvidia", "nvidia_modeset", "nvidia_uvm"] + (["nvidia_peermem"] if switches else []),
            "pci_gpus": [
                {"pci_address": gpu["pci_address"], "device_id": self.product["device"], "driver": "nvidia",
                 "in_nvml": gpu["index"] not in self.lost, "numa_node": self.numa(gpu["index"])}
                | ({} if self.virtual else {"iommu_group": 27 + 14 * gpu["index"]})
                | {"answers": gpu["index"] not in self.lost}
                for gpu in self.gpus
            ],
            "device_nodes": nodes,
            "daemons": {"persistenced": True, "fabric_manager": bool(switches and not arm), "imex": arm, "dcgm": True,
                        "mps": False},
            "gsp_firmware_versions": [self.driver], "cdi_spec": "/run/cdi/nvidia.yaml",
            "container_toolkit": "/usr/bin/nvidia-container-runtime", "iommu": not self.virtual,
            "numa_nodes": len(self.cpus), "hugepages": [{"size_kib": 2048, "total": 0, "free": 0}],
            "memory_total_bytes": memory_gib << 30,
            "memory_available_bytes": (memory_gib << 30) * 7 // 9 // 4096 * 4096,
        }
        return ok(data | changes, 6)

    def at(self, time, text, level=3):
        """Adds a line to the kernel log at a wall-clock time."""
        self.log.at(time, text, level)

    def xid(self, time, index, text):
        """Adds an Xid of one GPU to the kernel log."""
        self.log.xid(time, index, text)

    def report(self, sections):
        return {
            "schema_version": 3, "probe_version": "0.1.0", "source": "file", "hostname": self.name,
            "boot_id": uuid(self.name, "boot"), "kernel": self.kernel, "taken_at": stamp(TAKEN_AT),
            "duration_ms": 40 + sum(section["duration_ms"] for section in sections.values()), "sections": sections,
            "kernel_log": self.log.records(),
        }


def mode(current, pending=None):
    return {"current": current, "pending": current if pending is None else pending}
