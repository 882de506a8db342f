//! `Sample`: the growth of a GPU's error and throttling counters between two readings, and the activity of the GPU.
//! `per_minute`, `per_second`: convert the growth of a counter to a rate.

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
    /// Number of new errors on the links between the GPU and the CPU of its module (C2C); `None` if there are no links.
    pub c2c_errors: Option<u64>,
    /// Time in the window for which a policy reduced the clocks. A time of zero is omitted.
    pub throttled: Vec<Violation>,
    /// What the GPU did in the window. Read only if the caller requests a window.
    pub activity: Option<Box<Activity>>,
}

/// Work and traffic of a GPU in the window, as mean values (GPU performance monitoring of NVML, GPM; Hopper and later).
#[facts(omit(Option))]
pub struct Activity {
    /// Share of the streaming multiprocessors (SMs) that were busy.
    pub sm_percent: Option<f64>,
    /// Share of the time in which the SMs used tensor cores.
    pub tensor_percent: Option<f64>,
    /// Used share of the bandwidth of the GPU memory.
    pub memory_bandwidth_percent: Option<f64>,
    /// PCIe traffic from the GPU, in MiB per second.
    pub pcie_sent_mebibytes_per_second: Option<f64>,
    /// PCIe traffic to the GPU, in MiB per second.
    pub pcie_received_mebibytes_per_second: Option<f64>,
    /// Traffic from the GPU on all NVLinks, in MiB per second.
    pub nvlink_sent_mebibytes_per_second: Option<f64>,
    /// Traffic to the GPU on all NVLinks, in MiB per second.
    pub nvlink_received_mebibytes_per_second: Option<f64>,
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
