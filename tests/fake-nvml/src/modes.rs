//! NVML functions for GPU modes: persistence, compute, virtualization, display, GSP, ECC (section `inventory`).

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::Mode;

use crate::facts::Gpu;

gpu_values! {
    nvmlDeviceGetPersistenceMode: nvmlEnableState_t => |gpu| gpu.inventory()?.persistence_mode.map(u32::from);
    nvmlDeviceGetDisplayActive: nvmlEnableState_t => |gpu| gpu.inventory()?.display_active.map(u32::from);
    nvmlDeviceGetDisplayMode: nvmlEnableState_t => |gpu| gpu.inventory()?.display_active.map(u32::from);
    nvmlDeviceGetDefaultEccMode: nvmlEnableState_t => |gpu| Some(u32::from(ecc_mode(gpu)?.current));
    nvmlDeviceGetComputeMode: nvmlComputeMode_t => |gpu| compute_mode(gpu.inventory()?.compute_mode.as_deref()?);
    nvmlDeviceGetVirtualizationMode: nvmlGpuVirtualizationMode_t => |gpu| {
        virtualization_mode(gpu.inventory()?.virtualization_mode.as_deref()?)
    };
    nvmlDeviceGetMultiGpuBoard: c_uint => |gpu| gpu.inventory().map(|_| 0);
}

gpu_pairs! {
    nvmlDeviceGetEccMode => |gpu| ecc_mode(gpu).map(both);
    nvmlDeviceGetMigMode => |gpu| {
        let listed = gpu.inventory().and_then(|gpu| gpu.mig_mode);
        listed.or_else(|| gpu.mig()?.mode).map(both)
    };
    // The second value is the default mode. In this library, the default mode always equals the current mode.
    nvmlDeviceGetGspFirmwareMode => |gpu| gpu.inventory()?.gsp_enabled.map(|on| (u32::from(on), u32::from(on)));
}

fn both(mode: Mode) -> (u32, u32) {
    (u32::from(mode.current), u32::from(mode.pending))
}

fn ecc_mode(gpu: &Gpu<'_>) -> Option<Mode> {
    let listed = gpu.inventory().and_then(|gpu| gpu.ecc_mode);
    listed.or_else(|| gpu.ecc()?.mode)
}

fn compute_mode(word: &str) -> Option<nvmlComputeMode_t> {
    match word {
        "default" => Some(nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT),
        "exclusive_thread" => Some(nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_THREAD),
        "prohibited" => Some(nvmlComputeMode_enum_NVML_COMPUTEMODE_PROHIBITED),
        "exclusive_process" => Some(nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS),
        _ => None,
    }
}

fn virtualization_mode(word: &str) -> Option<nvmlGpuVirtualizationMode_t> {
    match word {
        "none" => Some(nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_NONE),
        "passthrough" => Some(nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_PASSTHROUGH),
        "vgpu" => Some(nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_VGPU),
        "host_vgpu" => Some(nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU),
        "host_vsga" => Some(nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_HOST_VSGA),
        _ => None,
    }
}
