//! Scenarios of stuck threads, of values that NVML does not return or returns late, and of GPUs that hang in one call.

use syringe_core::facts::processes::{GpuProcess, Thread, Threads};
use syringe_core::facts::{LostGpu, Unread};

use crate::prelude::*;
use crate::unread::of_gpu;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        critical("stuck-worker-thread", "A CUDA thread hangs in the driver. The first thread sleeps.")
            .must(finding("process-stuck").gpu(1).evidence(["pid 41211", "thread 41390 'cuda-EvtHandlr' in state D"]))
            .must_not(["process-uninterruptible", "class:hardware"])
            .node(|| {
                h100(2)
                    .job(1, |process| wait(process, 41_390, "cuda-EvtHandlr", "os_acquire_rwlock_write"))
                    .kernel_line(ago(minutes(9)), BLOCKED)
            }),
        fatal("stuck-worker-thread-after-gsp-timeout", "GSP hangs. Only a thread shows that the process hangs too.")
            .must(finding("gsp-failed").gpu(1).evidence(["uninterruptible processes: pid 41211"]))
            .must(finding("process-stuck").gpu(1).evidence(["thread 41390"]))
            .must_not(["process-uninterruptible"])
            .node(|| {
                h100(2)
                    .job(1, |process| wait(process, 41_390, "python3", "rwsem_down_write_slowpath"))
                    .gsp_timeout(ago(minutes(8)), 1, 41_211)
                    .gsp_timeout(ago(minutes(8)) + seconds(6), 1, 41_211)
            }),
        critical("killed-with-a-stuck-thread", "A killed process is a zombie with a thread that hangs.")
            .must(finding("process-stuck").evidence(["thread 41390"]))
            .must_not(["process-zombie"])
            .node(|| {
                h100(2)
                    .job(1, |process| {
                        (process.state, process.command, process.parent_pid) = (text("Z"), None, Some(40_990));
                        wait(process, 41_390, "cuda-EvtHandlr", "os_acquire_rwlock_write");
                    })
                    .kernel_line(ago(minutes(9)), BLOCKED)
            }),
        healthy("thread-waits-for-a-disk", "The thread of a data loader waits for a disk, which is no fault.")
            .must("process-uninterruptible")
            .must_not(any_warning_and(["process-stuck"]))
            .node(|| h100(2).job(1, |process| wait(process, 41_402, "pt_data_worker", "folio_wait_bit_common"))),
        warning(
            "thread-waits-for-nfs",
            "A blocked thread waits for a file server that does not respond, not for the driver.",
        )
        .must("process-uninterruptible")
        .must("remote-storage-not-responding")
        .must_not(["process-stuck", "class:hardware", "severity:critical"])
        .node(|| {
            h100(2)
                .job(1, |process| wait(process, 41_390, "cuda-EvtHandlr", "rpc_wait_bit_killable"))
                .kernel_line(ago(minutes(9)), "nfs: server 10.20.0.5 not responding, still trying")
                .kernel_line(ago(minutes(8)), BLOCKED)
        }),
        warning(
            "process-waits-for-nfs",
            "The kernel reports a process as blocked after the file server stopped responding, and its place in the kernel is unknown.",
        )
        .must("process-uninterruptible")
        .must("remote-storage-not-responding")
        .must_not(["process-stuck", "class:hardware", "severity:critical"])
        .node(|| {
            h100(2)
                .job(1, |process| process.state = text("D"))
                .kernel_line(ago(minutes(9)), "nfs: server 10.20.0.5 not responding, still trying")
                .kernel_line(ago(minutes(8)), "INFO: task python3:41211 blocked for more than 122 seconds.")
                .kernel_line(ago(minutes(3)), "nfs: server 10.20.0.5 not responding, still trying")
        }),
        unknown("counters-refused", "NVML returns an error for the error counters of GPU 1.")
            .must_not(ANY_WARNING)
            .node(|| {
                let counters = ["volatile.locations", "aggregate.locations"];
                h100(2)
                    .unread(Part::Ecc, 1, "nvmlDeviceGetMemoryErrorCounter", &counters)
                    .unread(Part::Telemetry, 1, "nvmlDeviceGetViolationStatus", &["throttling.violations"])
                    .unread(Part::Topology, 1, "nvmlDeviceGetNvLinkErrorCounter", &["nvlinks.errors"])
            }),
        healthy("limits-in-tlimit-alone", "A driver returns the temperature limits of a Hopper GPU only as T.Limit.")
            .must_not(ANY_WARNING)
            .node(|| {
                let limits = ["slowdown", "shutdown", "gpu_max", "memory_max"];
                let fields = limits.map(|limit| format!("temperature.{limit}_celsius"));
                (0..2)
                    .fold(h100(2), |node, gpu| {
                        node.telemetry(gpu, |gpu| {
                            let now = &mut gpu.temperature;
                            (now.slowdown_celsius, now.shutdown_celsius) = (None, None);
                            (now.gpu_max_celsius, now.memory_max_celsius) = (None, None);
                            now.margin_to_slowdown_celsius = now.tlimit_margin_celsius.map(|margin| margin + 2);
                        })
                    })
                    .unsupported_telemetry(fields)
            }),
        critical("gpu-hangs-in-one-call", "A call about the error counters of GPU 1 does not return.")
            .must(finding("gpu-unresponsive").gpu(1).evidence(["nvmlDeviceGetSramEccErrorStatus"]))
            .must(("row-remap-pending", 2))
            .more()
            .must_not(["nvml-not-answering", "gpu-missing-from-nvml", "gpu-off-bus", "severity:fatal"])
            .summary(["3 of 4"])
            .node(|| {
                let node = h100(4).remapped_rows(2, |rows| (rows.pending, rows.uncorrectable) = (true, 1));
                let mut read = None;
                let node = node.ecc(1, |gpu| read = Some((gpu.mode, gpu.volatile.clone(), gpu.aggregate.clone())));
                let (mode, volatile, aggregate) = read.expect("the entry of GPU 1");
                node.hung(1, "nvmlDeviceGetSramEccErrorStatus", true)
                    .ecc(1, |gpu| (gpu.mode, gpu.volatile, gpu.aggregate) = (mode, volatile, aggregate))
            }),
        critical("gpu-hangs-when-it-is-opened", "The call for the handle of GPU 1 does not return.")
            .must(finding("gpu-unresponsive").gpu(1).evidence(["nvmlDeviceGetHandleByIndex_v2"]))
            .more()
            .must_not(["nvml-not-answering", "gpu-missing-from-nvml", "class:hardware", "severity:fatal"])
            .summary(["3 of 4"])
            .node(|| h100(4).hung(1, "nvmlDeviceGetHandleByIndex_v2", false)),
        unknown("nvml-slow", "NVML responds too slowly to read everything, which is no fault of a GPU.")
            .must_not(any_warning_and(["gpu-unresponsive", "nvml-not-answering"]))
            .node(|| {
                [2, 3]
                    .into_iter()
                    .fold(h100(4), |node, gpu| {
                        node.topology(gpu, |gpu| {
                            (gpu.fabric, gpu.pcie_replays) = (None, None);
                            gpu.nvlinks.iter_mut().for_each(|group| group.remote_pci_address = None);
                        })
                    })
                    .not_reached([2, 3])
            }),
    ]
}

const BLOCKED: &str = "INFO: task cuda-EvtHandlr:41390 blocked for more than 120 seconds.";

/// Adds a thread in state D to the process.
fn wait(process: &mut GpuProcess, tid: u32, name: &str, waits_in: &str) {
    let examples = vec![Thread { tid, name: text(name), waits_in: text(waits_in) }];
    process.threads = Some(Threads { checked: 143, not_checked: 0, uninterruptible: 1, examples });
}

impl Node {
    /// Makes a call about a GPU hang, so that nothing more is read from the GPU.
    fn hung(mut self, gpu: u32, function: &str, is_identified: bool) -> Self {
        let why = format!("NVML did not return from {function} within 7.3 s");
        let next_step = "The driver hangs on this GPU, or is very slow. Check for Xid 79, Xid 119 and processes in \
                         state D. If this error repeats, reboot the node.";
        let identity = if is_identified { self.lost_row(gpu, "") } else { LostGpu::default() };
        let uuid = is_identified.then(|| self.gpu_uuids().swap_remove(gpu as usize));
        for part in Part::ALL {
            let section = self.part(part);
            if is_identified {
                section.clear_gpu(gpu);
            } else {
                section.retain_gpus(&|index| index != gpu);
            }
            section.add_lost(LostGpu {
                index: Some(gpu),
                uuid: uuid.clone(),
                code: "timeout".to_owned(),
                ..identity.clone()
            });
            section.add_problem(of_gpu(gpu, problem(&why, "timeout", next_step)));
        }
        self
    }

    /// Makes the time limit of the probe expire before the connections of these GPUs are read.
    fn not_reached(mut self, gpus: [u32; 2]) -> Self {
        let fields = ["fabric", "nvlinks.remote_pci_address", "pcie_replays"];
        let functions = "nvmlDeviceGetNvLinkRemotePciInfo_v2, nvmlDeviceGetGpuFabricInfoV and 1 more";
        let what = format!("{} ({functions})", fields.join(", "));
        let section = self.part(Part::Topology);
        for gpu in gpus {
            let next_step = "Try again. NVML is slow, or is waiting for another GPU.";
            let problem = problem("not read in time: NVML answers slowly", "not_reached", next_step);
            section.add_problem(Problem { what: what.clone(), gpu: Some(gpu), ..problem });
        }
        let fields = fields.map(str::to_owned).to_vec();
        section.add_unread(Unread { gpus: gpus.to_vec(), fields });
        self
    }
}
