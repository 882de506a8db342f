//! NVML functions for memory errors and repairs (section `ecc`).

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::ecc::{ErrorCounts, RetiredPages};

use crate::facts::Gpu;
use crate::ffi::{Answer, INVALID_ARGUMENT, NOT_SUPPORTED, Out, array, on_gpu, put, put_list, versioned};
use crate::rates;

/// Distance between the fictitious addresses of retired pages.
const PAGE_SIZE: u64 = 4096;

gpu_values! {
    nvmlDeviceGetRowRemapperHistogram: nvmlRowRemapperHistogramValues_t => |gpu| {
        let banks = gpu.ecc()?.remapped_rows.as_ref()?.histogram.as_ref()?;
        Some(nvmlRowRemapperHistogramValues_t {
            max: banks.max,
            high: banks.high,
            partial: banks.partial,
            low: banks.low,
            none: banks.none,
        })
    };
    nvmlDeviceGetRetiredPagesPendingStatus: nvmlEnableState_t => |gpu| {
        gpu.ecc()?.retired_pages.as_ref()?.pending.map(u32::from)
    };
}

fn counts<'g>(gpu: &'g Gpu<'_>, counter: nvmlEccCounterType_t) -> Answer<&'g ErrorCounts> {
    let ecc = gpu.ecc().ok_or(NOT_SUPPORTED)?;
    match counter {
        nvmlEccCounterType_enum_NVML_VOLATILE_ECC => Ok(&ecc.volatile),
        nvmlEccCounterType_enum_NVML_AGGREGATE_ECC => Ok(&ecc.aggregate),
        _ => Err(INVALID_ARGUMENT),
    }
}

fn total(counts: &ErrorCounts, error: nvmlMemoryErrorType_t) -> Answer<u64> {
    match error {
        nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED => counts.corrected.ok_or(NOT_SUPPORTED),
        nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED => counts.uncorrected.ok_or(NOT_SUPPORTED),
        _ => Err(INVALID_ARGUMENT),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    error: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
    out: Out<'_, c_ulonglong>,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetTotalEccErrors", device, |gpu| {
        let is_sampled = counter == nvmlEccCounterType_enum_NVML_VOLATILE_ECC
            && error == nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED;
        let more = || rates::added(gpu, "corrected", |sample| sample.corrected_memory_errors.unwrap_or(0));
        put(out, total(counts(gpu, counter)?, error)? + if is_sampled { more() } else { 0 })
    })
}

/// Returns the counter of one location. The facts omit locations without errors: if the facts have a total, the count
/// of an omitted location is zero.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    device: nvmlDevice_t,
    error: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
    location: nvmlMemoryLocation_t,
    out: Out<'_, c_ulonglong>,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetMemoryErrorCounter", device, |gpu| {
        let counts = counts(gpu, counter)?;
        total(counts, error)?;
        let name = match location {
            nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_L1_CACHE => "l1_cache",
            nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_L2_CACHE => "l2_cache",
            nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DRAM => "dram",
            nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_REGISTER_FILE => "register_file",
            nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_TEXTURE_MEMORY => "texture_memory",
            nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_TEXTURE_SHM => "texture_shm",
            nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_CBU => "cbu",
            nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM => "sram",
            _ => return Err(INVALID_ARGUMENT),
        };
        let place = counts.locations.iter().find(|place| place.location == name);
        let corrected = error == nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED;
        put(out, place.map_or(0, |place| if corrected { place.corrected } else { place.uncorrected }))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetSramEccErrorStatus(
    device: nvmlDevice_t,
    status: *mut nvmlEccSramErrorStatus_t,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetSramEccErrorStatus", device, |gpu| {
        let sram = gpu.ecc().and_then(|ecc| ecc.sram.as_ref()).ok_or(NOT_SUPPORTED)?;
        let status = versioned(status, 1)?;
        *status = nvmlEccSramErrorStatus_t {
            version: status.version,
            aggregateUncParity: sram.aggregate_uncorrected_parity,
            aggregateUncSecDed: sram.aggregate_uncorrected_secded,
            aggregateCor: sram.aggregate_corrected,
            volatileUncParity: sram.volatile_uncorrected_parity,
            volatileUncSecDed: sram.volatile_uncorrected_secded,
            volatileCor: sram.volatile_corrected,
            aggregateUncBucketL2: sram.bucket_l2,
            aggregateUncBucketSm: sram.bucket_sm,
            aggregateUncBucketPcie: sram.bucket_pcie,
            aggregateUncBucketMcu: sram.bucket_microcontroller,
            aggregateUncBucketOther: sram.bucket_other,
            bThresholdExceeded: sram.threshold_exceeded.into(),
        };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    correctable: Out<'_, c_uint>,
    uncorrectable: Out<'_, c_uint>,
    pending: Out<'_, c_uint>,
    failure: Out<'_, c_uint>,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetRemappedRows", device, |gpu| {
        let rows = gpu.ecc().and_then(|ecc| ecc.remapped_rows.as_ref()).ok_or(NOT_SUPPORTED)?;
        put(correctable, rows.correctable)?;
        put(uncorrectable, rows.uncorrectable)?;
        put(pending, rows.pending.into())?;
        put(failure, rows.failure_occurred.into())
    })
}

/// Returns the number of pages that were retired for one cause.
fn retired(gpu: &Gpu<'_>, cause: nvmlPageRetirementCause_t) -> Answer<u64> {
    let pages: &RetiredPages = gpu.ecc().and_then(|ecc| ecc.retired_pages.as_ref()).ok_or(NOT_SUPPORTED)?;
    match cause {
        nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS => {
            Ok(pages.single_bit.ok_or(NOT_SUPPORTED)?.into())
        }
        nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR => {
            Ok(pages.double_bit.ok_or(NOT_SUPPORTED)?.into())
        }
        _ => Err(INVALID_ARGUMENT),
    }
}

fn page_addresses(cause: nvmlPageRetirementCause_t, pages: u64) -> Vec<c_ulonglong> {
    (0..pages).map(|page| (u64::from(cause) << 32) + page * PAGE_SIZE).collect()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetRetiredPages(
    device: nvmlDevice_t,
    cause: nvmlPageRetirementCause_t,
    count: Option<&mut c_uint>,
    addresses: *mut c_ulonglong,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetRetiredPages", device, |gpu| {
        put_list(count, addresses, page_addresses(cause, retired(gpu, cause)?))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: nvmlDevice_t,
    cause: nvmlPageRetirementCause_t,
    count: Option<&mut c_uint>,
    addresses: *mut c_ulonglong,
    timestamps: *mut c_ulonglong,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetRetiredPages_v2", device, |gpu| {
        let pages = retired(gpu, cause)?;
        let mut room = count.as_deref().copied().unwrap_or(0);
        put_list(count, addresses, page_addresses(cause, pages))?;
        put_list(Some(&mut room), timestamps, vec![crate::fields::timestamp(gpu) as u64; pages as usize])
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetRepairStatus(device: nvmlDevice_t, status: *mut nvmlRepairStatus_t) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetRepairStatus", device, |gpu| {
        let pending = gpu.ecc().and_then(|ecc| Some((ecc.channel_repair_pending?, ecc.tpc_repair_pending?)));
        let (channel, tpc) = pending.ok_or(NOT_SUPPORTED)?;
        let status = versioned(status, 1)?;
        status.bChannelRepairPending = channel.into();
        status.bTpcRepairPending = tpc.into();
        Ok(())
    })
}

/// Writes the flag in the layout of `nvml.h` (only the flag), or in the layout of nvidia-ml-py (version, flag) with
/// `FAKE_NVML_VERSIONED_FLAG`.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUnrepairableMemoryFlag_v1(device: nvmlDevice_t, status: *mut [c_uint; 2]) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetUnrepairableMemoryFlag_v1", device, |gpu| {
        let flag = gpu.ecc().and_then(|ecc| ecc.unrepairable_memory).ok_or(NOT_SUPPORTED)?;
        if std::env::var_os("FAKE_NVML_VERSIONED_FLAG").is_some() {
            versioned(status, 1)?[1] = flag.into();
        } else {
            array(status.cast::<c_uint>(), 1)?[0].write(flag.into());
        }
        Ok(())
    })
}
