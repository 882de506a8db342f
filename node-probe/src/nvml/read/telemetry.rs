//! `read`: reads the values of one GPU for the `telemetry` section: temperature, power, clocks, utilization and others.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor, TemperatureThreshold};
use nvml_wrapper::error::NvmlError as WrapperError;
use syringe_core::facts::telemetry::{
    Clocks, GpuTelemetry, MemoryUse, PcieLink, Power, Temperature, Throttling, TlimitThresholds, Utilization, Violation,
};

use super::cache::Function;
use super::device_reader::DeviceReader;
use super::field_values::FIELD_VALUES;
use super::{enum_names, field_values, raw, throttled_time, value_ranges};
use crate::nvml::errors::{Kind, NvmlError};

/// The value of `NVML_PSTATE_UNKNOWN`.
const PSTATE_UNKNOWN: u32 = 32;
const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

pub(in crate::nvml) fn read(device: &Device<'_>, reader: &mut DeviceReader<'_>, gpu: &mut GpuTelemetry) {
    gpu.performance_state = performance_state(device, reader);
    // One call reads all values that NVML returns only by field ID.
    let ids = [
        field_values::MEMORY_TEMPERATURE,
        field_values::POWER_INSTANT,
        field_values::PCIE_REPLAY_ROLLOVERS,
        field_values::SHUTDOWN_TLIMIT,
        field_values::SLOWDOWN_TLIMIT,
        field_values::MEMORY_MAX_TLIMIT,
        field_values::GPU_MAX_TLIMIT,
    ];
    let [memory_celsius, instant, rollovers, limits @ ..] = field_values::answers_of_gpu(device, reader, ids);
    let memory_celsius = number(reader, "temperature.memory_celsius", memory_celsius, value_ranges::CELSIUS);
    let instant = number(reader, "power.instant_milliwatts", instant, value_ranges::MILLIWATTS);
    let tlimit_thresholds = tlimit_thresholds(reader, limits);
    gpu.temperature =
        temperature(device, reader, Temperature { memory_celsius, tlimit_thresholds, ..Temperature::default() });
    const FAN: &str = "nvmlDeviceGetFanSpeed_v2";
    let fan = reader.call(FAN, &["fan_percent"], || device.fan_speed(0));
    gpu.fan_percent = reader.check_range(FAN, "fan_percent", fan, value_ranges::FAN_PERCENT);
    gpu.power = power(device, reader, instant);
    gpu.clocks = clocks(device, reader);
    gpu.utilization = utilization(device, reader);
    gpu.memory = memory(device, reader);
    let rollovers = number(reader, "pcie.replay_rollovers", rollovers, value_ranges::SMALL_COUNT).map(u64::from);
    gpu.pcie = pcie(device, reader, rollovers);
    gpu.throttling = throttling(device, reader);
}

/// Returns the value of a field if the value could be read and is possible; otherwise notes the field.
fn number<N>(
    reader: &mut DeviceReader<'_>,
    field: &'static str,
    answer: Result<i128, NvmlError>,
    possible: RangeInclusive<N>,
) -> Option<N>
where
    N: TryFrom<i128> + Into<i128> + Copy,
{
    let value = field_values::noted(reader, answer, field);
    let possible = (*possible.start()).into()..=(*possible.end()).into();
    N::try_from(reader.check_range(FIELD_VALUES, field, value, possible)?).ok()
}

/// Returns the values of fields 193 to 196. If a GPU has no such field, there is one note for all four fields.
fn tlimit_thresholds(reader: &mut DeviceReader<'_>, answers: [Result<i128, NvmlError>; 4]) -> Option<TlimitThresholds> {
    let is_absent = |answer: &Result<_, NvmlError>| answer.as_ref().is_err_and(|error| error.kind() == Kind::Absent);
    if answers.iter().all(is_absent) {
        reader.note_unsupported(&["temperature.tlimit_thresholds"]);
        return None;
    }
    let [shutdown, slowdown, memory_max, gpu_max] = answers;
    let mut limit = |field, answer| number(reader, field, answer, value_ranges::DEGREES);
    let limits = TlimitThresholds {
        shutdown_celsius: limit("temperature.tlimit_thresholds.shutdown_celsius", shutdown),
        slowdown_celsius: limit("temperature.tlimit_thresholds.slowdown_celsius", slowdown),
        memory_max_celsius: limit("temperature.tlimit_thresholds.memory_max_celsius", memory_max),
        gpu_max_celsius: limit("temperature.tlimit_thresholds.gpu_max_celsius", gpu_max),
    };
    Some(limits).filter(|limits| *limits != TlimitThresholds::default())
}

/// Returns the performance state (0 is the fastest). The driver's value "unknown" counts as not supported.
fn performance_state(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<u32> {
    const FUNCTION: &str = "nvmlDeviceGetPerformanceState";
    let state = reader.call(FUNCTION, &["performance_state"], || raw::performance_state(device))?;
    if state == PSTATE_UNKNOWN {
        reader.note_unsupported(&["performance_state"]);
        return None;
    }
    reader.check_range(FUNCTION, "performance_state", Some(state), value_ranges::PERFORMANCE_STATE)
}

/// Reads the temperatures and limits that have their own NVML functions, and adds them to the values from fields.
fn temperature(device: &Device<'_>, reader: &mut DeviceReader<'_>, fields: Temperature) -> Temperature {
    let mut celsius = |function: Function, field, call: &dyn Fn() -> Result<u32, WrapperError>| {
        // All bits set is a defect, and not -1 degree.
        let signed = |value: u32| if value == u32::MAX { i32::MAX } else { value.cast_signed() };
        let value = reader.call(function, &[field], call).map(signed);
        reader.check_range(function.name, field, value, value_ranges::CELSIUS)
    };
    let now = "nvmlDeviceGetTemperature".into();
    let gpu_celsius = celsius(now, "temperature.gpu_celsius", &|| device.temperature(TemperatureSensor::Gpu));
    let mut threshold = |threshold: TemperatureThreshold, field| {
        let function = Function::of_product("nvmlDeviceGetTemperatureThreshold", field);
        celsius(function, field, &|| device.temperature_threshold(threshold))
    };
    let temperature = Temperature {
        gpu_celsius,
        slowdown_celsius: threshold(TemperatureThreshold::Slowdown, "temperature.slowdown_celsius"),
        shutdown_celsius: threshold(TemperatureThreshold::Shutdown, "temperature.shutdown_celsius"),
        gpu_max_celsius: threshold(TemperatureThreshold::GpuMax, "temperature.gpu_max_celsius"),
        memory_max_celsius: threshold(TemperatureThreshold::MemoryMax, "temperature.memory_max_celsius"),
        ..fields
    };
    const MARGIN: &str = "nvmlDeviceGetMarginTemperature";
    let field = "temperature.tlimit_margin_celsius";
    let margin = reader.call(MARGIN, &[field], || raw::margin_temperature(device));
    let margin = reader.check_range(MARGIN, field, margin, value_ranges::DEGREES);
    let to_slowdown = match (temperature.slowdown_celsius, temperature.gpu_celsius) {
        (Some(slowdown), Some(now)) => slowdown.checked_sub(now),
        // Both values are relative to the maximum operating temperature, and the slowdown limit is above that temperature.
        _ => {
            let slowdown = temperature.tlimit_thresholds.as_ref().and_then(|limits| limits.slowdown_celsius);
            margin.map(|margin| margin - slowdown.unwrap_or(0))
        }
    };
    Temperature { tlimit_margin_celsius: margin, margin_to_slowdown_celsius: to_slowdown, ..temperature }
}

fn power(device: &Device<'_>, reader: &mut DeviceReader<'_>, instant_milliwatts: Option<u32>) -> Power {
    let mut ask = |function, field, call: &dyn Fn() -> Result<u32, WrapperError>| {
        let value = reader.call(function, &[field], call);
        reader.check_range(function, field, value, value_ranges::MILLIWATTS)
    };
    let draw = ask("nvmlDeviceGetPowerUsage", "power.draw_milliwatts", &|| device.power_usage());
    let limit = ask("nvmlDeviceGetPowerManagementLimit", "power.limit_milliwatts", &|| device.power_management_limit());
    let enforced =
        ask("nvmlDeviceGetEnforcedPowerLimit", "power.enforced_limit_milliwatts", &|| device.enforced_power_limit());
    let default = ask("nvmlDeviceGetPowerManagementDefaultLimit", "power.default_limit_milliwatts", &|| {
        device.power_management_limit_default()
    });
    const RANGE: &str = "nvmlDeviceGetPowerManagementLimitConstraints";
    let range = reader.call(RANGE, &["power.min_limit_milliwatts", "power.max_limit_milliwatts"], || {
        device.power_management_limit_constraints()
    });
    let (least, most) = range.map(|range| (range.min_limit, range.max_limit)).unzip();
    const ENERGY: &str = "nvmlDeviceGetTotalEnergyConsumption";
    let energy = reader.call(ENERGY, &["power.energy_millijoules"], || device.total_energy_consumption());
    Power {
        draw_milliwatts: draw,
        instant_milliwatts,
        limit_milliwatts: limit,
        enforced_limit_milliwatts: enforced,
        default_limit_milliwatts: default,
        min_limit_milliwatts: reader.check_range(RANGE, "power.min_limit_milliwatts", least, value_ranges::MILLIWATTS),
        max_limit_milliwatts: reader.check_range(RANGE, "power.max_limit_milliwatts", most, value_ranges::MILLIWATTS),
        energy_millijoules: reader.check_range(ENERGY, "power.energy_millijoules", energy, value_ranges::COUNT),
        margin_to_limit_milliwatts: enforced.zip(draw).map(|(limit, draw)| i64::from(limit) - i64::from(draw)),
    }
}

fn clocks(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Clocks {
    let mut ask = |function: fn(&'static str) -> Function, field, call: &dyn Fn() -> Result<u32, WrapperError>| {
        let function = function(field);
        let value = reader.call(function, &[field], call);
        reader.check_range(function.name, field, value, value_ranges::MHZ)
    };
    let now = |_| "nvmlDeviceGetClockInfo".into();
    let max = |field| Function::of_product("nvmlDeviceGetMaxClockInfo", field);
    let application = |_| "nvmlDeviceGetApplicationsClock".into();
    Clocks {
        graphics_mhz: ask(now, "clocks.graphics_mhz", &|| device.clock_info(Clock::Graphics)),
        sm_mhz: ask(now, "clocks.sm_mhz", &|| device.clock_info(Clock::SM)),
        memory_mhz: ask(now, "clocks.memory_mhz", &|| device.clock_info(Clock::Memory)),
        video_mhz: ask(now, "clocks.video_mhz", &|| device.clock_info(Clock::Video)),
        max_graphics_mhz: ask(max, "clocks.max_graphics_mhz", &|| device.max_clock_info(Clock::Graphics)),
        max_sm_mhz: ask(max, "clocks.max_sm_mhz", &|| device.max_clock_info(Clock::SM)),
        max_memory_mhz: ask(max, "clocks.max_memory_mhz", &|| device.max_clock_info(Clock::Memory)),
        max_video_mhz: ask(max, "clocks.max_video_mhz", &|| device.max_clock_info(Clock::Video)),
        application_graphics_mhz: ask(application, "clocks.application_graphics_mhz", &|| {
            device.applications_clock(Clock::Graphics)
        }),
        application_memory_mhz: ask(application, "clocks.application_memory_mhz", &|| {
            device.applications_clock(Clock::Memory)
        }),
    }
}

fn utilization(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Utilization {
    const RATES: &str = "nvmlDeviceGetUtilizationRates";
    let fields = ["utilization.gpu_percent", "utilization.memory_percent"];
    let rates = reader.call(RATES, &fields, || device.utilization_rates());
    let (gpu, memory) = rates.map(|rates| (rates.gpu, rates.memory)).unzip();
    let mut engine = |function, field, call: &dyn Fn() -> Result<u32, NvmlError>| {
        let value = reader.call(function, &[field], call);
        reader.check_range(function, field, value, value_ranges::PERCENT)
    };
    let encoder = || device.encoder_utilization().map(|engine| engine.utilization).map_err(NvmlError::from);
    let decoder = || device.decoder_utilization().map(|engine| engine.utilization).map_err(NvmlError::from);
    Utilization {
        encoder_percent: engine("nvmlDeviceGetEncoderUtilization", "utilization.encoder_percent", &encoder),
        decoder_percent: engine("nvmlDeviceGetDecoderUtilization", "utilization.decoder_percent", &decoder),
        jpeg_percent: engine("nvmlDeviceGetJpgUtilization", "utilization.jpeg_percent", &|| {
            raw::jpeg_utilization(device)
        }),
        ofa_percent: engine("nvmlDeviceGetOfaUtilization", "utilization.ofa_percent", &|| raw::ofa_utilization(device)),
        gpu_percent: reader.check_range(RATES, fields[0], gpu, value_ranges::PERCENT),
        memory_percent: reader.check_range(RATES, fields[1], memory, value_ranges::PERCENT),
    }
}

fn memory(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> MemoryUse {
    const MEMORY: &str = "nvmlDeviceGetMemoryInfo_v2";
    let fields = ["memory.total_bytes", "memory.reserved_bytes", "memory.used_bytes", "memory.free_bytes"];
    let memory = reader.call(Function::of_gpu(MEMORY), &fields, || raw::memory(device));
    if memory.as_ref().is_some_and(|memory| memory.reserved.is_none()) {
        reader.note_unsupported(&["memory.reserved_bytes"]);
    }
    let fields = ["memory.bar1_total_bytes", "memory.bar1_used_bytes"];
    const BAR1: &str = "nvmlDeviceGetBAR1MemoryInfo";
    let bar1 = reader.call(Function::of_gpu(BAR1), &fields, || device.bar1_memory_info());
    let total = memory.as_ref().map(|memory| memory.total);
    let total = reader.check_range(MEMORY, "memory.total_bytes", total, value_ranges::COUNT);
    let bar1_total = bar1.as_ref().map(|bar1| bar1.total);
    let bar1_total = reader.check_range(BAR1, "memory.bar1_total_bytes", bar1_total, value_ranges::COUNT);
    // No part can be larger than the total.
    let mut part = |field, bytes| reader.check_range(MEMORY, field, bytes, 0..=total.unwrap_or(0));
    MemoryUse {
        total_bytes: total,
        reserved_bytes: part("memory.reserved_bytes", memory.as_ref().and_then(|memory| memory.reserved)),
        used_bytes: part("memory.used_bytes", memory.as_ref().map(|memory| memory.used)),
        free_bytes: part("memory.free_bytes", memory.as_ref().map(|memory| memory.free)),
        bar1_total_bytes: bar1_total,
        bar1_used_bytes: reader.check_range(
            BAR1,
            "memory.bar1_used_bytes",
            bar1.as_ref().map(|bar1| bar1.used),
            0..=bar1_total.unwrap_or(0),
        ),
    }
}

fn pcie(device: &Device<'_>, reader: &mut DeviceReader<'_>, replay_rollovers: Option<u64>) -> PcieLink {
    let mut ask = |function, field, possible, call: &dyn Fn() -> Result<u32, WrapperError>| {
        let value = reader.call(Function::of_gpu(function), &[field], call);
        reader.check_range(function, field, value, possible)
    };
    let (generations, lanes) = (value_ranges::PCIE_GENERATION, value_ranges::PCIE_LANES);
    PcieLink {
        generation: ask("nvmlDeviceGetCurrPcieLinkGeneration", "pcie.generation", generations.clone(), &|| {
            device.current_pcie_link_gen()
        }),
        width: ask("nvmlDeviceGetCurrPcieLinkWidth", "pcie.width", lanes.clone(), &|| device.current_pcie_link_width()),
        max_generation: ask("nvmlDeviceGetMaxPcieLinkGeneration", "pcie.max_generation", generations, &|| {
            device.max_pcie_link_gen()
        }),
        max_width: ask("nvmlDeviceGetMaxPcieLinkWidth", "pcie.max_width", lanes, &|| device.max_pcie_link_width()),
        replays: ask("nvmlDeviceGetPcieReplayCounter", "pcie.replays", value_ranges::SMALL_COUNT, &|| {
            device.pcie_replay_counter()
        })
        .map(u64::from),
        replay_rollovers,
        errors: pcie_errors(device, reader),
    }
}

/// Error counters of the PCIe link: field ID and name in the report.
const PCIE_ERRORS: [(u32, &str); 12] = [
    (169, "recoveries"),
    (173, "correctable"),
    (174, "naks_received"),
    (175, "receiver_error"),
    (176, "bad_tlp"),
    (177, "naks_sent"),
    (178, "bad_dllp"),
    (179, "nonfatal"),
    (180, "fatal"),
    (181, "unsupported_request"),
    (182, "lcrc"),
    (183, "lane_error"),
];

/// Returns the error counters of the PCIe link that are not zero. Drivers and products lack some of them.
fn pcie_errors(device: &Device<'_>, reader: &DeviceReader<'_>) -> BTreeMap<String, u64> {
    let answers = field_values::answers_of_gpu(device, reader, PCIE_ERRORS.map(|(id, _)| id));
    let count = |((_, name), answer): (&(u32, &str), Result<i128, NvmlError>)| {
        let count = u64::try_from(answer.ok()?).ok()?;
        // A value with all bits set is NVML's "not available".
        let is_count = count > 0 && count != u64::MAX && count != u64::from(u32::MAX);
        is_count.then(|| ((*name).to_owned(), count))
    };
    PCIE_ERRORS.iter().zip(answers).filter_map(count).collect()
}

fn throttling(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Throttling {
    let mask = reasons_mask(device, reader);
    let (active, reasons) = mask.map(enum_names::clock_reasons).unzip();
    Throttling {
        active,
        reasons: reasons.unwrap_or_default(),
        reasons_mask: mask,
        violations: violations(device, reader),
    }
}

fn reasons_mask(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Option<u64> {
    const FUNCTION: &str = "nvmlDeviceGetCurrentClocksEventReasons";
    let fields = ["throttling.active", "throttling.reasons_mask"];
    match reader.try_call(FUNCTION, || raw::clocks_event_reasons(device)) {
        // Drivers before R535 have this function under its old name. The bits are the same.
        Err(NvmlError::MissingFunction) => {
            reader.call("nvmlDeviceGetCurrentClocksThrottleReasons", &fields, || raw::clocks_throttle_reasons(device))
        }
        Ok(u64::MAX) => {
            reader.note_failure(FUNCTION, &NvmlError::impossible(u64::MAX), &fields);
            None
        }
        Ok(mask) => Some(mask),
        Err(error) => {
            reader.note_error(FUNCTION, &error, &fields);
            None
        }
    }
}

/// Returns the time under each policy, if not zero.
fn violations(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Vec<Violation> {
    let times = throttled_time::times(device, reader).into_iter();
    let violations = times.map(|(policy, nanoseconds)| Violation {
        policy: policy.to_owned(),
        duration_ms: nanoseconds / NANOSECONDS_PER_MILLISECOND,
    });
    violations.filter(|violation| violation.duration_ms > 0).collect()
}
