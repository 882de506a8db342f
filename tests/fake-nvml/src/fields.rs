//! `nvmlDeviceGetFieldValues`: values by field ID, for the whole GPU or for one NVLink (`scopeId` is the link).

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::*;
use syringe_core::facts::ecc::RecoveryAction;

use crate::facts::Gpu;
use crate::ffi::{Answer, INVALID_ARGUMENT, NOT_SUPPORTED, on_gpu};
use crate::{nvlink, session, telemetry};

/// The value of a field, in one of NVML's types.
pub(crate) enum Value {
    Unsigned(u32),
    Long(u64),
    Signed(i32),
}

/// Returns the time of the facts, in microseconds. It is the timestamp of all values.
pub(crate) fn timestamp(gpu: &Gpu<'_>) -> i64 {
    gpu.report.taken_at.map_or(0, |taken| taken.as_microsecond())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetFieldValues", device, |gpu| {
        let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(INVALID_ARGUMENT)?;
        if values.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: the caller owns `count` entries, and has set the field and the scope of each.
        let entries = unsafe { std::slice::from_raw_parts_mut(values, count) };
        for entry in entries {
            fill(gpu, entry);
        }
        Ok(())
    })
}

fn fill(gpu: &Gpu<'_>, entry: &mut nvmlFieldValue_t) {
    entry.timestamp = timestamp(gpu);
    entry.latencyUsec = 0;
    // All 8 bytes are cleared, so that a reader of the wrong union member does not get the right number by chance.
    entry.value = nvmlValue_t { ullVal: 0 };
    match field(gpu, entry.fieldId, entry.scopeId) {
        Ok(value) => {
            entry.nvmlReturn = nvmlReturn_enum_NVML_SUCCESS;
            (entry.valueType, entry.value) = match value {
                Value::Unsigned(number) => {
                    (nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT, nvmlValue_t { uiVal: number })
                }
                Value::Long(number) => {
                    (nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, nvmlValue_t { ullVal: number })
                }
                Value::Signed(number) => (nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT, nvmlValue_t { siVal: number }),
            };
        }
        Err(code) => entry.nvmlReturn = code,
    }
}

fn field(gpu: &Gpu<'_>, id: u32, scope: u32) -> Answer<Value> {
    session::current()?.switches.failures.refuse(&format!("field {id}"), Some(gpu.index))?;
    if let Some(answer) = nvlink::field(gpu, id, scope) {
        return answer;
    }
    // Scope 1 is the power of the module (GPU and CPU together), which is not in the facts.
    if (185..=192).contains(&id) && scope != 0 {
        return Err(NOT_SUPPORTED);
    }
    whole_gpu(gpu, id).ok_or(NOT_SUPPORTED)
}

fn whole_gpu(gpu: &Gpu<'_>, id: u32) -> Option<Value> {
    use Value::{Long, Signed, Unsigned};
    let power = || Some(&gpu.telemetry()?.power);
    let temperature = || Some(&gpu.telemetry()?.temperature);
    let tlimit = || temperature()?.tlimit_thresholds.as_ref();
    let rows = || gpu.ecc()?.remapped_rows.as_ref();
    Some(match id {
        // NVML_FI_DEV_MEMORY_TEMP
        82 => Unsigned(temperature()?.memory_celsius? as u32),
        // NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, NVML_FI_DEV_ENERGY
        83 | 191 => Long(power()?.energy_millijoules?),
        // NVML_FI_DEV_PCIE_REPLAY_COUNTER, …_ROLLOVER_COUNTER
        94 => Unsigned(telemetry::replays(gpu)? as u32),
        95 => Unsigned(gpu.telemetry()?.pcie.replay_rollovers? as u32),
        // NVML_FI_DEV_REMAPPED_COR, _UNC, _PENDING, _FAILURE
        142 => Unsigned(rows()?.correctable),
        143 => Unsigned(rows()?.uncorrectable),
        144 => Unsigned(rows()?.pending.into()),
        145 => Unsigned(rows()?.failure_occurred.into()),
        // NVML_FI_DEV_REMAPPED_ROWS_COR_INACTIVE, _UNC_INACTIVE
        301 => Unsigned(rows()?.correctable_inactive?),
        302 => Unsigned(rows()?.uncorrectable_inactive?),
        // NVML_FI_DEV_POWER_AVERAGE, _INSTANT, _MIN_LIMIT, _MAX_LIMIT, _DEFAULT_LIMIT, _CURRENT_LIMIT, _REQUESTED_LIMIT
        185 => Unsigned(power()?.draw_milliwatts?),
        186 => Unsigned(power()?.instant_milliwatts?),
        187 => Unsigned(power()?.min_limit_milliwatts?),
        188 => Unsigned(power()?.max_limit_milliwatts?),
        189 => Unsigned(power()?.default_limit_milliwatts?),
        190 => Unsigned(power()?.enforced_limit_milliwatts?),
        192 => Unsigned(power()?.limit_milliwatts?),
        // NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT, _SLOWDOWN_, _MEM_MAX_, _GPU_MAX_
        193 => Signed(tlimit()?.shutdown_celsius?),
        194 => Signed(tlimit()?.slowdown_celsius?),
        195 => Signed(tlimit()?.memory_max_celsius?),
        196 => Signed(tlimit()?.gpu_max_celsius?),
        // NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER, NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS to _LANE_ERROR
        169 | 173..=183 => Unsigned(telemetry::pcie_error(gpu, id)? as u32),
        // Times with reduced clocks, or settings of power smoothing
        251..=253 | 269..=271 => Long(telemetry::time_or_setting(gpu, id)?),
        // NVML_FI_DEV_RESET_STATUS, NVML_FI_DEV_DRAIN_AND_RESET_STATUS
        226 => Unsigned((gpu.ecc()?.recovery_action? == RecoveryAction::GpuReset).into()),
        227 => Unsigned((gpu.ecc()?.recovery_action? == RecoveryAction::DrainAndReset).into()),
        // NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
        230 => Unsigned(recovery_action(gpu.ecc()?.recovery_action?)),
        _ => return None,
    })
}

fn recovery_action(action: RecoveryAction) -> u32 {
    match action {
        RecoveryAction::None => 0,
        RecoveryAction::GpuReset => 1,
        RecoveryAction::NodeReboot => 2,
        RecoveryAction::DrainP2p => 3,
        RecoveryAction::DrainAndReset => 4,
        RecoveryAction::RecoverImex => 5,
        RecoveryAction::BusReset => 6,
        RecoveryAction::SystemReboot => 7,
        RecoveryAction::Unknown => 99,
    }
}
