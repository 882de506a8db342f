//! Scenarios of the start of CUDA in a new process, which the caller requested (`deep`).

use syringe_core::facts::cuda::CudaStart;
use syringe_core::facts::topology::Fabric;

use crate::prelude::*;

const CRASHED: &str = "was killed by signal 11 (SEGV)";
const NOT_STARTED: &str = "no libcuda.so.1 in the known folders or in the folders of ld.so.conf";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        healthy("cuda-starts", "CUDA starts and counts the GPUs that NVML lists.")
            .must_not(["cuda-does-not-start", "cuda-hangs", "cuda-crashes", "cuda-gpu-count-differs"])
            .summary(["CUDA starts in a new process in 812 ms and offers 2 devices."])
            .node(|| l40s(2).cuda(counted(2))),
        critical("cuda-system-not-ready", "CUDA fails with error 802, and nothing else shows why.")
            .must(finding("cuda-does-not-start").evidence(["802 (CUDA_ERROR_SYSTEM_NOT_READY)", "CUDA 12.8"]))
            .must_not(["class:hardware", "cuda-gpu-count-differs"])
            .node(|| h100(4).cuda(result(802))),
        critical("cuda-without-fabric-manager", "CUDA fails with error 802, because Fabric Manager is not running.")
            .must(finding("fabric-manager-not-running").evidence(["cuInit of a new process fails with 802"]))
            .must_not(["cuda-does-not-start", "class:hardware"])
            .node(|| {
                let waiting = || Some(Fabric { state: "in_progress".to_owned(), ..Fabric::default() });
                (0..4)
                    .fold(h100(4).idle(), |node, gpu| node.topology(gpu, |gpu| gpu.fabric = waiting()))
                    .host(|host| host.daemons.fabric_manager = Some(false))
                    .cuda(result(802))
            }),
        critical("cuda-result-without-a-row", "CUDA fails with a result that the table does not have.")
            .must(finding("cuda-does-not-start").evidence(["cuInit of a new process fails with 4711"]))
            .must_not(["class:hardware"])
            .node(|| l40s(2).cuda(result(4711))),
        critical("cuda-crashes", "The CUDA library ends its process in cuInit.")
            .must(finding("cuda-crashes").evidence(["signal 11", "in cuInit"]))
            .must_not(["cuda-hangs", "cuda-does-not-start", "class:hardware"])
            .node(|| l40s(2).cuda(CudaStart { ended: text(CRASHED), ..open() })),
        critical("cuda-hangs-in-the-driver", "cuInit does not return, and its process cannot be killed.")
            .must(finding("cuda-hangs").severity(Critical).evidence(["cuInit did not return", "process 81455"]))
            .must_not(["cuda-crashes", "class:hardware"])
            .node(|| l40s(2).cuda(CudaStart { left_process: Some(81_455), ..open() })),
        warning("cuda-slow", "cuInit does not return in time, and its process could be killed: it may only be slow.")
            .must(finding("cuda-hangs").severity(Warning))
            .must_not(["cuda-crashes", "class:hardware"])
            .node(|| l40s(2).cuda(open())),
        critical("cuda-counts-fewer", "All GPUs respond to NVML, and CUDA offers one less.")
            .must(finding("cuda-gpu-count-differs").evidence(["CUDA counts 3, NVML lists 4"]))
            .must_not(["cuda-does-not-start", "class:hardware"])
            .node(|| l40s(4).cuda(counted(3))),
        healthy(
            "cuda-counts-with-mig",
            "With MIG, CUDA offers the MIG devices of one GPU: one of two GPUs is partitioned.",
        )
        .must_not(["cuda-gpu-count-differs"])
        .summary(["not compared: with MIG"])
        .node(|| Node::of_base("a100-mig-8").cuda(counted(1))),
        healthy("cuda-counts-in-exclusive-mode", "A GPU accepts one process: CUDA may offer fewer GPUs.")
            .must_not(["cuda-gpu-count-differs"])
            .node(|| l40s(2).inventory(1, |gpu| gpu.compute_mode = text("exclusive_process")).cuda(counted(1))),
        healthy("cuda-not-started", "CUDA could not be started: the answer says so, and blames nothing.")
            .must_not(["cuda-does-not-start", "cuda-hangs", "cuda-crashes"])
            .unknown("CUDA was not started")
            .node(|| l40s(2).cuda(CudaStart { problem: Some(not_started()), ..CudaStart::default() })),
    ]
}

fn not_started() -> Problem {
    Problem { what: "start of CUDA".into(), why: NOT_STARTED.into(), code: "cuda_library".into(), ..Problem::default() }
}

fn started() -> CudaStart {
    CudaStart {
        library: text("/proc/1/root/usr/lib/x86_64-linux-gnu/libcuda.so.570.124.06"),
        version: text("12.8"),
        duration_ms: Some(812),
        ..CudaStart::default()
    }
}

fn result(code: u32) -> CudaStart {
    CudaStart { init_code: Some(code), ..started() }
}

fn counted(devices: u32) -> CudaStart {
    CudaStart { init_code: Some(0), count_code: Some(0), devices: Some(devices), ..started() }
}

fn open() -> CudaStart {
    CudaStart { open_call: text("cuInit"), duration_ms: Some(10_000), ..started() }
}
