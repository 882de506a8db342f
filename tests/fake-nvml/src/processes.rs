//! NVML functions for processes on GPUs (section `processes`).

use std::ffi::{c_char, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::processes::{GpuUse, Processes};
use syringe_core::report::Report;

use crate::facts::Gpu;
use crate::ffi::{Answer, NOT_FOUND, NOT_SUPPORTED, on_device, on_system, put_list, put_text};

/// Value of the driver for unknown memory use: all bits are one.
const NO_MEMORY: c_ulonglong = c_ulonglong::MAX;
/// Value of the driver for the instances of a process that does not use MIG.
const NO_INSTANCE: c_uint = c_uint::MAX;

fn processes(report: &Report) -> Answer<&Processes> {
    report.sections.processes.as_ref().and_then(|section| section.data.as_ref()).ok_or(NOT_SUPPORTED)
}

/// Returns the processes of one kind on a GPU or on one of its MIG devices.
fn running(gpu: &Gpu<'_>, kind: &str) -> Answer<Vec<nvmlProcessInfo_t>> {
    let mine = |usage: &GpuUse| {
        let whole = usage.gpu == gpu.index && usage.kind == kind;
        whole
            && gpu.mig_device().is_none_or(|mig| {
                (usage.mig_gpu_instance, usage.mig_compute_instance) == (mig.gpu_instance, mig.compute_instance)
            })
    };
    let mut list = Vec::new();
    for process in &processes(gpu.report)?.processes {
        for usage in process.uses.iter().filter(|usage| mine(usage)) {
            list.push(nvmlProcessInfo_t {
                pid: process.pid,
                usedGpuMemory: usage.memory_bytes.unwrap_or(NO_MEMORY),
                gpuInstanceId: usage.mig_gpu_instance.unwrap_or(NO_INSTANCE),
                computeInstanceId: usage.mig_compute_instance.unwrap_or(NO_INSTANCE),
            });
        }
    }
    Ok(list)
}

/// Exports the list of one kind of process for each name. Versions 2 and 3 have the same layout.
macro_rules! process_lists {
    ($($name:ident => $kind:literal;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(
            device: nvmlDevice_t,
            count: Option<&mut c_uint>,
            list: *mut nvmlProcessInfo_t,
        ) -> nvmlReturn_t {
            on_device(stringify!($name), device, |gpu| put_list(count, list, running(gpu, $kind)?))
        }
    )* };
}

process_lists! {
    nvmlDeviceGetComputeRunningProcesses_v2 => "compute";
    nvmlDeviceGetComputeRunningProcesses_v3 => "compute";
    nvmlDeviceGetGraphicsRunningProcesses_v2 => "graphics";
    nvmlDeviceGetGraphicsRunningProcesses_v3 => "graphics";
    nvmlDeviceGetMPSComputeRunningProcesses_v2 => "mps";
    nvmlDeviceGetMPSComputeRunningProcesses_v3 => "mps";
}

/// Returns the processes with confidential computing. No scenario has such processes.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetRunningProcessDetailList(
    device: nvmlDevice_t,
    _list: *mut nvmlProcessDetailList_t,
) -> nvmlReturn_t {
    on_device("nvmlDeviceGetRunningProcessDetailList", device, |_| Err(NOT_SUPPORTED))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetProcessName(pid: c_uint, text: *mut c_char, length: c_uint) -> nvmlReturn_t {
    on_system("nvmlSystemGetProcessName", |session| {
        let process = processes(&session.report)?.processes.iter().find(|process| process.pid == pid);
        let process = process.ok_or(NOT_FOUND)?;
        put_text(text, length, process.command.as_ref().or(process.name.as_ref()).ok_or(NOT_FOUND)?)
    })
}
