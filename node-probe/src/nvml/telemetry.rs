//! The `telemetry` section: what the GPUs do at this moment.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, PerformancePolicy, TemperatureSensor, TemperatureThreshold};
use nvml_wrapper::error::NvmlError;
use syringe_core::facts::telemetry::{
    Clocks, GpuTelemetry, MemoryUse, PcieLink, Power, Telemetry, Temperature, Throttling, Utilization, Violation,
};
use syringe_core::report::Section;

use super::errors::Refusal;
use super::missing::Asker;
use super::session::{Identity, Session, fit};
use super::{fields, raw, words};

/// `NVML_PSTATE_UNKNOWN`.
const PSTATE_UNKNOWN: u32 = 32;
const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// Policies of `nvmlDeviceGetViolationStatus` that hold clocks down, and their words in the report.
const POLICIES: &[(PerformancePolicy, &str)] = &[
    (PerformancePolicy::Power, "power"),
    (PerformancePolicy::Thermal, "thermal"),
    (PerformancePolicy::SyncBoost, "sync_boost"),
    (PerformancePolicy::BoardLimit, "board_limit"),
    (PerformancePolicy::LowUtilization, "low_utilization"),
    (PerformancePolicy::Reliability, "reliability"),
];

impl Session {
    /// Takes one reading of every GPU.
    pub fn telemetry(&self) -> Section<Telemetry> {
        let (gpus, missing) = self.each(entry, read);
        Section::read(Telemetry { gpus, unsupported: missing.unsupported }, missing.problems)
    }
}

fn entry(gpu: Identity) -> GpuTelemetry {
    let Identity { index, uuid, pci_address } = gpu;
    GpuTelemetry { index, uuid, pci_address, ..GpuTelemetry::default() }
}

fn read(device: &Device<'_>, asker: &mut Asker<'_>, gpu: &mut GpuTelemetry) {
    gpu.performance_state = asker
        .ask("nvmlDeviceGetPerformanceState", &["performance_state"], || raw::performance_state(device))
        .filter(|state| *state != PSTATE_UNKNOWN);
    // One call for what NVML offers by number only.
    let [memory_celsius, instant, rollovers] = fields::of_gpu(
        device,
        asker,
        [
            (fields::MEMORY_TEMPERATURE, "temperature.memory_celsius"),
            (fields::POWER_INSTANT, "power.instant_milliwatts"),
            (fields::PCIE_REPLAY_ROLLOVERS, "pcie.replay_rollovers"),
        ],
    );
    gpu.temperature = temperature(device, asker, fit(memory_celsius));
    gpu.fan_percent = asker.ask("nvmlDeviceGetFanSpeed_v2", &["fan_percent"], || device.fan_speed(0));
    gpu.power = power(device, asker, fit(instant));
    gpu.clocks = clocks(device, asker);
    gpu.utilization = utilization(device, asker);
    gpu.memory = memory(device, asker);
    gpu.pcie = pcie(device, asker, fit(rollovers));
    gpu.throttling = throttling(device, asker);
}

fn temperature(device: &Device<'_>, asker: &mut Asker<'_>, memory_celsius: Option<i32>) -> Temperature {
    let now = asker
        .ask("nvmlDeviceGetTemperature", &["temperature.gpu_celsius"], || device.temperature(TemperatureSensor::Gpu));
    let mut threshold = |threshold, field| {
        let value =
            asker.ask("nvmlDeviceGetTemperatureThreshold", &[field], || device.temperature_threshold(threshold));
        value.map(u32::cast_signed)
    };
    let mut temperature = Temperature {
        gpu_celsius: now.map(u32::cast_signed),
        memory_celsius,
        slowdown_celsius: threshold(TemperatureThreshold::Slowdown, "temperature.slowdown_celsius"),
        shutdown_celsius: threshold(TemperatureThreshold::Shutdown, "temperature.shutdown_celsius"),
        gpu_max_celsius: threshold(TemperatureThreshold::GpuMax, "temperature.gpu_max_celsius"),
        memory_max_celsius: threshold(TemperatureThreshold::MemoryMax, "temperature.memory_max_celsius"),
        tlimit_margin_celsius: None,
        margin_to_slowdown_celsius: None,
    };
    temperature.tlimit_margin_celsius =
        asker.ask("nvmlDeviceGetMarginTemperature", &["temperature.tlimit_margin_celsius"], || {
            raw::margin_temperature(device)
        });
    temperature.margin_to_slowdown_celsius = match (temperature.slowdown_celsius, temperature.gpu_celsius) {
        (Some(slowdown), Some(now)) => slowdown.checked_sub(now),
        _ => temperature.tlimit_margin_celsius,
    };
    temperature
}

fn power(device: &Device<'_>, asker: &mut Asker<'_>, instant_milliwatts: Option<u32>) -> Power {
    let draw = asker.ask("nvmlDeviceGetPowerUsage", &["power.draw_milliwatts"], || device.power_usage());
    let limit =
        asker.ask("nvmlDeviceGetPowerManagementLimit", &["power.limit_milliwatts"], || device.power_management_limit());
    let enforced = asker
        .ask("nvmlDeviceGetEnforcedPowerLimit", &["power.enforced_limit_milliwatts"], || device.enforced_power_limit());
    let default = asker.ask("nvmlDeviceGetPowerManagementDefaultLimit", &["power.default_limit_milliwatts"], || {
        device.power_management_limit_default()
    });
    let range = asker.ask(
        "nvmlDeviceGetPowerManagementLimitConstraints",
        &["power.min_limit_milliwatts", "power.max_limit_milliwatts"],
        || device.power_management_limit_constraints(),
    );
    let energy = asker.ask("nvmlDeviceGetTotalEnergyConsumption", &["power.energy_millijoules"], || {
        device.total_energy_consumption()
    });
    Power {
        draw_milliwatts: draw,
        instant_milliwatts,
        limit_milliwatts: limit,
        enforced_limit_milliwatts: enforced,
        default_limit_milliwatts: default,
        min_limit_milliwatts: range.as_ref().map(|range| range.min_limit),
        max_limit_milliwatts: range.as_ref().map(|range| range.max_limit),
        energy_millijoules: energy,
        margin_to_limit_milliwatts: enforced.zip(draw).map(|(limit, draw)| i64::from(limit) - i64::from(draw)),
    }
}

fn clocks(device: &Device<'_>, asker: &mut Asker<'_>) -> Clocks {
    let mut ask = |function, field, call: &dyn Fn() -> Result<u32, NvmlError>| asker.ask(function, &[field], call);
    let now = "nvmlDeviceGetClockInfo";
    let max = "nvmlDeviceGetMaxClockInfo";
    let application = "nvmlDeviceGetApplicationsClock";
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

fn utilization(device: &Device<'_>, asker: &mut Asker<'_>) -> Utilization {
    let rates =
        asker.ask("nvmlDeviceGetUtilizationRates", &["utilization.gpu_percent", "utilization.memory_percent"], || {
            device.utilization_rates()
        });
    let encoder =
        asker.ask("nvmlDeviceGetEncoderUtilization", &["utilization.encoder_percent"], || device.encoder_utilization());
    let decoder =
        asker.ask("nvmlDeviceGetDecoderUtilization", &["utilization.decoder_percent"], || device.decoder_utilization());
    Utilization {
        gpu_percent: rates.as_ref().map(|rates| rates.gpu),
        memory_percent: rates.as_ref().map(|rates| rates.memory),
        encoder_percent: encoder.map(|engine| engine.utilization),
        decoder_percent: decoder.map(|engine| engine.utilization),
        jpeg_percent: asker
            .ask("nvmlDeviceGetJpgUtilization", &["utilization.jpeg_percent"], || raw::jpeg_utilization(device)),
        ofa_percent: asker
            .ask("nvmlDeviceGetOfaUtilization", &["utilization.ofa_percent"], || raw::ofa_utilization(device)),
    }
}

fn memory(device: &Device<'_>, asker: &mut Asker<'_>) -> MemoryUse {
    let fields = ["memory.total_bytes", "memory.reserved_bytes", "memory.used_bytes", "memory.free_bytes"];
    let memory = asker.ask("nvmlDeviceGetMemoryInfo_v2", &fields, || raw::memory(device));
    if memory.as_ref().is_some_and(|memory| memory.reserved.is_none()) {
        asker.note(&Refusal::MissingFunction, &["memory.reserved_bytes"]);
    }
    let fields = ["memory.bar1_total_bytes", "memory.bar1_used_bytes"];
    let bar1 = asker.ask("nvmlDeviceGetBAR1MemoryInfo", &fields, || device.bar1_memory_info());
    MemoryUse {
        total_bytes: memory.as_ref().map(|memory| memory.total),
        reserved_bytes: memory.as_ref().and_then(|memory| memory.reserved),
        used_bytes: memory.as_ref().map(|memory| memory.used),
        free_bytes: memory.as_ref().map(|memory| memory.free),
        bar1_total_bytes: bar1.as_ref().map(|bar1| bar1.total),
        bar1_used_bytes: bar1.as_ref().map(|bar1| bar1.used),
    }
}

fn pcie(device: &Device<'_>, asker: &mut Asker<'_>, replay_rollovers: Option<u64>) -> PcieLink {
    let mut ask = |function, field, call: &dyn Fn() -> Result<u32, NvmlError>| asker.ask(function, &[field], call);
    PcieLink {
        generation: ask("nvmlDeviceGetCurrPcieLinkGeneration", "pcie.generation", &|| device.current_pcie_link_gen()),
        width: ask("nvmlDeviceGetCurrPcieLinkWidth", "pcie.width", &|| device.current_pcie_link_width()),
        max_generation: ask("nvmlDeviceGetMaxPcieLinkGeneration", "pcie.max_generation", &|| {
            device.max_pcie_link_gen()
        }),
        max_width: ask("nvmlDeviceGetMaxPcieLinkWidth", "pcie.max_width", &|| device.max_pcie_link_width()),
        replays: ask("nvmlDeviceGetPcieReplayCounter", "pcie.replays", &|| device.pcie_replay_counter()).map(u64::from),
        replay_rollovers,
    }
}

fn throttling(device: &Device<'_>, asker: &mut Asker<'_>) -> Throttling {
    let fields = ["throttling.active", "throttling.reasons_mask"];
    let mask = match asker.attempt("nvmlDeviceGetCurrentClocksEventReasons", || raw::clocks_event_reasons(device)) {
        // The name before R535; the bits are the same.
        Err(Refusal::MissingFunction) => {
            asker.ask("nvmlDeviceGetCurrentClocksThrottleReasons", &fields, || raw::clocks_throttle_reasons(device))
        }
        Ok(mask) => Some(mask),
        Err(refusal) => {
            asker.note(&refusal, &fields);
            None
        }
    };
    let (active, reasons) = mask.map(words::clock_reasons).unzip();
    Throttling {
        active,
        reasons: reasons.unwrap_or_default(),
        reasons_mask: mask,
        violations: violations(device, asker),
    }
}

/// Time under each policy, where it is not zero. Drivers count some policies only, which is no news.
fn violations(device: &Device<'_>, asker: &Asker<'_>) -> Vec<Violation> {
    let time = |(policy, word): &(PerformancePolicy, &str)| {
        let time = asker.quietly("nvmlDeviceGetViolationStatus", || device.violation_status(*policy))?;
        let duration_ms = time.violation_time / NANOSECONDS_PER_MILLISECOND;
        (duration_ms > 0).then(|| Violation { policy: (*word).to_owned(), duration_ms })
    };
    POLICIES.iter().filter_map(time).collect()
}
