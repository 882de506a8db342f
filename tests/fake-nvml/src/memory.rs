//! NVML functions for frame buffer and BAR1 memory (section `telemetry`, or the totals of `inventory`).

use nvml_wrapper_sys::bindings::*;

use crate::facts::Gpu;
use crate::ffi::{Answer, NOT_SUPPORTED, Out, on_device, put, versioned};

/// Frame buffer memory: total, reserved by the driver, free, and used by processes.
struct FrameBuffer {
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

fn frame_buffer(gpu: &Gpu<'_>) -> Option<FrameBuffer> {
    if let Some(mig) = gpu.mig_device() {
        let (total, used) = (mig.memory_total_bytes?, mig.memory_used_bytes?);
        return Some(FrameBuffer { total, reserved: 0, free: total - used, used });
    }
    let now = gpu.telemetry().map(|gpu| &gpu.memory);
    let listed = gpu.inventory();
    let total = now.and_then(|now| now.total_bytes).or_else(|| listed?.memory_total_bytes)?;
    let reserved = now.and_then(|now| now.reserved_bytes).or_else(|| listed?.memory_reserved_bytes).unwrap_or(0);
    let used = now.and_then(|now| now.used_bytes).unwrap_or(0);
    let free = now.and_then(|now| now.free_bytes).unwrap_or(total.saturating_sub(reserved + used));
    Some(FrameBuffer { total, reserved, free, used })
}

/// Version 1 of the struct counts the memory that is reserved for the driver as used memory.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, memory: Out<'_, nvmlMemory_t>) -> nvmlReturn_t {
    on_device("nvmlDeviceGetMemoryInfo", device, |gpu| {
        let FrameBuffer { total, reserved, free, used } = frame_buffer(gpu).ok_or(NOT_SUPPORTED)?;
        put(memory, nvmlMemory_t { total, free, used: used + reserved })
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, memory: *mut nvmlMemory_v2_t) -> nvmlReturn_t {
    on_device("nvmlDeviceGetMemoryInfo_v2", device, |gpu| put_memory(gpu, memory))
}

fn put_memory(gpu: &Gpu<'_>, memory: *mut nvmlMemory_v2_t) -> Answer {
    let FrameBuffer { total, reserved, free, used } = frame_buffer(gpu).ok_or(NOT_SUPPORTED)?;
    let memory = versioned(memory, 2)?;
    *memory = nvmlMemory_v2_t { version: memory.version, total, reserved, free, used };
    Ok(())
}

gpu_values! {
    nvmlDeviceGetBAR1MemoryInfo: nvmlBAR1Memory_t => |gpu| {
        let now = gpu.telemetry().map(|gpu| &gpu.memory);
        let total = now.and_then(|now| now.bar1_total_bytes).or_else(|| gpu.inventory()?.bar1_total_bytes)?;
        let used = now.and_then(|now| now.bar1_used_bytes).unwrap_or(0);
        Some(nvmlBAR1Memory_t { bar1Total: total, bar1Free: total.saturating_sub(used), bar1Used: used })
    };
}
