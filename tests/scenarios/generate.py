#!/usr/bin/env python3
"""Writes the base scenarios: one facts file (a saved report) for each state of a node.

    python3 tests/scenarios/generate.py            writes every file
    python3 tests/scenarios/generate.py --check    fails if a file differs from the generated one

No data comes from a real machine: products are real, identities and incidents are invented.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

sys.dont_write_bytecode = True

from node import MIB, TAKEN_AT, Node, failed, ok, problem, uuid
from products import A100, GB200, H100, L40S, T4

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


def use(gpu, memory, kind="compute", **more):
    return {"gpu": gpu, "kind": kind, "memory_bytes": memory} | more


# ---- a training job on a whole HGX H100 node: one pod, one process per GPU

FIRST_PID = 41210


def training(index):
    return {"gpu": 100 - index % 2, "memory": 58 + index, "used": 0.991 - 0.0004 * index, "watts": 662 + 5 * index,
            "degrees": 58 + (3 * index) % 8, "mhz": 1830 - 15 * (index % 4), "capped_ms": 8_640_000 + 71_300 * index}


def trainer(node, index, load, **more):
    return node.process(FIRST_PID + index, "python3", "python3 -u train.py --config /etc/job/llm-70b.yaml", 4180,
                        [use(index, node.used_bytes(load, index) - 523 * MIB)], "trainer", **more)


def hgx_h100(name, uptime):
    return Node(name, H100, 8, "570.124.06", "12.8", uptime)


def training_sections(node, load, processes):
    return node.sections(load, processes, [node.allocation("trainer", "trainer", range(8))])


@scenario
def healthy_h100_8():
    node = hgx_h100("gpu-h100-1", 1_036_815)
    return node.report(training_sections(node, training, [trainer(node, index, training) for index in range(8)]))


@scenario
def xid79_off_bus():
    """GPU 3 fell off the bus 14 minutes ago. Its process hangs in the driver, the seven others wait for it in NCCL."""
    node = hgx_h100("gpu-h100-2", 153_899)
    node.lost, node.serial_logged = {3}, {3}

    def waiting(index):
        return training(index) | {
            "memory": 0, "watts": 187 + index, "degrees": 41 + index % 4, "mhz": 1980, "reasons": 0}

    processes = [trainer(node, index, training) for index in range(8)]
    processes[3] |= {"uses": [], "open_device_files": ["/dev/nvidia3"], "state": "D"}
    sections = training_sections(node, waiting, processes)

    fell = TAKEN_AT - timedelta(minutes=14, seconds=3)
    port, gpu = node.path(3)[1]["pci_address"][4:], node.sysfs(3)
    for text in [
        f"pcieport {port}: AER: Uncorrectable (Fatal) error message received from {port}",
        f"pcieport {port}: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer, (Receiver ID)",
        f"pcieport {port}:   device [1000:c030] error status/mask=00000020/00000000",
        f"pcieport {port}:    [ 5] SDES                   (First)",
        f"nvidia {gpu}: AER: can't recover (no error_detected callback)",
        f"NVRM: GPU at PCI:{gpu[:-2]}: {node.gpus[3]['uuid']}",
        f"NVRM: GPU Board Serial Number: {node.serial(3)}",
        f"NVRM: Xid (PCI:{gpu[:-2]}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        f"NVRM: GPU {gpu}: GPU has fallen off the bus.",
        f"NVRM: GPU {gpu}: GPU serial number is {node.serial(3)}.",
        f"NVRM: Xid (PCI:{gpu[:-2]}): 154, pid='<unknown>', name=<unknown>, "
        "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
    ]:
        node.at(fell, text)
    for channel in range(9):
        owner = f"pid={FIRST_PID + 3}, name=python3" if channel < 7 else "pid=3121, name=nv-hostengine"
        node.xid(fell + timedelta(milliseconds=310 + 170 * channel), 3, f"45, {owner}, Ch {8 + channel:08x}")
    node.at(fell + timedelta(seconds=187), f"INFO: task python3:{FIRST_PID + 3} blocked for more than 120 seconds.")
    return node.report(sections)


# ---- inference on a whole HGX A100 node: a pod per GPU


SERVER = "python3 -m vllm.entrypoints.openai.api_server"


def serving(index):
    return {"gpu": 71 + 3 * index, "memory": 38 + 2 * index, "used": 0.87 + 0.004 * index, "watts": 281 + 9 * index,
            "degrees": 49 + (5 * index) % 9, "mhz": 1410, "capped_ms": 12_400 + 370 * index}


@scenario
def ecc_remap_pending():
    """GPU 5 had an uncorrectable error in its memory 6 hours ago. It was contained; the row remap is pending until a reset."""
    node = Node("gpu-a100-3", A100, 8, "570.124.06", "12.8", 4_311_730, cpus=("0-63,128-191", "64-127,192-255"))
    bad, dead, restarted = 5, 52731, 4_289_600
    ecc = node.ecc()
    gpu = ecc["data"]["gpus"][bad]
    location = {"location": "dram", "corrected": 0, "uncorrected": 1}
    gpu["volatile"] = {"corrected": 0, "uncorrected": 1, "locations": [location]}
    gpu["aggregate"] = {"corrected": 0, "uncorrected": 1, "locations": [location]}
    gpu["recovery_action"] = "drain_and_reset"
    gpu["remapped_rows"] |= {"uncorrectable": 1, "pending": True,
                             "histogram": {"max": 639, "high": 1, "partial": 0, "low": 0, "none": 0}}

    processes = [
        node.process(61840 if index == bad else 48100 + 17 * index, "python3", SERVER,
                     restarted if index == bad else 3_022_410 + 60 * index,
                     [use(index, node.used_bytes(serving, index) - 461 * MIB)], f"server-{index}", qos="burstable")
        for index in range(8)
    ]
    struck = TAKEN_AT - timedelta(hours=6, minutes=9, seconds=41)
    node.at(struck, f"NVRM: GPU at PCI:{node.sysfs(bad)[:-2]}: {node.gpus[bad]['uuid']}")
    node.at(struck, f"NVRM: GPU Board Serial Number: {node.serial(bad)}")
    unknown = "pid='<unknown>', name=<unknown>"
    node.xid(struck, bad, f"48, {unknown}, An uncorrectable double bit error (DBE) has been detected on GPU in the "
                          "framebuffer at physAddr 0x10f2c3d80 partition 5, subpartition 1.")
    node.xid(struck, bad, f"63, {unknown}, Row Remapper: New row (0x000000010f2c3d80) marked for remapping, "
                          "reset gpu to activate.")
    node.xid(struck + timedelta(milliseconds=4), bad,
             f"94, pid={dead}, name=python3, Contained: CE User Channel (0x9). physAddr: 0x10f2c3d80 RST: No, "
             "D-RST: Yes")
    node.xid(struck + timedelta(milliseconds=9), bad,
             f"154, {unknown}, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)")
    for channel in range(3):
        node.xid(struck + timedelta(milliseconds=60 + 20 * channel), bad,
                 f"45, pid={dead}, name=python3, Ch {8 + channel:08x} caused by previous Xid 94")
    allocations = [node.allocation(f"server-{index}", "vllm", [index]) for index in range(8)]
    return node.report(node.sections(serving, processes, allocations, ecc=ecc))


# ---- other healthy nodes


@scenario
def healthy_t4_1():
    """A virtual machine in a cloud with one T4: no NVLink, no MIG, page retirement instead of row remapping."""
    node = Node("gpu-t4-1", T4, 1, "550.163.01", "12.4", 611_402, kernel="6.1.141-155.222.amzn2023.x86_64",
                system="Amazon Linux 2023.8.20250721", cpus=("0-3",), virtual=True)

    def load(_):
        return {"gpu": 43, "memory": 21, "used": 0.41, "watts": 52, "degrees": 61, "mhz": 1455, "decoder": 12}

    processes = [node.process(9127, "python", "python /app/transcribe.py", 96_311,
                              [use(0, node.used_bytes(load, 0) - 103 * MIB)], "transcribe", qos="burstable")]
    return node.report(node.sections(load, processes, [node.allocation("transcribe", "app", [0])]))


# Profile: multiprocessors, slices, MiB, first GPU instance id.
PROFILES = {
    "1g.10gb": (14, 1, 9728, 7), "2g.20gb": (28, 2, 19968, 3), "3g.40gb": (42, 3, 40192, 1),
    "7g.80gb": (98, 7, 81050, 0),
}


@scenario
def a100_mig_8():
    """MIG strategy `mixed`: seven GPUs divided in different ways, the last one whole. Some instances have work."""
    node = Node("gpu-a100-mig-1", A100, 8, "550.163.01", "12.4", 1_904_233, cpus=("0-63,128-191", "64-127,192-255"))
    mixed = ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]
    division = [["1g.10gb"] * 7] * 3 + [["3g.40gb", "3g.40gb"], mixed, mixed, ["7g.80gb"]]
    processes, allocations, registered = [], [], {}
    for index, profiles in enumerate(division):
        node.mig_devices[index] = []
        for place, profile in enumerate(profiles):
            multiprocessors, slices, mebibytes, first = PROFILES[profile]
            instance = first + profiles[:place].count(profile)
            busy = (index + place) % 2 == 0
            used = mebibytes * (61 + place) // 100 if busy else 12 * slices
            device = {
                "uuid": f"MIG-{uuid(node.name, 'mig', index, place)}", "gpu_instance": instance, "compute_instance": 0,
                "profile": profile, "gpu_slices": slices, "compute_slices": slices, "multiprocessors": multiprocessors,
                "memory_total_bytes": mebibytes * MIB, "memory_used_bytes": used * MIB,
            }
            node.mig_devices[index].append(device)
            resource = f"nvidia.com/mig-{profile}"
            registered.setdefault(resource, []).append(device["uuid"])
            if busy:
                pod = f"notebook-{index}-{place}"
                allocations.append(node.allocation(pod, "notebook", [], resource, [device["uuid"]]))
                processes.append(node.process(
                    71_003 + 131 * index + 7 * place, "python3", "/opt/conda/bin/python3 -m ipykernel_launcher",
                    1_702_000 + 4_113 * index + 97 * place,
                    [use(index, (used - 118) * MIB, mig_gpu_instance=instance, mig_compute_instance=0)], pod,
                    uid=1000, user=None, qos="burstable"))

    def load(index):
        return serving(index) | {"gpu": 64, "watts": 214 + 6 * index}

    processes.append(node.process(80_412, "python3", "python3 finetune.py", 1_811_904,
                                  [use(7, node.used_bytes(load, 7) - 402 * MIB)], "finetune"))
    allocations.append(node.allocation("finetune", "main", [7]))
    registered["nvidia.com/gpu"] = [node.gpus[7]["uuid"]]
    resources = [{"resource": name, "devices": devices} for name, devices in registered.items()]
    return node.report(node.sections(load, processes, allocations, resources))


@scenario
def gb200_4():
    """One compute tray of a GB200 NVL72 rack: arm64, NVLink 5, the fabric is managed outside of the node."""
    node = Node("gb200-a07-t06", GB200, 4, "580.95.05", "13.0", 2_410_655, system="Ubuntu 24.04.3 LTS",
                kernel="6.8.0-1041-nvidia-64k", cpus=("0-71", "72-143"), architecture="aarch64")

    def load(index):
        return {"gpu": 98 + index % 2, "memory": 51 + index, "used": 0.962 - 0.003 * index, "watts": 1034 + 11 * index,
                "degrees": 52 + (3 * index) % 7, "mhz": 1965, "capped_ms": 41_200 + 900 * index}

    processes = [node.process(30_118 + index, "python3", "python3 pretrain.py --nodes 18", 2_288_060,
                              [use(index, node.used_bytes(load, index) - 611 * MIB)], "pretrain") for index in range(4)]
    return node.report(node.sections(load, processes, [node.allocation("pretrain", "worker", range(4))]))


def resting(index):
    return {"gpu": 0, "memory": 0, "used": 0.0001, "watts": 33 + index, "degrees": 29 + 2 * index}


@scenario
def l40s_4_idle():
    """An idle node: PCIe links at generation 1, low clocks, only monitoring processes. All of this is healthy."""
    node = Node("gpu-l40s-2", L40S, 4, "580.95.05", "13.0", 7_204_419, system="Ubuntu 24.04.3 LTS",
                kernel="6.8.0-87-generic", cpus=("0-31,64-95", "32-63,96-127"))
    return node.report(node.sections(resting, [], []))


# ---- nodes without a working driver


def without_nvml(node, why, processes, kubelet, **host):
    """`why` is the error of every section that needs NVML; `host` replaces facts of the host section."""
    nvml = {name: failed(why | {"what": name}) for name in ["inventory", "telemetry", "topology", "ecc", "mig"]}
    return node.report(nvml | {
        "topology": node.pci_topology(why | {"what": "topology"}),
        "processes": ok({"host_pid_namespace": True, "processes": processes}, 9, [why]),
        "kubelet": kubelet, "host": node.host(**host),
    })


@scenario
def no_driver():
    """The kernel was updated and the driver was not built for it: GPUs on the bus, library on disk, no module."""
    node = Node("gpu-l40s-5", L40S, 4, "580.95.05", "13.0", 5_377, system="Ubuntu 24.04.3 LTS",
                kernel="6.8.0-88-generic", cpus=("0-31,64-95", "32-63,96-127"))
    node.driver_loaded = False
    why = problem(
        "NVML", f"NVML: Driver Not Loaded (library /proc/1/root{node.library_path()}, kernel module not loaded)",
        "driver_not_loaded",
        "Install or rebuild the NVIDIA driver for the running kernel, then load it (modprobe nvidia).")
    pci = [gpu | {"driver": None, "in_nvml": None} for gpu in node.host()["data"]["pci_gpus"]]
    return without_nvml(
        node, why, [], node.kubelet([], [{"resource": "nvidia.com/gpu", "devices": []}]),
        driver={"loaded": None, "flavor": None, "module_on_disk": None, "library": node.driver,
                "library_path": node.library_path()},
        modules=[], pci_gpus=pci, device_nodes=[],
        daemons={"persistenced": False, "fabric_manager": False, "imex": False, "dcgm": False, "mps": False})


@scenario
def driver_mismatch():
    """An unattended upgrade replaced the driver's files under the loaded module. Processes that already ran continue to run."""
    node = Node("gpu-l40s-6", L40S, 4, "570.124.06", "12.8", 3_390_112, system="Ubuntu 22.04.5 LTS",
                cpus=("0-31,64-95", "32-63,96-127"))
    upgraded = "570.133.20"
    library = node.library_path().replace(node.driver, upgraded)
    why = problem(
        "NVML", f"NVML: Driver/library version mismatch (library /proc/1/root{library}, kernel module "
        f"{node.driver})", "version_mismatch", "The driver was replaced while the old kernel module is loaded: "
        "drain the node and reboot it, or unload and reload the nvidia modules.")
    for minutes in (412, 411, 37):
        node.at(TAKEN_AT - timedelta(minutes=minutes, seconds=17),
                f"NVRM: API mismatch: the client has the version {upgraded}, but\\x0aNVRM: this kernel module has the "
                f"version {node.driver}.  Please\\x0aNVRM: make sure that this kernel module and all NVIDIA "
                "driver\\x0aNVRM: components have the same version.")
    running = node.process(190_233, "python3", SERVER, 2_811_004, [], "server-0", qos="burstable")
    running |= {"open_device_files": ["/dev/nvidia0"]}
    pci = [gpu | {"in_nvml": None} for gpu in node.host()["data"]["pci_gpus"]]
    return without_nvml(
        node, why, [*node.monitors(), running], node.kubelet([node.allocation("server-0", "vllm", [0])]),
        driver={"loaded": node.driver, "flavor": "open", "module_on_disk": upgraded, "library": upgraded,
                "library_path": library},
        pci_gpus=pci, gsp_firmware_versions=[upgraded])


@scenario
def no_gpu():
    """A plain worker: no GPU on the bus, no driver, nothing wrong."""
    node = Node("cpu-7", T4, 0, "0", "0.0", 1_822_340, cpus=("0-31", "32-63"))
    node.driver_loaded = False
    why = problem(
        "NVML", "no NVML library could be opened below /proc/1/root (kernel module not loaded; no libnvidia-ml.so.1 in "
        "the usual folders nor in those of ld.so.conf)",
        "library_not_found", "Nothing to do on a node without GPUs; otherwise install the NVIDIA driver (GPU "
        "Operator: is the driver pod of this node ready?).")
    return without_nvml(
        node, why, [], node.kubelet([], []),
        driver=dict.fromkeys(["loaded", "flavor", "module_on_disk", "library", "library_path"]),
        modules=[], device_nodes=[], gsp_firmware_versions=[], cdi_spec=None, container_toolkit=None,
        daemons={"persistenced": False, "fabric_manager": False, "imex": False, "dcgm": False, "mps": False})


# ---- writing


def layout(value, indent=0, before=0, width=116):
    """Formats JSON with small objects and lists on one line, so that it is easy to read and diff. `before` is the start of the line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value or indent and indent + before + len(flat) < width:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        keys = [json.dumps(key) + ": " for key in value]
        lines = [pad + key + layout(below, indent + 1, len(key)) for key, below in zip(keys, value.values())]
    else:
        lines = [pad + layout(below, indent + 1) for below in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(lines) + "\n" + " " * indent + closing


def without_empty(value):
    """Removes the empty lists and maps that reports omit."""
    optional = {"unsupported", "problems", "hugepages", "gsp_firmware_versions", "p2p_lacking", "device_nodes_missing"}
    if isinstance(value, dict):
        return {key: without_empty(below) for key, below in value.items() if below or key not in optional}
    return [without_empty(below) for below in value] if isinstance(value, list) else value


def main():
    folder, stale = Path(__file__).parent, []
    for name, build in SCENARIOS.items():
        path, text = folder / f"{name}.json", layout(without_empty(build())) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"not what generate.py would write: {', '.join(stale)}")


if __name__ == "__main__":
    main()
