//! NVML functions for MIG devices: handles, ids, sizes (section `mig`).

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::mig::MigDevice;

use crate::ffi::{INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, Out, handle, on_any, on_device, put};

const MEBIBYTE: u64 = 1 << 20;

gpu_values! {
    nvmlDeviceGetMaxMigDeviceCount: c_uint => |gpu| gpu.mig()?.max_devices;
}

gpu_selected! {
    nvmlDeviceGetMigDeviceHandleByIndex: nvmlDevice_t => |gpu, index| {
        let mig = gpu.mig().ok_or(NOT_SUPPORTED)?;
        let room = mig.max_devices.ok_or(NOT_SUPPORTED)?;
        if (index as usize) < mig.devices.len() {
            Ok(handle(gpu.index, Some(index)))
        } else if index < room {
            Err(NOT_FOUND)
        } else {
            Err(INVALID_ARGUMENT)
        }
    };
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, out: Out<'_, c_uint>) -> nvmlReturn_t {
    on_device("nvmlDeviceIsMigDeviceHandle", device, |gpu| put(out, gpu.mig_index.is_some().into()))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    mig_device: nvmlDevice_t,
    out: Out<'_, nvmlDevice_t>,
) -> nvmlReturn_t {
    on_any("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", mig_device, |gpu| match gpu.mig_index {
        Some(_) => put(out, handle(gpu.index, None)),
        None => Err(INVALID_ARGUMENT),
    })
}

/// Exports a number of a MIG device for each name. For a whole GPU, the call is not supported.
macro_rules! mig_numbers {
    ($($name:ident => $field:ident;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: nvmlDevice_t, out: Out<'_, c_uint>) -> nvmlReturn_t {
            on_device(stringify!($name), device, |gpu| {
                put(out, gpu.mig_device().and_then(|mig| mig.$field).ok_or(NOT_SUPPORTED)?)
            })
        }
    )* };
}

mig_numbers! {
    nvmlDeviceGetGpuInstanceId => gpu_instance;
    nvmlDeviceGetComputeInstanceId => compute_instance;
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetAttributes_v2(device: nvmlDevice_t, out: Out<'_, nvmlDeviceAttributes_t>) -> nvmlReturn_t {
    on_device("nvmlDeviceGetAttributes_v2", device, |gpu| {
        put(out, gpu.mig_device().and_then(attributes).ok_or(NOT_SUPPORTED)?)
    })
}

fn attributes(mig: &MigDevice) -> Option<nvmlDeviceAttributes_t> {
    Some(nvmlDeviceAttributes_t {
        multiprocessorCount: mig.multiprocessors?,
        sharedCopyEngineCount: mig.gpu_slices?,
        sharedDecoderCount: 0,
        sharedEncoderCount: 0,
        sharedJpegCount: 0,
        sharedOfaCount: 0,
        gpuInstanceSliceCount: mig.gpu_slices?,
        computeInstanceSliceCount: mig.compute_slices?,
        memorySizeMB: mig.memory_total_bytes? / MEBIBYTE,
    })
}
