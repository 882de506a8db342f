//! Raw NVML calls about one GPU that nvml-wrapper lacks or implements incorrectly: memory and its repairs, field
//! values, NVSwitch fabric, processes and others.
//! The modules contain calls about performance monitoring (GPM), hidden GPUs, licenses and links.
//!
//! Every function here is safe to call. It passes pointers to local variables that outlive the call and have the type
//! in the header, and reads only what NVML has written. Values from the driver are limited before they are used.
//!
//! Reasons not to use the calls of the wrapper: `remote_device_type` never reads NVML's answer (0.13);
//! `mps_running_compute_processes` trusts a length from the driver; `field_values_for` cannot specify a link and
//! renumbers IDs 251 to 273; enums (`brand`, `architecture`, `p2p_status`) fail for a value that is newer than the
//! wrapper.
#![allow(unsafe_code)] // NVML is a C library; see above.

use std::mem::size_of;

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings as sys;

use crate::nvml::errors::NvmlError;

/// Number of processes in the buffer of the first attempt, and the maximum.
const PROCESS_ROOM: usize = 64;
const MAX_PROCESSES: usize = 4096;

/// Calls one symbol of the library with the device's handle. If the library lacks the symbol, the error is
/// [`NvmlError::MissingFunction`].
macro_rules! call {
    ($device:expr, $function:ident $(, $argument:expr)* $(,)?) => {
        match &$device.nvml().lib().$function {
            // SAFETY: the handle comes from NVML, and `Device` proves that NVML is still initialized. Pointers among
            // the arguments refer to live local variables (or live vectors with their length) of the type in the
            // function's signature.
            Ok(function) => NvmlError::check(unsafe { function($device.handle() $(, $argument)*) }),
            Err(_) => Err(NvmlError::MissingFunction),
        }
    };
}

pub(in crate::nvml) mod gpm;
pub(in crate::nvml) mod hidden;
pub(in crate::nvml) mod license;
mod links;
pub(in crate::nvml) mod newer;

pub(in crate::nvml) use super::raw::links::{common_ancestor, nvlink_error_counter, nvlink_remote_type, p2p_status};

/// Defines a function that returns one number.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $function:ident, $type:ty) => {
        $(#[$doc])*
        pub(in crate::nvml) fn $name(device: &Device<'_>) -> Result<$type, NvmlError> {
            let mut value = 0;
            call!(device, $function, &mut value)?;
            Ok(value)
        }
    };
}

number!(
    /// Calls `nvmlDeviceGetArchitecture`.
    architecture, nvmlDeviceGetArchitecture, u32
);
number!(
    /// Calls `nvmlDeviceGetBrand`.
    brand, nvmlDeviceGetBrand, u32
);
number!(
    /// Calls `nvmlDeviceGetComputeMode`.
    compute_mode, nvmlDeviceGetComputeMode, u32
);
number!(
    /// Calls `nvmlDeviceGetVirtualizationMode`.
    virtualization_mode, nvmlDeviceGetVirtualizationMode, u32
);
number!(
    /// Calls `nvmlDeviceGetPerformanceState`; 32 is "unknown".
    performance_state, nvmlDeviceGetPerformanceState, u32
);
number!(
    /// Calls `nvmlDeviceGetModuleId`.
    module_id, nvmlDeviceGetModuleId, u32
);
number!(
    /// Calls `nvmlDeviceGetGpuInstanceId` for a MIG device.
    gpu_instance_id, nvmlDeviceGetGpuInstanceId, u32
);
number!(
    /// Calls `nvmlDeviceGetComputeInstanceId` for a MIG device.
    compute_instance_id, nvmlDeviceGetComputeInstanceId, u32
);
number!(
    /// Calls `nvmlDeviceGetCurrentClocksEventReasons` (R535 and later).
    clocks_event_reasons, nvmlDeviceGetCurrentClocksEventReasons, u64
);
number!(
    /// Calls `nvmlDeviceGetCurrentClocksThrottleReasons`, which has the same bits under their old name.
    clocks_throttle_reasons, nvmlDeviceGetCurrentClocksThrottleReasons, u64
);

/// Returns `NVML_STRUCT_VERSION`: the size of the structure and its version.
fn version<T>(number: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0) | number << 24
}

/// Calls `nvmlDeviceGetMarginTemperature` (R570 and later): degrees below the nearest slowdown limit.
pub(in crate::nvml) fn margin_temperature(device: &Device<'_>) -> Result<i32, NvmlError> {
    let mut margin =
        sys::nvmlMarginTemperature_t { version: version::<sys::nvmlMarginTemperature_t>(1), marginTemperature: 0 };
    call!(device, nvmlDeviceGetMarginTemperature, &mut margin)?;
    Ok(margin.marginTemperature)
}

/// Calls `nvmlDeviceGetJpgUtilization`. Returns percent.
pub(in crate::nvml) fn jpeg_utilization(device: &Device<'_>) -> Result<u32, NvmlError> {
    let (mut percent, mut period) = (0, 0);
    call!(device, nvmlDeviceGetJpgUtilization, &mut percent, &mut period)?;
    Ok(percent)
}

/// Calls `nvmlDeviceGetOfaUtilization`. Returns percent.
pub(in crate::nvml) fn ofa_utilization(device: &Device<'_>) -> Result<u32, NvmlError> {
    let (mut percent, mut period) = (0, 0);
    call!(device, nvmlDeviceGetOfaUtilization, &mut percent, &mut period)?;
    Ok(percent)
}

/// Frame buffer memory in bytes.
#[derive(Clone)]
pub(in crate::nvml) struct Memory {
    pub(in crate::nvml) total: u64,
    /// Reserved memory. Only version 2 of the call has this value; version 1 includes it in `used`.
    pub(in crate::nvml) reserved: Option<u64>,
    pub(in crate::nvml) free: u64,
    pub(in crate::nvml) used: u64,
}

/// Calls `nvmlDeviceGetMemoryInfo_v2`, or `nvmlDeviceGetMemoryInfo` on drivers older than R510.
pub(in crate::nvml) fn memory(device: &Device<'_>) -> Result<Memory, NvmlError> {
    let blank = sys::nvmlMemory_v2_t { version: 0, total: 0, reserved: 0, free: 0, used: 0 };
    let mut memory = sys::nvmlMemory_v2_t { version: version::<sys::nvmlMemory_v2_t>(2), ..blank };
    match call!(device, nvmlDeviceGetMemoryInfo_v2, &mut memory) {
        Ok(()) => {
            let sys::nvmlMemory_v2_t { total, reserved, free, used, .. } = memory;
            Ok(Memory { total, reserved: Some(reserved), free, used })
        }
        Err(NvmlError::MissingFunction) => {
            let mut memory = sys::nvmlMemory_t { total: 0, free: 0, used: 0 };
            call!(device, nvmlDeviceGetMemoryInfo, &mut memory)?;
            Ok(Memory { total: memory.total, reserved: None, free: memory.free, used: memory.used })
        }
        Err(error) => Err(error),
    }
}

/// A field, and the link or the part of the GPU that its value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nvml) struct FieldKey {
    /// `NVML_FI_…`.
    pub(in crate::nvml) id: u32,
    /// Link number for per-link fields, otherwise 0.
    pub(in crate::nvml) scope: u32,
}

/// Calls `nvmlDeviceGetFieldValues`, and returns the value of each field as a whole number, in the order of `keys`.
pub(in crate::nvml) fn field_values(
    device: &Device<'_>,
    keys: &[FieldKey],
) -> Result<Vec<Result<i128, NvmlError>>, NvmlError> {
    let blank = |key: &FieldKey| sys::nvmlFieldValue_t {
        fieldId: key.id,
        scopeId: key.scope,
        timestamp: 0,
        latencyUsec: 0,
        valueType: 0,
        // An entry that the driver does not fill in stays "not supported".
        nvmlReturn: sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
        value: sys::nvmlValue_t { ullVal: 0 },
    };
    let mut values: Vec<_> = keys.iter().map(blank).collect();
    let count = i32::try_from(values.len()).unwrap_or(0);
    call!(device, nvmlDeviceGetFieldValues, count, values.as_mut_ptr())?;
    Ok(values.iter().map(whole_number).collect())
}

fn whole_number(field: &sys::nvmlFieldValue_t) -> Result<i128, NvmlError> {
    NvmlError::check(field.nvmlReturn)?;
    let value = field.value;
    // SAFETY: the union was zeroed before the call, so all bytes of each member are initialized, and every bit pattern
    // is a valid number. `valueType` specifies which member has a meaning.
    let number = unsafe {
        match field.valueType {
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE => value.dVal as i128,
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => value.uiVal.into(),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG => value.ulVal.into(),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => value.ullVal.into(),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => value.sllVal.into(),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => value.siVal.into(),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => value.usVal.into(),
            other => return Err(NvmlError::Unreadable(format!("value type {other} of field {}", field.fieldId))),
        }
    };
    Ok(number)
}

/// Calls `nvmlDeviceGetRemappedRows`: corrected, uncorrected, pending, failed.
pub(in crate::nvml) fn remapped_rows(device: &Device<'_>) -> Result<(u32, u32, bool, bool), NvmlError> {
    let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
    call!(device, nvmlDeviceGetRemappedRows, &mut corrected, &mut uncorrected, &mut pending, &mut failed)?;
    // On a device that left the bus all bits read as one, which would look like a failed remap.
    if [corrected, uncorrected, pending, failed].contains(&u32::MAX) {
        return Err(NvmlError::impossible(u32::MAX));
    }
    Ok((corrected, uncorrected, pending != 0, failed != 0))
}

/// Calls `nvmlDeviceGetRowRemapperHistogram`: number of banks with max, high, partial, low and no spare rows left.
pub(in crate::nvml) fn row_remapper_histogram(device: &Device<'_>) -> Result<[u32; 5], NvmlError> {
    let mut banks = sys::nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
    call!(device, nvmlDeviceGetRowRemapperHistogram, &mut banks)?;
    Ok([banks.max, banks.high, banks.partial, banks.low, banks.none])
}

/// Calls `nvmlDeviceGetSramEccErrorStatus`.
pub(in crate::nvml) fn sram_ecc_status(device: &Device<'_>) -> Result<sys::nvmlEccSramErrorStatus_t, NvmlError> {
    let mut status = sys::nvmlEccSramErrorStatus_t {
        version: version::<sys::nvmlEccSramErrorStatus_t>(1),
        aggregateUncParity: 0,
        aggregateUncSecDed: 0,
        aggregateCor: 0,
        volatileUncParity: 0,
        volatileUncSecDed: 0,
        volatileCor: 0,
        aggregateUncBucketL2: 0,
        aggregateUncBucketSm: 0,
        aggregateUncBucketPcie: 0,
        aggregateUncBucketMcu: 0,
        aggregateUncBucketOther: 0,
        bThresholdExceeded: 0,
    };
    call!(device, nvmlDeviceGetSramEccErrorStatus, &mut status)?;
    Ok(status)
}

/// Calls `nvmlDeviceGetRepairStatus`: whether a channel repair and a TPC repair are waiting for a reset.
pub(in crate::nvml) fn repair_status(device: &Device<'_>) -> Result<(bool, bool), NvmlError> {
    let mut status = sys::nvmlRepairStatus_t {
        version: version::<sys::nvmlRepairStatus_t>(1),
        bChannelRepairPending: 0,
        bTpcRepairPending: 0,
    };
    call!(device, nvmlDeviceGetRepairStatus, &mut status)?;
    Ok((status.bChannelRepairPending != 0, status.bTpcRepairPending != 0))
}

/// Calls `nvmlDeviceGetRetiredPages_v2`: the number of pages that were retired for `cause` (0 single-bit, 1 double-bit).
pub(in crate::nvml) fn retired_pages(device: &Device<'_>, cause: u32) -> Result<u32, NvmlError> {
    // If the buffer is too small, NVML still sets `count`, and returns "insufficient size" if `count` is not zero. The
    // pointers must not be null.
    let (mut count, mut address, mut timestamp) = (0, 0, 0);
    match call!(device, nvmlDeviceGetRetiredPages_v2, cause, &mut count, &mut address, &mut timestamp) {
        Ok(()) | Err(NvmlError::Code(sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE)) => Ok(count),
        Err(error) => Err(error),
    }
}

/// The registration of a GPU with the NVSwitch fabric.
#[derive(Clone)]
pub(in crate::nvml) struct FabricInfo {
    pub(in crate::nvml) cluster_uuid: [u8; 16],
    /// NVML return code of the registration, which is only meaningful when the registration is complete.
    pub(in crate::nvml) status: u32,
    pub(in crate::nvml) clique_id: u32,
    pub(in crate::nvml) state: u32,
    /// Needs version 2 or later of the structure.
    pub(in crate::nvml) health_mask: u32,
    /// Needs version 3 or later of the structure (R570).
    pub(in crate::nvml) health_summary: Option<u32>,
}

/// Calls `nvmlDeviceGetGpuFabricInfoV` in the newest version that the driver supports, or `nvmlDeviceGetGpuFabricInfo`.
pub(in crate::nvml) fn fabric_info(device: &Device<'_>) -> Result<FabricInfo, NvmlError> {
    let versions = [version::<sys::nvmlGpuFabricInfo_v3_t>(3), version::<sys::nvmlGpuFabricInfo_v2_t>(2)];
    for (version, has_summary) in versions.into_iter().zip([true, false]) {
        // Version 2 is the beginning of version 3, so one buffer is sufficient for both.
        let mut info = sys::nvmlGpuFabricInfo_v3_t {
            version,
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: 0,
            healthMask: 0,
            healthSummary: 0,
        };
        match call!(device, nvmlDeviceGetGpuFabricInfoV, &mut info) {
            Ok(()) => {
                return Ok(FabricInfo {
                    cluster_uuid: info.clusterUuid,
                    status: info.status,
                    clique_id: info.cliqueId,
                    state: info.state.into(),
                    health_mask: info.healthMask,
                    health_summary: has_summary.then(|| info.healthSummary.into()),
                });
            }
            // Newer and older drivers use these error codes for a version that is too new.
            Err(
                NvmlError::Code(
                    sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH
                    | sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
                )
                | NvmlError::MissingFunction,
            ) => {}
            Err(error) => return Err(error),
        }
    }
    let mut info = sys::nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: 0, cliqueId: 0, state: 0 };
    call!(device, nvmlDeviceGetGpuFabricInfo, &mut info)?;
    Ok(FabricInfo {
        cluster_uuid: info.clusterUuid,
        status: info.status,
        clique_id: info.cliqueId,
        state: info.state.into(),
        health_mask: 0,
        health_summary: None,
    })
}

/// Calls `nvmlDeviceGetPlatformInfo`, version 2.
pub(in crate::nvml) fn platform_info(device: &Device<'_>) -> Result<sys::nvmlPlatformInfo_v2_t, NvmlError> {
    let mut info = sys::nvmlPlatformInfo_v2_t {
        version: version::<sys::nvmlPlatformInfo_v2_t>(2),
        ibGuid: [0; 16],
        chassisSerialNumber: [0; 16],
        slotNumber: 0,
        trayIndex: 0,
        hostId: 0,
        peerType: 0,
        moduleId: 0,
    };
    call!(device, nvmlDeviceGetPlatformInfo, &mut info)?;
    Ok(info)
}

/// The process lists of NVML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nvml) enum ProcessList {
    /// The list of `nvmlDeviceGetComputeRunningProcesses_v3`.
    Compute,
    /// The list of `nvmlDeviceGetGraphicsRunningProcesses_v3`.
    Graphics,
    /// The list of `nvmlDeviceGetMPSComputeRunningProcesses_v3`.
    Mps,
}

/// A process on a GPU. NVML sets all bits of an unknown number.
pub(in crate::nvml) type Process = sys::nvmlProcessInfo_t;

/// Returns the processes in one of NVML's lists.
pub(in crate::nvml) fn processes(device: &Device<'_>, list: ProcessList) -> Result<Vec<Process>, NvmlError> {
    let blank = Process { pid: 0, usedGpuMemory: 0, gpuInstanceId: 0, computeInstanceId: 0 };
    let mut room = PROCESS_ROOM;
    loop {
        let mut processes = vec![blank; room];
        let mut count = u32::try_from(room).unwrap_or(0);
        let room_at = processes.as_mut_ptr();
        let result = match list {
            ProcessList::Compute => call!(device, nvmlDeviceGetComputeRunningProcesses_v3, &mut count, room_at),
            ProcessList::Graphics => call!(device, nvmlDeviceGetGraphicsRunningProcesses_v3, &mut count, room_at),
            ProcessList::Mps => call!(device, nvmlDeviceGetMPSComputeRunningProcesses_v3, &mut count, room_at),
        };
        match result {
            Ok(()) => {
                processes.truncate(count as usize);
                return Ok(processes);
            }
            // Processes may start between two attempts, so the buffer is larger than currently needed.
            Err(NvmlError::Code(sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE)) if room < MAX_PROCESSES => {
                room = (count as usize).max(room).saturating_mul(2).min(MAX_PROCESSES);
            }
            Err(error) => return Err(error),
        }
    }
}
