//! `read`: reads the values of one GPU for the `ecc` section: memory errors, repairs, recommended recovery action.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, MemoryLocation};
use syringe_core::facts::ecc::{
    ErrorCounts, GpuEcc, LocationErrors, RecoveryAction, RemapHistogram, RemappedRows, RetiredPages, SramErrors,
};

use super::device_reader::DeviceReader;
use super::inventory::ecc_mode;
use super::{field_values, raw, throttled_time, value_ranges};
use crate::nvml::errors::{Kind, NvmlError};

/// The value of `NVML_ERROR_CORRUPTED_INFOROM`.
const CORRUPTED_INFOROM: u32 = 14;

/// First branch of the driver with the flag of unrepairable memory.
const UNREPAIRABLE_MEMORY_SINCE: u32 = 590;

/// Memory locations and their names in the report. Ampere and later GPUs have only the first two.
const LOCATIONS: &[(MemoryLocation, &str)] = &[
    (MemoryLocation::Device, "dram"),
    (MemoryLocation::SRAM, "sram"),
    (MemoryLocation::L1Cache, "l1_cache"),
    (MemoryLocation::L2Cache, "l2_cache"),
    (MemoryLocation::RegisterFile, "register_file"),
    (MemoryLocation::Texture, "texture_memory"),
    (MemoryLocation::Shared, "texture_shm"),
    (MemoryLocation::Cbu, "cbu"),
];
/// Number of locations that are read even if the total is zero: drivers differ in what the total includes.
const ALWAYS_READ: usize = 2;

pub(in crate::nvml) fn read(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuEcc) {
    gpu.mode = ecc_mode(device, reader, "mode");
    const VOLATILE: [&str; 3] = ["volatile.corrected", "volatile.uncorrected", "volatile.locations"];
    const AGGREGATE: [&str; 3] = ["aggregate.corrected", "aggregate.uncorrected", "aggregate.locations"];
    gpu.volatile = counts(device, reader, &EccCounter::Volatile, VOLATILE);
    gpu.aggregate = counts(device, reader, &EccCounter::Aggregate, AGGREGATE);
    gpu.sram = sram(device, reader);
    gpu.remapped_rows = remapped_rows(device, reader);
    if gpu.remapped_rows.is_some() {
        // A GPU that remaps rows retires no pages.
        reader.note_unsupported(&["retired_pages"]);
    } else {
        gpu.retired_pages = retired_pages(device, reader);
    }
    gpu.recovery_action = recovery_action(device, reader);
    let repairs = ["channel_repair_pending", "tpc_repair_pending"];
    let repairs = reader.call("nvmlDeviceGetRepairStatus", &repairs, || raw::repair_status(device));
    (gpu.channel_repair_pending, gpu.tpc_repair_pending) = repairs.unzip();
    // Older drivers lack the function, so it is not called.
    if throttled_time::branch(device, reader).is_some_and(|branch| branch >= UNREPAIRABLE_MEMORY_SINCE) {
        let function = "nvmlDeviceGetUnrepairableMemoryFlag_v1";
        let call = || raw::newer::unrepairable_memory(device);
        gpu.unrepairable_memory = reader.call_if_supported(function, &["unrepairable_memory"], call).ok();
    }
    gpu.inforom_valid = inforom_valid(device, reader);
}

/// Returns the recovery action that the driver recommends. R550 to R565 have two fields instead: whether the GPU must
/// be reset, and whether it should be drained and reset.
fn recovery_action(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<RecoveryAction> {
    let [action] = field_values::answers_of_gpu(device, reader, [field_values::RECOVERY_ACTION]);
    let is_absent = action.as_ref().is_err_and(|error| error.kind() == Kind::Absent);
    if is_absent && throttled_time::branch(device, reader).is_some_and(|branch| (550..570).contains(&branch)) {
        let [reset, drain_and_reset] = field_values::answers_of_gpu(device, reader, field_values::RESET_STATUS);
        match (reset, drain_and_reset) {
            (Ok(1), _) => return Some(RecoveryAction::GpuReset),
            (_, Ok(1)) => return Some(RecoveryAction::DrainAndReset),
            (Ok(0), Ok(0)) => return Some(RecoveryAction::None),
            (Err(error), _) | (_, Err(error)) if error.kind() != Kind::Absent => {
                field_values::noted(reader, Err(error), "recovery_action")?;
                return None;
            }
            _ => {}
        }
    }
    let action = field_values::noted(reader, action, "recovery_action")?;
    // An unknown number is also reported as an action.
    Some(u32::try_from(action).map_or(RecoveryAction::Unknown, RecoveryAction::from))
}

/// Returns the totals of one kind of counter, and the locations whose count is not zero.
fn counts(
    device: &Device<'_>,
    reader: &mut DeviceReader<'_>,
    counter: &EccCounter,
    [corrected, uncorrected, places]: [&'static str; 3],
) -> ErrorCounts {
    const FUNCTION: &str = "nvmlDeviceGetTotalEccErrors";
    let mut total = |kind, field| {
        let total = reader.call(FUNCTION, &[field], || device.total_ecc_errors(kind, *counter));
        reader.check_range(FUNCTION, field, total, value_ranges::COUNT)
    };
    let corrected = total(MemoryError::Corrected, corrected);
    let uncorrected = total(MemoryError::Uncorrected, uncorrected);
    let is_clean = corrected == Some(0) && uncorrected == Some(0);
    let locations = if is_clean { LOCATIONS.get(..ALWAYS_READ).unwrap_or_default() } else { LOCATIONS };
    let mut offered = false;
    let mut errors = |(location, word): &(MemoryLocation, &str)| {
        let corrected = location_count(device, reader, (MemoryError::Corrected, counter, location), places);
        let uncorrected = location_count(device, reader, (MemoryError::Uncorrected, counter, location), places);
        let (Ok(corrected), Ok(uncorrected)) = (corrected, uncorrected) else { return None };
        offered |= corrected.or(uncorrected).is_some();
        let (corrected, uncorrected) = (corrected.unwrap_or(0), uncorrected.unwrap_or(0));
        (corrected > 0 || uncorrected > 0).then(|| LocationErrors { location: (*word).into(), corrected, uncorrected })
    };
    let locations = locations.iter().filter_map(&mut errors).collect();
    if !offered && corrected.or(uncorrected).is_some() && !reader.has_failed(places) {
        reader.note_unsupported(&[places]);
    }
    ErrorCounts { corrected, uncorrected, locations }
}

/// Returns the count of one location: `Ok(None)` if the GPU has no counter there, `Err` if the counter could not be read.
fn location_count(
    device: &Device<'_>,
    reader: &mut DeviceReader<'_>,
    (kind, counter, location): (MemoryError, &EccCounter, &MemoryLocation),
    path: &'static str,
) -> Result<Option<u64>, NvmlError> {
    const FUNCTION: &str = "nvmlDeviceGetMemoryErrorCounter";
    let count = reader.call_if_supported(FUNCTION, &[path], || device.memory_error_counter(kind, *counter, *location));
    match count {
        Ok(u64::MAX) => {
            reader.note_failure(FUNCTION, &NvmlError::impossible(u64::MAX), &[path]);
            Err(NvmlError::impossible(u64::MAX))
        }
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == Kind::Absent => Ok(None),
        Err(error) => Err(error),
    }
}

fn sram(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<SramErrors> {
    let status = reader.call("nvmlDeviceGetSramEccErrorStatus", &["sram"], || raw::sram_ecc_status(device))?;
    Some(SramErrors {
        threshold_exceeded: status.bThresholdExceeded != 0,
        volatile_corrected: status.volatileCor,
        volatile_uncorrected_parity: status.volatileUncParity,
        volatile_uncorrected_secded: status.volatileUncSecDed,
        aggregate_corrected: status.aggregateCor,
        aggregate_uncorrected_parity: status.aggregateUncParity,
        aggregate_uncorrected_secded: status.aggregateUncSecDed,
        bucket_l2: status.aggregateUncBucketL2,
        bucket_sm: status.aggregateUncBucketSm,
        bucket_pcie: status.aggregateUncBucketPcie,
        bucket_microcontroller: status.aggregateUncBucketMcu,
        bucket_other: status.aggregateUncBucketOther,
    })
}

fn remapped_rows(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<RemappedRows> {
    let rows = reader.call("nvmlDeviceGetRemappedRows", &["remapped_rows"], || raw::remapped_rows(device));
    let (correctable, uncorrectable, pending, failure_occurred) = rows?;
    let histogram = reader.call("nvmlDeviceGetRowRemapperHistogram", &["remapped_rows.histogram"], || {
        raw::row_remapper_histogram(device)
    });
    let histogram = histogram.map(|[max, high, partial, low, none]| RemapHistogram { max, high, partial, low, none });
    let [correctable_inactive, uncorrectable_inactive] = inactive_remaps(device, reader);
    Some(RemappedRows {
        correctable,
        uncorrectable,
        pending,
        failure_occurred,
        correctable_inactive,
        uncorrectable_inactive,
        histogram,
    })
}

/// Returns the numbers of remaps that are not active: for corrected errors, for uncorrected errors.
fn inactive_remaps(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> [Option<u32>; 2] {
    if throttled_time::branch(device, reader).is_none_or(|branch| branch < field_values::INACTIVE_REMAPS_SINCE) {
        return [None; 2];
    }
    let answers = field_values::answers_of_gpu(device, reader, field_values::INACTIVE_REMAPS);
    let counts = field_values::numbers(reader, answers.into_iter(), "remapped_rows");
    std::array::from_fn(|at| u32::try_from(*counts.get(at)?.as_ref()?).ok())
}

/// Returns the retired pages. One function returns the counts, another function the pending state. A driver
/// may lack one of these functions.
fn retired_pages(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<RetiredPages> {
    const ALL: &[&str] = &["retired_pages"];
    const COUNTS: &[&str] = &["retired_pages.single_bit", "retired_pages.double_bit"];
    const PENDING: &[&str] = &["retired_pages.pending"];
    const FUNCTION: &str = "nvmlDeviceGetRetiredPages_v2";
    const PENDING_FUNCTION: &str = "nvmlDeviceGetRetiredPagesPendingStatus";
    let counts = reader.try_call(FUNCTION, || raw::retired_pages(device, 0));
    let counts =
        counts.and_then(|single_bit| Ok((single_bit, reader.try_call(FUNCTION, || raw::retired_pages(device, 1))?)));
    let pending = reader.try_call(PENDING_FUNCTION, || device.are_pages_pending_retired());
    let has_value = counts.is_ok() || pending.is_ok();
    if let Err(error) = &counts {
        reader.note_error(FUNCTION, error, if has_value { COUNTS } else { ALL });
    }
    if let Err(error) = &pending {
        reader.note_error(PENDING_FUNCTION, error, if has_value { PENDING } else { ALL });
    }
    let (single_bit, double_bit) = counts.ok().unzip();
    has_value.then(|| RetiredPages { single_bit, double_bit, pending: pending.ok() })
}

/// Returns whether the InfoROM is valid. A corrupted InfoROM is a result of this call and not a failure.
fn inforom_valid(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<bool> {
    match reader.try_call("nvmlDeviceValidateInforom", || device.validate_info_rom()) {
        Ok(()) => Some(true),
        Err(NvmlError::Code(CORRUPTED_INFOROM)) => Some(false),
        Err(error) => {
            reader.note_error("nvmlDeviceValidateInforom", &error, &["inforom_valid"]);
            None
        }
    }
}
