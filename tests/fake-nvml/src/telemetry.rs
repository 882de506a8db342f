//! NVML functions for temperatures, power, clocks, utilization, throttling and the PCIe link (section `telemetry`).

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use crate::facts::Gpu;
use crate::ffi::{Answer, INVALID_ARGUMENT, NOT_SUPPORTED, Out, on_gpu, put, versioned};
use crate::rates;

/// All throttle reasons that the fake driver supports: bits 0 to 8.
const SUPPORTED_REASONS: c_ulonglong = 0x1ff;

/// Sample period of the driver for encoder, decoder and similar engines, in microseconds.
const SAMPLE_PERIOD: u32 = 167_000;

gpu_values! {
    nvmlDeviceGetPerformanceState: nvmlPstates_t => |gpu| gpu.telemetry()?.performance_state;
    nvmlDeviceGetPowerState: nvmlPstates_t => |gpu| gpu.telemetry()?.performance_state;
    nvmlDeviceGetFanSpeed: c_uint => |gpu| gpu.telemetry()?.fan_percent;
    nvmlDeviceGetNumFans: c_uint => |gpu| Some(gpu.telemetry()?.fan_percent.map_or(0, |_| 1));
    nvmlDeviceGetPowerUsage: c_uint => |gpu| gpu.telemetry()?.power.draw_milliwatts;
    nvmlDeviceGetPowerManagementLimit: c_uint => |gpu| gpu.telemetry()?.power.limit_milliwatts;
    nvmlDeviceGetPowerManagementDefaultLimit: c_uint => |gpu| gpu.telemetry()?.power.default_limit_milliwatts;
    nvmlDeviceGetEnforcedPowerLimit: c_uint => |gpu| gpu.telemetry()?.power.enforced_limit_milliwatts;
    nvmlDeviceGetTotalEnergyConsumption: c_ulonglong => |gpu| gpu.telemetry()?.power.energy_millijoules;
    nvmlDeviceGetUtilizationRates: nvmlUtilization_t => |gpu| {
        let rates = &gpu.telemetry()?.utilization;
        Some(nvmlUtilization_t { gpu: rates.gpu_percent?, memory: rates.memory_percent? })
    };
    nvmlDeviceGetCurrentClocksEventReasons: c_ulonglong => |gpu| gpu.telemetry()?.throttling.reasons_mask;
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong => |gpu| gpu.telemetry()?.throttling.reasons_mask;
    nvmlDeviceGetSupportedClocksEventReasons: c_ulonglong => supported_reasons;
    nvmlDeviceGetSupportedClocksThrottleReasons: c_ulonglong => supported_reasons;
    nvmlDeviceGetCurrPcieLinkGeneration: c_uint => |gpu| gpu.telemetry()?.pcie.generation;
    nvmlDeviceGetCurrPcieLinkWidth: c_uint => |gpu| gpu.telemetry()?.pcie.width;
    nvmlDeviceGetPcieReplayCounter: c_uint => |gpu| Some((replays(gpu)? + rates::added(gpu, "replays", |sample| sample.pcie_replays.unwrap_or(0))) as u32);
}

gpu_pairs! {
    nvmlDeviceGetPowerManagementLimitConstraints => |gpu| {
        let power = &gpu.telemetry()?.power;
        Some((power.min_limit_milliwatts?, power.max_limit_milliwatts?))
    };
    nvmlDeviceGetEncoderUtilization => |gpu| sampled(gpu.telemetry()?.utilization.encoder_percent);
    nvmlDeviceGetDecoderUtilization => |gpu| sampled(gpu.telemetry()?.utilization.decoder_percent);
    nvmlDeviceGetJpgUtilization => |gpu| sampled(gpu.telemetry()?.utilization.jpeg_percent);
    nvmlDeviceGetOfaUtilization => |gpu| sampled(gpu.telemetry()?.utilization.ofa_percent);
}

gpu_selected! {
    nvmlDeviceGetTemperature: c_uint => |gpu, sensor| {
        if sensor != nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
            return Err(INVALID_ARGUMENT);
        }
        gpu.telemetry().and_then(|gpu| gpu.temperature.gpu_celsius).map(|degrees| degrees as u32).ok_or(NOT_SUPPORTED)
    };
    nvmlDeviceGetTemperatureThreshold: c_uint => threshold;
    nvmlDeviceGetFanSpeed_v2: c_uint => |gpu, fan| match gpu.telemetry().and_then(|gpu| gpu.fan_percent) {
        Some(percent) if fan == 0 => Ok(percent),
        Some(_) => Err(INVALID_ARGUMENT),
        None => Err(NOT_SUPPORTED),
    };
    nvmlDeviceGetClockInfo: c_uint => |gpu, kind| clock(gpu, kind, Which::Now);
    nvmlDeviceGetMaxClockInfo: c_uint => |gpu, kind| clock(gpu, kind, Which::Highest);
    nvmlDeviceGetApplicationsClock: c_uint => |gpu, kind| clock(gpu, kind, Which::Application);
    nvmlDeviceGetDefaultApplicationsClock: c_uint => |gpu, kind| clock(gpu, kind, Which::Application);
    nvmlDeviceGetViolationStatus: nvmlViolationTime_t => violation;
}

/// Returns the number of PCIe replays, which both the `telemetry` and the `topology` section contain.
pub(crate) fn replays(gpu: &Gpu<'_>) -> Option<u64> {
    let now = gpu.telemetry().and_then(|gpu| gpu.pcie.replays);
    now.or_else(|| gpu.topology()?.pcie_replays)
}

fn supported_reasons(gpu: &Gpu<'_>) -> Option<c_ulonglong> {
    gpu.telemetry()?.throttling.reasons_mask.map(|_| SUPPORTED_REASONS)
}

fn sampled(percent: Option<u32>) -> Option<(u32, u32)> {
    Some((percent?, SAMPLE_PERIOD))
}

fn threshold(gpu: &Gpu<'_>, which: nvmlTemperatureThresholds_t) -> Answer<c_uint> {
    let limits = &gpu.telemetry().ok_or(NOT_SUPPORTED)?.temperature;
    let limit = match which {
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN => limits.shutdown_celsius,
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN => limits.slowdown_celsius,
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_MEM_MAX => limits.memory_max_celsius,
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_GPU_MAX => limits.gpu_max_celsius,
        other if other < nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_COUNT => None,
        _ => return Err(INVALID_ARGUMENT),
    };
    limit.map(|degrees| degrees as c_uint).ok_or(NOT_SUPPORTED)
}

#[derive(Clone, Copy)]
enum Which {
    Now,
    Highest,
    Application,
}

fn clock(gpu: &Gpu<'_>, kind: nvmlClockType_t, which: Which) -> Answer<c_uint> {
    let clocks = &gpu.telemetry().ok_or(NOT_SUPPORTED)?.clocks;
    let [now, highest, application] = match kind {
        nvmlClockType_enum_NVML_CLOCK_GRAPHICS => {
            [clocks.graphics_mhz, clocks.max_graphics_mhz, clocks.application_graphics_mhz]
        }
        nvmlClockType_enum_NVML_CLOCK_SM => [clocks.sm_mhz, clocks.max_sm_mhz, clocks.application_graphics_mhz],
        nvmlClockType_enum_NVML_CLOCK_MEM => [clocks.memory_mhz, clocks.max_memory_mhz, clocks.application_memory_mhz],
        nvmlClockType_enum_NVML_CLOCK_VIDEO => [clocks.video_mhz, clocks.max_video_mhz, None],
        _ => return Err(INVALID_ARGUMENT),
    };
    let chosen = match which {
        Which::Now => now,
        Which::Highest => highest,
        Which::Application => application,
    };
    chosen.ok_or(NOT_SUPPORTED)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetClock(
    device: nvmlDevice_t,
    kind: nvmlClockType_t,
    id: nvmlClockId_t,
    out: Out<'_, c_uint>,
) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetClock", device, |gpu| {
        let which = match id {
            nvmlClockId_enum_NVML_CLOCK_ID_CURRENT => Which::Now,
            nvmlClockId_enum_NVML_CLOCK_ID_APP_CLOCK_TARGET => Which::Application,
            nvmlClockId_enum_NVML_CLOCK_ID_APP_CLOCK_DEFAULT => Which::Application,
            nvmlClockId_enum_NVML_CLOCK_ID_CUSTOMER_BOOST_MAX => Which::Highest,
            _ => return Err(INVALID_ARGUMENT),
        };
        put(out, clock(gpu, kind, which)?)
    })
}

/// Returns the time for which a policy was active. The time is zero if the facts omit the policy. If the facts contain
/// neither throttle reasons nor times, the call is not supported.
fn violation(gpu: &Gpu<'_>, policy: nvmlPerfPolicyType_t) -> Answer<nvmlViolationTime_t> {
    let name = match policy {
        nvmlPerfPolicyType_enum_NVML_PERF_POLICY_POWER => "power",
        nvmlPerfPolicyType_enum_NVML_PERF_POLICY_THERMAL => "thermal",
        nvmlPerfPolicyType_enum_NVML_PERF_POLICY_SYNC_BOOST => "sync_boost",
        nvmlPerfPolicyType_enum_NVML_PERF_POLICY_BOARD_LIMIT => "board_limit",
        nvmlPerfPolicyType_enum_NVML_PERF_POLICY_LOW_UTILIZATION => "low_utilization",
        nvmlPerfPolicyType_enum_NVML_PERF_POLICY_RELIABILITY => "reliability",
        other if other < nvmlPerfPolicyType_enum_NVML_PERF_POLICY_COUNT => return Err(NOT_SUPPORTED),
        _ => return Err(INVALID_ARGUMENT),
    };
    let throttling = &gpu.telemetry().ok_or(NOT_SUPPORTED)?.throttling;
    if throttling.reasons_mask.is_none() && throttling.violations.is_empty() {
        return Err(NOT_SUPPORTED);
    }
    let reference = crate::fields::timestamp(gpu) as u64;
    Ok(nvmlViolationTime_t { referenceTime: reference, violationTime: nanoseconds(gpu, name) })
}

/// Returns the time for which a policy was active.
fn nanoseconds(gpu: &Gpu<'_>, policy: &str) -> u64 {
    let violations = gpu.telemetry().map(|gpu| gpu.throttling.violations.as_slice()).unwrap_or_default();
    let time = violations.iter().find(|violation| violation.policy == policy);
    time.map_or(0, |violation| violation.duration_ms * 1_000_000) + rates::added_to_time(gpu, policy)
}

/// Returns the value of a field whose meaning depends on the driver: IDs 251 to 253 are times in R570 and R575, 269 to
/// 271 since R590. Otherwise the IDs are settings of power smoothing. R580 has both meanings; here all six are
/// settings.
pub(crate) fn time_or_setting(gpu: &Gpu<'_>, id: u32) -> Option<u64> {
    let branch = crate::facts::driver_branch(gpu.report)?;
    let first = match branch {
        ..570 => return None,
        570..580 => 251,
        580..590 => 0,
        590.. => 269,
    };
    let policies = ["software_thermal", "hardware_thermal", "power_brake"];
    let policy = id.checked_sub(first).and_then(|at| policies.get(at as usize));
    // This setting would be a long time if it were read as a time.
    Some(policy.map_or(7_000_000_000_000, |policy| nanoseconds(gpu, policy)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTemperatureV(device: nvmlDevice_t, out: *mut nvmlTemperature_t) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetTemperatureV", device, |gpu| {
        let out = versioned(out, 1)?;
        let degrees = gpu.telemetry().and_then(|gpu| gpu.temperature.gpu_celsius);
        if out.sensorType != nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
            return Err(INVALID_ARGUMENT);
        }
        out.temperature = degrees.ok_or(NOT_SUPPORTED)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMarginTemperature(device: nvmlDevice_t, out: *mut nvmlMarginTemperature_t) -> nvmlReturn_t {
    on_gpu("nvmlDeviceGetMarginTemperature", device, |gpu| {
        let margin: Option<c_int> = gpu.telemetry().and_then(|gpu| gpu.temperature.tlimit_margin_celsius);
        versioned(out, 1)?.marginTemperature = margin.ok_or(NOT_SUPPORTED)?;
        Ok(())
    })
}

/// Returns an error counter of the PCIe link. The facts omit counters that are zero.
pub(crate) fn pcie_error(gpu: &Gpu<'_>, id: u32) -> Option<u64> {
    const NAMES: [&str; 11] = [
        "correctable",
        "naks_received",
        "receiver_error",
        "bad_tlp",
        "naks_sent",
        "bad_dllp",
        "nonfatal",
        "fatal",
        "unsupported_request",
        "lcrc",
        "lane_error",
    ];
    let name = id.checked_sub(173).map_or("recoveries", |at| NAMES[at as usize]);
    Some(gpu.telemetry()?.pcie.errors.get(name).copied().unwrap_or(0))
}
