//! `Sample`: how much the error and throttling counters of a GPU grew between two readings.

use syringe_macros::facts;

use super::telemetry::Violation;

/// How much the counters of a GPU grew between two readings. A probe reads twice if a counter of errors or of throttled
/// time is not zero, or if the caller requests it.
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
    /// Number of new errors on each link.
    pub added: u64,
}

impl Sample {
    /// Converts a number of events in the window to a rate per minute.
    pub fn per_minute(&self, added: u64) -> u64 {
        added.saturating_mul(60_000) / self.window_ms.max(1)
    }

    /// Converts a number of events in the window to a rate per second.
    pub fn per_second(&self, added: u64) -> u64 {
        added.saturating_mul(1000) / self.window_ms.max(1)
    }
}
