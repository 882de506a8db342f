//! The types of the `telemetry` section: temperature, power, clocks, throttling, utilization, memory, PCIe link.
//!
//! Source: NVML.

use std::collections::BTreeMap;

use syringe_macros::facts;

use super::rates::Sample;
use super::{LostGpu, Unread, Unsupported, availability_of};
use crate::pci::PciAddress;

/// One reading of every GPU.
#[facts(omit(Vec, !gpus))]
pub struct Telemetry {
    /// One entry per GPU, in NVML's order.
    pub gpus: Vec<GpuTelemetry>,
    /// Fields that the driver does not support.
    pub unsupported: Vec<Unsupported>,
    /// Fields that could not be read.
    pub unread: Vec<Unread>,
    /// GPUs that do not respond, or no longer respond.
    pub lost: Vec<LostGpu>,
}

availability_of!(Telemetry);

/// Current values of one GPU.
#[facts(omit(sample))]
pub struct GpuTelemetry {
    /// NVML index.
    pub index: u32,
    /// UUID.
    pub uuid: Option<String>,
    /// PCI address.
    pub pci_address: Option<PciAddress>,
    /// Performance state: 0 is the fastest, 15 the slowest.
    pub performance_state: Option<u32>,
    /// Temperatures and their limits.
    pub temperature: Temperature,
    /// Fan speed; `None` on passively cooled boards.
    pub fan_percent: Option<u32>,
    /// Power draw and limits.
    pub power: Power,
    /// Clocks.
    pub clocks: Clocks,
    /// Utilization over the last sample period of the driver.
    pub utilization: Utilization,
    /// GPU memory and BAR1 memory in use.
    pub memory: MemoryUse,
    /// Current PCIe link.
    pub pcie: PcieLink,
    /// Reasons why the clocks are reduced.
    pub throttling: Throttling,
    /// Growth of the counters between two readings; `None` if all counters are zero, or nothing was read twice.
    pub sample: Option<Sample>,
}

/// Temperatures.
#[facts(omit(tlimit_thresholds))]
pub struct Temperature {
    /// Temperature of the GPU core.
    pub gpu_celsius: Option<i32>,
    /// HBM temperature (field 82).
    pub memory_celsius: Option<i32>,
    /// The hardware slows down at this temperature.
    pub slowdown_celsius: Option<i32>,
    /// The hardware shuts down at this temperature.
    pub shutdown_celsius: Option<i32>,
    /// Highest operating temperature of the GPU.
    pub gpu_max_celsius: Option<i32>,
    /// Highest operating temperature of the memory.
    pub memory_max_celsius: Option<i32>,
    /// Margin to the highest operating temperature, as reported by the driver (`nvmlDeviceGetMarginTemperature`, R570 and
    /// later; `T.Limit` in nvidia-smi). The margin decreases as the GPU warms up.
    pub tlimit_margin_celsius: Option<i32>,
    /// Thresholds on the `T.Limit` scale (Ada and later). On these GPUs, they replace the limits in degrees Celsius.
    pub tlimit_thresholds: Option<TlimitThresholds>,
    /// Computed: `slowdown_celsius - gpu_celsius`. If the driver supports only `T.Limit`: `tlimit_margin_celsius` minus
    /// the slowdown threshold, or only the margin if that threshold is unknown.
    pub margin_to_slowdown_celsius: Option<i32>,
}

/// Thresholds on the `T.Limit` scale. They are constants of the board, not margins. The scale decreases as the GPU warms
/// up and is 0 at the highest operating temperature. Thresholds above that temperature are negative.
#[facts(omit(Option))]
pub struct TlimitThresholds {
    /// Threshold at which the hardware shuts down (field 193), e.g. -8.
    pub shutdown_celsius: Option<i32>,
    /// Threshold at which the hardware slows down (field 194), e.g. -2.
    pub slowdown_celsius: Option<i32>,
    /// Highest operating temperature of the memory (field 195).
    pub memory_max_celsius: Option<i32>,
    /// Highest operating temperature of the GPU (field 196), e.g. 0.
    pub gpu_max_celsius: Option<i32>,
}

/// Power.
#[facts]
pub struct Power {
    /// Power draw (`nvmlDeviceGetPowerUsage`): the average over one second on Ampere (except GA100) and later, otherwise
    /// the current value.
    pub draw_milliwatts: Option<u32>,
    /// Current power draw (field 186).
    pub instant_milliwatts: Option<u32>,
    /// Limit set by an administrator.
    pub limit_milliwatts: Option<u32>,
    /// The lowest of all limits that are in effect.
    pub enforced_limit_milliwatts: Option<u32>,
    /// Default limit.
    pub default_limit_milliwatts: Option<u32>,
    /// Lowest limit that can be set.
    pub min_limit_milliwatts: Option<u32>,
    /// Highest limit that can be set.
    pub max_limit_milliwatts: Option<u32>,
    /// Energy that the GPU used since the driver was loaded.
    pub energy_millijoules: Option<u64>,
    /// Computed: enforced limit minus power draw.
    pub margin_to_limit_milliwatts: Option<i64>,
}

/// Clocks: current and maximum.
#[facts]
pub struct Clocks {
    /// Current graphics clock.
    pub graphics_mhz: Option<u32>,
    /// Current SM clock.
    pub sm_mhz: Option<u32>,
    /// Current memory clock.
    pub memory_mhz: Option<u32>,
    /// Current video clock.
    pub video_mhz: Option<u32>,
    /// Maximum graphics clock.
    pub max_graphics_mhz: Option<u32>,
    /// Maximum SM clock.
    pub max_sm_mhz: Option<u32>,
    /// Maximum memory clock.
    pub max_memory_mhz: Option<u32>,
    /// Maximum video clock.
    pub max_video_mhz: Option<u32>,
    /// Application clock for graphics, if it can be set.
    pub application_graphics_mhz: Option<u32>,
    /// Application clock for memory, if it can be set.
    pub application_memory_mhz: Option<u32>,
}

/// Utilization. Not supported on a GPU with MIG enabled.
#[facts]
pub struct Utilization {
    /// Percentage of time in which a kernel was running.
    pub gpu_percent: Option<u32>,
    /// Percentage of time in which the memory was read or written.
    pub memory_percent: Option<u32>,
    /// Utilization of the encoder.
    pub encoder_percent: Option<u32>,
    /// Utilization of the decoder.
    pub decoder_percent: Option<u32>,
    /// Utilization of the JPEG engine.
    pub jpeg_percent: Option<u32>,
    /// Utilization of the optical flow engine.
    pub ofa_percent: Option<u32>,
}

/// Memory in use.
#[facts]
pub struct MemoryUse {
    /// Total GPU memory.
    pub total_bytes: Option<u64>,
    /// GPU memory that is reserved for the driver.
    pub reserved_bytes: Option<u64>,
    /// GPU memory in use by processes.
    pub used_bytes: Option<u64>,
    /// Free GPU memory.
    pub free_bytes: Option<u64>,
    /// Size of the BAR1 aperture.
    pub bar1_total_bytes: Option<u64>,
    /// BAR1 memory in use.
    pub bar1_used_bytes: Option<u64>,
}

/// The PCIe link. An idle GPU reduces the PCIe generation. The width of a healthy link does not change.
#[facts(omit(errors))]
pub struct PcieLink {
    /// Current generation.
    pub generation: Option<u32>,
    /// Current number of lanes.
    pub width: Option<u32>,
    /// Highest PCIe generation that both the GPU and the slot support.
    pub max_generation: Option<u32>,
    /// Number of PCIe lanes that both the GPU and the slot support.
    pub max_width: Option<u32>,
    /// Number of PCIe replays since the driver was loaded.
    pub replays: Option<u64>,
    /// Number of rollovers of the PCIe replay counter.
    pub replay_rollovers: Option<u64>,
    /// Error counters of the GPU that are not zero, since the driver was loaded (fields 169 and 173 to 183): `correctable`,
    /// `naks_received`, `receiver_error`, `bad_tlp`, `naks_sent`, `bad_dllp`, `nonfatal`, `fatal`,
    /// `unsupported_request`, `lcrc`, `lane_error`, `recoveries` (normal when an idle link saves power).
    pub errors: BTreeMap<String, u64>,
}

/// Clock event reasons (`nvmlDeviceGetCurrentClocksEventReasons`).
#[facts(omit(violations))]
pub struct Throttling {
    /// Whether the clocks are reduced because of a fault: hardware slowdown, thermal slowdown or power brake. Reduced
    /// clocks of an idle GPU, because of a setting or at a power cap are not a fault. `None` if the driver does not
    /// report the reasons.
    pub active: Option<bool>,
    /// All reasons for reduced clocks as texts. Faults come first.
    pub reasons: Vec<String>,
    /// Bit mask of the driver.
    pub reasons_mask: Option<u64>,
    /// Time for which each reason reduced the clocks since the driver was loaded, if the driver counts it
    /// (`nvmlDeviceGetViolationStatus`; fields 251 to 253 of R570 and R575, 269 to 271 since R590). The list is also
    /// empty if the times could not be read: see [`Telemetry::availability`].
    pub violations: Vec<Violation>,
}

/// Time for which one policy reduced the clocks since the driver was loaded. A time of zero is omitted.
#[facts]
pub struct Violation {
    /// Name of the policy: `power`, `thermal`, `sync_boost`, `board_limit`, `low_utilization` or `reliability`; from fields
    /// `software_thermal`, `hardware_thermal` and `power_brake`.
    pub policy: String,
    /// Time with reduced clocks.
    pub duration_ms: u64,
}
