//! Scenarios of GPUs that NVML or PCI does not list, of blocked NVML calls, and of memory, InfoROM and power faults.

use syringe_core::facts::ecc::{RecoveryAction, RemapHistogram, RemappedRows, RetiredPages};

use crate::node::errors;
use crate::prelude::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        fatal("gpu-lost", "NVML lost GPU 2. The kernel log has no line about it.")
            .must(finding("gpu-lost").gpu(2).severity(Fatal))
            .must_not(["gpu-missing-from-nvml"])
            .cluster(KubernetesFacts { gpu_capacity: Some(4), ..cluster("gpu-h100-9") })
            .node(|| h100(4).lost(2).host(|host| host.pci_gpus[2].answers = Some(true))),
        fatal("init-failed", "The driver could not initialize GPU 1.")
            .must(finding("gpu-init-failed").evidence(["RmInitAdapter failed", "NVML lists 3 GPUs, PCI lists 4"]))
            .must_not(["gpu-off-bus"])
            .node(|| {
                let when = ago(days(12)) + seconds(61);
                l40s(4)
                    .kernel_line(when, "NVRM: GPU 0000:38:00.0: RmInitAdapter failed! (0x62:0x40:2568)")
                    .kernel_line(when, "NVRM: GPU 0000:38:00.0: rm_init_adapter failed, device minor number 1")
                    .not_in_nvml(1)
            }),
        fatal("init-failed-for-other-firmware", "The disk has the GSP firmware of the driver before, and GPU 1 does not start.")
            .must(finding("gpu-init-failed").evidence(["GSP firmware of 570.86.15 only"]))
            .must_not(["gpu-off-bus"])
            .node(|| {
                let when = ago(days(12)) + seconds(61);
                l40s(4)
                    .kernel_line(when, "NVRM: GPU 0000:38:00.0: RmInitAdapter failed! (0x62:0x40:2568)")
                    .not_in_nvml(1)
                    .host(|host| host.gsp_firmware_versions = vec!["570.86.15".to_owned()])
            }),
        fatal("no-power-cable", "The driver reports that the auxiliary power cables of GPU 1 are not connected.")
            .must(finding("gpu-init-failed").evidence(["no auxiliary power"]))
            .must_not(["gpu-off-bus", "gpu-missing-from-nvml"])
            .node(|| {
                let when = ago(days(12)) + seconds(61);
                let power = "NVRM: GPU 0000:38:00.0: GPU does not have the necessary power cables connected.";
                l40s(4)
                    .kernel_line(when, power)
                    .kernel_line(when, "NVRM: GPU 0000:38:00.0: RmInitAdapter failed! (0x24:0x1c:1450)")
                    .not_in_nvml(1)
            }),
        fatal("off-bus-at-probe", "GPU 1 was off the bus when the driver probed it.")
            .must(finding("gpu-off-bus").evidence(["fallen off the bus", "NVML lists 3 GPUs, PCI lists 4"]))
            .must_not(["xid-history"])
            .node(|| {
                l40s(4)
                    .driver_start_line(
                        "NVRM: The NVIDIA GPU 0000:38:00.0\\x0aNVRM: (PCI ID: 10de:26b9) installed in this system \
                         has\\x0aNVRM: fallen off the bus and is not responding to commands.",
                    )
                    .driver_start_line("NVRM: The NVIDIA probe routine failed for 1 device(s).")
                    .not_bound(1)
                    .no_gpu_lost()
            }),
        fatal("missing-from-nvml", "GPU 2 is on the PCI bus but not in NVML, and no log line shows the cause.")
            .must("gpu-missing-from-nvml")
            .must_not(["gpu-init-failed"])
            .node(|| l40s(4).not_in_nvml(2)),
        healthy("gpu-excluded", "GPU 2 is excluded from the driver by an administrator.")
            .must("gpu-excluded")
            .must_not(["gpu-missing-from-nvml", "class:hardware", "severity:warning"])
            .node(|| l40s(4).hidden(2, |inventory| &mut inventory.excluded)),
        warning("gpu-draining", "GPU 2 is in the drain state, so NVML does not list it.")
            .must(finding("gpu-draining").severity(Warning))
            .must_not(["gpu-missing-from-nvml", "class:hardware", "gpu-excluded"])
            .node(|| l40s(4).hidden(2, |inventory| &mut inventory.draining)),
        fatal("all-gpus-gone", "Neither PCI nor NVML lists a GPU. Kubernetes counted eight.")
            .must(finding("no-gpus-found").evidence(["capacity: 8"]))
            .must_not(["not-a-gpu-node"])
            .more()
            .cluster(KubernetesFacts {
                gpu_allocatable: Some(0),
                gpu_label_count: Some(8),
                ..cluster_with_gpus("gpu-h100-4", 8)
            })
            .base("no-gpu"),
        critical("gpu-gone-from-pci", "Kubernetes counted four GPUs. PCI and NVML list three.")
            .must(finding("gpu-count-low").evidence(["capacity: 4"]))
            .cluster(cluster_with_gpus("gpu-l40s-9", 4))
            .node(|| l40s(3)),
        critical("instance-with-a-gpu-less", "A g6e.12xlarge has four GPUs. Only three were found at the boot.")
            .must(finding("gpu-count-low").evidence(["instance type g6e.12xlarge: 4"]))
            .cluster(KubernetesFacts {
                instance_type: Some("g6e.12xlarge".to_owned()),
                ..cluster_with_gpus("gpu-l40s-9", 3)
            })
            .node(|| l40s(3)),
        fatal("gpu-rejected-unlike-peers", "The driver calls GPU 1 unsupported, but supports three equal GPUs.")
            .must("gpu-rejected-unlike-peers")
            .must_not(["driver-wrong-kernel-module-type"])
            .node(|| {
                l40s(4)
                    .driver_start_line(
                        "NVRM: The NVIDIA GPU 0000:38:00.0 (PCI ID: 10de:26b9)\\x0aNVRM: installed in this system is not \
                         supported by the\\x0aNVRM: NVIDIA 570.124.06 driver release.",
                    )
                    .driver_start_line("NVRM: The NVIDIA probe routine failed for 1 device(s).")
                    .not_bound(1)
                    .no_gpu_lost()
            }),
        critical("gpu-hangs", "NVML calls about GPU 1 do not return.")
            .must(("gpu-unresponsive", 1))
            .must_not(["nvml-not-answering", "gpu-cannot-be-opened"])
            .node(|| {
                let timeout = problem("NVML: Timeout", "timeout", "Look at the kernel log.");
                l40s(2).unreadable_gpu([Part::Telemetry, Part::Ecc], 1, timeout)
            }),
        critical("gpu-cannot-be-opened", "NVML counts GPU 1 but cannot open it.")
            .must(("gpu-cannot-be-opened", 1))
            .must_not(["class:hardware", "nvml-failed"])
            .node(|| {
                let error = problem("NVML: Unknown Error", "unknown", "Look at the kernel log.");
                l40s(2).unreadable_gpu(Part::ALL, 1, error)
            }),
        critical("nvml-blocks", "No NVML call returns.").must("nvml-not-answering").must_not(["class:hardware"]).node(
            || {
                let why = problem("not read within 20 s: NVML does not answer", "timeout", "Look at the kernel log.");
                l40s(2).unreadable(Part::ALL, why).nvml_not_available()
            },
        ),
        warning("nvml-wakes-up", "NVML is slow, possibly because it initializes the GPUs.")
            .must(finding("nvml-not-answering").severity(Warning).evidence(["first initialization"]))
            .must_not(["class:hardware", "severity:critical"])
            .node(|| {
                let why = "NVML did not answer within 8.0 s; it is still inside nvmlInit_v2";
                l40s(2)
                    .unreadable(Part::ALL, problem(why, "timeout", "Ask again."))
                    .nvml_not_available()
                    .allocations([])
                    .processes(|section| section.processes.clear())
                    .host(|host| (host.daemons.persistenced, host.daemons.dcgm) = (Some(false), Some(false)))
            }),
        fatal("memory-unrepairable", "The driver reports that the memory of GPU 1 cannot be repaired.")
            .must(finding("unrepairable-memory").gpu(1).severity(Fatal))
            .must_not(["row-remap-failed"])
            .node(|| h100(4).ecc(1, |gpu| gpu.unrepairable_memory = Some(true))),
        fatal("memory-unrepairable-after-failed-remap", "A row remap of GPU 1 failed, and its memory cannot be repaired.")
            .must(finding("row-remap-failed").gpu(1).evidence(["unrepairable memory flag set"]))
            .must_not(["unrepairable-memory"])
            .node(|| {
                h100(4)
                    .remapped_rows(1, |rows| rows.failure_occurred = true)
                    .ecc(1, |gpu| gpu.unrepairable_memory = Some(true))
            }),
        warning("remap-inactive", "A remap for an uncorrected error is recorded on GPU 1 but not active, and none is pending.")
            .must(finding("row-remap-inactive").gpu(1).severity(Warning))
            .must_not(["row-remap-pending"])
            .node(|| h100(4).remapped_rows(1, |rows| inactive(rows, 0, 1))),
        warning("remap-inactive-until-reset", "A remap of GPU 1 is not active yet: it is pending until a reset.")
            .must(finding("row-remap-pending").gpu(1).evidence(["not active: 1 for uncorrectable"]))
            .must_not(["row-remap-inactive"])
            .node(|| {
                h100(4).remapped_rows(1, |rows| {
                    inactive(rows, 0, 1);
                    rows.pending = true;
                })
            }),
        healthy("remap-replaced", "A remap for corrected errors is not active, because another remap replaced it.")
            .must_not(["row-remap-inactive", "row-remap-pending"])
            .node(|| h100(4).remapped_rows(1, |rows| inactive(rows, 1, 0))),
        fatal("remap-failed", "A row remap failed, because no spare row is left.")
            .must(finding("row-remap-failed").gpu(0).severity(Fatal))
            .must(("row-remap-spares-used", 0))
            .must_not(["row-remap-not-recorded"])
            .node(|| {
                a100(2)
                    .remapped_rows(0, |rows| {
                        (rows.uncorrectable, rows.failure_occurred) = (9, true);
                        rows.histogram = Some(RemapHistogram { max: 631, high: 5, partial: 2, low: 1, none: 1 });
                    })
                    .xid(
                        ago(hours(3)),
                        0,
                        64,
                        UNKNOWN,
                        "Row Remapper: Error: all reserved rows for bank 3 are remapped",
                    )
            }),
        fatal("ecc-uncontained", "An uncontained error: the GPU must not get new work before a reset.")
            .must(finding("ecc-uncontained").gpu(1).severity(Fatal).evidence(["Xid 95", "Xid 45 (2)"]))
            .must_not(["application-fault", "ecc-double-bit"])
            .node(|| {
                let when = ago(minutes(21));
                let double_bit = "An uncorrectable double bit error (DBE) has been detected on GPU in the SRAM.";
                let uncontained = "Uncontained: LTC TAG (0x2,0x0). physAddr: 0x3f80 RST: Yes, D-RST: No";
                h100(2)
                    .xid(when, 1, 48, UNKNOWN, double_bit)
                    .xid(when, 1, 95, UNKNOWN, uncontained)
                    .recovery_changed(when, 1, "0x0 (None) to 0x1 (GPU Reset)")
                    .xid(when + seconds(1), 1, 45, "pid=41211, name=python3", "Ch 00000008")
                    .xid(when + seconds(1), 1, 45, "pid=41211, name=python3", "Ch 00000009")
                    .ecc(1, |gpu| gpu.volatile = errors("sram", 0, 1))
                    .recovery_action(1, RecoveryAction::GpuReset)
            }),
        fatal("sram-threshold", "The board has had too many SRAM errors in its lifetime.")
            .must(("sram-threshold-exceeded", 1))
            .node(|| {
                h100(2).ecc(1, |gpu| {
                    let sram = gpu.sram.as_mut().expect("SRAM errors");
                    sram.threshold_exceeded = true;
                    (sram.aggregate_uncorrected_parity, sram.bucket_sm) = (11, 11);
                })
            }),
        fatal("retired-pages", "A T4 at NVIDIA's limit of retired pages. One retirement is pending.")
            .must(("retired-pages-limit", 0))
            .must(("retired-pages-pending", 0))
            .node(|| {
                let pages = RetiredPages { single_bit: Some(47), double_bit: Some(14), pending: Some(true) };
                t4().ecc(0, |gpu| gpu.retired_pages = Some(pages))
            }),
        warning("ecc-off", "ECC was disabled on a data center GPU.")
            .must("ecc-disabled")
            .must_not(["severity:critical", "severity:fatal"])
            .node(|| a100(2).ecc_off(0)),
        critical("inforom-corrupted", "The InfoROM of GPU 0 is corrupted.")
            .must(("inforom-corrupted", 0))
            .node(|| l40s(2).ecc(0, |gpu| gpu.inforom_valid = Some(false))),
        fatal("driver-wants-reboot", "The driver recommends a reboot, but logs no event.")
            .must(finding("recovery-node-reboot").gpu(1).evidence(["recovery action: node reboot"]))
            .node(|| h100(2).recovery_action(1, RecoveryAction::NodeReboot)),
        fatal("reset-would-switch-ecc-off", "GPU 1 needs a reset, which would switch its ECC off: ECC is switched on again first.")
            .must(("ecc-uncontained", 1))
            .must(("ecc-mode-pending", 1))
            .must_not(["gpu-mode-differs-from-peers"])
            .node(|| {
                let off = Some(syringe_core::facts::Mode { current: true, pending: false });
                h100(4)
                    .xid(ago(minutes(8)), 1, 95, "pid=41211, name=python3", "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No")
                    .recovery_action(1, RecoveryAction::GpuReset)
                    .inventory(1, |gpu| gpu.ecc_mode = off)
                    .ecc(1, |gpu| (gpu.mode, gpu.volatile.uncorrected) = (off, Some(1)))
            }),
        fatal("off-bus-again", "The GPU also had an Xid 79 in the previous boot: resets do not help.")
            .must(("gpu-off-bus", 1))
            .must("xid-recurring")
            .must("xid-history")
            .node(|| {
                let earlier =
                    "NVRM: Xid (PCI:0000:2a:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.";
                h100(2)
                    .lost(1)
                    .without_job(1)
                    .xid(ago(minutes(40)), 1, 79, UNKNOWN, "GPU has fallen off the bus.")
                    .journal_line_of_earlier_boot(ago(days(14)), earlier)
            }),
        warning("ecc-counted-without-xid", "Uncorrected errors were counted, but the log contains no Xid.")
            .must(finding("ecc-uncorrected").gpu(1).severity(Warning).evidence(["since driver load: 2 (2 sram)"]))
            .node(|| {
                h100(2).ecc(1, |gpu| (gpu.volatile, gpu.aggregate) = (errors("sram", 0, 2), errors("sram", 0, 2)))
            }),
        critical("reset-required", "NVML says that GPU 0 requires a reset.").must(("gpu-reset-required", 0)).node(
            || {
                let why = problem("NVML: GPU requires reset", "reset_required", "Reset it.");
                a100(2).unreadable_gpu([Part::Telemetry], 0, why)
            },
        ),
        warning("memory-missing", "GPU 2 has less memory than other GPUs.")
            .must(("gpu-memory-differs-from-peers", 2))
            .node(|| {
                a100(4)
                    .inventory(2, |gpu| gpu.memory_total_bytes = gpu.memory_total_bytes.map(|bytes| bytes - 8192 * MIB))
                    .telemetry(2, |gpu| {
                        let less = |bytes: Option<u64>| bytes.map(|bytes| bytes - 8192 * MIB);
                        (gpu.memory.total_bytes, gpu.memory.free_bytes) =
                            (less(gpu.memory.total_bytes), less(gpu.memory.free_bytes));
                    })
            }),
        critical("power-cable-missing", "GPU 1 has no external power.").must(("gpu-power-missing", 1)).node(|| {
            let why = problem("NVML: Insufficient External Power", "insufficient_power", "Check the power cables.");
            l40s(2).unreadable_gpu([Part::Telemetry], 1, why)
        }),
    ]
}

/// Sets the numbers of remaps that are not active.
fn inactive(rows: &mut RemappedRows, correctable: u32, uncorrectable: u32) {
    rows.uncorrectable = 1;
    (rows.correctable_inactive, rows.uncorrectable_inactive) = (Some(correctable), Some(uncorrectable));
}
