//! `answers_of_gpu`, `of_link`: read several NVML values by field ID in one call (`nvmlDeviceGetFieldValues`).
//! Constants: the field IDs. `noted`, `numbers`: note values that could not be read.

use std::sync::LazyLock;

use nvml_wrapper::Device;
use syringe_core::tsv::rows;

use super::device_reader::DeviceReader;
use super::raw::{FieldKey, field_values};
use crate::nvml::errors::{Kind, NvmlError};

/// The name of the NVML function.
pub(in crate::nvml) const FIELD_VALUES: &str = "nvmlDeviceGetFieldValues";

/// Temperature of the memory, in degrees Celsius.
pub(in crate::nvml) const MEMORY_TEMPERATURE: u32 = 82;
/// Speed of the NVLinks in megabytes a second, before R525.
pub(in crate::nvml) const NVLINK_SPEED_COMMON: u32 = 90;
/// Number of times that the PCIe replay counter wrapped.
pub(in crate::nvml) const PCIE_REPLAY_ROLLOVERS: u32 = 95;
/// Speed of one NVLink in megabytes a second.
pub(in crate::nvml) const NVLINK_SPEED: u32 = 164;
/// Current power draw, in milliwatts.
pub(in crate::nvml) const POWER_INSTANT: u32 = 186;
/// Limits in `T.Limit` space, in degrees Celsius (Ada and later).
pub(in crate::nvml) const SHUTDOWN_TLIMIT: u32 = 193;
pub(in crate::nvml) const SLOWDOWN_TLIMIT: u32 = 194;
pub(in crate::nvml) const MEMORY_MAX_TLIMIT: u32 = 195;
pub(in crate::nvml) const GPU_MAX_TLIMIT: u32 = 196;
/// Whether the GPU must be reset, and whether it should be drained and reset. Field 230 replaces both.
pub(in crate::nvml) const RESET_STATUS: [u32; 2] = [226, 227];
/// Remaps of memory rows that are not active: for corrected errors, for uncorrected errors.
pub(in crate::nvml) const INACTIVE_REMAPS: [u32; 2] = [301, 302];
/// First branch of the driver whose header (CUDA 13.2) has these fields.
pub(in crate::nvml) const INACTIVE_REMAPS_SINCE: u32 = 595;
/// The recovery action that the driver recommends.
pub(in crate::nvml) const RECOVERY_ACTION: u32 = 230;

/// Counters of one NVLink 5 link and their names in the report; the scope is the link. Bit error rates are
/// not counts. Only the FEC history bins for 8 and more errors per block are reported, because the lower bins also count on
/// healthy links.
pub(in crate::nvml) static NVLINK5_ERRORS: LazyLock<Vec<(u32, &str)>> = LazyLock::new(|| {
    let rows = rows(include_str!("nvlink5_counters.tsv"));
    rows.filter_map(|row| Some((row[0].parse().ok()?, *row.get(1)?))).collect()
});

/// Returns the answers for some fields of the whole GPU, without notes.
pub(in crate::nvml) fn answers_of_gpu<const N: usize>(
    device: &Device<'_>,
    reader: &DeviceReader<'_>,
    ids: [u32; N],
) -> [Result<i128, NvmlError>; N] {
    let keys = ids.map(|id| FieldKey { id, scope: 0 });
    let answers = reader.try_call(FIELD_VALUES, || field_values(device, &keys));
    std::array::from_fn(|at| match &answers {
        Ok(answers) => answers.get(at).cloned().unwrap_or(Err(NvmlError::NOT_SUPPORTED)),
        Err(error) => Err(error.clone()),
    })
}

/// Returns the value of an answer. If there is no value, returns `None` and adds a note under `path`.
pub(in crate::nvml) fn noted(
    reader: &mut DeviceReader<'_>,
    answer: Result<i128, NvmlError>,
    path: &'static str,
) -> Option<i128> {
    answer.map_err(|error| reader.note_error(FIELD_VALUES, &error, &[path])).ok()
}

/// Returns the values of some fields of one NVLink, in order. An unsupported value is `None` without a note; a failure is
/// noted under `path`.
pub(in crate::nvml) fn of_link(
    device: &Device<'_>,
    reader: &mut DeviceReader<'_>,
    link: u32,
    ids: &[u32],
    path: &'static str,
) -> Vec<Option<u64>> {
    let keys: Vec<_> = ids.iter().map(|id| FieldKey { id: *id, scope: link }).collect();
    match reader.call_if_supported(FIELD_VALUES, &[path], || field_values(device, &keys)) {
        Ok(answers) => numbers(reader, answers.into_iter(), path),
        Err(_) => vec![None; ids.len()],
    }
}

/// Returns the value of each answer. An unsupported value is `None` without a note; a failure is noted under `path`.
pub(in crate::nvml) fn numbers(
    reader: &mut DeviceReader<'_>,
    answers: impl Iterator<Item = Result<i128, NvmlError>>,
    path: &'static str,
) -> Vec<Option<u64>> {
    let number = |answer: Result<i128, NvmlError>| match answer.map(|value| (value, u64::try_from(value))) {
        // A value with all bits set is NVML's "not available", or comes from a device that left the bus.
        Ok((value, Err(_))) | Ok((value, Ok(u64::MAX))) => {
            reader.note_failure(FIELD_VALUES, &NvmlError::impossible(value), &[path]);
            None
        }
        Ok((_, Ok(value))) => Some(value),
        Err(error) => {
            if error.kind() == Kind::Failed {
                reader.note_failure(FIELD_VALUES, &error, &[path]);
            }
            None
        }
    };
    answers.map(number).collect()
}
