//! The type `Sample`: how much the counters of a GPU grew between two readings of one call.

use syringe_macros::facts;

use super::telemetry::Violation;

/// How much the counters of a GPU grew between two readings. A probe reads twice if a counter of errors or of throttled time is
/// not zero, or if the caller asks for it.
#[facts(omit(Option, Vec))]
pub struct Sample {
    /// Time between the two readings.
    pub window_ms: u64,
    /// Number of new PCIe replays.
    pub pcie_replays: Option<u64>,
    /// Number of new corrected memory errors.
    pub corrected_memory_errors: Option<u64>,
    /// Counters of NVLinks that grew.
    pub nvlink_errors: Vec<LinkGrowth>,
    /// Time in the window for which a policy reduced the clocks. A time of zero is omitted.
    pub throttled: Vec<Violation>,
}

/// NVLinks of one GPU whose counter grew by the same number.
#[facts]
pub struct LinkGrowth {
    /// Link numbers.
    pub links: Vec<u32>,
    /// Name of the counter, as in the topology section.
    pub counter: String,
    /// Number of new errors of each link.
    pub added: u64,
}

impl Sample {
    /// Returns the number per minute of something that was counted in the window.
    pub fn per_minute(&self, added: u64) -> u64 {
        added.saturating_mul(60_000) / self.window_ms.max(1)
    }

    /// Returns the number per second of something that was counted in the window.
    pub fn per_second(&self, added: u64) -> u64 {
        added.saturating_mul(1000) / self.window_ms.max(1)
    }
}
