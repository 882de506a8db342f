"""Renders an archive as the text of nvidia-smi -q, dmesg, lspci, ps, the host and kubectl. Used by run.py; draws no conclusion."""
import datetime
import json
import tarfile

LISTS = (("gpus", "all_gpus"), ("pci_gpus", "all_pci_gpus"), ("devices", "all_devices"),
         ("pcie_path", "all_pcie_path"), ("nics", "all_nics"))
# The headings of `nvidia-smi -q`: heading, label, section of the report, path, unit.
FIELDS = [
    ("", "Product Name", "inventory", "name", ""), ("", "Product Brand", "inventory", "brand", ""),
    ("", "Product Architecture", "inventory", "architecture", ""), ("", "Serial Number", "inventory", "serial", ""),
    ("", "Persistence Mode", "inventory", "persistence_mode", ""), ("", "Compute Mode", "inventory", "compute_mode", ""),
    ("", "VBIOS Version", "inventory", "vbios_version", ""), ("", "GSP Firmware Version", "inventory", "gsp_firmware_version", ""),
    ("MIG Mode", "Current", "inventory", "mig_mode.current", ""), ("MIG Mode", "Pending", "inventory", "mig_mode.pending", ""),
    ("ECC Mode", "Current", "inventory", "ecc_mode.current", ""), ("ECC Mode", "Pending", "inventory", "ecc_mode.pending", ""),
    ("GPU Link Info", "PCIe Generation Max", "telemetry", "pcie.max_generation", ""),
    ("GPU Link Info", "PCIe Generation Current", "telemetry", "pcie.generation", ""),
    ("GPU Link Info", "Link Width Max", "telemetry", "pcie.max_width", "x"),
    ("GPU Link Info", "Link Width Current", "telemetry", "pcie.width", "x"),
    ("GPU Link Info", "Replays Since Reset", "telemetry", "pcie.replays", ""),
    ("FB Memory Usage", "Total", "telemetry", "memory.total_bytes", "MiB"),
    ("FB Memory Usage", "Reserved", "telemetry", "memory.reserved_bytes", "MiB"),
    ("FB Memory Usage", "Used", "telemetry", "memory.used_bytes", "MiB"),
    ("FB Memory Usage", "Free", "telemetry", "memory.free_bytes", "MiB"),
    ("Utilization", "GPU", "telemetry", "utilization.gpu_percent", "%"),
    ("Utilization", "Memory", "telemetry", "utilization.memory_percent", "%"),
    ("ECC Errors Volatile", "Corrected", "ecc", "volatile.corrected", ""),
    ("ECC Errors Volatile", "Uncorrectable", "ecc", "volatile.uncorrected", ""),
    ("ECC Errors Aggregate", "Corrected", "ecc", "aggregate.corrected", ""),
    ("ECC Errors Aggregate", "Uncorrectable", "ecc", "aggregate.uncorrected", ""),
    ("ECC Errors Aggregate", "SRAM Threshold Exceeded", "ecc", "sram.threshold_exceeded", ""),
    ("Remapped Rows", "Correctable Error", "ecc", "remapped_rows.correctable", ""),
    ("Remapped Rows", "Uncorrectable Error", "ecc", "remapped_rows.uncorrectable", ""),
    ("Remapped Rows", "Pending", "ecc", "remapped_rows.pending", ""),
    ("Remapped Rows", "Remapping Failure Occurred", "ecc", "remapped_rows.failure_occurred", ""),
    ("Temperature", "GPU Current Temp", "telemetry", "temperature.gpu_celsius", "C"),
    ("Temperature", "GPU T.Limit Temp", "telemetry", "temperature.tlimit_margin_celsius", "C"),
    ("Temperature", "GPU Slowdown Temp", "telemetry", "temperature.slowdown_celsius", "C"),
    ("Temperature", "Memory Current Temp", "telemetry", "temperature.memory_celsius", "C"),
    ("GPU Power Readings", "Power Draw", "telemetry", "power.draw_milliwatts", "W"),
    ("GPU Power Readings", "Current Power Limit", "telemetry", "power.limit_milliwatts", "W"),
    ("GPU Power Readings", "Default Power Limit", "telemetry", "power.default_limit_milliwatts", "W"),
    ("Clocks", "SM", "telemetry", "clocks.sm_mhz", "MHz"), ("Clocks", "Memory", "telemetry", "clocks.memory_mhz", "MHz"),
    ("Max Clocks", "SM", "telemetry", "clocks.max_sm_mhz", "MHz"),
    ("Fabric", "State", "topology", "fabric.state", ""), ("Fabric", "Status", "topology", "fabric.status", ""),
]
EVENT_REASONS = ["Idle", "SW Power Cap", "HW Slowdown", "HW Thermal Slowdown", "HW Power Brake Slowdown", "SW Thermal Slowdown", "Sync Boost"]


def load(path):
    """Returns the archive as {path: bytes}."""
    with tarfile.open(path, "r:gz") as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers() if entry.isfile()}


def put_back(entry, common):
    for key, value in common.items():
        if isinstance(value, dict) and isinstance(entry.get(key), dict):
            put_back(entry[key], value)
        else:
            entry.setdefault(key, json.loads(json.dumps(value)))


def restore(value):
    """Reverts the shortening of lists in a report (src/common_values.rs)."""
    if isinstance(value, dict):
        for each, common in LISTS:
            for entry in value.get(each) or []:
                if isinstance(entry, dict):
                    put_back(entry, value.get(common) or {})
                    restore(entry)
            value.pop(common, None)


def at(value, path):
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def shown(value, unit=""):
    if value is None:
        return "N/A"
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if unit == "MiB":
        return f"{value // 1048576} MiB"
    if unit == "W":
        return f"{value / 1000:.2f} W"
    return f"{value}x" if unit == "x" else f"{value} {unit}".strip()


def tree(value, indent):
    """Returns the lines of any value: every field of a report, also those with no label above."""
    pad = "    " * indent
    if isinstance(value, dict):
        for key, inner in value.items():
            label = key.replace("_", " ").capitalize()
            if isinstance(inner, (dict, list)) and inner:
                yield f"{pad}{label}"
                yield from tree(inner, indent + 1)
            else:
                yield f"{pad}{label:<40} : {shown(inner) if not isinstance(inner, (dict, list)) else 'None'}"
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, (dict, list)):
                yield from tree(inner, indent)
                yield f"{pad}-"
            else:
                yield f"{pad}{inner}"


def data(report, section):
    return (report["sections"].get(section) or {}).get("data") or {}


def nvidia_smi(report):
    driver = data(report, "host").get("driver") or {}
    inventory = data(report, "inventory")
    problems = [problem for name in ("inventory", "ecc") for problem in report["sections"].get(name, {}).get("problems") or []]
    lines = []
    if not inventory.get("gpus"):
        if driver.get("loaded") and driver.get("library") and driver["loaded"] != driver["library"]:
            lines.append("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: " + driver["library"])
        elif not driver.get("loaded"):
            lines.append("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
                         "NVIDIA driver is installed and running.")
        return "\n".join(lines + sorted({p.get("why", "") for p in problems})) + "\n"
    for problem in problems:
        lines.append(f"Unable to determine the device handle for {problem.get('what')}: {problem.get('why')}")
    lines += ["", "==============NVSMI LOG==============", "", f"Timestamp : {report.get('taken_at')}",
              f"Driver Version : {inventory.get('driver_version')}", f"CUDA Version : {inventory.get('cuda_version')}",
              f"Attached GPUs : {len(inventory['gpus'])}", ""]
    processes = data(report, "processes").get("processes") or []
    for gpu in inventory["gpus"]:
        index = gpu["index"]
        of = {name: next((one for one in data(report, name).get("gpus") or [] if one.get("index") == index), {})
              for name in ("inventory", "telemetry", "ecc", "topology", "mig")}
        lines.append(f"GPU {gpu.get('pci_address')}    (index {index}, GPU UUID {gpu.get('uuid')})")
        heading = ""
        for group, label, section, path, unit in FIELDS:
            if group != heading:
                lines.append(f"    {group}")
                heading = group
            pad = "        " if group else "    "
            lines.append(f"{pad}{label:<36} : {shown(at(of[section], path), unit)}")
        active = [word.lower() for word in at(of["telemetry"], "throttling.reasons") or []]
        lines.append("    Clocks Event Reasons")
        lines += [f"        {label:<36} : {'Active' if label.lower() in active else 'Not Active'}" for label in EVENT_REASONS]
        for name in ("inventory", "telemetry", "ecc", "mig", "topology"):
            lines.append(f"    All values: {name}")
            lines += tree(of[name], 2)
        lines.append("    Processes")
        for process in processes:
            for use in process.get("uses") or []:
                if use.get("gpu") == index:
                    lines.append(f"        Process ID {process['pid']}  Type {use.get('kind')}  Name {process.get('name')}  "
                                 f"Used GPU Memory {shown(use.get('memory_bytes'), 'MiB')}")
        lines.append("")
    lines.append("Topology (nvidia-smi topo -m)")
    lines += ["  ".join(map(str, row)) for row in data(report, "topology").get("matrix") or []]
    return "\n".join(lines) + "\n"


def lspci(report):
    lines = []
    paths = {gpu.get("pci_address"): gpu.get("pcie_path") or [] for gpu in data(report, "topology").get("gpus") or []}
    for gpu in data(report, "host").get("pci_gpus") or []:
        address = gpu.get("pci_address")
        revision = "rev ff" if gpu.get("answers") is False else "rev a1"
        lines += [f"{address} 3D controller: NVIDIA Corporation Device {gpu.get('device_id')} ({revision})"]
        lines += tree({key: value for key, value in gpu.items() if key not in ("in_nvml", "pci_address")}, 1)
        for device in paths.get(address, []):
            down = [word for word in ("width", "generation") if (device.get(word) or 0) < (device.get("max_" + word) or 0)]
            lines.append(f"    {device.get('pci_address')} {device.get('kind')} LnkCap: Gen {device.get('max_generation')} "
                         f"x{device.get('max_width')} LnkSta: Gen {device.get('generation')} x{device.get('width')}"
                         + (" (downgraded)" if down else ""))
    for switch in data(report, "topology").get("nvswitches") or []:
        lines.append(f"{switch} Bridge: NVIDIA Corporation NVSwitch" if isinstance(switch, str) else json.dumps(switch))
    lines += tree({"network": data(report, "topology").get("nics") or []}, 0)
    return "\n".join(lines) + "\n"


def dmesg(records, taken_at, uptime):
    now = datetime.datetime.fromisoformat(taken_at.replace("Z", "+00:00"))
    lines = []
    for record in records.splitlines():
        head, _, text = record.partition(";")
        parts = head.split(",")
        if len(parts) > 2 and parts[2].isdigit() and uptime is not None:
            ago = uptime - int(parts[2]) / 1e6
            lines.append(f"[{(now - datetime.timedelta(seconds=ago)).isoformat(timespec='seconds')}] {text}")
        else:
            lines.append(record)
    return "\n".join(lines) + "\n"


def ps(report):
    lines = ["PID      STATE USER         STARTED               POD-UID                               WCHAN COMMAND"]
    for one in data(report, "processes").get("processes") or []:
        lines.append(f"{one.get('pid'):<8} {one.get('state') or '?':<5} {one.get('user') or one.get('uid') or '-'!s:<12} "
                     f"{one.get('started_at') or '-':<21} {one.get('pod_uid') or '-':<37} {one.get('wchan') or '-'} "
                     f"{one.get('command') or one.get('name')}")
        known = ("pid", "state", "user", "uid", "started_at", "pod_uid", "wchan", "command", "name", "start_ticks")
        lines += tree({key: value for key, value in one.items() if key not in known}, 3)
    return "\n".join(lines) + "\n"


def describe(item):
    """Returns the fields of an object, as `kubectl describe` prints them: everything, in the order of the object."""
    return "\n".join(tree({key: value for key, value in item.items() if key != "managedFields"}, 0)) + "\n"


def kubernetes(files):
    """Returns {name: text} of kubectl."""
    objects = {path.split("/")[1][:-5]: json.loads(body) for path, body in files.items() if path.startswith("kubernetes/")}
    texts = {}
    lines = ["NAME  READY  UNSCHEDULABLE  CAPACITY  ALLOCATABLE  TAINTS"]
    for node in objects.get("nodes", []):
        status = node.get("status", {})
        ready = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
        gpus = [{key: value for key, value in (status.get(key_of) or {}).items() if "/" in key} for key_of in ("capacity", "allocatable")]
        lines.append(f"{node['metadata']['name']}  {'Ready' if ready.get('status') == 'True' else 'NotReady'}  "
                     f"{node.get('spec', {}).get('unschedulable', False)}  {gpus[0]}  {gpus[1]}  {node.get('spec', {}).get('taints', [])}")
        texts[f"kubectl/describe-node-{node['metadata']['name']}.txt"] = describe(node)
    texts["kubectl/get-nodes.txt"] = "\n".join(lines) + "\n"
    lines = ["NAMESPACE  NAME  PHASE  READY  RESTARTS  NODE  REASON"]
    for pod in objects.get("pods", []):
        meta, status = pod["metadata"], pod.get("status", {})
        every = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
        reasons = [at(one, f"state.{kind}.reason") for one in every for kind in ("waiting", "terminated")]
        lines.append(f"{meta['namespace']}  {meta['name']}  {status.get('phase')}  {sum(bool(one.get('ready')) for one in every)}/{len(every)}  "
                     f"{sum(one.get('restartCount', 0) for one in every)}  {pod.get('spec', {}).get('nodeName') or '<none>'}  "
                     f"{','.join(filter(None, [status.get('reason')] + reasons))}")
        texts[f"kubectl/describe-pod-{meta['namespace']}-{meta['name']}.txt"] = describe(pod)
    texts["kubectl/get-pods.txt"] = "\n".join(lines) + "\n"
    lines = ["LAST SEEN  TYPE  REASON  OBJECT  COUNT  MESSAGE"]
    for event in objects.get("events", []):
        of = event.get("involvedObject", {})
        lines.append(f"{event.get('lastTimestamp')}  {event.get('type')}  {event.get('reason')}  {of.get('kind')}/{of.get('namespace')}/"
                     f"{of.get('name')}  {event.get('count')}  {event.get('message')}")
    texts["kubectl/get-events.txt"] = "\n".join(lines) + "\n"
    for kind in ("daemonsets", "leases", "resourceclaims", "resourceslices", "nodeclaims", "machines"):
        if objects.get(kind):
            texts[f"kubectl/get-{kind}.txt"] = "\n---\n".join(describe(item) for item in objects[kind])
    for log in json.loads(files.get("logs.json", b"[]")):
        texts[f"kubectl/logs-{log['namespace']}-{log['pod']}-{log['container']}.txt"] = log["text"]
    return texts


def raw(files):
    """Returns {name: text} of everything: kubectl, and the commands on each node."""
    texts = kubernetes(files)
    for entry in json.loads(files["manifest.json"])["nodes"]:
        if not entry.get("folder"):
            texts[f"{entry['name']}/unreachable.txt"] = f"no route to the node: {entry.get('unread')}\n"
            continue
        folder = f"nodes/{entry['folder']}"
        report = json.loads(files[f"{folder}/report.json"])
        for section in report["sections"].values():
            restore(section.get("data"))
        records = files.get(f"{folder}/kernel.log", b"").decode(errors="replace")
        texts[f"{entry['name']}/nvidia-smi-q.txt"] = nvidia_smi(report)
        texts[f"{entry['name']}/dmesg.txt"] = dmesg(records, report["taken_at"], data(report, "host").get("uptime_seconds"))
        texts[f"{entry['name']}/lspci-vv.txt"] = lspci(report)
        texts[f"{entry['name']}/ps.txt"] = ps(report)
        texts[f"{entry['name']}/kubelet.txt"] = "\n".join(tree(data(report, "kubelet"), 0)) + "\n"
        texts[f"{entry['name']}/host.txt"] = "\n".join([f"Kernel : {report.get('kernel')}", *tree(data(report, "host"), 0)]) + "\n"
    return texts
