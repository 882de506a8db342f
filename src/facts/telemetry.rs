//! The `telemetry` section: what the GPUs do at this moment. Source: NVML.

use serde::{Deserialize, Serialize};

use super::{LostGpu, Unread, Unsupported, availability_of};
use crate::pci::PciAddress;

/// One reading of every GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Telemetry {
    /// One entry per GPU, in NVML's order.
    pub gpus: Vec<GpuTelemetry>,
    /// Fields that the driver does not offer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unsupported: Vec<Unsupported>,
    /// Fields that could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
    /// GPUs that answer nothing, or nothing any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostGpu>,
}

availability_of!(Telemetry);

/// One GPU now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
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
    /// Utilization over the driver's last sample period.
    pub utilization: Utilization,
    /// Frame buffer and BAR1 in use.
    pub memory: MemoryUse,
    /// The PCIe link now.
    pub pcie: PcieLink,
    /// What holds the clocks down, in words.
    pub throttling: Throttling,
}

/// Temperatures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Temperature {
    /// GPU core.
    pub gpu_celsius: Option<i32>,
    /// HBM (field 82).
    pub memory_celsius: Option<i32>,
    /// The hardware slows down at this temperature.
    pub slowdown_celsius: Option<i32>,
    /// The hardware shuts down at this temperature.
    pub shutdown_celsius: Option<i32>,
    /// Highest operating temperature of the GPU.
    pub gpu_max_celsius: Option<i32>,
    /// Highest operating temperature of the memory.
    pub memory_max_celsius: Option<i32>,
    /// Distance to the highest operating temperature as the driver reports it (`nvmlDeviceGetMarginTemperature`, R570 on;
    /// `T.Limit` of nvidia-smi). It falls as the GPU warms up.
    pub tlimit_margin_celsius: Option<i32>,
    /// Limits that the margin is counted with (Ada on, in place of the limits in degrees above).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlimit_thresholds: Option<TlimitThresholds>,
    /// Computed: `slowdown_celsius - gpu_celsius`; where the driver offers only `T.Limit`, `tlimit_margin_celsius` less the slowdown's
    /// `T.Limit`, or the margin alone where that is not known either.
    pub margin_to_slowdown_celsius: Option<i32>,
}

/// Places of the limits on the scale of `T.Limit`: constants of the board, no margins. The scale falls as the GPU warms up
/// and is 0 at the highest operating temperature, so that limits beyond it are negative.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TlimitThresholds {
    /// The hardware shuts down (field 193), e.g. -8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_celsius: Option<i32>,
    /// The hardware slows down (field 194), e.g. -2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowdown_celsius: Option<i32>,
    /// Highest operating temperature of the memory (field 195).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max_celsius: Option<i32>,
    /// Highest operating temperature of the GPU (field 196), e.g. 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_max_celsius: Option<i32>,
}

/// Power.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Power {
    /// Draw (`nvmlDeviceGetPowerUsage`: averaged over a second on Ampere except GA100 and newer, else instant).
    pub draw_milliwatts: Option<u32>,
    /// Instant draw (field 186).
    pub instant_milliwatts: Option<u32>,
    /// Limit set by an administrator.
    pub limit_milliwatts: Option<u32>,
    /// The lowest of all limits in force.
    pub enforced_limit_milliwatts: Option<u32>,
    /// Limit from the factory.
    pub default_limit_milliwatts: Option<u32>,
    /// Lowest limit that can be set.
    pub min_limit_milliwatts: Option<u32>,
    /// Highest limit that can be set.
    pub max_limit_milliwatts: Option<u32>,
    /// Energy since the driver was loaded.
    pub energy_millijoules: Option<u64>,
    /// Computed: enforced limit minus draw.
    pub margin_to_limit_milliwatts: Option<i64>,
}

/// Clocks: now, and the highest possible.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Clocks {
    /// Graphics clock now.
    pub graphics_mhz: Option<u32>,
    /// SM clock now.
    pub sm_mhz: Option<u32>,
    /// Memory clock now.
    pub memory_mhz: Option<u32>,
    /// Video clock now.
    pub video_mhz: Option<u32>,
    /// Highest graphics clock.
    pub max_graphics_mhz: Option<u32>,
    /// Highest SM clock.
    pub max_sm_mhz: Option<u32>,
    /// Highest memory clock.
    pub max_memory_mhz: Option<u32>,
    /// Highest video clock.
    pub max_video_mhz: Option<u32>,
    /// Application clock for graphics, where one can be set.
    pub application_graphics_mhz: Option<u32>,
    /// Application clock for memory, where one can be set.
    pub application_memory_mhz: Option<u32>,
}

/// Utilization. Not offered on a GPU whose MIG mode is on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Utilization {
    /// Share of time in which a kernel ran.
    pub gpu_percent: Option<u32>,
    /// Share of time in which the memory was read or written.
    pub memory_percent: Option<u32>,
    /// Encoder.
    pub encoder_percent: Option<u32>,
    /// Decoder.
    pub decoder_percent: Option<u32>,
    /// JPEG engine.
    pub jpeg_percent: Option<u32>,
    /// Optical flow engine.
    pub ofa_percent: Option<u32>,
}

/// Memory in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct MemoryUse {
    /// Frame buffer.
    pub total_bytes: Option<u64>,
    /// Kept by the driver.
    pub reserved_bytes: Option<u64>,
    /// In use by processes.
    pub used_bytes: Option<u64>,
    /// Free.
    pub free_bytes: Option<u64>,
    /// BAR1 aperture.
    pub bar1_total_bytes: Option<u64>,
    /// BAR1 in use.
    pub bar1_used_bytes: Option<u64>,
}

/// The PCIe link. An idle GPU lowers its generation; its width never changes in health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PcieLink {
    /// Generation now.
    pub generation: Option<u32>,
    /// Lanes now.
    pub width: Option<u32>,
    /// Highest generation of GPU and slot together.
    pub max_generation: Option<u32>,
    /// Most lanes of GPU and slot together.
    pub max_width: Option<u32>,
    /// Replays since the driver was loaded.
    pub replays: Option<u64>,
    /// Times that the replay counter's number wrapped.
    pub replay_rollovers: Option<u64>,
}

/// Clock event reasons (`nvmlDeviceGetCurrentClocksEventReasons`), read for a person.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Throttling {
    /// Whether something fault-like holds the clocks down: hardware slowdown, thermal slowdown, power brake. A power cap at
    /// full load, idleness or a setting is a reason, but no throttling. `None` where the driver does not say.
    pub active: Option<bool>,
    /// All reasons in words, the fault-like first.
    pub reasons: Vec<String>,
    /// The driver's bit mask.
    pub reasons_mask: Option<u64>,
    /// Time spent under each reason since the driver was loaded, where it counts it (`nvmlDeviceGetViolationStatus`).
    /// Empty also where it could not be read: see [`Telemetry::availability`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
}

/// Time under one policy since the driver was loaded. Zero is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Violation {
    /// `power`, `thermal`, `sync_boost`, `board_limit`, `low_utilization`, `reliability`.
    pub policy: String,
    /// Time held down.
    pub duration_ms: u64,
}
