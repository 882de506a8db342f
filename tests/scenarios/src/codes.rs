//! Scenarios for single Xid codes and driver lines: severity, ageing, and lines that are not recognized.

use crate::prelude::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        healthy("nvlink-privilege-error", "An NVLink privilege error, which NVIDIA recommends ignoring.")
            .must(finding("nvlink-event").gpu(0).severity(Info))
            .must_not(["nvlink-fault"])
            .node(|| h100(2).xid(ago(hours(1)), 0, 137, UNKNOWN, "NVLink: privilege error")),
        healthy("gsp-timeout-of-last-week", "GSP timed out six days ago, and a program of yesterday runs on the GPU.")
            .must(
                finding("gsp-failed")
                    .gpu(0)
                    .severity(Info)
                    .evidence(["which started since then, is running on the GPU"]),
            )
            .must_not(["severity:warning", "severity:critical", "severity:fatal"])
            .node(|| l40s(2).gsp_timeout(ago(days(6)), 0, 40_981).job_started(0, ago(days(1)))),
        warning("repair-waits-for-a-reset", "A memory repair has been pending for six days: a state does not age.")
            .must(("xid-hardware", 0))
            .must_not(["severity:critical", "severity:fatal"])
            .node(|| h100(2).xid(ago(days(6)), 0, 160, UNKNOWN, "Channel repair recorded, reset to activate")),
        critical("peer-to-peer-was-drained", "The end of a peer-to-peer drain does not mean that the GPU was reset.")
            .must(finding("ecc-contained").gpu(0).severity(Critical))
            .must_not(["xid-history"])
            .node(|| {
                a100(2)
                    .xid(ago(hours(6)), 0, 94, UNKNOWN, "Contained: SM (0x1). RST: No, D-RST: Yes")
                    .recovery_changed(ago(hours(6)), 0, "0x0 (None) to 0x3 (Drain P2P)")
                    .recovery_changed(ago(hours(2)), 0, "0x3 (Drain P2P) to 0x0 (None)")
            }),
        warning("forty-jobs-fault-on-one-gpu", "Forty jobs fail on GPU 1. One failure on GPU 0 proves nothing.")
            .must(finding("application-faults-repeat-on-one-gpu").gpu(1).evidence(["40 processes named 'python3'"]))
            .must_not(["application-faults-on-one-gpu"])
            .node(|| {
                let fault = |node: Node, when, gpu, pid: i64| {
                    let message = "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 faulted @ \
                                   0x7f29_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ";
                    node.xid(when, gpu, 31, &format!("pid={pid}, name=python3"), message)
                };
                let jobs = (0..40).map(|job| (ago(hours(20)) + minutes(20 * job), 60_000 + job));
                let node = jobs.fold(h100(2), |node, (when, pid)| fault(node, when, 1, pid));
                fault(node, ago(hours(3)), 0, 70_000)
            }),
        fatal("bar-not-assigned", "The firmware assigned no memory region to GPU 1. This is not a hardware fault.")
            .must(finding("gpu-memory-not-mapped").evidence(["BAR"]))
            .must_not(["gpu-init-failed", "gpu-missing-from-nvml", "class:hardware"])
            .node(|| {
                l40s(4)
                    .driver_start_line(
                        "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:\\x0aNVRM: BAR1 is 0M \
                         @ 0x0 (PCI:0000:38:00.0)",
                    )
                    .driver_start_line("nvidia 0000:38:00.0: probe with driver nvidia failed with error -1")
                    .driver_start_line("NVRM: The NVIDIA probe routine failed for 1 device(s).")
                    .not_bound(1)
            }),
        fatal("wrong-module-flavour", "The open kernel modules do not support the card in the second slot.")
            .must(finding("driver-wrong-kernel-module-type").evidence(["needs_proprietary_module"]))
            .must_not(["gpu-init-failed", "gpu-not-bound", "class:hardware"])
            .node(|| {
                l40s(4)
                    .driver_start_line(
                        "NVRM: The NVIDIA GPU 0000:38:00.0 (PCI ID: 10de:1db6)\\x0aNVRM: installed in this system is \
                         not supported by open\\x0aNVRM: nvidia.ko because it does not include the required GPU\\x0a\
                         NVRM: System Processor (GSP).",
                    )
                    .not_bound(1)
            }),
        fatal("uvm-failed", "Unified memory has a permanent error: no CUDA program can start.")
            .must(finding("uvm-fatal-error").evidence(["nvidia-uvm error"]))
            .must_not(["class:hardware"])
            .node(|| {
                let error = "uvm encountered global fatal error 0x60, requiring os reboot to recover.";
                l40s(2).kernel_line(ago(minutes(40)), format!("NVRM: nvGpuOpsReportFatalError: {error}"))
            }),
        healthy("new-words-of-the-driver", "Unknown lines of the driver are shown. No conclusion is drawn from them.")
            .must(finding("kernel-log-lines-not-recognized").evidence(["2 of facts file", "a sentence that is new"]))
            .must_not(ANY_WARNING)
            .node(|| {
                l40s(2)
                    .kernel_line(ago(minutes(40)), "NVRM: a sentence that is new")
                    .kernel_line(ago(minutes(20)), "nvidia: a sentence of the module loader")
            }),
        unknown("xid-in-a-new-frame", "There is an Xid in an unknown format, so the node is not reported as healthy.")
            .must("kernel-log-lines-not-recognized")
            .must_not(ANY_WARNING)
            .node(|| {
                l40s(2).kernel_line(ago(minutes(40)), "NVRM: Xid (GPU-b6c3b2be): 79, GPU has fallen off the bus.")
            }),
        healthy("lines-suppressed", "The kernel suppressed lines: the count of printed lines is a lower bound.")
            .must(finding("application-fault").gpu(0).evidence(["(at least 1 time)"]))
            .must("kernel-log-suppressed-lines")
            .must_not(ALARMS)
            .node(|| {
                l40s(2)
                    .xid(ago(minutes(40)), 0, 43, "pid=41210, name=python3", "Ch 00000008")
                    .kernel_line(ago(minutes(40)) + seconds(5), "os_printf: 39 callbacks suppressed")
            }),
        healthy("bar-assigned-later", "Errors during the start of the driver are over, because the GPU works.")
            .must_not([
                "gpu-memory-not-mapped",
                "driver-wrong-kernel-module-type",
                "uvm-fatal-error",
                "kernel-log-lines-not-recognized",
            ])
            .node(|| {
                l40s(2)
                    .driver_start_line("NVRM: BAR1 is 0M @ 0x0 (PCI:0000:38:00.0)")
                    .driver_start_line("nvidia-uvm: Loaded the UVM driver, major device number 511.")
            }),
    ]
}
