//! Scenarios of the base nodes: the files in `base/*.json`, unchanged.

use crate::prelude::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        healthy("healthy-h100-8", "Eight GPUs run a training job: full load, full memory, power at the limit.")
            .must_not(ANY_WARNING)
            .summary(["All 8 GPUs", "no Xid since"])
            .cluster(KubernetesFacts { gpu_label_count: Some(8), ..cluster_with_gpus("gpu-h100-1", 8) }),
        healthy("healthy-t4-1", "One T4 in a virtual machine, with page retirement.").must_not(ALARMS),
        healthy("a100-mig-8", "MIG is enabled: utilization and row remapping are not available.")
            .must_not(alarms_and(["mig-without-instances", "memory-unaccounted"])),
        healthy("gb200-4", "A compute tray of a rack, with no NVSwitch and no Fabric Manager.")
            .must_not(alarms_and(["fabric-manager-not-running"])),
        healthy("l40s-4-idle", "Idle GPUs reduce their PCIe generation.").must_not(alarms_and(["pcie-generation-low"])),
        fatal("xid79-off-bus", "GPU 3 fell off the bus. Nine Xid 45 follow from it, and a process hangs.")
            .must(finding("gpu-off-bus").gpu(3).severity(Fatal).evidence([
                "Xid 79 (1 time)",
                "NVML lists 7 GPUs, PCI lists 8",
                "Xid 45 (9)",
            ]))
            .must("process-stuck")
            .must(finding("job-waits-for-lost-gpu").evidence(["GPUs 0-2, 4-7"]))
            .must_not(["application-fault", "allocated-gpu-missing", "pcie-errors-fatal", "gpu-lost"])
            .summary(["GPU 3", "14 min ago", "7 of 8"])
            .cluster(KubernetesFacts { gpu_capacity: Some(8), ..cluster("gpu-h100-2") }),
        critical("ecc-remap-pending", "A contained memory error. The row remap is pending until a reset.")
            .must(finding("row-remap-pending").gpu(5).evidence(["Xid 63"]))
            .must(finding("ecc-contained").gpu(5).evidence(["Xid 94", "Xid 48", "Xid 45 (3)"]))
            .must_not(["severity:fatal", "application-fault", "ecc-uncontained", "row-remap-failed"]),
        fatal("no-driver", "GPUs are on the PCI bus, but no kernel module is loaded.")
            .must("driver-not-loaded")
            .must_not(["class:hardware", "gpu-missing-from-nvml"]),
        fatal("driver-mismatch", "The library was updated, but the old module is still loaded.")
            .must(finding("driver-version-mismatch").evidence(["570.124.06", "570.133.20"]))
            .must_not(["class:hardware", "client-version-mismatch"]),
        unknown("no-gpu", "A worker without GPUs: there is no fault, but also no GPU that could be healthy.")
            .must("not-a-gpu-node")
            .must_not(any_warning_and(["driver-not-loaded"])),
    ]
}
