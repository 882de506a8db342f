//! `Load`: the work of a GPU (`training`, `serving`, `idle`), and the effect of the work on the telemetry.

use syringe_core::facts::clock_events::{FAULTS, POWER_CAP, REASONS};
use syringe_core::facts::telemetry::{GpuTelemetry, Violation};

pub(crate) const MIB: u64 = 1 << 20;

/// The bit of the clock event reason `idle`.
const IDLE: u64 = 0x1;

/// The work of a GPU at the time of the report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// Utilization of the GPU in percent. 0 means idle.
    pub(crate) gpu: u32,
    /// Utilization of the memory in percent.
    pub(crate) memory: u32,
    /// Fraction of the memory that is used.
    pub(crate) used: f64,
    pub(crate) watts: u32,
    pub(crate) degrees: i32,
    /// Graphics clock. The default is the maximum clock.
    pub(crate) mhz: Option<u32>,
    /// Mask of the clock event reasons. By default, the mask is computed from the power.
    pub(crate) reasons: Option<u64>,
    /// Time at the power limit since the driver was loaded.
    pub(crate) capped_ms: u64,
}

/// Returns the load of a training job at the power limit.
pub(crate) fn training(index: u32) -> Load {
    Load {
        gpu: 100 - index % 2,
        memory: 58 + index,
        used: 0.991 - 0.0004 * f64::from(index),
        watts: 662 + 5 * index,
        degrees: 58 + (3 * index as i32) % 8,
        mhz: Some(1830 - 15 * (index % 4)),
        reasons: None,
        capped_ms: 8_640_000 + 71_300 * u64::from(index),
    }
}

/// Returns the load of an inference server.
pub(crate) fn serving(index: u32) -> Load {
    Load {
        gpu: 71 + 3 * index,
        memory: 38 + 2 * index,
        used: 0.87 + 0.004 * f64::from(index),
        watts: 281 + 9 * index,
        degrees: 49 + (5 * index as i32) % 9,
        mhz: Some(1410),
        reasons: None,
        capped_ms: 12_400 + 370 * u64::from(index),
    }
}

/// Returns the load of a GPU without work.
pub(crate) fn idle(index: u32) -> Load {
    Load { used: 0.0001, watts: 72 + index, degrees: 31 + index as i32, ..Load::default() }
}

impl Load {
    /// Returns the used memory of a GPU, in whole MiB.
    pub(crate) fn used_bytes(&self, gpu: &GpuTelemetry) -> u64 {
        let memory = &gpu.memory;
        let usable = memory.total_bytes.unwrap_or_default() - memory.reserved_bytes.unwrap_or_default();
        (usable as f64 * self.used) as u64 / MIB * MIB
    }

    /// Writes the values of this load. `product`: the name of the GPU product. `uptime`: the uptime of the node in seconds.
    pub(crate) fn write(&self, gpu: &mut GpuTelemetry, product: &str, uptime: u64) {
        let index = gpu.index;
        let is_busy = self.gpu > 0;
        let has_hbm = gpu.temperature.memory_celsius.is_some();
        gpu.performance_state = Some(if is_busy || has_hbm { 0 } else { 8 });

        let now = &mut gpu.temperature;
        // The scale of T.Limit is 0 at the highest operating temperature.
        let zero = now.tlimit_margin_celsius.zip(now.gpu_celsius).map(|(margin, degrees)| margin + degrees);
        now.gpu_celsius = Some(self.degrees);
        now.memory_celsius = now.memory_celsius.map(|_| self.degrees + 9 + index as i32 % 3);
        now.tlimit_margin_celsius = zero.map(|zero| zero - self.degrees);
        let threshold = now.tlimit_thresholds.as_ref().and_then(|thresholds| thresholds.slowdown_celsius);
        let beyond = now.tlimit_margin_celsius.zip(threshold).map(|(margin, threshold)| margin - threshold);
        now.margin_to_slowdown_celsius = now.slowdown_celsius.map(|slowdown| slowdown - self.degrees).or(beyond);

        let default_limit = gpu.power.default_limit_milliwatts.unwrap_or_default();
        let milliwatts = self.watts * 1000 + 137 * index + 41;
        gpu.power.draw_milliwatts = Some(milliwatts);
        gpu.power.instant_milliwatts = gpu.power.instant_milliwatts.map(|_| milliwatts + 1250 - 310 * index);
        // The energy is counted since the driver was loaded.
        let energy = (uptime - 95) * u64::from(self.watts) * 1000 * 7 / 9 + 1009 * u64::from(index);
        gpu.power.energy_millijoules = Some(energy);
        gpu.power.margin_to_limit_milliwatts = Some(i64::from(default_limit) - i64::from(milliwatts));

        let clocks = &mut gpu.clocks;
        let (graphics, memory, video) = if is_busy {
            let graphics = self.mhz.or(clocks.max_graphics_mhz).map(|mhz| mhz - 15 * (index % 3));
            (graphics, clocks.max_memory_mhz, clocks.max_video_mhz)
        } else {
            let (graphics, memory, video) = idle_clocks(product);
            (Some(graphics), Some(memory), Some(video))
        };
        (clocks.graphics_mhz, clocks.sm_mhz, clocks.memory_mhz, clocks.video_mhz) = (graphics, graphics, memory, video);

        gpu.utilization.gpu_percent = Some(self.gpu);
        gpu.utilization.memory_percent = Some(self.memory);
        gpu.utilization.decoder_percent = Some(0);

        let used = self.used_bytes(gpu);
        let memory = &mut gpu.memory;
        memory.used_bytes = Some(used);
        memory.free_bytes = memory.total_bytes.zip(memory.reserved_bytes).map(|(total, held)| total - held - used);
        memory.bar1_used_bytes = Some(if is_busy { 4 + u64::from(index) % 2 } else { 1 } * MIB);
        gpu.pcie.generation = if is_busy || has_hbm { gpu.pcie.max_generation } else { Some(1) };

        let is_capped = f64::from(self.watts * 1000) > 0.97 * f64::from(default_limit);
        let mask = match self.reasons.unwrap_or(if is_capped { POWER_CAP } else { 0 }) {
            mask if is_busy => mask,
            _ => IDLE,
        };
        let reasons = REASONS.iter().filter(|reason| mask & reason.bit != 0);
        gpu.throttling.active = Some(mask & FAULTS != 0);
        gpu.throttling.reasons = reasons.map(|reason| reason.label.to_owned()).collect();
        gpu.throttling.reasons_mask = Some(mask);
        let capped = Violation { policy: "power".to_owned(), duration_ms: self.capped_ms };
        gpu.throttling.violations = if self.capped_ms > 0 { vec![capped] } else { Vec::new() };
    }
}

/// Returns the clocks of an idle GPU: graphics, memory, video.
fn idle_clocks(product: &str) -> (u32, u32, u32) {
    match product {
        "NVIDIA H100 80GB HBM3" => (345, 2619, 765),
        "NVIDIA A100-SXM4-80GB" => (210, 1593, 585),
        "NVIDIA GB200" => (120, 3996, 600),
        "NVIDIA L40S" => (210, 405, 1185),
        _ => panic!("no clocks of an idle {product}"),
    }
}
