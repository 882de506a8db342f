#!/usr/bin/env python3
"""Compares each value of node-probe with the value of nvidia-smi.

    compare_with_nvidia_smi.py --node-probe PATH --nvidia-smi PATH [--nvml-library PATH] [--root DIR]
    compare_with_nvidia_smi.py --xml FILE --topo FILE --report FILE

The first form runs `nvidia-smi -q -x`, `node-probe all`, `nvidia-smi -q -x` once more, and `nvidia-smi topo -m`, all on
the same NVML. The second form compares saved outputs of the same commands. In the first form, a saved output may also
replace one command.

Every difference is one line: field of the report, GPU, nvidia-smi's value, the report's value. Exit status: 0 no
difference, 1 differences, 2 something could not be run or read.

The script converts units and allows for the rounding of nvidia-smi (1 MiB, 0.01 W). Values that change all the time
(temperature, power, clocks, utilization, used memory, ...) agree if they are between the two readings of nvidia-smi, within a
tolerance that is printed; --exact sets it to 0. "N/A" agrees with null; a value and "N/A", or a value and null, are a difference.
Values that nvidia-smi does not print, or prints as deprecated, are not compared. --verbose lists the values that nvidia-smi
prints and the report does not contain. The other values of a lost GPU are not compared.

Python 3.9 or newer, standard library only.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

MIB = 1 << 20
SECONDS_PER_COMMAND = 120

# Texts that nvidia-smi prints instead of a value: the first kind if there is no value, the second if nvidia-smi does not show the value.
NO_VALUE = {"", "n/a", "[n/a]", "not supported", "[not supported]"}
NOT_TOLD = {
    "requested functionality has been deprecated",
    "insufficient permissions",
    "invalid argument",
    "function not found",
    "unknown",
    "unknown error",
    "[unknown error]",
    "err!",
    "gpu requires reset",
}
LOST = "gpu is lost"


class Without:
    """No value to compare with, and the reason."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return self.words


NOT_OFFERED = Without("N/A")  # the value does not exist
NOT_SHOWN = Without("not shown")  # this version of nvidia-smi does not show it
Gpu = dict  # one GPU of the report: section name -> that section's entry for it


# --- from nvidia-smi's text to comparable values --------------------------------------------------


def number(text: str) -> Union[int, float]:
    """Returns the number at the start: `16384 MiB`, `70.00 W`, `P0`, `16x`, `640 bank(s)`, `-5 C`."""
    found = re.match(r"P?(-?\d+(?:\.\d+)?)", text)
    if not found:
        raise ValueError(text)
    return float(found[1]) if "." in found[1] else int(found[1])


def mebibytes(text: str) -> int:
    return int(number(text) * MIB)


def milliwatts(text: str) -> float:
    return number(text) * 1000


def switch(text: str) -> bool:
    """Returns the boolean of `Enabled`, `Yes`, `Active` and their opposites."""
    answers = {"enabled": True, "yes": True, "active": True, "disabled": False, "no": False, "not active": False}
    return answers[text.lower()]


def plain(text: str) -> str:
    """Keeps only letters and digits: `Pass-Through` is `passthrough`, `Exclusive_Process` is `exclusive_process`."""
    return re.sub(r"[^a-z0-9]", "", str(text).lower())


def hexadecimal(text: str) -> int:
    return int(text, 16)


def first_word(text: str) -> str:
    """Returns the first word: nvidia-smi names Ada "Ada Lovelace"."""
    return text.split()[0]


def recovery_action(text: str) -> str:
    words = {"reset": "gpu_reset", "reboot": "node_reboot"}
    word = text.lower().replace(" ", "_")
    return words.get(word, word)


def nonzero_uuid(text: str) -> Any:
    return NOT_OFFERED if not text.strip("0-") else text.lower()


def trouble(text: str) -> Any:
    """An item of the fabric health. `Full`, `False`, `None` and "N/A" are healthy. The report lists only faults."""
    return NOT_OFFERED if text.lower() in ("full", "false", "none") else True


# --- from the report to comparable values ---------------------------------------------------------


def at(gpu: Gpu, path: str) -> Any:
    """Returns the value at a dotted path, or None if a step is missing."""
    value: Any = gpu
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def ours(path: str, change: Callable[[Any], Any] = lambda value: value) -> Callable[[Gpu], Any]:
    def read(gpu: Gpu) -> Any:
        value = at(gpu, path)
        return NOT_OFFERED if value is None or value in ("", "N/A", "not_supported") else change(value)

    return read


def location(kind: str, place: str, errors: str) -> Callable[[Gpu], Any]:
    """Returns the errors of one location. The report omits a location without errors."""

    def read(gpu: Gpu) -> Any:
        counts = at(gpu, f"ecc.{kind}") or {}
        if counts.get(errors) is None or at(gpu, "ecc.mode.current") is False:  # without ECC there are no counters
            return NOT_OFFERED
        places = {entry["location"]: entry for entry in counts.get("locations", [])}
        return places.get(place, {}).get(errors, 0)

    return read


def sram(name: str, otherwise: Callable[[Gpu], Any] = lambda gpu: NOT_OFFERED) -> Callable[[Gpu], Any]:
    """Returns a detail of the SRAM errors. The report omits zeros."""

    def read(gpu: Gpu) -> Any:
        detail = at(gpu, "ecc.sram")
        if detail is None:
            return otherwise(gpu)
        if at(gpu, "ecc.mode.current") is False:
            return NOT_OFFERED
        return detail.get(name, 0)

    return read


def histogram(name: str) -> Callable[[Gpu], Any]:
    def read(gpu: Gpu) -> Any:
        banks = at(gpu, "ecc.remapped_rows.histogram")
        return NOT_OFFERED if banks is None else banks.get(name, 0)

    return read


def clock_reason(words: str) -> Callable[[Gpu], Any]:
    def read(gpu: Gpu) -> Any:
        throttling = gpu.get("telemetry", {}).get("throttling", {})
        return NOT_OFFERED if throttling.get("reasons_mask") is None else words in throttling.get("reasons", [])

    return read


def fabric_issue(name: str) -> Callable[[Gpu], Any]:
    def read(gpu: Gpu) -> Any:
        issues = at(gpu, "topology.fabric.health_issues") or []
        return True if name in issues else NOT_OFFERED

    return read


# --- compared fields -------------------------------------------------------------------


class Field(NamedTuple):
    """One value in both documents."""

    element: str  # below <gpu>; spellings of several releases, separated by `|`: the first that exists is used
    name: str  # name in the report, as printed
    theirs: Callable[[str], Any] = str  # converts the text of nvidia-smi
    ours: Optional[Callable[[Gpu], Any]] = None  # reads the report; None: the value at `name`
    rounding: float = 0  # maximum rounding difference
    moves: Optional[str] = None  # key in MOVING, for a value that changes all the time


MOVING = {
    "temperature": (5, "5 °C"),
    "power": (25_000, "25 W"),
    "clocks": (150, "150 MHz"),
    "utilization": (20, "20 %"),
    "memory in use": (64 * MIB, "64 MiB"),
    "counters": (100, "100 replays"),
    "states": (0, "either reading"),  # performance state, link generation, clock reasons
}

ROUNDED_MIB = MIB
ROUNDED_WATT = 10


def same(path: str) -> Callable[[Gpu], Any]:
    return ours(path, plain)


FIELDS = [
    # inventory
    Field("product_name", "inventory.name"),
    Field("product_brand", "inventory.brand"),
    Field("product_architecture", "inventory.architecture", first_word),
    Field("serial", "inventory.serial"),
    Field("uuid", "inventory.uuid"),
    Field("minor_number", "inventory.minor_number", number),
    Field("vbios_version", "inventory.vbios_version"),
    Field("board_id", "inventory.board_id", hexadecimal, ours("inventory.board_id", hexadecimal)),
    Field("board_part_number", "inventory.board_part_number"),
    Field("platformInfo/module_id|gpu_module_id", "inventory.module_id", number),
    Field("platformInfo/chassis_serial_number", "inventory.platform.chassis_serial"),
    Field("platformInfo/slot_number", "inventory.platform.slot", number),
    Field("platformInfo/tray_index", "inventory.platform.tray", number),
    Field("platformInfo/host_id", "inventory.platform.host_id", number),
    Field("inforom_version/img_version", "inventory.inforom.image"),
    Field("inforom_version/oem_object", "inventory.inforom.oem"),
    Field("inforom_version/ecc_object", "inventory.inforom.ecc"),
    Field("inforom_version/pwr_object", "inventory.inforom.power"),
    Field("gsp_firmware_version", "inventory.gsp_firmware_version"),
    Field("persistence_mode", "inventory.persistence_mode", switch),
    Field("display_active", "inventory.display_active", switch),
    Field("compute_mode", "inventory.compute_mode", plain, same("inventory.compute_mode")),
    Field(
        "gpu_virtualization_mode/virtualization_mode",
        "inventory.virtualization_mode",
        plain,
        same("inventory.virtualization_mode"),
    ),
    Field("mig_mode/current_mig", "inventory.mig_mode.current", switch),
    Field("mig_mode/pending_mig", "inventory.mig_mode.pending", switch),
    Field("mig_mode/current_mig", "mig.mode.current", switch),
    Field("mig_mode/pending_mig", "mig.mode.pending", switch),
    Field("ecc_mode/current_ecc", "inventory.ecc_mode.current", switch),
    Field("ecc_mode/pending_ecc", "inventory.ecc_mode.pending", switch),
    Field("pci/pci_bus_id", "inventory.pci_address", str.lower),
    Field("pci/pci_device_id", "inventory.pci_device_id", hexadecimal, ours("inventory.pci_device_id", hexadecimal)),
    Field(
        "pci/pci_sub_system_id",
        "inventory.pci_subsystem_id",
        hexadecimal,
        ours("inventory.pci_subsystem_id", hexadecimal),
    ),
    Field("pci/pci_gpu_link_info/pcie_gen/max_link_gen", "inventory.pcie_max_generation", number),
    Field("pci/pci_gpu_link_info/link_widths/max_link_width", "inventory.pcie_max_width", number),
    Field("fb_memory_usage/total", "inventory.memory_total_bytes", mebibytes, rounding=ROUNDED_MIB),
    Field("fb_memory_usage/reserved", "inventory.memory_reserved_bytes", mebibytes, rounding=ROUNDED_MIB),
    Field("bar1_memory_usage/total", "inventory.bar1_total_bytes", mebibytes, rounding=ROUNDED_MIB),
    # telemetry
    Field("performance_state", "telemetry.performance_state", number, moves="states"),
    Field("fan_speed", "telemetry.fan_percent", number, moves="utilization"),
    Field("temperature/gpu_temp", "telemetry.temperature.gpu_celsius", number, moves="temperature"),
    Field("temperature/memory_temp", "telemetry.temperature.memory_celsius", number, moves="temperature"),
    Field("temperature/gpu_temp_tlimit", "telemetry.temperature.tlimit_margin_celsius", number, moves="temperature"),
    Field("temperature/gpu_temp_max_threshold", "telemetry.temperature.shutdown_celsius", number),
    Field("temperature/gpu_temp_slow_threshold", "telemetry.temperature.slowdown_celsius", number),
    Field("temperature/gpu_temp_max_gpu_threshold", "telemetry.temperature.gpu_max_celsius", number),
    Field("temperature/gpu_temp_max_mem_threshold", "telemetry.temperature.memory_max_celsius", number),
    Field("temperature/gpu_temp_max_tlimit_threshold", "telemetry.temperature.tlimit_thresholds.shutdown_celsius", number),
    Field("temperature/gpu_temp_slow_tlimit_threshold", "telemetry.temperature.tlimit_thresholds.slowdown_celsius", number),
    Field("temperature/gpu_temp_max_gpu_tlimit_threshold", "telemetry.temperature.tlimit_thresholds.gpu_max_celsius", number),
    Field("temperature/gpu_temp_max_mem_tlimit_threshold", "telemetry.temperature.tlimit_thresholds.memory_max_celsius", number),
    Field("fb_memory_usage/total", "telemetry.memory.total_bytes", mebibytes, rounding=ROUNDED_MIB),
    Field("fb_memory_usage/reserved", "telemetry.memory.reserved_bytes", mebibytes, rounding=ROUNDED_MIB),
    Field(
        "fb_memory_usage/used", "telemetry.memory.used_bytes", mebibytes, rounding=ROUNDED_MIB, moves="memory in use"
    ),
    Field(
        "fb_memory_usage/free", "telemetry.memory.free_bytes", mebibytes, rounding=ROUNDED_MIB, moves="memory in use"
    ),
    Field("bar1_memory_usage/total", "telemetry.memory.bar1_total_bytes", mebibytes, rounding=ROUNDED_MIB),
    Field(
        "bar1_memory_usage/used",
        "telemetry.memory.bar1_used_bytes",
        mebibytes,
        rounding=ROUNDED_MIB,
        moves="memory in use",
    ),
    Field("pci/pci_gpu_link_info/pcie_gen/max_link_gen", "telemetry.pcie.max_generation", number),
    Field("pci/pci_gpu_link_info/pcie_gen/current_link_gen", "telemetry.pcie.generation", number, moves="states"),
    Field("pci/pci_gpu_link_info/link_widths/max_link_width", "telemetry.pcie.max_width", number),
    Field("pci/pci_gpu_link_info/link_widths/current_link_width", "telemetry.pcie.width", number),
    Field("pci/replay_counter", "telemetry.pcie.replays", number, moves="counters"),
    Field("pci/replay_counter", "topology.pcie_replays", number, moves="counters"),
    Field("pci/replay_rollover_counter", "telemetry.pcie.replay_rollovers", number, moves="counters"),
    # ecc
    Field("ecc_mode/current_ecc", "ecc.mode.current", switch),
    Field("ecc_mode/pending_ecc", "ecc.mode.pending", switch),
    Field("ecc_errors/aggregate/sram_threshold_exceeded", "ecc.sram.threshold_exceeded", switch),
    Field("ecc_errors/channel_repair_pending", "ecc.channel_repair_pending", switch),
    Field("ecc_errors/tpc_repair_pending", "ecc.tpc_repair_pending", switch),
    Field("remapped_rows/remapped_row_corr", "ecc.remapped_rows.correctable", number),
    Field("remapped_rows/remapped_row_unc", "ecc.remapped_rows.uncorrectable", number),
    Field("remapped_rows/remapped_row_pending", "ecc.remapped_rows.pending", switch),
    Field("remapped_rows/remapped_row_failure", "ecc.remapped_rows.failure_occurred", switch),
    Field("retired_pages/multiple_single_bit_retirement/retired_count", "ecc.retired_pages.single_bit", number),
    Field("retired_pages/double_bit_retirement/retired_count", "ecc.retired_pages.double_bit", number),
    Field("retired_pages/pending_retirement", "ecc.retired_pages.pending", switch),
    Field("gpu_recovery_action", "ecc.recovery_action", recovery_action),
    # topology
    Field("fabric/state", "topology.fabric.state", plain, same("topology.fabric.state")),
    Field("fabric/status", "topology.fabric.status", plain, same("topology.fabric.status")),
    Field("fabric/cliqueId", "topology.fabric.clique_id", number),
    Field("fabric/clusterUuid", "topology.fabric.cluster_uuid", nonzero_uuid),
    Field("fabric/health/summary", "topology.fabric.health", plain, same("topology.fabric.health")),
]

POWER = {
    "current_power_limit|enforced_power_limit": "enforced_limit_milliwatts",
    "requested_power_limit|power_limit": "limit_milliwatts",
    "default_power_limit": "default_limit_milliwatts",
    "min_power_limit": "min_limit_milliwatts",
    "max_power_limit": "max_limit_milliwatts",
}


def power_elements(names: str) -> str:
    """<gpu_power_readings> was <power_readings> before R535."""
    return "|".join(
        f"{parent}/{name}" for parent in ("gpu_power_readings", "power_readings") for name in names.split("|")
    )


for _element, _name in POWER.items():
    FIELDS.append(Field(power_elements(_element), f"telemetry.power.{_name}", milliwatts, rounding=ROUNDED_WATT))
# nvidia-smi shows the power draw under one name or two, and "N/A" as the average if the GPU does not average.
FIELDS += [
    Field(power_elements(_element), f"telemetry.power.{_name}", milliwatts, rounding=ROUNDED_WATT, moves="power")
    for _element, _name in (
        ("power_draw|average_power_draw|instant_power_draw", "draw_milliwatts"),
        ("instant_power_draw", "instant_milliwatts"),
    )
]

for _engine in ("gpu", "memory", "encoder", "decoder", "jpeg", "ofa"):
    _name = f"telemetry.utilization.{_engine}_percent"
    FIELDS.append(Field(f"utilization/{_engine}_util", _name, number, moves="utilization"))

for _theirs, _ours in {"graphics": "graphics", "sm": "sm", "mem": "memory", "video": "video"}.items():
    _name = f"telemetry.clocks.{_ours}_mhz"
    FIELDS.append(Field(f"clocks/{_theirs}_clock", _name, number, moves="clocks"))
    FIELDS.append(Field(f"max_clocks/{_theirs}_clock", f"telemetry.clocks.max_{_ours}_mhz", number))
for _theirs, _ours in {"graphics": "graphics", "mem": "memory"}.items():
    _name = f"telemetry.clocks.application_{_ours}_mhz"
    FIELDS.append(Field(f"applications_clocks/{_theirs}_clock", _name, number))

CLOCK_REASONS = {
    "gpu_idle": "idle",
    "applications_clocks_setting": "application clocks setting",
    "sw_power_cap": "SW power cap",
    "hw_slowdown": "HW slowdown",
    "hw_thermal_slowdown": "HW thermal slowdown",
    "hw_power_brake_slowdown": "HW power brake slowdown",
    "sync_boost": "sync boost",
    "sw_thermal_slowdown": "SW thermal slowdown",
    "display_clocks_setting": "display clock setting",
}
for _theirs, _ours in CLOCK_REASONS.items():
    _element = (
        f"clocks_event_reasons/clocks_event_reason_{_theirs}|clocks_throttle_reasons/clocks_throttle_reason_{_theirs}"
    )
    FIELDS.append(
        Field(_element, f"telemetry.throttling.reasons: {_ours}", switch, clock_reason(_ours), moves="states")
    )

for _kind in ("volatile", "aggregate"):
    for _errors, _short in (("corrected", "correctable"), ("uncorrected", "uncorrectable")):
        _name = f"ecc.{_kind}.locations: dram {_errors}"
        FIELDS.append(Field(f"ecc_errors/{_kind}/dram_{_short}", _name, number, location(_kind, "dram", _errors)))
    FIELDS += [
        Field(
            f"ecc_errors/{_kind}/sram_correctable",
            f"ecc.sram.{_kind}_corrected",
            number,
            sram(f"{_kind}_corrected", location(_kind, "sram", "corrected")),
        ),
        # Turing has one counter for both kinds of uncorrected SRAM errors.
        Field(
            f"ecc_errors/{_kind}/sram_uncorrectable",
            f"ecc.{_kind}.locations: sram uncorrected",
            number,
            location(_kind, "sram", "uncorrected"),
        ),
    ]
    for _check in ("parity", "secded"):
        _name = f"{_kind}_uncorrected_{_check}"
        FIELDS.append(
            Field(f"ecc_errors/{_kind}/sram_uncorrectable_{_check}", f"ecc.sram.{_name}", number, sram(_name))
        )
    # Volta and older count by location and by number of bits.
    for _bits, _errors in (("single_bit", "corrected"), ("double_bit", "uncorrected")):
        FIELDS.append(Field(f"ecc_errors/{_kind}/{_bits}/total", f"ecc.{_kind}.{_errors}", number))
        for _theirs, _place in {
            "device_memory": "dram",
            "register_file": "register_file",
            "l1_cache": "l1_cache",
            "l2_cache": "l2_cache",
            "texture_memory": "texture_memory",
            "texture_shm": "texture_shm",
            "cbu": "cbu",
        }.items():
            _name = f"ecc.{_kind}.locations: {_place} {_errors}"
            _read = location(_kind, _place, _errors)
            FIELDS.append(Field(f"ecc_errors/{_kind}/{_bits}/{_theirs}", _name, number, _read))

for _source in ("l2", "sm", "microcontroller", "pcie", "other"):
    _element = f"ecc_errors/aggregate_uncorrectable_sram_sources/sram_{_source}"
    FIELDS.append(Field(_element, f"ecc.sram.bucket_{_source}", number, sram(f"bucket_{_source}")))

for _bucket in ("max", "high", "partial", "low", "none"):
    _element = f"remapped_rows/row_remapper_histogram/row_remapper_histogram_{_bucket}"
    FIELDS.append(Field(_element, f"ecc.remapped_rows.histogram.{_bucket}", number, histogram(_bucket)))

for _theirs, _ours in {
    "bandwidth": "degraded_bandwidth",
    "route_recovery_in_progress": "route_recovery",
    "route_unhealthy": "route_unhealthy",
    "access_timeout_recovery": "access_timeout",
    "incorrect_configuration": "incorrect_configuration",
}.items():
    _name = f"topology.fabric.health_issues: {_ours}"
    FIELDS.append(Field(f"fabric/health/{_theirs}", _name, trouble, fabric_issue(_ours)))


# --- reading the documents ------------------------------------------------------------------------


def put_back(entry: dict, common: dict) -> dict:
    """Adds the common values of a list to one entry. A value of the entry takes precedence."""
    merged = dict(entry)
    for key, value in common.items():
        if key not in merged:
            merged[key] = value
        elif isinstance(merged[key], dict) and isinstance(value, dict):
            merged[key] = put_back(merged[key], value)
    return merged


def unfold(data: dict) -> dict:
    """Returns the data of a section, or an entry of it, with the common values in every entry of a list."""
    plain = dict(data)
    for name in ("gpus", "pci_gpus", "devices", "pcie_path", "nics"):
        common = plain.pop(f"all_{name}", {})
        if isinstance(plain.get(name), list):
            whole = (put_back(entry, common) if isinstance(entry, dict) else entry for entry in plain[name])
            plain[name] = [unfold(entry) if isinstance(entry, dict) else entry for entry in whole]
    return plain


class Report:
    """The document of node-probe, with the GPUs of all sections unfolded and merged by index."""

    def __init__(self, document: dict) -> None:
        self.data = {name: unfold(section.get("data") or {}) for name, section in document["sections"].items()}
        self.failed = [name for name, section in document["sections"].items() if section["status"] == "error"]
        problems = [problem for section in document["sections"].values() for problem in section.get("problems", [])]
        self.lost = {problem.get("gpu") for problem in problems if problem.get("code") == "gpu_lost"}
        self.gpus: dict = {}
        for name, data in self.data.items():
            for entry in data.get("gpus") or []:
                index = entry.get("index")
                if isinstance(index, int):
                    self.gpus.setdefault(index, {})[name] = entry

    def by_address(self) -> dict:
        """PCI address -> NVML index."""
        pairs = ((at(gpu, "inventory.pci_address"), index) for index, gpu in self.gpus.items())
        return {address: index for address, index in pairs if address}


class Readings:
    """The documents of nvidia-smi: one, or two if it was read twice."""

    def __init__(self, texts: list) -> None:
        self.roots = [ElementTree.fromstring(text) for text in texts]

    def gpus(self) -> list:
        """Returns the PCI address and the <gpu> elements of all readings, for each GPU."""
        found: dict = {}
        for root in self.roots:
            for gpu in root.findall("gpu"):
                found.setdefault(gpu.get("id", "").lower(), []).append(gpu)
        return list(found.items())


def text_at(element: ElementTree.Element, paths: str) -> Any:
    """Returns the text of the first path that exists. "N/A" instead of an element applies to all elements in it."""
    answer: Any = NOT_SHOWN
    for path in paths.split("|"):
        place: Optional[ElementTree.Element] = element
        for step in path.split("/"):
            assert place is not None
            below = place.find(step)
            if below is None:
                is_no_branch = (
                    place is not element and len(place) == 0 and (place.text or "").strip().lower() in NO_VALUE
                )
                answer = NOT_OFFERED if is_no_branch and (place.text or "").strip() else answer
                place = None
                break
            place = below
        if place is not None:
            text = (place.text or "").strip()
            if text.lower() in NOT_TOLD:
                continue
            if text.lower() not in NO_VALUE:
                return text
            answer = NOT_OFFERED
    return answer


# --- comparing ------------------------------------------------------------------------------------


class Comparison:
    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.compared = 0
        self.moving = Counter()
        self.both_without = 0
        self.differences: list = []

    def take(self, field: Field, gpu: Any, theirs: list, own: Any) -> None:
        """Compares one value: the readings of nvidia-smi and the value of the report."""
        seen = [value for value in theirs if not isinstance(value, Without)]
        if not seen:
            if all(value is NOT_SHOWN for value in theirs):
                return
            if isinstance(own, Without):
                self.both_without += 1
            else:
                self.compared += 1
                self.differences.append((field.name, gpu, NOT_OFFERED, own))
            return
        self.compared += 1
        if field.moves and not self.exact:
            self.moving[field.moves] += 1
        if isinstance(own, Without) or not agrees(field, seen, own, self.exact):
            self.differences.append((field.name, gpu, " … ".join(dict.fromkeys(map(shown, seen))), own))

    def plainly(self, name: str, gpu: Any, theirs: Any, own: Any) -> None:
        """Compares a value without a tolerance."""
        self.take(Field("", name), gpu, [theirs], own)


def agrees(field: Field, seen: list, own: Any, exact: bool) -> bool:
    """Returns whether the value is between the readings, within rounding and tolerance."""
    moves = MOVING[field.moves][0] if field.moves and not exact else 0
    tolerance = max(moves, field.rounding)
    numbers = [value for value in [*seen, own] if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(seen) + 1:
        return min(seen) - tolerance <= own <= max(seen) + tolerance
    return own in seen


def shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


PROCESS_FIELDS = [
    Field("used_memory", "memory_bytes", mebibytes, rounding=ROUNDED_MIB, moves="memory in use"),
    Field("gpu_instance_id", "mig_gpu_instance", number),
    Field("compute_instance_id", "mig_compute_instance", number),
]
MIG_FIELDS = [
    Field("fb_memory_usage/total", "memory_total_bytes", mebibytes, rounding=ROUNDED_MIB),
    Field("fb_memory_usage/used", "memory_used_bytes", mebibytes, rounding=ROUNDED_MIB, moves="memory in use"),
    Field("device_attributes/shared/multiprocessor_count", "multiprocessors", number),
]


def compare_gpus(report: Report, readings: Readings, result: Comparison) -> dict:
    """Compares every field of every GPU. Returns the names in the order of nvidia-smi: `GPU0` -> NVML index."""
    indices, names = report.by_address(), {}
    listed = readings.gpus()
    root = readings.roots[0]
    versions = report.data.get("inventory", {})
    for element, name in (("driver_version", "driver_version"), ("cuda_version", "cuda_version")):
        value = versions.get(name)
        result.plainly(f"inventory.{name}", "-", text_at(root, element), NOT_OFFERED if value is None else value)
    attached = text_at(root, "attached_gpus")
    result.plainly(
        "number of GPUs", "-", attached if isinstance(attached, Without) else int(attached), len(report.gpus)
    )
    for order, (address, elements) in enumerate(listed):
        index = indices.pop(address, None)
        if index is None:
            result.plainly("inventory.gpus", address, "listed", "not listed")
            continue
        names[f"GPU{order}"] = index
        # nvidia-smi and node-probe show only a few values of a lost GPU.
        is_lost = any((below.text or "").strip().lower() == LOST for element in elements for below in element.iter())
        if is_lost or index in report.lost:
            answers = {True: "GPU is lost", False: "answers"}
            result.plainly("GPU", index, answers[is_lost], answers[index in report.lost])
            continue
        gpu = report.gpus[index]
        for field in FIELDS:
            theirs = [value_of(field, element) for element in elements]
            result.take(field, index, theirs, (field.ours or ours(field.name))(gpu))
        compare_processes(report, index, elements, result)
        compare_mig(gpu, index, elements, result)
    for address in indices:
        result.plainly("inventory.gpus", address, "not listed", "listed")
    return names


def value_of(field: Field, element: ElementTree.Element) -> Any:
    text = text_at(element, field.element)
    if isinstance(text, Without):
        return text
    try:
        return field.theirs(text)
    except (ValueError, KeyError):
        return f"{text} (not understood)"


def compare_processes(report: Report, index: int, elements: list, result: Comparison) -> None:
    """Compares the processes on one GPU. Processes start and end: one that only one reading of nvidia-smi lists may be absent."""
    if "processes" in report.failed or "processes" not in report.data:
        return
    readings = [
        {process.findtext("pid", ""): process for process in element.iterfind("processes/process_info")}
        for element in elements
    ]
    own: dict = {}
    for process in report.data["processes"].get("processes", []):
        for use in process.get("uses", []):
            if use["gpu"] == index:
                own[str(process["pid"])] = {"use": use}
    always = set.intersection(*map(set, readings))
    for pid in sorted(always | set(own), key=int):
        theirs = [processes[pid] for processes in readings if pid in processes]
        name = f"processes[{pid}]"
        if pid not in own or not theirs:
            result.plainly(name, index, "listed" if theirs else NOT_OFFERED, "listed" if pid in own else NOT_OFFERED)
            continue
        for field in PROCESS_FIELDS:
            values = [value_of(field, process) for process in theirs]
            result.take(field._replace(name=f"{name}.{field.name}"), index, values, ours(f"use.{field.name}")(own[pid]))


def compare_mig(gpu: Gpu, index: int, elements: list, result: Comparison) -> None:
    """Compares the MIG devices of one GPU by their instance IDs."""
    if "mig" not in gpu:
        return
    theirs = {}
    for device in elements[0].iterfind("mig_devices/mig_device"):
        key = (int(device.findtext("gpu_instance_id", "-1")), int(device.findtext("compute_instance_id", "-1")))
        theirs[key] = device
    own = {
        (device.get("gpu_instance"), device.get("compute_instance")): device for device in gpu["mig"].get("devices", [])
    }
    for key in sorted(set(theirs) | set(own), key=str):
        name = f"mig.devices[{key[0]},{key[1]}]"
        result.plainly(name, index, "listed" if key in theirs else NOT_OFFERED, "listed" if key in own else NOT_OFFERED)
        if key in theirs and key in own:
            for field in MIG_FIELDS:
                read = ours(field.name)(own[key])
                result.take(field._replace(name=f"{name}.{field.name}"), index, [value_of(field, theirs[key])], read)


def compare_topology(report: Report, text: str, names: dict, result: Comparison) -> None:
    """Compares `nvidia-smi topo -m`: matrix, affinities, and distance of the NICs."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    header, rows, nics = None, {}, {}
    for line in lines:
        legend = re.match(r"\s*(NIC\d+):\s*(\S+)\s*$", line)
        if legend:
            nics[legend[2]] = legend[1]
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if header is None and "GPU0" in cells:
            header = cells
        elif header is not None and cells[0] in names:
            rows[cells[0]] = {column: cell for column, cell in zip(header[1:], cells[1:]) if column}
    if not rows:
        result.plainly("topology.matrix", "-", "no matrix in nvidia-smi's output", NOT_OFFERED)
        return
    topology = report.data.get("topology", {})
    position = {entry["index"]: at_ for at_, entry in enumerate(topology.get("gpus") or [])}
    matrix = topology.get("matrix") or []
    present = {name: index for name, index in names.items() if index not in report.lost}
    for row, cells in rows.items():
        index = names[row]
        if index in report.lost:
            continue
        for column, other in present.items():
            try:
                own = matrix[position[index]][position[other]]
            except (KeyError, IndexError):
                own = NOT_OFFERED
            result.plainly(f"topology.matrix[{index}][{other}]", index, cells.get(column, NOT_SHOWN), own)
        gpu = report.gpus[index]
        own = ours("topology.cpu_affinity")(gpu)
        result.plainly("topology.cpu_affinity", index, affinity(cells.get("CPU Affinity"), own), own)
        # Without NUMA, sysfs contains -1, which is null in the report; nvidia-smi shows node 0 for every device.
        own = ours("topology.numa_node", str)(gpu)
        theirs = affinity(cells.get("NUMA Affinity"), own)
        if not (theirs == "0" and isinstance(own, Without)):
            result.plainly("topology.numa_node", index, theirs, own)
    for port in topology.get("nics") or []:
        for near in port.get("near", []):
            row = next((name for name, index in names.items() if index == near["gpu"]), "")
            theirs = rows.get(row, {}).get(nics.get(port["device"], ""), NOT_SHOWN)
            result.plainly(f"topology.nics: {port['device']}", near["gpu"], theirs, near["via"])


def affinity(text: Optional[str], own: Any) -> Any:
    if text is None:
        return NOT_SHOWN
    if text.lower() in NO_VALUE:
        return NOT_OFFERED
    # Long lists are truncated.
    beginning = text.removesuffix("...")
    return own if beginning != text and isinstance(own, str) and own.startswith(beginning) else text


# --- running and printing --------------------------------------------------------------------------


class Failed(Exception):
    """A program could not be run, or a file could not be read."""


def run(command: list, environment: dict, accept: tuple) -> str:
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=SECONDS_PER_COMMAND, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{' '.join(command)}: {error}") from error
    if done.returncode not in accept:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Failed(f"{' '.join(command)}: exit status {done.returncode}: {' '.join(said)}")
    return done.stdout


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Failed(str(error)) from error


def collect(options: argparse.Namespace) -> tuple:
    """Returns the report, the readings of nvidia-smi and the matrix, each from its file or its command."""
    environment = dict(os.environ)
    if options.nvml_library:
        folder = str(options.nvml_library.resolve().parent)
        before = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = f"{folder}:{before}" if before else folder
    smi = str(options.nvidia_smi or "nvidia-smi")
    texts = [read(options.xml)] if options.xml else [run([smi, "-q", "-x"], environment, (0,))]
    if options.report:
        report = read(options.report)
    elif options.node_probe:
        command = [str(options.node_probe)]
        if options.nvml_library:
            command += ["--nvml-library", str(options.nvml_library)]
        if options.root:
            command += ["--root", str(options.root)]
        report = run([*command, "all"], dict(os.environ), (0,))
    else:
        raise Failed("--node-probe or --report is needed")
    if not options.xml:
        texts.append(run([smi, "-q", "-x"], environment, (0,)))
    matrix = read(options.topo) if options.topo else None
    if matrix is None and (options.nvidia_smi or not options.xml):
        matrix = run([smi, "topo", "-m"], environment, (0,))
    try:
        return Report(json.loads(report)), Readings(texts), matrix
    except (ValueError, KeyError, ElementTree.ParseError) as error:
        raise Failed(f"an output has an unexpected form: {error}") from error


def elements_left_out(root: ElementTree.Element) -> list:
    """Returns the elements of nvidia-smi that are not compared."""
    known = {path for field in FIELDS for path in field.element.split("|")}
    elsewhere = ("processes", "mig_devices", "supported_clocks", "accounted_processes")
    left: dict = {}

    def walk(element: ElementTree.Element, path: str) -> None:
        text = (element.text or "").strip()
        if len(element) == 0 and path not in known and text.lower() not in NO_VALUE | NOT_TOLD:
            left.setdefault(path, text)
        for child in element:
            walk(child, f"{path}/{child.tag}" if path else child.tag)

    for gpu in root.findall("gpu"):
        for child in gpu:
            if child.tag not in elsewhere:
                walk(child, child.tag)
    return list(left.items())


def table(rows: list) -> None:
    cells = [
        (name, f"GPU {gpu}" if isinstance(gpu, int) else str(gpu), str(theirs), shown(own))
        for name, gpu, theirs, own in rows
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    for name, gpu, theirs, own in cells:
        print(f"{name:<{widths[0]}}  {gpu:<{widths[1]}}  nvidia-smi: {theirs:<{widths[2]}}  report: {own}")


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--node-probe", type=Path, help="the node-probe to run")
    parser.add_argument("--nvidia-smi", type=Path, help="the nvidia-smi to run (default: the one on the PATH)")
    parser.add_argument("--nvml-library", type=Path, help="the NVML library for both, e.g. a mock's libnvidia-ml.so.1")
    parser.add_argument(
        "--root", type=Path, help="a file tree that node-probe reads instead of the host's (its --root)"
    )
    parser.add_argument("--xml", type=Path, help="saved output of `nvidia-smi -q -x`")
    parser.add_argument("--topo", type=Path, help="saved output of `nvidia-smi topo -m`")
    parser.add_argument("--report", type=Path, help="saved output of `node-probe all`")
    parser.add_argument("--exact", action="store_true", help="no tolerance for values that change: the values of a mock are constant")
    parser.add_argument("--verbose", action="store_true", help="also list the values that are not compared")
    options = parser.parse_args()

    result = Comparison(options.exact)
    try:
        report, readings, matrix = collect(options)
        names = compare_gpus(report, readings, result)
        if matrix is not None:
            compare_topology(report, matrix, names, result)
    except Failed as failure:
        print(f"compare_with_nvidia_smi: {failure}", file=sys.stderr)
        return 2
    if result.differences:
        table(result.differences)
    if options.verbose:
        for path, text in elements_left_out(readings.roots[0]):
            print(f"not in the report: {path}: {text}")
    moved = [f"{name} ({count}) ± {MOVING[name][1]}" for name, count in sorted(result.moving.items())]
    if moved:
        print(f"Compared with a tolerance, because the values change: {', '.join(moved)}.")
    if report.failed:
        print(f"Sections without data: {', '.join(report.failed)}.")
    print(
        f"{result.compared} values compared on {len(names)} GPUs: {len(result.differences)} differences. "
        f"Neither of the two has another {result.both_without} values."
    )
    return 1 if result.differences else 0


if __name__ == "__main__":
    sys.exit(main())
