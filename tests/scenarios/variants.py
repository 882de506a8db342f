#!/usr/bin/env python3
"""Writes the scenarios for the rules, and the expectations of every scenario (`NAME.expect.json`).

python3 tests/scenarios/variants.py            writes every file
python3 tests/scenarios/variants.py --check    fails if a file differs from the generated one
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import benign  # noqa: F401  (each of these registers its scenarios)
import codes  # noqa: F401
import distributions  # noqa: F401
import driver_load  # noqa: F401
import generate
import gpus  # noqa: F401
import links  # noqa: F401
import reading  # noqa: F401
import runtime  # noqa: F401
import software  # noqa: F401
import usage  # noqa: F401
from expected import EXPECTED, ALARMS, VARIANTS, variant

# ---- expectations of the scenarios of generate.py

variant(
    "Eight GPUs at full load, memory 99 % full, power-capped: that is training, not trouble.",
    "healthy",
    must_not=ALARMS + ["severity:warning"],
    summary=["All 8 GPUs", "no Xid since"],
    cluster={"node": "gpu-h100-1", "gpu_capacity": 8, "gpu_allocatable": 8, "gpu_label_count": 8},
)("healthy-h100-8")
variant("One T4 in a virtual machine, with page retirement instead of row remapping.", "healthy", must_not=ALARMS)(
    "healthy-t4-1"
)
variant(
    "MIG on: utilization and row remapping cannot be had, and that is no defect.",
    "healthy",
    must_not=ALARMS + ["mig-without-instances", "memory-unaccounted"],
)("a100-mig-8")
variant(
    "A tray of a rack: no NVSwitch and no Fabric Manager here, only a T.Limit margin.",
    "healthy",
    must_not=ALARMS + ["fabric-manager-not-running"],
)("gb200-4")
variant("Idle GPUs lower their PCIe generation.", "healthy", must_not=ALARMS + ["pcie-generation-low"])("l40s-4-idle")
variant(
    "GPU 3 fell off the bus; nine Xid 45 follow from it, and a process hangs.",
    "fatal",
    {
        "id": "gpu-off-bus",
        "gpu": 3,
        "severity": "fatal",
        "evidence": ["Xid 79 (1 time)", "NVML lists 7 GPUs, PCI lists 8", "Xid 45 (9)"],
    },
    "process-stuck",
    {"id": "job-waits-for-lost-gpu", "evidence": ["GPUs 0-2, 4-7"]},
    must_not=["application-fault", "allocated-gpu-missing", "pcie-errors-fatal", "gpu-lost"],
    summary=["GPU 3", "14 min ago", "7 of 8"],
    cluster={"node": "gpu-h100-2", "gpu_capacity": 8},
)("xid79-off-bus")
variant(
    "A contained memory error; the row waits for a reset.",
    "critical",
    {"id": "row-remap-pending", "gpu": 5, "evidence": ["Xid 63"]},
    {"id": "ecc-contained", "gpu": 5, "evidence": ["Xid 94", "Xid 48", "Xid 45 (3)"]},
    must_not=["severity:fatal", "application-fault", "ecc-uncontained", "row-remap-failed"],
)("ecc-remap-pending")
variant(
    "GPUs on PCI, no kernel module.",
    "fatal",
    "driver-not-loaded",
    must_not=["class:hardware", "gpu-missing-from-nvml"],
    health="unhealthy",
)("no-driver")
variant(
    "The library was updated under the loaded module.",
    "fatal",
    {"id": "driver-version-mismatch", "evidence": ["570.124.06", "570.133.20"]},
    must_not=["class:hardware", "client-version-mismatch"],
)("driver-mismatch")
variant(
    "A worker without GPUs: nothing wrong, and nothing to call healthy either.",
    "unknown",
    "not-a-gpu-node",
    must_not=ALARMS + ["driver-not-loaded", "severity:warning"],
)("no-gpu")


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
