//! Scenarios of nodes that look faulty but have no fault: the rules must not raise an alarm.
//! `links_down`: a group of inactive NVLinks. `nvlink_5`: the message of an Xid about an NVLink 5.

use syringe_core::facts::Mode;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::topology::NvlinkGroup;

use crate::driver_load::passed_through;
use crate::node::errors;
use crate::prelude::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        healthy("ecc-lifetime-only", "The lifetime counters contain errors of earlier years, but no recent errors.")
            .must(finding("ecc-history").gpu(1).evidence(["uncorrected over the lifetime of the board: 3"]))
            .must("row-remap-done")
            .must_not(["severity:critical", "severity:fatal", "severity:warning", "ecc-uncorrected"])
            .node(|| {
                h100(4)
                    .ecc(1, |gpu| gpu.aggregate = errors("dram", 41_223, 3))
                    .remapped_rows(1, |rows| rows.uncorrectable = 2)
            }),
        healthy("thermal-margin-negative", "Some H100 firmware returns a T.Limit margin of 0 or less on a cool GPU.")
            .must_not(["class:thermal"])
            .node(|| {
                let margins = [-3, 0, -1, -8];
                margins.into_iter().zip(0..).fold(h100(4), |node, (margin, index)| {
                    node.telemetry(index, |gpu| gpu.temperature.tlimit_margin_celsius = Some(margin))
                })
            }),
        healthy("a100-links-12-of-18", "The driver counts 18 NVLinks on an A100, which has 12.")
            .must_not(["nvlink-down"])
            .node(|| (0..4).fold(a100(4), |node, gpu| node.topology(gpu, |gpu| gpu.nvlinks.push(links_down(12..18))))),
        healthy("application-crash-storm", "One program fails repeatedly on all GPUs. The GPUs have no fault.")
            .must(("application-fault", 0))
            .must(("application-fault", 1))
            .must_not(ANY_WARNING)
            .node(|| (0..12).fold(h100(2), |node, round| (0..2).fold(node, |node, gpu| crash(node, gpu, round)))),
        healthy("application-crash-loop", "One workload is restarted repeatedly on one GPU and fails each time.")
            .must(("application-fault", 1))
            .must_not(["class:hardware", "application-faults-on-one-gpu"])
            .node(|| {
                (0..6).fold(h100(2), |node, round| {
                    let message = format!(
                        "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_{round} faulted @ \
                         0x7f29_5b8c{round}000. Fault is of type FAULT_PTE ACCESS_TYPE_VIRT_WRITE"
                    );
                    let process = format!("pid={}, name=trtllm", 60_000 + round);
                    node.xid(ago(minutes(10 * round + 4)), 1, 31, &process, &message)
                })
            }),
        warning_for_pods("mps-server-fault", "A client of MPS caused a fault, and all clients of the GPU ended.")
            .must(("mps-server-fault", 0))
            .must_not(["application-fault", "class:hardware"])
            .node(|| {
                let fault = "Ch 00000008, intr 10000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f29_5b8c0000. \
                             Fault is of type FAULT_PTE ACCESS_TYPE_VIRT_READ";
                l40s(2).xid(ago(minutes(20)), 0, 31, "pid=51210, name=nvidia-cuda-mps", fault)
            }),
        healthy("application-lone-faults", "One exception of the video decoder and one Xid 45.")
            .must(("application-fault", 0))
            .must_not(["class:hardware", "severity:warning"])
            .node(|| {
                l40s(2).xid(ago(hours(2)), 0, 68, "pid=41210, name=ffmpeg", "NVDEC0 Exception: errorcode 0x1").xid(
                    ago(hours(5)),
                    0,
                    45,
                    "pid=33001, name=ffmpeg",
                    "Ch 00000010",
                )
            }),
        healthy("programs-ended", "A job was stopped: the driver removed its channels on both GPUs.")
            .must(("program-ended", 0))
            .must(("program-ended", 1))
            .must_not(["application-fault", "class:hardware", "severity:warning"])
            .node(|| {
                (0..2).fold(l40s(2), |node, gpu| {
                    node.xid(ago(hours(5)), gpu, 45, &format!("pid={}, name=python3", 33_001 + gpu), "Ch 00000010")
                })
            }),
        warning("oom-kill", "The kernel killed a process because the node had no memory left. The driver then closed its channels.")
            .must(finding("node-out-of-memory").evidence(["largest killed process: 'python3'"]))
            .must(finding("application-killed").gpu(0).evidence(["out-of-memory kill", "Xid 45"]))
            .must_not(["application-fault", "class:hardware"])
            .node(|| {
                let ended = ago(minutes(32)) + seconds(4);
                (9..14).fold(killed_for_memory(), |node, channel| {
                    node.xid(ended, 0, 45, "pid=51234, name=python3", &format!("Ch {channel:08x}"))
                })
            }),
        warning("service-killed", "The memory of the node ran out, and the kernel killed the kubelet.")
            .must(finding("node-service-killed").evidence(["kubelet"]))
            .must(finding("host-memory-low").evidence(["2.0 GiB of"]))
            .must_not(["class:hardware"])
            .node(|| {
                let when = ago(minutes(32));
                let kill = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0-1,global_oom,\
                            task_memcg=/system.slice/kubelet.service,task=kubelet,pid=1990,uid=0";
                h100(2).kernel_line(when, kill).host(|host| host.memory_available_bytes = Some(2 << 30))
            }),
        healthy("pod-killed-by-its-limit", "The kernel killed a process of a pod at the memory limit of its container.")
            .must(finding("pod-process-killed").evidence(["out-of-memory kill"]))
            .must_not(["node-service-killed", "host-memory-low"])
            .node(|| {
                let pod = h100(2).pod_uid("job-1").replace('-', "_");
                let group = format!("/kubepods.slice/kubepods-pod{pod}.slice");
                let kill = format!(
                    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0-1,oom_memcg={group},\
                     task_memcg={group}/a,task=python3,pid=51234,uid=0"
                );
                h100(2).kernel_line(ago(minutes(32)), &kill)
            }),
        warning("oom-kill-and-fault", "One process was killed because of its memory use, another process failed.")
            .must("node-out-of-memory")
            .must(finding("application-killed").gpu(0).evidence(["out-of-memory kill"]))
            .must(finding("application-fault").gpu(0).evidence(["Xid 31"]))
            .must_not(["class:hardware"])
            .node(|| {
                let message = "Ch 00000010, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC0 GPCCLIENT_T1_0 faulted @ \
                               0x7f29_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ";
                killed_for_memory().xid(ago(hours(3)), 0, 31, "pid=48812, name=python3", message)
            }),
        healthy("power-capped", "All GPUs are at their power limit and at full load.")
            .must_not(["class:power", "clocks-low-under-load"])
            .node(|| h100(4).loads(|index, load| (load.watts, load.mhz) = (699, Some(1215 + 15 * index)))),
        healthy("rebooted-after-xids", "The node was rebooted after Xids, which are still in the journal.")
            .must("xid-history")
            .must_not(["gpu-off-bus", "application-fault", "ecc-double-bit"])
            .must_not(["severity:warning", "severity:critical", "severity:fatal"])
            .node(|| {
                let lines = [
                    "NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
                    "NVRM: Xid (PCI:0000:18:00): 45, pid=812, name=python3, Ch 00000008",
                    "NVRM: Xid (PCI:0000:2a:00): 31, pid=911, name=python3, Ch 00000008, intr 00000000. MMU Fault: \
                     ENGINE GRAPHICS",
                ];
                let times = (0..).map(|place| ago(hours(9)) + jiff::SignedDuration::from_millis(place));
                lines
                    .into_iter()
                    .zip(times)
                    .fold(h100(2).uptime(5_400), |node, (line, when)| node.journal_line_of_earlier_boot(when, line))
            }),
        healthy("driver-reloaded", "An uncontained error was ended by a reload of the driver.")
            .must("xid-history")
            .must_not(["ecc-uncontained", "severity:critical", "severity:fatal"])
            .node(|| {
                let module = "Open Kernel Module for x86_64  570.124.06  Release Build  (builder@buildhost)";
                h100(2)
                    .xid(ago(hours(30)), 1, 95, UNKNOWN, "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No")
                    .kernel_line(ago(hours(29)), format!("NVRM: loading NVIDIA UNIX {module}"))
            }),
        healthy("gpu-was-reset", "A GPU reset ended the fault: the driver no longer recommends an action.")
            .must("xid-history")
            .must_not(["severity:critical", "severity:fatal"])
            .node(|| {
                a100(2)
                    .xid(ago(hours(6)), 0, 94, UNKNOWN, "Contained: SM (0x1). RST: No, D-RST: Yes")
                    .recovery_changed(ago(hours(6)), 0, "0x0 (None) to 0x4 (Drain and Reset)")
                    .recovery_changed(ago(hours(2)), 0, "0x4 (Drain and Reset) to 0x0 (None)")
            }),
        healthy("gb200-link-noise", "Harmless events of NVLink 5. According to the catalogue, they can be ignored.")
            .must(("nvlink-event", 0))
            .must_not(["nvlink-fault"])
            .node(|| {
                let event = |node: Node, minute| {
                    let message = nvlink_5("RLW_RXPIPE Nonfatal XC0 i0 Link 03", "0x0409a0c2 0x00000008");
                    node.xid(ago(minutes(minute)), 0, 145, UNKNOWN, &message)
                };
                [4, 44, 91].into_iter().fold(gb200(2), event)
            }),
        healthy("slot-below-gpu", "A PCIe 5 card in a PCIe 4 slot runs at the full speed of the slot.")
            .must(("pcie-slot-limits-gpu", 0))
            .must_not(["pcie-generation-low", "severity:warning"])
            .node(|| {
                h100(2)
                    .inventory(0, |gpu| gpu.pcie_max_generation = Some(4))
                    .telemetry(0, |gpu| (gpu.pcie.generation, gpu.pcie.max_generation) = (Some(4), Some(4)))
                    .topology(0, |gpu| {
                        gpu.pcie_path[0].generation = Some(4);
                        (gpu.pcie_path[1].generation, gpu.pcie_path[1].max_generation) = (Some(4), Some(4));
                    })
            }),
        healthy("forged-xid", "A program wrote a line that looks like an Xid to the log. The line is only counted.")
            .must("kernel-log-untrusted-lines")
            .must_not(alarms_and(["gpu-off-bus"]))
            .node(|| {
                let xid = format!("79, {UNKNOWN}, GPU has fallen off the bus.");
                h100(2).line_of_program(&format!("NVRM: Xid (PCI:0000:18:00): {xid}"))
            }),
        unknown("passthrough", "The GPUs are passed through to virtual machines, which is no fault.")
            .must_not(["driver-not-loaded", "severity:warning", "class:hardware"])
            .more()
            .node(passed_through),
        healthy("momentary-d-state", "A process was in uninterruptible sleep during the read, which is no fault.")
            .must("process-uninterruptible")
            .must_not(["process-stuck"])
            .node(|| h100(2).job(1, |process| process.state = text("D"))),
        healthy("ecc-off-by-default", "ECC is disabled by default on workstation cards.")
            .must_not(["ecc-disabled"])
            .node(|| {
                let workstation = |gpu: &mut GpuInventory| gpu.name = text("NVIDIA RTX A6000");
                l40s(2).ecc_off(0).ecc_off(1).inventory(0, workstation).inventory(1, workstation)
            }),
        healthy("stale-warning", "An old warning without consequences becomes information.")
            .must(finding("xid-driver").gpu(0).severity(Info))
            .node(|| l40s(2).xid(ago(days(6)), 0, 38, UNKNOWN, "FECS watchdog timeout")),
        healthy("vbios-batches", "Two boards of one batch have a different VBIOS than the other two boards.")
            .must_not(["gpu-version-differs-from-peers"])
            .node(|| {
                (2..4).fold(l40s(4), |node, gpu| node.inventory(gpu, |gpu| gpu.vbios_version = text("95.02.66.00.09")))
            }),
        healthy("mig-takes-links-down", "The NVLinks of an A100 are down while MIG is enabled.")
            .must_not(["nvlink-down"])
            .node(|| {
                a100(2)
                    .inventory(1, |gpu| gpu.mig_mode = Some(Mode { current: true, pending: true }))
                    .mig(1, |gpu| (gpu.mode, gpu.max_devices) = (Some(Mode { current: true, pending: true }), None))
                    .topology(1, |gpu| gpu.nvlinks = vec![links_down(0..12)])
            }),
    ]
}

/// Returns a group of NVLinks that are not active.
pub(crate) fn links_down(links: impl IntoIterator<Item = u32>) -> NvlinkGroup {
    NvlinkGroup {
        links: links.into_iter().collect(),
        active: Some(false),
        version: None,
        speed_megabytes_per_second: None,
        remote_type: None,
        remote_pci_address: None,
        ..NvlinkGroup::default()
    }
}

/// Returns the message of an Xid about an NVLink 5.
pub(crate) fn nvlink_5(event: &str, words: &str) -> String {
    format!("{event} ({words} 0x00000000 0x00000000 0x00000000 0x00000000)")
}

/// Adds one crash of a program that crashes on all GPUs.
fn crash(node: Node, gpu: u32, round: u32) -> Node {
    let when = ago(minutes(3 * i64::from(round) + 2));
    let process = format!("pid={}, name=python3", 50_000 + 10 * round + gpu);
    let exception = format!(
        "Graphics SM Warp Exception on (GPC {}, TPC {}, SM 0): Illegal Instruction Parameter",
        round % 6,
        round % 5
    );
    let fault = format!(
        "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 faulted @ 0x7f{round:02x}_5b8c9000. \
         Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ"
    );
    node.xid(when, gpu, 13, &process, &exception)
        .xid(when, gpu, 31, &process, &fault)
        .xid(when + seconds(1), gpu, 43, &process, "Ch 00000008")
        .xid(when + seconds(2), gpu, 45, &process, "Ch 00000009")
}

/// Returns a node whose kernel killed a process because of its memory use. The driver closed the channel of the process.
fn killed_for_memory() -> Node {
    let when = ago(minutes(32));
    let killed = "Out of memory: Killed process 51234 (python3) total-vm:912345678kB, anon-rss:501234567kB, \
                  file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1234kB oom_score_adj:979";
    h100(2).kernel_line(when, killed).xid(when + seconds(3), 0, 43, "pid=51234, name=python3", "Ch 00000008")
}
