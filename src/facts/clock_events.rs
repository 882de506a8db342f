//! `REASONS`: NVML's clock event reasons, with constants for their bits. `FAULTS`: the bits of the faults.
//! `mask_of`: the reasons of a GPU. `load_percent`: the utilization of a GPU.

use super::telemetry::{GpuTelemetry, Throttling};

/// The GPU is idle.
pub const IDLE: u64 = 0x1;
/// A setting of an administrator limits the clocks.
pub const CLOCK_SETTING: u64 = 0x2;
/// The power limit reduces the clocks.
pub const POWER_CAP: u64 = 0x4;
/// The hardware reduces the clocks because of heat or power.
pub const SLOWDOWN: u64 = 0x8;
/// The driver reduces the clocks because of heat.
pub const SOFTWARE_THERMAL: u64 = 0x20;
/// The hardware reduces the clocks because of heat.
pub const HARDWARE_THERMAL: u64 = 0x40;
/// The power brake: an external signal from the power supply.
pub const POWER_BRAKE: u64 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockEventReason {
    /// The bit in the mask.
    pub bit: u64,
    /// The name in the output of `nvidia-smi -q`.
    pub label: &'static str,
    /// Whether the reason is a problem with temperature or power supply. A power cap at full load is normal.
    pub is_fault: bool,
}

/// All known reasons, faults first.
pub const REASONS: [ClockEventReason; 9] = [
    ClockEventReason { bit: HARDWARE_THERMAL, label: "HW thermal slowdown", is_fault: true },
    ClockEventReason { bit: POWER_BRAKE, label: "HW power brake slowdown", is_fault: true },
    ClockEventReason { bit: SLOWDOWN, label: "HW slowdown", is_fault: true },
    ClockEventReason { bit: SOFTWARE_THERMAL, label: "SW thermal slowdown", is_fault: true },
    ClockEventReason { bit: POWER_CAP, label: "SW power cap", is_fault: false },
    ClockEventReason { bit: 0x10, label: "sync boost", is_fault: false },
    ClockEventReason { bit: CLOCK_SETTING, label: "application clocks setting", is_fault: false },
    ClockEventReason { bit: 0x100, label: "display clock setting", is_fault: false },
    ClockEventReason { bit: IDLE, label: "idle", is_fault: false },
];

/// The bits of all reasons that are faults.
pub const FAULTS: u64 = SLOWDOWN | SOFTWARE_THERMAL | HARDWARE_THERMAL | POWER_BRAKE;

/// Returns the utilization of a GPU. Returns `None` if the driver reports the GPU as idle: then the value is wrong, or
/// the program does little. Every rule about load uses this function.
pub fn load_percent(now: &GpuTelemetry) -> Option<u32> {
    now.utilization.gpu_percent.filter(|_| mask_of(&now.throttling) & IDLE == 0)
}

/// Returns the reasons as a mask. If a facts file has no mask, the mask is computed from the texts of the reasons.
pub fn mask_of(throttling: &Throttling) -> u64 {
    let bit = |reason: &String| {
        let reason = reason.to_ascii_lowercase();
        let hardware = reason.starts_with("h");
        match reason.as_str() {
            _ if reason.contains("power brake") => POWER_BRAKE,
            _ if reason.contains("power cap") => POWER_CAP,
            _ if reason.contains("application clock") => CLOCK_SETTING,
            _ if reason.contains("thermal") && hardware => HARDWARE_THERMAL,
            _ if reason.contains("thermal") => SOFTWARE_THERMAL,
            _ if reason.contains("slowdown") => SLOWDOWN,
            _ => 0,
        }
    };
    throttling.reasons_mask.unwrap_or_else(|| throttling.reasons.iter().map(bit).fold(0, |mask, bit| mask | bit))
}

#[cfg(test)]
mod tests {
    use super::{FAULTS, REASONS, Throttling, mask_of};

    #[test]
    fn the_faults_of_the_table_are_the_mask_of_faults() {
        let faults = REASONS.iter().filter(|reason| reason.is_fault).fold(0, |mask, reason| mask | reason.bit);
        assert_eq!(faults, FAULTS);
    }

    #[test]
    fn the_label_of_a_fault_stands_for_its_bit() {
        for reason in REASONS.iter().filter(|reason| reason.is_fault) {
            let throttling = Throttling { reasons: vec![reason.label.to_owned()], ..Throttling::default() };
            assert_eq!(mask_of(&throttling), reason.bit, "{}", reason.label);
        }
    }
}
